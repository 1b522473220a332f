"""Finds the servers in a host's config file: the sections of all known hosts.

Sources: the documentation of each host that is named in `HOSTS`, as of late 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from broker.command.importing.shapes import is_server, runs_here
from broker.command.importing.times import TimeUnit

HOSTS = (
    "Claude Desktop, Claude Code, Cursor, Windsurf, Cline, Roo Code, Gemini CLI, Amazon Q, LM Studio, "
    "JetBrains, LibreChat, Continue (mcpServers); VS Code (servers); Open-LLM-VTuber, Codex (mcp_servers); "
    "OpenCode (mcp); Zed (context_servers); Goose (extensions)"
)
"""The known hosts with their keys, for error messages."""

SECTIONS = ("mcp_servers", "mcpServers", "servers", "context_servers")

PROJECT_FOLDERS = (
    *(".vscode", ".cursor", ".roo", ".kilocode", ".gemini", ".codex", ".zed", ".opencode", ".amazonq"),
    *(".continue", ".windsurf", ".kiro", ".junie", ".idea", ".claude", ".qwen"),
)
"""The folders in which hosts keep a project's file. Paths in it are relative to the project."""

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
"""The keys below which editors nest settings: in a workspace, a devcontainer, an extension."""

_NOTES = ("//", "_", "$", "#")
"""The prefixes of keys whose text or list is a comment or a schema instead of a server."""


class Found(NamedTuple):
    """One server of a file.

    Attributes:
        name: its name there; may be empty.
        entry: its definition.
        unit: the unit of `timeout` at this host; `None` if unknown.
        folder: the folder of its project; `None` without one.
        off: whether the file disables it outside of its entry.
        host: `opencode`, `gemini` or `shell` if the host has its own syntax for variables.
    """

    name: str
    entry: object
    unit: TimeUnit | None = None
    folder: str | None = None
    off: bool = False
    host: str = ""


def servers_in(value: object, path: PurePath, format: str) -> list[Found] | None:
    """Return the servers of a file; `None` if it has no section for servers.

    Args:
        value: the content of the file.
        path: its path; name and folder may tell the host.
        format: `json`, `toml`, `yaml` or `commands`.
    """
    unit = _unit_of(path)
    host = "gemini" if ".gemini" in path.parts or "gemini" in path.name else ""
    if format == "commands":
        return [Found(*_named(entry), host="shell") for entry in _list(value)]
    places = list(_places(value, unit))
    if places:
        return [one._replace(host=one.host or host) for place in places for one in place]
    return _bare(value, unit)


def _unit_of(path: PurePath) -> TimeUnit | None:
    if path.name in _SECONDS_FILES or path.parent.name in _SECONDS_FOLDERS:
        return "s"
    return "ms" if path.name in _MS_FILES or set(path.parts) & {*_MS_FOLDERS} else None


def _places(value: object, unit: TimeUnit | None, folder: str | None = None) -> Iterator[list[Found]]:
    """Yield the servers of each section for servers, empty sections included."""
    if not isinstance(value, dict):
        return
    for key, section in value.items():
        is_section = key in SECTIONS or str(key).endswith((".mcpServers", "mcp.servers"))
        if is_section and isinstance(section, (dict, list)):
            seconds: TimeUnit | None = "s" if key == "mcp_servers" else unit
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
    """Yield the servers of a section: a map by name, or a list of entries with names."""
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
    """Return the name of a list entry, and the entry without it."""
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
    """Yield `extensions` of Goose, a map or a list. Other hosts use that key for something else."""
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


def _below_mcp(section: object, unit: TimeUnit | None, folder: str | None) -> Iterator[list[Found]]:
    """Yield the servers of `mcp`: with `servers` in it (VS Code, OpenCode 2) or without (OpenCode 1, Crush).

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
    """Mark an entry of OpenCode, which has a list as command and counts milliseconds."""
    entry = one.entry if isinstance(one.entry, dict) else {}
    is_opencode = isinstance(entry.get("command"), list) or "environment" in entry
    return one._replace(unit="ms", host="opencode") if is_opencode else one


def _of_projects(projects: object) -> Iterator[list[Found]]:
    """Yield the servers of each project in `~/.claude.json`, with its folder and its disabled names."""
    for folder, about in projects.items() if isinstance(projects, dict) else ():
        off = about.get("disabledMcpServers") if isinstance(about, dict) else None
        names = off if isinstance(off, list) else []
        for place in _places(_only(about, "mcpServers"), "ms", str(folder)):
            yield [one._replace(off=one.name in names) for one in place]


def _only(value: object, key: str) -> dict[str, object]:
    return {key: value[key]} if isinstance(value, dict) and key in value else {}


def _bare(value: object, unit: TimeUnit | None) -> list[Found] | None:
    """Return the servers of a fragment: a list of entries, a map of entries, or one entry."""
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
    """Return the servers, with those marked that `mcp` of Gemini CLI disables by name."""
    about = _at(value, "mcp")
    excluded, allowed = about.get("excluded"), about.get("allowed")
    off = _names(excluded) if isinstance(excluded, list) else set[str]()
    if isinstance(allowed, list):
        off |= {one.name for one in found} - _names(allowed)
    return [one._replace(off=True) if one.name in off else one for one in found]


def _names(given: list[object]) -> set[str]:
    return {name for name in given if isinstance(name, str)}
