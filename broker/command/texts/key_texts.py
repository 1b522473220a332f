"""The texts about keys, in English and Chinese."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from broker.command.texts.filling import fill, texts


@cache
def _texts() -> dict[str, tuple[str, str]]:
    return texts(Path(__file__).with_name("keys.toml"))


def say_of_keys(word: str, **facts: object) -> str:
    """Return one of the texts in the reader's language, filled in."""
    return fill(_texts()[word], **facts)
