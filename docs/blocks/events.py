"""Every line that the broker logs, from the calls that log it.

An event is a literal, or built from one value; what that value may be is said here once (`_PARTS`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from broker.core.servers.lifecycle import State
from broker.upstream.life_log import WORRYING
from docs.blocks.markdown import DOCS, TEXTS, Block, Language, code, table

LEVELS = ("debug", "info", "warning", "error")

_PARTS = {
    "state.value": [state.value for state in State],
    "stream": ["stderr", "stdout"],
    "event": ["catalogue.unread", "server.odd"],
    "what": [],  # the second argument of every `discard`, which is where it comes from
}
"""The expression in the braces of an event → its possible values."""

_GRAVE = frozenset({"warning", "error"})

_HEAD = {
    True: {"en": ("event", "meaning", "what to do"), "zh": ("事件", "含义", "处理办法")},
    False: {"en": ("event", "level", "meaning"), "zh": ("事件", "级别", "含义")},
}


class Logged(NamedTuple):
    """One call that logs: the event, the levels it may have, the names of its facts, and where it is."""

    event: str
    levels: frozenset[str]
    facts: frozenset[str]
    where: str


_LOGGERS = ("logger", "self._effects", "")
"""Owners of a function `log`: the logger of the shell, and the effects of the core."""


@cache
def logged() -> list[Logged]:
    """Return every call that logs, in the order of the source."""
    return [one for path in sorted((DOCS.parent / "broker").rglob("*.py")) for one in _logged_in(path)]


def _logged_in(path: Path) -> Iterator[Logged]:
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    yield from _logged_by(node, function, f"{path.relative_to(DOCS.parent)}:{node.lineno}")


def _logged_by(call: ast.Call, function: ast.AST, where: str) -> Iterator[Logged]:
    """What one call logs, if it calls a logger, `log` of the effects, or `discard`."""
    head, _, name = ast.unparse(call.func).rpartition(".")
    if name == "discard" and len(call.args) > 1:
        for word in _spellings(call.args[1], where):
            yield _one(call, f"server.{word}", frozenset({"debug"}), where)
    elif head == "logger" and name in (*LEVELS, "exception", "critical"):
        level = "error" if name in ("exception", "critical") else name
        yield from _each(call, call.args[0], frozenset({level}), where)
    elif name == "log" and head in _LOGGERS and ast.unparse(call.args[1]) != "effect.event":
        yield from _each(call, call.args[1], _levels(call.args[0], function), where)


def _each(call: ast.Call, event: ast.expr, levels: frozenset[str], where: str) -> Iterator[Logged]:
    parts = event.values if isinstance(event, ast.JoinedStr) else [event]
    for words in product(*(_spellings(part, where) for part in parts)):
        yield _one(call, "".join(words), levels, where)


def _spellings(part: ast.expr, where: str) -> list[str]:
    """Return the possible values of a part of an event."""
    source = ast.unparse(part.value if isinstance(part, ast.FormattedValue) else part)
    if isinstance(part, ast.Constant):
        return [str(part.value)]
    if source not in _PARTS:
        raise SystemExit(f"{where}: say in _PARTS of docs/blocks/events.py what `{source}` may be")
    return _PARTS[source]


def _one(call: ast.Call, event: str, levels: frozenset[str], where: str) -> Logged:
    facts = {keyword.arg for keyword in call.keywords if keyword.arg}
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            facts |= {key for key in map(_name, keyword.value.keys) if key}
    return Logged(event, levels, frozenset(facts - {"extra", "exc_info"}), where)


def _name(key: ast.expr | None) -> str | None:
    return str(key.value) if isinstance(key, ast.Constant) else None


def _levels(level: ast.expr, function: ast.AST) -> frozenset[str]:
    """The level where it is written down, else every level that its function names."""
    for seen in (level, function):
        found = {node.attr.lower() for node in ast.walk(seen) if isinstance(node, ast.Attribute)} & {*LEVELS}
        if found:
            return frozenset(found)
    raise SystemExit(f"line {level.lineno}: of which level is this? name it in the function that logs")


def catalogue() -> dict[str, set[str]]:
    """Return every event with its possible levels."""
    found: dict[str, set[str]] = {}
    for one in logged():
        found.setdefault(one.event, set()).update(one.levels)
    for state in State:  # one call logs them all, and looks at the state for the level
        found[f"server.{state.value}"] = {"warning" if state in WORRYING else "info"}
    return dict(sorted(found.items()))


def rows(*, grave: bool) -> Block:
    """Return the block of the events that may be a warning or an error, with what to do; or of the others."""

    def lines(language: Language) -> Iterator[list[str]]:
        for event, levels in catalogue().items():
            text = _text(event, levels)
            if bool(levels & _GRAVE) is grave:
                last = text[f"{language}_do"] if grave else text[language]
                middle = text[language] if grave else ", ".join(one for one in LEVELS if one in levels)
                yield [code(event), middle, last]

    return lambda language: table(_HEAD[grave][language], lines(language))


def _text(event: str, levels: set[str]) -> dict[str, str]:
    """Return the texts of an event."""
    keys = ("en", "zh", "en_do", "zh_do") if levels & _GRAVE else ("en", "zh")
    text: dict[str, str] = TEXTS["events"].get(event, {})
    missing = [key for key in keys if key not in text]
    if missing:
        where = next(one.where for one in logged() if one.event == event)
        shown = "".join(f'\n{key} = "…"' for key in missing)
        raise SystemExit(
            f'{where} logs {event} ({", ".join(levels)}): add to docs/texts.toml\n\n[events."{event}"]{shown}'
        )
    return text
