"""The texts of `make docker-test` in the reader's language. The standard library only, as `engine`."""

from __future__ import annotations

from broker.command.texts.language import language


def in_language(english: str, chinese: str) -> str:
    """Return the text in the reader's language."""
    return (english, chinese)[language()]
