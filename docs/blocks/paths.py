"""The theory of operation: the map of the rooms, the paths through the modules, and who owns which state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli

from docs.blocks.house import docstrings_of_rooms
from docs.blocks.markdown import DOCS, TEXTS, Block, Language, code, table
from tests.project.test_architecture import CORE_ROOMS, ROOMS

ROOT = DOCS.parent
PATHS: dict[str, Any] = tomli.loads((DOCS / "paths.toml").read_text(encoding="utf-8"))


def _existing(path: str) -> str:
    """Return a path of the page, which must be a file of the tree."""
    if not (ROOT / path).is_file():
        raise ValueError(
            f"docs/paths.toml names {path}, which does not exist: name the module that does this now"
        )
    return path


def _module(path: str) -> str:
    """Return the short name of a module, as the rest of the page has it."""
    return _existing(path).rpartition("/")[2].removesuffix(".py")


# --- the map ---------------------------------------------------------------------------------------------


def rooms_map(language: Language) -> str:
    """Return the rooms of the broker and the imports between them, as the architecture test allows them.

    An import that follows from others is not drawn.
    """
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {_node(room)}["{_label(room, language)}"]' for room in ROOMS if room != "broker.core"]
    lines += ["    subgraph core [broker/core]", *(f"    {line}" for line in _core(language)), "    end"]
    lines += [f'    shim["client_shim<br>{_SHIM[language]}"]', '    wire["client_shim/wire.py"]']
    lines += [f"    {_node(room)} --> {other}" for room, other in _edges(ROOMS, "broker")]
    lines += ["    command --> shim", "    gateway --> shim", "    core --> wire", "    shim --> wire", "```"]
    return "\n".join(lines)


_SHIM = {"en": "The thin client", "zh": "轻量客户端"}


def _node(room: str) -> str:
    return room.rpartition(".")[2].strip("_") if room != "broker.__main__" else "entry"


def _label(room: str, language: Language) -> str:
    """Return the name of a room with the words before the first colon or full stop of its docstring."""
    folder = room.replace(".", "/")
    if (ROOT / folder).is_dir():
        said = docstrings_of_rooms()[folder] if language == "en" else TEXTS["rooms"][folder]["zh"]
    else:
        folder, said = f"{folder}.py", TEXTS["map"][room.rpartition(".")[2]][language]
    for mark in (":", "：", ". ", "。"):
        said = said.partition(mark)[0]
    return f"{folder.removeprefix('broker/')}<br>{' '.join(said.split()).rstrip('.').replace('`', '')}"


def _core(language: Language) -> Iterator[str]:
    """Return the rooms of the core; those that import each other share a box."""
    groups = _groups(CORE_ROOMS, "broker.core")
    for group in groups:
        name = " · ".join(room.rpartition(".")[2] for room in group)
        yield f'{_node(group[0])}["{name}"]'
    lowest: set[str] = set()
    for index, group in enumerate(groups):
        below = {room for room in group for room in CORE_ROOMS[room].split()}
        for other in groups[index + 1 :]:
            if other[0].rpartition(".")[2] in below | lowest:
                yield f"{_node(group[0])} --> {_node(other[0])}"
                break


def _groups(rooms: Mapping[str, str], house: str) -> list[list[str]]:
    """Return the rooms, top first; the ones that import each other, directly or not, are one group."""
    reach = {room: _reached(rooms, house, room) for room in rooms}
    groups: list[list[str]] = []
    for room in rooms:
        mates = [other for other in rooms if other == room or (other in reach[room] and room in reach[other])]
        if mates not in groups:
            groups.append(mates)
    return sorted(groups, key=lambda group: -len(reach[group[0]]))


def _reached(rooms: Mapping[str, str], house: str, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = {f"{house}.{other}" for other in rooms[waiting.pop()].split()} - seen
        seen |= new
        waiting += new
    return seen


def _edges(rooms: Mapping[str, str], house: str) -> Iterator[tuple[str, str]]:
    """Return the imports that do not follow from others."""
    reach = {room: _reached(rooms, house, room) for room in rooms}
    for room, may in rooms.items():
        direct = [f"{house}.{other}" for other in may.split()]
        for other in direct:
            if not any(other in reach[between] for between in direct if between != other):
                yield room, _node(other)


# --- the paths -------------------------------------------------------------------------------------------


def overview(language: Language) -> str:
    """Return one row for each path: the modules that it goes through, in order."""
    head = {"en": ("path", "through the modules"), "zh": ("路径", "依次经过的模块")}[language]
    rows = [
        [path[language], " → ".join(code(_module(step["at"])) for step in path["steps"])]
        for name, path in PATHS.items()
        if name != "owners"
    ]
    return table(head, rows)


def steps(name: str) -> Block:
    """Return the steps of a path, each with its module and what that does."""

    def listed(language: Language) -> Iterator[str]:
        for number, step in enumerate(PATHS[name]["steps"], 1):
            yield f"{number}. {code(_existing(step['at']))}: {step[language]}"

    return lambda language: "\n".join(listed(language))


def sequence(language: Language) -> str:
    """Return a call as a sequence diagram: its request, and the reply."""
    server = {"en": "server", "zh": "服务器"}[language]
    request, reply = (PATHS[name]["steps"] for name in ("request", "reply"))
    modules = list(dict.fromkeys(_module(step["at"]) for step in (*request, *reply)))
    lines = ["```mermaid", "sequenceDiagram"]
    for place, title in (("client_shim", "client_shim"), ("broker", "broker")):
        inside = [
            one
            for one in modules
            if any(s["at"].startswith(place) and _module(s["at"]) == one for s in (*request, *reply))
        ]
        lines += [f"    box {title}", *(f"    participant {one}" for one in inside), "    end"]
    lines.append(f"    participant {server}")
    at = ""
    for step in [*request, {"at": server, "takes": {language: "JSON-RPC"}}, *reply]:
        to = server if step["at"] == server else _module(step["at"])
        if at:
            lines.append(f"    {at}->>{to}: {step['takes'][language]}")
        at = to
    return "\n".join([*lines, "```"])


def owners(language: Language) -> str:
    """Return who owns which state."""
    head = {"en": ("state", "owner"), "zh": ("状态", "归属")}[language]
    return table(head, ([one[language], code(_existing(one["at"]))] for one in PATHS["owners"]))
