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

from broker.command.language import language


class _Translation(NamedTuple):
    """A text in both languages: the English as a pattern whose groups are the facts."""

    key: str
    english: re.Pattern[str]
    chinese: str


_LONG = ("problem", "broken", "error")
"""Facts that are texts with a `; ` of their own."""

_ANY, _CLAUSE = ".+?", "(?:(?!; ).)+?"
_MAX_CHARS, _MAX_CLAUSES = 600, 8
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
    if len(text) > _MAX_CHARS or text.count("; ") >= _MAX_CLAUSES:
        return text
    return _known(text) or text


@lru_cache(maxsize=1024)
def _known(text: str) -> str | None:
    """Return a text in Chinese; `None` if nothing of it is known."""
    whole = _whole(text)
    if whole is None or whole.spans_parts:
        return _in_two(text, complete=True) or (whole and whole.text) or _in_two(text) or _placed(text)
    return whole.text


class _Whole(NamedTuple):
    """A text that is known as one. Its last fact may have taken in the next part, what to do say."""

    text: str
    spans_parts: bool


def _whole(text: str) -> _Whole | None:
    for translation in _translations():
        if found := translation.english.fullmatch(text):
            facts = {name: _known(fact) or fact for name, fact in found.groupdict().items()}
            parts = _FACT.split(translation.chinese)
            chinese = "".join(facts[part] if number % 2 else part for number, part in enumerate(parts))
            return _Whole(chinese, any("; " in fact for fact in found.groups()))
    return None


def _in_two(text: str, *, complete: bool = False) -> str | None:
    """Return a text of two parts, such as what happened and what to do; `complete`: if both are known."""
    for match in re.finditer("; |, or ", text):
        what, mend = text[: match.start()], text[match.end() :]
        known = _known(what), _known(mend)
        if all(known) if complete else any(known):
            return f"{known[0] or what}{_BETWEEN[match[0]]}{known[1] or mend}"
    return None


_BETWEEN = {"; ": "；", ", or ": "，或"}
"""What stands between two parts of a text, in English and Chinese."""


def _placed(text: str) -> str | None:
    """Return a mistake at a place, such as a key of the config, if the mistake is known."""
    place, colon, problem = text.partition(": ")
    known = _known(problem) if colon else None
    return known and f"{_known(place) or place}：{known}"


@cache
def _translations() -> list[_Translation]:
    """Return all translations, those with the most words of their own first."""
    import tomli

    sections = tomli.loads(Path(__file__).with_name("chinese.toml").read_text(encoding="utf-8"))
    pairs = [pair for section in sections.values() for pair in section.items()]
    pairs.sort(key=lambda pair: -len(_FACT.sub("", pair[0])))
    return [_Translation(english, _pattern(english), chinese) for english, chinese in pairs]


def _pattern(english: str) -> re.Pattern[str]:
    parts = []
    for number, part in enumerate(_FACT.split(english)):
        parts.append(f"(?P<{part}>{_form(part)})" if number % 2 else re.escape(part))
    return re.compile("".join(parts))


def _form(fact: str) -> str:
    if fact == "count":
        return "[0-9]+"
    return _ANY if fact in _LONG else _CLAUSE
