"""Parses JSON with comments and trailing commas, as editors write it; strict in everything else.

A JSON5 parser replaces an unknown escape with its letter and so silently changes a pattern or a Windows path.
Here comments and trailing commas are replaced with spaces, which keeps all positions, and the standard
library parses the rest. Source: RFC 8259; the "JSON with comments" mode of VS Code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, NoReturn

Pairs = Iterable[tuple[str, object]]
Collect = Callable[[Pairs], object]

_PIECE = re.compile(
    r"""
    (?P<string>"(?:[^"\\]|\\.)*(?:"|\Z))
    | (?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<space>\s+)
    | (?P<word>[^"/\s,:\[\]{}]+)
    | (?P<mark>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_NO_NUMBER = re.compile(r"-?(?:NaN|Infinity)")
_CLOSING = {"}": "{", "]": "["}
_WORDS_OF_OTHERS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "nil": "null"}


class NotJson(Exception):
    """A text is not JSON.

    Attributes:
        at: the position in characters.
        word: the key of the text that says what is wrong and what to write.
        facts: the values for that text.
    """

    def __init__(self, at: int, word: str, **facts: object) -> None:
        super().__init__(f"{word} at {at}")
        self.at = at
        self.word = word
        self.facts = facts


class _Token(NamedTuple):
    """A part of a text: a string, a comment, white space, a word (number, literal), or a mark."""

    kind: str
    text: str
    at: int


def loads(text: str, collect: Collect = dict) -> object:
    """Return the value of a JSON text.

    Args:
        text: the text, without a byte-order mark.
        collect: makes an object of its pairs, which may have duplicate keys.

    Raises:
        NotJson: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _strict(text, collect)  # fast path: a file of several megabytes without comments
    except (json.JSONDecodeError, _NoNumber):
        pass
    pieces = list(_tokens(text))
    plain = _blanked(text, pieces)
    try:
        return _strict(plain, collect)
    except json.JSONDecodeError as error:
        raise _told(plain, pieces, error) from None
    except _NoNumber:
        found = next(piece for piece in pieces if piece.kind == "word" and _NO_NUMBER.match(piece.text))
        raise NotJson(found.at, "json_number", found=found.text[:9]) from None


def plain(text: str) -> str:
    """Return a valid text with spaces in place of comments and trailing commas: all positions stay."""
    try:
        _strict(text, dict)
    except (json.JSONDecodeError, _NoNumber):
        return _blanked(text, list(_tokens(text)))
    return text


class _NoNumber(Exception):
    """NaN or Infinity, which Python's parser accepts although JSON lacks them."""


def _strict(text: str, collect: Collect) -> object:
    return json.loads(text, object_pairs_hook=collect, parse_constant=_refuse, parse_int=integer)


def _refuse(name: str) -> NoReturn:
    raise _NoNumber(name)


def integer(digits: str) -> int | float:
    """Return an integer. Longer ones than Python accepts become floats."""
    return int(digits) if len(digits) < 400 else float(digits)


def _tokens(text: str) -> Iterator[_Token]:
    """Yield the parts of a text, which joined are the text again."""
    for found in _PIECE.finditer(text):
        yield _Token(str(found.lastgroup), found[0], found.start())


def _blanked(text: str, pieces: list[_Token]) -> str:
    """Return the text with spaces in place of comments and trailing commas."""
    chars = list(text)
    before, comma = "", None
    for piece in pieces:
        if piece.kind == "comment" and (piece.text.startswith("//") or piece.text.endswith("*/")):
            end = piece.at + len(piece.text)
            chars[piece.at : end] = [char if char in "\r\n" else " " for char in piece.text]
        elif piece.kind not in ("comment", "space"):
            if comma is not None and piece.text in _CLOSING:
                chars[comma] = " "
            comma = piece.at if piece.text == "," and before not in ("", *"{[,:") else None
            before = piece.text
    return "".join(chars)


def _told(text: str, pieces: list[_Token], error: json.JSONDecodeError) -> NotJson:
    """Return the position of the fault and the text that says what to write."""
    at, rest = error.pos, text[error.pos :]
    if error.msg.startswith("Invalid \\"):
        return NotJson(text.rfind("\\", 0, at + 1), "json_backslash")
    if error.msg.startswith("Invalid control character"):
        return NotJson(at, "json_control")
    if error.msg.startswith("Unterminated string"):
        return NotJson(at, "json_unterminated")
    if rest[:2] == "/*":
        return NotJson(at, "json_comment")
    if not rest.strip():
        return _unclosed(pieces, at)
    return _misplaced(text, at, error.msg)


def _misplaced(text: str, at: int, message: str) -> NotJson:
    """Explain an unexpected token. Tokens that may be secrets are not repeated."""
    found = re.match(r"[\w$.+-]+|.", text[at:], re.DOTALL)
    word = found[0] if found else ""
    before = text[:at].rstrip()[-1:]
    if word == "'":
        return NotJson(at, "json_quote")
    if word == "#":
        return NotJson(at, "json_comment")
    if word in _WORDS_OF_OTHERS and "value" in message:
        return NotJson(at, "json_word", found=word, instead=_WORDS_OF_OTHERS[word])
    if word == "," or (word in _CLOSING and before in (",", ":")):
        return NotJson(at, "json_empty", found=word)
    if word in _CLOSING:
        return NotJson(at, "json_extra", found=word)
    if "':'" in message:
        return NotJson(at, "json_colon", found=word[:1])
    if number := re.fullmatch(r"[+.-]?\d[\w.+-]{0,9}|[+.-]", _run(text, at)):
        return NotJson(at, "json_number", found=number[0])
    if "property name" in message:
        return NotJson(at, "json_key")
    if "','" in message:
        return NotJson(at, "json_comma", found=word[:1])
    return NotJson(at, "json_extra", found=word[:1]) if "Extra data" in message else NotJson(at, "json_text")


def _run(text: str, at: int) -> str:
    """Return the letters and digits around a position: of `0x10` the parser reads the 0 only."""
    before = re.search(r"[-+.\w]*\Z", text[:at])
    behind = re.match(r"[-+.\w]*", text[at:])
    return (before[0] if before else "") + (behind[0] if behind else "")


def _unclosed(pieces: list[_Token], at: int) -> NotJson:
    """Explain a text that ends too early."""
    still: list[_Token] = []
    for piece in pieces:
        if piece.kind == "mark" and piece.text in "{[":
            still.append(piece)
        elif piece.kind == "mark" and still and piece.text in _CLOSING:
            still.pop()
    if not still:
        return NotJson(at, "json_nothing" if not any(p.kind == "string" for p in pieces) else "json_ends")
    closing = {opening: closing for closing, opening in _CLOSING.items()}
    missing = "".join(closing[piece.text] for piece in reversed(still))
    return NotJson(at, "json_unclosed", missing=missing, opened=still[-1].text, opened_at=still[-1].at)


def place(text: str, at: int) -> tuple[int, int]:
    """Return line and column of a position, both from 1."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
