"""Makes foreign text fit for a message or a log line."""

from __future__ import annotations

import codecs

_DECODED_BYTES = 1024 * 1024
_decoder = codecs.getincrementaldecoder("utf-8")


def clip(text: str, limit: int = 120) -> str:
    """Return a foreign text cut to `limit` characters and without control characters."""
    if len(text) <= limit and text.isprintable():
        return text  # as most are: this runs for every call
    shown = text if len(text) <= limit else text[:limit] + "…"
    if shown.isprintable():  # as most is
        return shown
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def check_utf8(text: bytes) -> None:
    """Check that bytes are UTF-8. A long text is decoded in parts: an emoji makes it four bytes a character.

    Raises:
        UnicodeDecodeError: they are not.
    """
    if len(text) <= _DECODED_BYTES:
        text.decode()
        return
    decode = _decoder().decode
    for at in range(0, len(text), _DECODED_BYTES):
        decode(text[at : at + _DECODED_BYTES])
    decode(b"", True)
