"""Reads and writes an `EnvironmentFile=` of systemd: lines `NAME=value`, quoted as in systemd.exec(5)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLAIN = re.compile(r"[\w.,:/@%+=~^-]+", re.ASCII)
"""The values that need no quotation marks, to systemd and to a shell."""

_ESCAPED = re.compile(r'\\(["\\`$])')
"""The characters that a backslash escapes between double quotation marks."""


def values_of(text: str) -> dict[str, str]:
    """Return the variables of a file. A value ends with its line."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line[:1] not in ("#", ";"))
    return {name.strip(): _unquoted(value.strip()) for name, equals, value in pairs if equals}


def _unquoted(value: str) -> str:
    quote = value[0] if len(value) > 1 and value[0] == value[-1] else ""
    if quote == "'":
        return value[1:-1]
    if quote == '"':
        return _ESCAPED.sub(r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def can_hold(value: str) -> bool:
    """Return whether a line can hold this value."""
    return value.isprintable()


def line_of(name: str, value: str) -> str:
    """Return the line of a variable, with its end."""
    quoted = value if _PLAIN.fullmatch(value) else '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
    return f"{name}={quoted}\n"


def extended(text: str, values: Mapping[str, str]) -> str:
    """Return the text with lines for the variables that it does not have yet."""
    there = values_of(text)
    new = "".join(line_of(name, value) for name, value in values.items() if name not in there)
    return f"{text}\n{new}" if new and text and not text.endswith("\n") else f"{text}{new}"
