"""Where the hosts keep their servers, and what their entries are called: one shape for all of them.

Sources: the documentation of each host that is named in `HOSTS`, as of late 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from broker.command.importing.shapes import is_server, runs_here
from broker.command.importing.times import Unit

HOSTS = (
    "Claude Desktop, Claude Code, Cursor, Windsurf, Cline, Roo Code, Gemini CLI, Amazon Q, LM Studio, "
    "JetBrains, LibreChat, Continue (mcpServers); VS Code (servers); Open-LLM-VTuber, Codex (mcp_servers); "
    "OpenCode (mcp); Zed (context_servers); Goose (extensions)"
)
"""What a person is told is known, with the key of each."""

SECTIONS = ("mcp_servers", "mcpServers", "servers", "context_servers")

PROJECT_FOLDERS = (
    *(".vscode", ".cursor", ".roo", ".kilocode", ".gemini", ".codex", ".zed", ".opencode", ".amazonq"),
    *(".continue", ".windsurf", ".kiro", ".junie", ".idea", ".claude", ".qwen"),
)
"""A host keeps a project's file in one of these; what is relative in it starts from the project."""

_SECONDS_FILES = ("cline_mcp_settings.json", "mcp_settings.json")
_SECONDS_FOLDERS = (".roo", ".kilocode")
"""Cline, Roo and Kilo count `timeout` in seconds, as Open-LLM-VTuber and Goose do."""

_MS_FILES = (".mcp.json", ".claude.json", "librechat.yaml", "librechat.yml")
_MS_FOLDERS = (".gemini", ".qwen", ".amazonq", "amazonq")
"""Claude Code, LibreChat, Gemini CLI and Amazon Q count in milliseconds, as OpenCode does."""

_WITHIN = (
    *(("settings",), ("customizations", "vscode"), ("customizations", "vscode", "settings")),
    ("augment.advanced",),
)
"""Where an editor keeps settings in a file: a workspace, a devcontainer, an extension."""

_NOTES = ("//", "_", "$", "#")
"""A text or a list below such a name is a comment or a schema, and no server."""


class Found(NamedTuple):
    """One server of a file.

    Attributes:
        name: what it is called there; empty where it has no name.
        entry: what is said of it.
        unit: in which its host counts `timeout`; `None` where that is not known.
        folder: of the project that it stands below; `None` without one.
        off: whether the file switches it off outside of its entry.
        host: `opencode`, `gemini` or `shell` where that decides how a variable is written.
    """

    name: str
    entry: object
    unit: Unit | None = None
    folder: str | None = None
    off: bool = False
    host: str = ""


def servers_in(value: object, path: PurePath, form: str) -> list[Found] | None:
    """The servers of a file; `None` where it has no place for any.

    Args:
        value: what the file says.
        path: where it is; its name and folder may tell its host.
        form: how it was written: `json`, `toml`, `yaml` or `commands`.
    """
    unit = _unit_of(path)
    host = "gemini" if ".gemini" in path.parts or "gemini" in path.name else ""
    if form == "commands":
        return [Found(*_named(entry), host="shell") for entry in _list(value)]
    places = list(_places(value, unit))
    if places:
        return [one._replace(host=one.host or host) for place in places for one in place]
    return _bare(value, unit)


def _unit_of(path: PurePath) -> Unit | None:
    if path.name in _SECONDS_FILES or path.parent.name in _SECONDS_FOLDERS:
        return "s"
    return "ms" if path.name in _MS_FILES or set(path.parts) & {*_MS_FOLDERS} else None


def _places(value: object, unit: Unit | None, folder: str | None = None) -> Iterator[list[Found]]:
    """The places for servers in a file, be they empty, with what each has."""
    if not isinstance(value, dict):
        return
    for key, section in value.items():
        is_section = key in SECTIONS or str(key).endswith((".mcpServers", "mcp.servers"))
        if is_section and isinstance(section, (dict, list)):
            seconds: Unit | None = "s" if key == "mcp_servers" else unit
            yield [Found(name, entry, seconds, folder) for name, entry in _entries(section)]
    yield from _goose(value.get("extensions"))
    yield from _below_mcp(value.get("mcp"), unit, folder)
    yield from _of_projects(value.get("projects"))
    for keys in _WITHIN:
        if inner := _at(value, *keys):
            yield from _places(inner, unit, folder)
    experimental = _at(value, "experimental")
    for key in ("modelContextProtocolServers", "modelContextProtocolServer"):  # Continue's JSON
        if isinstance(servers := experimental.get(key), (dict, list)):
            yield [Found(*_named(entry), "ms") for entry in _list(servers)]
    bundle = _at(value, "server", "mcp_config")
    if bundle:  # manifest.json of a desktop extension
        yield [Found(str(value.get("name", "")), bundle, unit)]


