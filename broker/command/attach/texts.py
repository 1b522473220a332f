"""The texts of `attach`, `detach`, `add` and `remove`, in English and Chinese."""

from __future__ import annotations

from pathlib import Path

from broker.command.texts.filling import fill, texts

WORDS = texts(Path(__file__).with_name("texts.toml"))
"""word → English, Chinese"""


def say(word: str, **facts: object) -> str:
    """Return a text of `WORDS` in the reader's language, filled in."""
    numbers = (int, float)
    plain = {name: fact if isinstance(fact, numbers) else str(fact) for name, fact in facts.items()}
    return fill(WORDS[word], **plain)


class AttachError(Exception):
    """The command cannot go on; the message says why and what to do."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(say(word, **facts))
