"""Words of others, made fit for a message or a log line."""

from __future__ import annotations


def clip(text: str, limit: int = 120) -> str:
    """Text of somebody else's, short enough for a message and without control characters."""
    if len(text) <= limit and text.isprintable():
        return text  # as nearly all are, at every call
    shown = text if len(text) <= limit else text[:limit] + "…"
    if shown.isprintable():  # as nearly all of it is: this is asked for every call
        return shown
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)