def _entries(section: Mapping[str, object] | Sequence[object]) -> Iterator[tuple[str, object]]:
    """The servers of a section: a map by name, or a list of entries that have their names."""
    if isinstance(section, Mapping):
        for name, entry in section.items():
            if not (isinstance(entry, (str, list)) and str(name).startswith(_NOTES)):
                yield str(name), entry
        return
    for entry in section:
        if isinstance(entry, dict) and not is_server(entry) and any(map(is_server, entry.values())):
            yield from _entries(entry)
        else:
            yield _named(entry)


def _named(entry: object) -> tuple[str, object]:
    """An entry of a list, without its name."""
    if not isinstance(entry, dict):
        return "", entry
    name = next((str(entry[key]) for key in ("name", "id") if isinstance(entry.get(key), (str, int))), "")
    return name, {key: value for key, value in entry.items() if key not in ("name", "id")}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _at(value: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _goose(section: object) -> Iterator[list[Found]]:
    """`extensions` of Goose, a map or a list; other hosts have other things below that key."""
    if not isinstance(section, (dict, list)):
        return
    found = [(name, _goose_entry(entry)) for name, entry in _entries(section)]
    if any(is_server(entry) for _, entry in found):
        yield [Found(name, entry, "s") for name, entry in found]


def _goose_entry(entry: object) -> object:
    if not isinstance(entry, dict):
        return entry
    inner = _at(entry, "config")
    return {key: value for key, value in {**entry, **inner}.items() if key not in ("config", "name")}


def _below_mcp(section: object, unit: Unit | None, folder: str | None) -> Iterator[list[Found]]:
    """`mcp`: of VS Code and OpenCode 2 with `servers` in it, of OpenCode 1 and Crush the servers themselves.

    Gemini CLI has lists of names there: `allowed` and `excluded`.
    """
    if not isinstance(section, dict):
        return
    for place in _places(section, unit, folder):
        yield [_of_opencode(one) for one in place]
    left = {key: value for key, value in section.items() if key not in SECTIONS and is_server(value)}
    if left or not section:
        yield [_of_opencode(Found(name, entry, unit, folder)) for name, entry in left.items()]


def _of_opencode(one: Found) -> Found:
    """OpenCode has a list for a command, and milliseconds."""
    entry = one.entry if isinstance(one.entry, dict) else {}
    is_opencode = isinstance(entry.get("command"), list) or "environment" in entry
    return one._replace(unit="ms", host="opencode") if is_opencode else one


def _of_projects(projects: object) -> Iterator[list[Found]]:
    """`~/.claude.json`: the servers of each project, with its folder, and the names it has switched off."""
    for folder, about in projects.items() if isinstance(projects, dict) else ():
        off = about.get("disabledMcpServers") if isinstance(about, dict) else None
        names = off if isinstance(off, list) else []
        for place in _places(_only(about, "mcpServers"), "ms", str(folder)):
            yield [one._replace(off=one.name in names) for one in place]


def _only(value: object, key: str) -> dict[str, object]:
    return {key: value[key]} if isinstance(value, dict) and key in value else {}


def _bare(value: object, unit: Unit | None) -> list[Found] | None:
    """A piece of a file: a list of entries, a map of them, or one alone."""
    if isinstance(value, list):
        entries = list(_entries(value))
        return [Found(*one, unit) for one in entries] if any(is_server(one[1]) for one in entries) else None
    if not isinstance(value, dict):
        return None
    if is_server(value):
        return [Found(*_named(value), unit)]
    tables = {str(name): entry for name, entry in value.items() if isinstance(entry, dict)}
    if any(map(runs_here, tables.values())) or (
        len(tables) == len(value) and all(map(is_server, tables.values()))
    ):
        return [Found(name, entry, unit) for name, entry in tables.items()] or None
    return None


def switched(found: list[Found], value: object) -> list[Found]:
    """The same, where the file switches servers off by their names: `mcp` of Gemini CLI."""
    about = _at(value, "mcp")
    excluded, allowed = about.get("excluded"), about.get("allowed")
    off = set(excluded) if isinstance(excluded, list) else set[object]()
    if isinstance(allowed, list):
        off |= {one.name for one in found} - set(allowed)
    return [one._replace(off=True) if one.name in off else one for one in found]
