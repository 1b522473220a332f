"""Fills texts in two languages with their facts: words, numbers, and reasons that are texts themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.command.texts.language import language
from broker.config.names import shell, toml_key


class _Text(str):
    """A text that can be formatted as a shell argument (`{server:sh}`) or a TOML key (`{server:key}`)."""

    def __format__(self, form: str) -> str:
        written = {"sh": shell, "key": toml_key}.get(form)
        return written(self) if written else super().__format__(form)


class _Number(int):
    """A number that inflects its noun and verb: `{count} server{count:s} {count:are} ready`."""

    def __format__(self, form: str) -> str:
        one, more = {"s": ("", "s"), "are": ("is", "are")}.get(form, ("", ""))
        return (one if self == 1 else more) if more else super().__format__(form)


def texts(path: Path) -> dict[str, tuple[str, str]]:
    """Return the texts in a TOML file: word → English, Chinese."""
    import tomli

    return dict(_flat(tomli.loads(path.read_text(encoding="utf-8"))))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    for word, value in table.items():
        if isinstance(value, dict):
            if "en" in value:
                yield f"{prefix}{word}", (value["en"], value["zh"])
            yield from _flat(value, f"{prefix}{word}.")


def fill(text: tuple[str, str], **facts: object) -> str:
    """Return a text in the reader's language, filled in."""
    return fill_in(text[language()], **in_one_language(facts))


_TEXTS = frozenset(("problem", "mend", "error", "why", "reason"))
"""Facts that are texts themselves: of the broker, the system or a server, which write English."""


def in_one_language(facts: Mapping[str, object]) -> dict[str, object]:
    """Return the facts with lists joined, and with known texts in the reader's language."""
    between = (", ", "、")[language()]
    facts = {name: between.join(fact) if isinstance(fact, list) else fact for name, fact in facts.items()}
    if not language() or not _TEXTS & facts.keys():
        return facts
    from broker.command.texts.chinese import told

    return {name: told(fact) if name in _TEXTS else fact for name, fact in facts.items()}


def fill_in(text: str, **facts: object) -> str:
    """Return a text filled in with these facts, formatted as its placeholders ask."""
    forms: dict[type, Callable[[Any], object]] = {int: _Number, str: _Text}
    return text.format(**{name: forms.get(type(fact), _same)(fact) for name, fact in facts.items()})


def _same(fact: object) -> object:
    return fact
