"""Reads the members of a long JSON object a piece at a time, so that no step is long.

A piece ends behind a comma, or inside of a long string. With the brackets that are open there put before it
and those that it leaves open closed behind it, a piece is a JSON text of its own, and the same decoder reads
it that reads a short text. The text is valid if and only if all pieces are: each proves the brackets that the
next one is given.

A member whose value is longer than a piece shows where it begins and ends by its length: one blank more at
the end of a piece, or at its beginning, makes that member longer, and no other one.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import msgspec
from msgspec import UNSET, Struct, structs

from broker.base.backlog import PIECES
from broker.base.text import check_utf8
from broker.core.mcp.members import keys_of
from broker.core.mcp.nesting import MAX_DEPTH, Nesting, is_deep

LONG_BYTES = 1024 * 1024
"""A longer text is read in pieces."""

PIECE_BYTES = 256 * 1024
"""The length of a piece. The costliest JSON of this length takes 20 ms."""

STEP = PIECES
"""The share of a piece in a step of the backlog: all of it."""

_SHORT_STRING_BYTES = 4096
"""A string that ends within so many bytes is not cut, so that no key with a meaning is."""

_MOST_STRINGS = 2 * MAX_DEPTH
"""In JSON that is not too deep fewer strings follow one another without a comma."""

_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LOW, _HIGH = re.compile(rb"\\u[dD][c-fC-F]"), re.compile(rb"\\u[dD][89abAB]")
_ESCAPES_BYTES, _ESCAPE_BYTES = 12, 6
"""The length of the longest character in escapes, a surrogate pair, and of one half of it."""

_PLACE = re.compile(r"\(byte (\d+)\)")

Members = dict[str, memoryview]
"""The values of the members that a reader looks for, as they came, by their names in its struct."""


class TooDeep(msgspec.DecodeError):
    """The text nests deeper than `MAX_DEPTH`."""


class _Border(Struct, frozen=True):
    """A place where the text is cut. `open`: the brackets that are open there; `cut`: what string is."""

    at: int
    open: bytes = b""
    cut: bytes = b""
    comma: bool = False

    @property
    def in_value(self) -> bool:
        """Whether it is inside the value of a member."""
        return len(self.open) > 1 or self.cut == _VALUE

    def opening(self, name: bytes) -> bytes:
        """Return the prefix that makes the next piece a JSON text; `name` is the member here."""
        keys = [b'{"%b":' % name, *(b'{"":' if one == _OBJECT else b"[" for one in self.open[1:])]
        if not self.open:
            return b""
        if self.open[-1] == _OBJECT and self.cut != _VALUE:
            keys[-1] = b"{"
        return b"".join(keys) + _OPENED[self.cut]

    @property
    def closing(self) -> bytes:
        """The suffix that makes the preceding piece a JSON text."""
        return _CLOSED[self.cut] + self.open[::-1].translate(_CLOSERS)


_OBJECT = ord("{")
_CLOSERS = bytes.maketrans(b"[{", b"]}")
_KEY, _VALUE = b"key", b"value"
_OPENED = {b"": b"", _KEY: b'"~', _VALUE: b'"'}
_CLOSED = {b"": b"", _KEY: b'~":0', _VALUE: b'"'}
"""The ends of the parts of a cut string. With the `~`, a part of a key equals no known key."""


def read_members(
    text: bytes, kind: type[Struct], keys: list[str] | None = None
) -> Generator[int, None, Members]:
    """Return the members of a JSON object; yield after each piece.

    Args:
        kind: what to look for: a struct whose members are all `Raw`, or not there.
        keys: receives the keys of the object, each as often as it comes; of very many, the first of a piece.

    Raises:
        msgspec.DecodeError: it is not one JSON object, or `TooDeep`.
        UnicodeDecodeError: it is not UTF-8.
        RecursionError: it nests much too deep.
    """
    reader = _Reader(text, kind, keys)
    while not reader.read_piece():
        yield STEP
    return reader.found


class _Reader:
    def __init__(self, text: bytes, kind: type[Struct], keys: list[str] | None) -> None:
        self.found: Members = {}
        self._keys = keys
        self._text = text
        self._view = memoryview(text)
        self._decoder = msgspec.json.Decoder(kind)
        self._names = {field.name: field.encode_name.encode() for field in structs.fields(kind)}
        self._nesting = Nesting()
        self._border = _Border(0)
        self._within: tuple[str, int] = "", 0
        """The member around the border, if it is one of `kind`, and the beginning of its value."""

    def read_piece(self) -> bool:
        """Read the next piece; return whether it was the last one."""
        before = self._border
        self._nesting.lowest = len(before.open)
        end = self._next_end(before.at)
        is_last = end == len(self._text)
        piece = self._text[before.at : end]
        check_utf8(piece)
        after = _Border(end) if is_last else self._border_at(end)
        if after.comma:
            piece = piece[:-1]
        if (before.comma and piece.lstrip()[:1] in b"]}") or (after.comma and piece.rstrip()[-1:] in b"[{"):
            raise msgspec.DecodeError("JSON is malformed: trailing comma")
        opening = before.opening(self._names.get(self._within[0], b""))
        if after.cut and after.open[-1] == _OBJECT:
            try:
                self._decode(opening, piece, after.closing)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                after = structs.replace(after, cut=_KEY)
        self._read(before, after, opening, piece)
        self._border = after
        return is_last

    def _border_at(self, end: int) -> _Border:
        nesting = self._nesting
        if not nesting.open:
            raise msgspec.DecodeError(f"JSON is malformed: trailing characters (byte {end})")
        if len(nesting.open) > MAX_DEPTH:
            raise TooDeep(f"it nests deeper than {MAX_DEPTH}")
        return _Border(end, bytes(nesting.open), _VALUE if nesting.quoted else b"", not nesting.quoted)

    def _read(self, before: _Border, after: _Border, opening: bytes, piece: bytes) -> None:
        """Take in the members in a piece, and those that begin or end in it."""
        closing = after.closing
        seen = self._decode(opening, piece, closing)
        if is_deep(opening + piece + closing):
            raise TooDeep(f"it nests deeper than {MAX_DEPTH}")
        if before.in_value and after.in_value and (self._nesting.lowest > 1 or b'"' not in piece):
            return  # the whole piece is inside one value
        if self._keys is not None:
            self._keys += keys_of(opening + piece + closing)[before.in_value :]
        seen_before = self._decode(opening + b" ", piece, closing) if before.in_value else seen
        seen_after = self._decode(opening, piece, b" " + closing) if after.in_value else seen
        within, self._within = self._within, ("", 0)
        head = len(b'{"%b":' % self._names.get(within[0], b""))
        for name in self._names:
            raw = getattr(seen, name)
            if raw is UNSET:
                continue
            length = len(memoryview(raw))
            begun_before = len(memoryview(getattr(seen_before, name))) > length
            if len(memoryview(getattr(seen_after, name))) > length:
                begins = before.at + len(piece) - (length - (len(closing) - 1))
                self._within = within if begun_before else (name, begins)
            elif begun_before:
                self.found[name] = self._view[within[1] : before.at + length - (len(opening) - head)]
            else:
                self.found[name] = memoryview(raw)

    def _decode(self, opening: bytes, piece: bytes, closing: bytes) -> Struct:
        """Decode a piece. An error names its place in the whole text."""
        try:
            return self._decoder.decode(opening + piece + closing if opening or closing else piece)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            moved = self._border.at - len(opening)
            place = _PLACE.sub(lambda found: f"(byte {int(found[1]) + moved})", str(error))
            raise msgspec.DecodeError(place) from None

    def _next_end(self, begin: int) -> int:
        """Return where the next piece ends, with `_nesting` as it is there."""
        text, end = self._text, begin + PIECE_BYTES
        if end >= len(text):
            return len(text)
        end = outside_of_escapes(text, begin, end)
        self._nesting.feed(text[begin:end])
        at = end
        if self._nesting.quoted:
            string = _STRING_END.match(text, end, end + _SHORT_STRING_BYTES)
            if string is None:
                return end
            at = string.end()
        at = self._outside_of_strings(at)
        if at < len(text):
            self._nesting.feed(text[end:at])
        return at

    def _outside_of_strings(self, at: int) -> int:
        """Return where the next comma or long string begins."""
        text, comma = self._text, 0
        for _ in range(_MOST_STRINGS):
            comma = text.find(b",", at) if 0 <= comma < at else comma
            quote = text.find(b'"', at, comma if comma >= 0 else len(text))
            if quote < 0:
                return comma + 1 or len(text)
            string = _STRING_END.match(text, quote + 1, quote + 1 + _SHORT_STRING_BYTES)
            if string is None:
                return quote + 1 if quote + 1 + _SHORT_STRING_BYTES < len(text) else len(text)
            at = string.end()
        raise msgspec.DecodeError("JSON is malformed: strings without commas")


def outside_of_escapes(text: bytes, begin: int, end: int) -> int:
    """Return the end of a piece, or a place before it that is neither in an escape nor in a character."""
    at = text.rfind(b"\\", max(begin, end - _ESCAPES_BYTES), end)
    run = text[begin : at + 1] if at >= 0 else b""
    if (len(run) - len(run.rstrip(b"\\"))) % 2:  # an escape begins there
        is_pair = _LOW.match(text, at) and _HIGH.match(text, at - _ESCAPE_BYTES)
        return at - _ESCAPE_BYTES if is_pair else at
    for _ in range(3):
        end -= text[end] & 0xC0 == 0x80
    return end
