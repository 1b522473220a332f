"""Finds how deep JSON nests by its brackets, without parsing it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate

MAX_DEPTH = 512
"""The deepest nesting of arrays and objects. Parsers of clients and servers fail between 200 and 1,000."""

_LONG = 4096
_BRACKETS_AT_ONCE = 8192
_STRIDE = 512
"""In wide JSON at most half of a stride goes up, so that counting is enough."""

_PASSES = 4

_UP, _PAIR = b"\x01", b"\x01\xff"

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_PAIRS = (b"[" * 128 + b"]" * 128, b"[" * 16 + b"]" * 16, b"[]", b"{}")


def is_deep(text: bytes) -> bool:
    """Return whether valid JSON nests deeper than `MAX_DEPTH`."""
    if len(text) < _LONG:
        openings = text.count(b"[") + text.count(b"{")
    else:
        openings = _openings(text, b"[") + _openings(text, b"{")
    if openings <= MAX_DEPTH:
        return False
    depth = 0
    for brackets, _ in _brackets(text):
        steps = brackets.translate(_STEPS)
        for at in range(0, len(steps), _STRIDE):
            ups = steps.count(_UP, at, at + _STRIDE)
            stride = min(_STRIDE, len(steps) - at)
            if depth + ups > MAX_DEPTH and not _stays_below(steps[at : at + stride], MAX_DEPTH - depth):
                rises = max(accumulate(array("b", steps[at : at + stride])))
                if depth + rises > MAX_DEPTH:
                    return True
            depth += 2 * ups - stride
    return False


def _stays_below(steps: bytes, most: int) -> bool:
    """Return whether these steps certainly rise no higher; remove empty pairs, one level at a time."""
    for gone in range(_PASSES):
        if gone + steps.count(_UP) <= most:
            return True
        steps = steps.replace(_PAIR, b"")
    return False


def depth_at_end(text: bytes) -> int:
    """Return how many brackets are open at its end."""
    return sum(2 * sum(map(part.count, (b"[", b"{"))) - len(part) for part, _ in _brackets(text))


class Nesting:
    """The open brackets, and whether a string is open, at the end of the JSON that was fed so far.

    `lowest` is the least number of open brackets since it was set. A part that is fed begins and ends outside
    of an escape.
    """

    def __init__(self) -> None:
        self.open = bytearray()
        self.quoted = False
        self.lowest = 0

    def feed(self, text: bytes) -> None:
        """Take in the next part. A surplus closing bracket is ignored: the decoder finds it."""
        for brackets, quoted in _brackets(text, self.quoted):
            self.quoted = quoted
            left = _without_pairs(brackets)
            opening = left.lstrip(b"]}")
            if not opening.rstrip(b"[{"):  # as nearly always
                self._close(len(left) - len(opening))
                self.open += opening
                continue
            for bracket in left:
                if bracket in b"[{":
                    self.open.append(bracket)
                else:
                    self._close(1)

    def _close(self, brackets: int) -> None:
        del self.open[max(0, len(self.open) - brackets) :]
        self.lowest = min(self.lowest, len(self.open))


def _without_pairs(brackets: bytes) -> bytes:
    """Return the brackets without most of the pairs in them, so that few are left to go through."""
    for _ in range(_PASSES):
        before = len(brackets)
        for pair in _PAIRS:
            brackets = brackets.replace(pair, b"")
        if 8 * len(brackets) > 7 * before:
            break
    return brackets


def _brackets(text: bytes, quoted: bool = False) -> Iterator[tuple[bytes, bool]]:
    """Yield the brackets outside of strings, a part at a time, and whether a string is open after the part.

    Without escaped quotes, every second piece between quotes is a string. Two adjacent quotes change nothing:
    a string is empty there, or a string ends and another begins.
    """
    if b"\\" in text:  # a search for two bytes takes ten times as long
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    plain = text.translate(None, _NOT_STRUCTURE)
    if b'"' in plain:
        plain = plain.replace(b'""', b"")
    for at in range(0, len(plain), _BRACKETS_AT_ONCE):
        pieces = plain[at : at + _BRACKETS_AT_ONCE].split(b'"')
        brackets = b"".join(pieces[quoted::2])
        quoted ^= (len(pieces) - 1) % 2 == 1
        yield brackets, quoted


def _openings(text: bytes, bracket: bytes) -> int:
    """Return how many there are, up to `MAX_DEPTH` + 1. In a long text `find` is far faster than `count`."""
    found, at = 0, text.find(bracket)
    while at >= 0 and found <= MAX_DEPTH:
        found, at = found + 1, text.find(bracket, at + 1)
    return found
