"""The texts of the doctor, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from broker.command.texts import words
from broker.command.texts.filling import fill_in, in_one_language, texts
from client_shim.text import on_one_line

Say = Callable[..., str]
"""Returns a text of `WORDS` in the reader's language, filled in with facts."""

STATES = (
    "ready",
    "idle",
    "starting",
    "handshake",
    "draining",
    "stopped",
    "backoff",
    "broken",
    "disabled",
    "misconfigured",
)
"""The states of a server, with the texts of `status`."""


class OnProgress(Protocol):
    """Called with the progress: a word of `WORDS`, the steps done and in total, and further facts."""

    def __call__(self, word: str, done: int, total: int, **facts: object) -> None: ...


_FOLDER = Path(__file__).parent

FINDINGS = texts(_FOLDER / "findings.toml")
"""word of a finding → English, Chinese"""

WORDS = {
    **{f"state.{state}": words.WORDS[state] for state in STATES},
    **texts(_FOLDER / "texts.toml"),
    **FINDINGS,
}
"""word → English, Chinese"""


_PLAIN = re.compile(r"(?!www\.)[\w ,.;()%+×/-]*")
"""Text without Markdown or GitHub syntax: no link, image, mention or HTML."""


def markdown_speaker(language: int) -> Say:
    """Return a `Say` for Markdown, which puts texts of servers and config files into code spans.

    Otherwise every reader of the issue would fetch an image, and a mention would notify a person.
    """

    def say(word: str, **facts: object) -> str:
        parts, told = WORDS[word][language].split("`"), in_one_language(facts)
        formatted = [
            fill_in(part, **{name: _inert(fact, in_code=bool(number % 2)) for name, fact in told.items()})
            for number, part in enumerate(parts)
        ]
        return "`".join(formatted)

    return say


def _inert(fact: object, *, in_code: bool) -> object:
    if not isinstance(fact, str):
        return fact
    text = on_one_line(fact).replace("`", "'")
    return text if in_code or _PLAIN.fullmatch(text) else f"`{text}`"


def speaker(language: int) -> Say:
    """Return a `Say` for this language: 0 for English, 1 for Chinese."""
    return lambda word, **facts: fill_in(WORDS[word][language], **in_one_language(facts))
