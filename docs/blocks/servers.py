"""The life of a server for its operator: its states, and how its calls end when it dies."""

from __future__ import annotations

import re

from broker.base.tolerances import KINDS
from broker.command.texts.words import WORDS
from broker.core.calls import retry
from broker.core.calls.retry import NoRetry
from broker.core.mcp.methods import METHODS, Era, Route
from broker.core.servers.lifecycle import State
from docs.blocks.markdown import TEXTS, Language, code, table


def states(language: Language) -> str:
    """Return each state: its name in `--json`, the word of the command, its meaning, and a call in it."""
    head = {
        "en": ("`state`", "shown as", "what it means", "a call that comes now"),
        "zh": ("`state`", "显示为", "含义", "此时到来的调用"),
    }
    word = 0 if language == "en" else 1
    rows = [
        [code(state.value), WORDS[state.value][word], text[language], text[f"{language}_call"]]
        for state, text in ((state, TEXTS["states"][state.value]) for state in State)
    ]
    return table(head[language], rows)


def tolerated(language: Language) -> str:
    """Return each tolerated deviation: its name in `tolerated`, what it is, and how it is reported."""
    head = {"en": ("kind", "what is put up with", "told"), "zh": ("种类", "容忍什么", "如何告知")}
    said = TEXTS["tolerated"]
    rows = [
        [
            code(oddity.value),
            _blanks(kind.english if language == "en" else kind.chinese),
            said["notable" if kind.notable else "counted"][language],
        ]
        for oddity, kind in KINDS.items()
    ]
    return table(head[language], rows)


def _blanks(text: str) -> str:
    """Return a text with its placeholders as names; an amount is written with the plural."""
    return _PLACE.sub(lambda place: "s" if place[2] else f"*{place[1].upper()}*", text)


_PLACE = re.compile(r"\{(\w+)(:s)?\}")


def fates(language: Language) -> str:
    """Return how a call ends when its server dies: first the harmless ones, then why the others end."""
    head = {"en": ("the call", "how it goes on"), "zh": ("调用", "结果")}
    said = TEXTS["fates"]
    again, ends = said["again"][language], said["ends"][language]
    rows = [[said["line"][language], said["line"][f"{language}_fate"]]]
    rows.append([_names(_answered()), said["memory"][language]])
    rows.append([_names(_reading()), again])
    rows.append([said["tool_again"][language], again])
    rows += [[said[one.value][language], ends.format(code=code(one.value))] for one in NoRetry]
    return table(head[language], rows)


def _names(methods: list[str]) -> str:
    return ", ".join(code(method) for method in methods)


def _answered() -> list[str]:
    """Return the methods that the broker answers itself."""
    routes = (Route.CATALOGUE, Route.BROKER)
    return list(
        dict.fromkeys(name for era in Era for name, rule in METHODS[era].items() if rule.route in routes)
    )


def _reading() -> list[str]:
    """Return the methods that the core retries."""
    methods = [name for name, rule in METHODS[Era.MODERN].items() if rule.route is Route.SERVER]
    return [
        name
        for name in methods
        if retry.no_retry(name, repeatable_tool=False, answers=False, stateful=False) is None
    ]
