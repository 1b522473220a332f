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

_REFUSED = re.compile("[\0\ufeff\ud800-\udfff\ufdd0-\ufdef]")


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


def can_hold(value: str) -> bool:
    """Return whether systemd accepts this value: Unicode without NUL, byte-order marks and noncharacters."""
    return not _REFUSED.search(value) and all(ord(char) & 0xFFFE != 0xFFFE for char in value)


def line_of(name: str, value: str) -> str:
    """Return the assignment of a variable, with its line end. A value of several lines keeps them."""
    quoted = value if _PLAIN.fullmatch(value) else '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
    return f"{name}={quoted}\n"


def extended(text: str, values: Mapping[str, str]) -> str:
    """Return the text with lines for the variables that it does not have yet."""
    there = values_of(text)
    new = "".join(line_of(name, value) for name, value in values.items() if name not in there)
    return f"{text}\n{new}" if new and text and not text.endswith("\n") else f"{text}{new}"
