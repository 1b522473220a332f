"""The texts of an import, in English and Chinese."""

from __future__ import annotations

from pathlib import Path

from broker.command.texts.filling import fill, texts

WORDS = texts(Path(__file__).with_name("texts.toml"))
"""word → English, Chinese"""


def say(word: str, **facts: object) -> str:
    """Return a text of `WORDS` in the reader's language, filled in."""
    return fill(WORDS[word], **facts)
