"""Makes foreign text safe to show: without control characters, and bounded in length."""

from __future__ import annotations

import json
import reprlib
import unicodedata

_ALLOWED = "\n\t"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that move a cursor, end a line, change the direction of writing, take no
room, or cannot be encoded (Unicode Standard, chapter 4.5; UTS 39 on invisible characters)."""

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks by category that take no room on a screen."""


def printable(text: str) -> str:
    r"""Return the text with every control or invisible character written as an escape such as `\u001b`.

    Line ends and tabs stay. Escaped are C0 and C1 controls, escape sequences with them, bidirectional
    overrides, zero-width characters, line and paragraph separators, lone surrogates. Strings of TOML and JSON
    keep their value, except characters above U+FFFF in JSON: see `printable_json`.
    """
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    text = text.replace("\r\n", "\n")
    return "".join(_escape(char) if _is_hidden(char) else char for char in text)


def on_one_line(text: str) -> str:
    """Return the same as `printable`, with every line end and tab as a space."""
    return " ".join(printable(text).split())


def printable_json(text: str) -> str:
    """Return the same for a JSON text: its values stay the same (RFC 8259, section 7)."""
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    return "".join(escape_json(char) if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    if char.isprintable():
        return char in _INVISIBLE
    return char not in _ALLOWED and unicodedata.category(char) in _HIDDEN


def escape_json(char: str) -> str:
    """Return the JSON escape of one character. (`json.dumps` does not escape U+007F.)"""
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_repr = reprlib.Repr()
_repr.maxlevel = 4
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = 8
_repr.maxstring = _repr.maxother = _repr.maxlong = 200


def shown(value: object, limit: int = 100) -> str:
    """Return the `repr` of a value in at most `limit` characters, however deep or large the value is.

    `repr` itself raises RecursionError for a deeply nested value, and ValueError for an integer with more
    digits than `sys.set_int_max_str_digits` allows.
    """
    try:
        text = _repr.repr(value)
    except (RecursionError, ValueError):
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
"""Strings that some servers write for false, and that the official SDK for Python reads so."""


def truth(said: object) -> bool:
    """Return a boolean that a server may have written as a string or a number."""
    return said.lower() not in _FALSE if isinstance(said, str) else bool(said)
