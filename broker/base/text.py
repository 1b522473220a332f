"""Words of others, made fit for a message or a log line."""

from __future__ import annotations

import codecs

_DECODED_BYTES = 1024 * 1024
_decoder = codecs.getincrementaldecoder("utf-8")


def clip(text: str, limit: int = 120) -> str:
    """Text of somebody else's, short enough for a message and without control characters."""
    if len(text) <= limit and text.isprintable():
        return text  # as nearly all are, at every call
    shown = text if len(text) <= limit else text[:limit] + "…"
    if shown.isprintable():  # as nearly all of it is: this is asked for every call
        return shown
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def check_utf8(text: bytes) -> None:
    """Whether bytes are UTF-8. A long text is decoded in parts: one emoji makes it four bytes a character.

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
