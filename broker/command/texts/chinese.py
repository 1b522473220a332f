"""Puts English texts of the broker, its config reader and click into Chinese, with their facts.

These texts are English where they are made, because they go into the log and to programs, too. The command
recognises them by `chinese.toml`. A text that it does not know, as of a broker of another release, stays
English. So no text is lost and no release needs the other one's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from broker.command.texts.language import language


class _Translation(NamedTuple):
    """A text in both languages. `words` are the parts of the English between its facts."""

    key: str
    words: list[str]
    chinese: str

    def facts_in(self, text: str) -> dict[str, str] | None:
        """Return the facts in a text, if it is this one. Few patterns are needed, so few are compiled."""
        found = all(word in text for word in self.words) and _pattern(self.key).fullmatch(text)
        return found.groupdict() if found else None


_LONG = ("problem", "broken", "error", "shown", "value", "outcome", "instead")
"""Facts that are texts with a `; ` or `: ` of their own."""

_LISTS = ("known", "names", "keys", "others", "choices")
"""Facts that are lists of names."""

_NUMBERS = ("count", "status", "seconds", "size", "uid", "took", "times", "grace", "held", "call")

_ANY, _CLAUSE, _NUMBER = ".+?", "(?:(?!; |: ).)+?", "[0-9][0-9.e+-]*"
_MAX_CHARS, _MAX_CLAUSES = 600, 10
"""Longer texts stay English: servers write them, and to recognise them would take long."""

_FACT = re.compile(r"\{(\w+)\}")


def told(text: object) -> str:
    """Return a text of several lines in the reader's language."""
    lines = str(text).split("\n")
    return "\n".join(map(in_chinese, lines) if language() else lines)


def in_a_line() -> Callable[[Iterable[str]], str]:
    """Return a function that puts lines into one, in the language that is the reader's now."""
    return _in_a_chinese_line if language() else "; ".join


def _in_a_chinese_line(lines: Iterable[str]) -> str:
    return "；".join(map(in_chinese, lines))


def in_chinese(text: str) -> str:
    """Return a text in Chinese, as far as it is known: the whole, else the parts beside a `; `."""
    if len(text) > _MAX_CHARS or sum(map(text.count, _BETWEEN)) >= _MAX_CLAUSES:
        return text
    known = _known(text)
    return known.chinese if known else text


class _Known(NamedTuple):
    """What is known of a text: its Chinese, and whether nothing but facts is left in English."""

    chinese: str
    complete: bool = True


@lru_cache(maxsize=1024)
def _known(text: str) -> _Known | None:
    """Return a text in Chinese; `None` if nothing of it is known."""
    whole, spans_parts = _whole(text)
    if whole and not spans_parts:
        return whole
    parts = _in_two(text)
    if parts and parts.complete:
        return parts
    return whole or parts or _placed(text)


def _whole(text: str) -> tuple[_Known | None, bool]:
    """Return a text that is known as one, and whether a fact of it may have taken in the next part."""
    for translation in _translations():
        found = translation.facts_in(text)
        if found is not None:
            facts = {name: _told_fact(name, fact) for name, fact in found.items()}
            parts = _FACT.split(translation.chinese)
            chinese = "".join(facts[part] if number % 2 else part for number, part in enumerate(parts))
            return _Known(chinese), any("; " in fact for fact in found.values())
    return None, False


def _told_fact(name: str, fact: str) -> str:
    chinese = _chinese_of(fact)
    return chinese.replace(", ", "、") if name in _LISTS else chinese


def _chinese_of(fact: str) -> str:
    known = _known(fact)
    return known.chinese if known else fact


def _in_two(text: str) -> _Known | None:
    """Return a text of two parts, such as what happened and what to do; best where both are known."""
    best = None
    for match in re.finditer("|".join(_BETWEEN), text):
        what, mend = text[: match.start()], text[match.end() :]
        known = _known(what), _known(mend)
        if any(known):
            chinese = f"{_chinese_of(what)}{_BETWEEN[match[0]]}{_chinese_of(mend)}"
            complete = all(part is not None and part.complete for part in known)
            if complete:
                return _Known(chinese)
            best = best or _Known(chinese, complete=False)
    return best


_BETWEEN = {"; ": "；", ", or ": "，或"}
"""What stands between two parts of a text, in English and Chinese."""


def _placed(text: str) -> _Known | None:
    """Return a mistake at a place, such as a key of the config, if the mistake is known."""
    place, colon, problem = text.partition(": ")
    known = _known(problem) if colon else None
    return known and _Known(f"{_chinese_of(place)}：{known.chinese}", known.complete)


@cache
def _translations() -> list[_Translation]:
    """Return all translations, those with the most words of their own first."""
    import tomli

    sections = tomli.loads(Path(__file__).with_name("chinese.toml").read_text(encoding="utf-8"))
    pairs = [pair for section in sections.values() for pair in section.items()]
    pairs.sort(key=lambda pair: -len(_FACT.sub("", pair[0])))
    return [_Translation(english, _FACT.split(english)[::2], chinese) for english, chinese in pairs]


@cache
def _pattern(english: str) -> re.Pattern[str]:
    parts = []
    for number, part in enumerate(_FACT.split(english)):
        parts.append(f"(?P<{part}>{_form(part)})" if number % 2 else re.escape(part))
    return re.compile("".join(parts))


def _form(fact: str) -> str:
    if fact in _NUMBERS:
        return _NUMBER
    return _ANY if fact in _LONG else _CLAUSE
