"""How the broker is built, from its sources: rooms, files, methods, the life of a server."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from broker.core.mcp.methods import METHODS, Era, Route
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import TABLE, Event, Lifecycle, State
from broker.upstream.control import TABLE as CONTROL
from broker.upstream.control import Phase
from docs.blocks.markdown import DOCS, TEXTS, Block, Language, code, sentence, table

ROOT = DOCS.parent

_ROUTES = {
    Route.SERVER: {"en": "the server", "zh": "服务器"},
    Route.CATALOGUE: {"en": "the broker, from memory", "zh": "broker，来自内存"},
    Route.BROKER: {"en": "the broker", "zh": "broker"},
    Route.NOBODY: {"en": "refused", "zh": "拒绝"},
}


def rooms(language: Language) -> str:
    """Return the folders of the broker and the shim, each with its docstring; in Chinese from the texts."""
    head = {"en": ("room", "what it holds, and what it imports"), "zh": ("目录", "内容，以及可以导入什么")}
    rows = []
    for folder, words in docstrings_of_rooms().items():
        told = " ".join(words.split()) if language == "en" else TEXTS["rooms"][folder]["zh"]
        rows.append([code(f"{folder}/"), told])
    return table(head[language], rows)


def docstrings_of_rooms() -> dict[str, str]:
    """Return `broker`, `client_shim` and each folder below them, with its docstring."""
    found = sorted(
        path for package in ("broker", "client_shim") for path in (ROOT / package).rglob("__init__.py")
    )
    return {
        str(path.parent.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        or ""
        for path in found
    }


def files(folder: str, *without: str) -> Block:
    """Return the block of the modules below a folder, each with the first sentence of its docstring."""

    def rows() -> Iterator[list[str]]:
        for path in sorted((ROOT / folder).rglob("*.py"), key=lambda path: (path.parent, path.name)):
            name = str(path.relative_to(ROOT))
            if path.name != "__init__.py" and not name.startswith(without):
                text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
                yield [code(name), sentence(text)]

    return lambda _: table(("file", "what it is"), rows())


def methods(language: Language) -> str:
    """Return who answers which method, and below it why one is refused."""
    head = {
        "en": ("method", "legacy server", "2026-07-28 server"),
        "zh": ("方法", "旧版服务器", "2026-07-28 服务器"),
    }
    reasons: list[str] = []

    def cell(method: str, era: Era) -> str:
        rule = METHODS[era].get(method)
        if rule is None:
            return "–"
        if rule.why and rule.why not in reasons:
            reasons.append(rule.why)
        note = f" ({reasons.index(rule.why) + 1})" if rule.why else ""
        return _ROUTES[rule.route][language] + note

    names = list(dict.fromkeys(method for era in Era for method in METHODS[era]))
    rows = [[code(name), *(cell(name, era) for era in Era)] for name in names]
    return "\n".join([table(head[language], rows), "", *(f"{n}. {why}" for n, why in enumerate(reasons, 1))])


def lifecycle(_: Language) -> str:
    """Return the states of a server and the events that lead from one to the next."""
    edges: dict[tuple[State, State], list[str]] = {}
    for state, events in TABLE.items():
        for event, (after, _action) in events.items():
            if after is not state and event is not Event.GONE:
                edges.setdefault((state, after), []).append(event.value)
    for why, after in _after_draining():
        edges.setdefault((State.DRAINING, after), []).append(f"gone, {why}")
    lines = [
        f"    {before.value} --> {after.value} : {' / '.join(events)}"
        for (before, after), events in edges.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> stopped", *lines, "```"])


def control(_: Language) -> str:
    """Return the phases of the arbiter, and the intents that lead from one to the next."""
    edges: dict[tuple[Phase, Phase], list[str]] = {}
    for phase, intents in CONTROL.items():
        for intent, (after, _step) in intents.items():
            if after is not phase:
                edges.setdefault((phase, after), []).append(intent.value)
    lines = [
        f"    {before.value} --> {after.value} : {' / '.join(intents)}"
        for (before, after), intents in edges.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> settled", *lines, "```"])


def lifecycle_table(language: Language) -> str:
    """Return every event in every state: the next state, or that it cannot happen."""
    stays, either = {"en": ("stays", " or "), "zh": ("不变", " 或 ")}[language]
    ends = either.join(dict.fromkeys(code(state.value) for _, state in _after_draining()))

    def cell(state: State, event: Event) -> str:
        if event not in TABLE[state]:
            return "–"
        after = TABLE[state][event][0]
        if (state, event) == (State.DRAINING, Event.GONE):
            return ends
        return stays if after is state else code(after.value)

    head = ({"en": "event", "zh": "事件"}[language], *(code(state.value) for state in State))
    return table(head, ([code(event.value), *(cell(state, event) for state in State)] for event in Event))


def _after_draining() -> Iterator[tuple[str, State]]:
    """Return the states after `draining`, which depend on why it was ended: a real automaton says so."""
    run = (Event.START, Event.SPAWNED)
    for why, burst, path in (
        ("was stopped", 9, (*run, Event.STOP)),
        ("is wanted again", 9, (*run, Event.STOP, Event.START)),
        ("ended at the era probe", 9, (*run, Event.LEGACY)),
        ("had failed", 9, (*run, Event.EXITED)),
        ("had failed too often", 1, (*run, Event.EXITED)),
    ):
        backoff = Backoff(first_delay_s=1, burst=burst, interval_s=60, rng=lambda: 0.5)
        automaton = Lifecycle(restart="always", start_s=90, backoff=backoff)
        for event in (*path, Event.GONE):
            automaton.on(event, 0.0)
        yield why, automaton.state
