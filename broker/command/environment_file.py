"""Reads and writes an `EnvironmentFile=` of systemd: lines `NAME=value`, quoted as in systemd.exec(5)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLAIN = re.compile(r"[\w.,:/@%+=~^-]+", re.ASCII)
"""The values that need no quotation marks, to systemd and to a shell."""

_BETWEEN_DOUBLE = re.compile(r'\\(?:(["\\`$])|\n)')
_OUTSIDE = re.compile(r"\\(?:\n|(.?))", re.DOTALL)
"""The escapes between double quotation marks, and outside of them. An escaped line end is dropped."""

_ASSIGNMENT = re.compile(
    r"""[ \t\r\n]*(?:
        [#;][^\r\n]*
      | (?P<name>[^=\r\n]*)=
        (?P<quoted>(?:[ \t]|'[^']*(?:'|\Z)|"(?:\\.|[^"\\])*(?:"|\Z))*)
        (?P<plain>(?:\\(?:.|\Z)|[^\\\r\n])*?)[ \t]*(?=[\r\n]|\Z)
      | [^\r\n]+
    )""",
    re.VERBOSE | re.DOTALL,
)
"""A comment, an assignment, or a line without `=`, which systemd ignores."""

_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)"?""", re.DOTALL)

_ENDS_WITH_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")
_BLANK_OR_COMMENT = re.compile(r"[ \t]*[\r\n#;]")

_REFUSED = re.compile("[\0\ufeff\ud800-\udfff\ufdd0-\ufdef]")


class UnclosedValue(Exception):
    """The last value of a file does not end, so it would contain all that is added.

    Attributes:
        line: the number of the line where the value begins.
    """

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def values_of(text: str) -> dict[str, str]:
    """Return the variables of a file. A value between quotation marks may have several lines."""
    found = _ASSIGNMENT.finditer(text)
    return {one["name"].strip(): _unquoted(one["quoted"], one["plain"]) for one in found if one["name"]}


def _unquoted(quoted: str, plain: str) -> str:
    """Return the value of what stands between quotation marks, and of what follows it."""
    parts = (
        one[1] if one[2] is None else _BETWEEN_DOUBLE.sub(r"\1", one[2]) for one in _QUOTED.finditer(quoted)
    )
    return "".join([*parts, _OUTSIDE.sub(r"\1", plain)])


def continued_comment(text: str) -> int | None:
    """Return the number of the first comment line that may hide the next line, else `None`.

    It ends with a backslash: systemd before 254 takes the next line for a part of the comment, later ones
    do not. A next line that is blank or a comment makes no difference.
    """
    for one in _ASSIGNMENT.finditer(text):
        is_comment = one[0].lstrip(" \t\r\n").startswith(("#", ";"))
        has_backslash = is_comment and _ENDS_WITH_BACKSLASH.search(one[0])
        if has_backslash and not _BLANK_OR_COMMENT.match(text, one.end() + 1):
            return text.count("\n", 0, one.end()) + 1
    return None


def can_hold(value: str) -> bool:
    """Return whether systemd accepts this value: Unicode without NUL, byte-order marks and noncharacters."""
    return not _REFUSED.search(value) and all(ord(char) & 0xFFFE != 0xFFFE for char in value)


def line_of(name: str, value: str) -> str:
    """Return the assignment of a variable, with its line end. A value of several lines keeps them."""
    quoted = value if _PLAIN.fullmatch(value) else '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
    return f"{name}={quoted}\n"


def extended(text: str, values: Mapping[str, str]) -> str:
    """Return the text with lines for the variables that it does not have yet.

    Raises:
        UnclosedValue: its last value would contain them.
    """
    there = values_of(text)
    new = "".join(line_of(name, value) for name, value in values.items() if name not in there)
    result = f"{text}\n{new}" if new and text and not text.endswith("\n") else f"{text}{new}"
    if values_of(result) != {**values, **there}:
        begins = [0, *(one.start("name") for one in _ASSIGNMENT.finditer(text) if one["name"])]
        raise UnclosedValue(text.count("\n", 0, begins[-1]) + 1)
    return result
