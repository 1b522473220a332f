"""From other hosts' JSON to the servers of `broker.toml`: which, under what name, from which file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Literal, NamedTuple

import msgspec

from broker.core.config import ServerConfig
from broker.core.names import derived, normal, why_not
from broker.importing.entry import Conversion, Machine, Remark, Table
from broker.importing.secrets import Variables

Prefer = Literal["first", "last"]

SECTIONS = ("mcp_servers", "mcpServers", "servers")
"""Where the servers stand: Open-LLM-VTuber; Claude Desktop, Cursor and most others; VS Code."""

KEYS = ("command", "args", "env", "cwd", "timeout", "enabled")
"""The keys of a server's table that an import writes."""

PROJECT_FOLDERS = (".vscode", ".cursor", ".roo", ".kilocode", ".gemini")
"""A host keeps a project's file in one of these; what is relative in it starts from the project."""

SECONDS_FILES = ("cline_mcp_settings.json", "mcp_settings.json")
SECONDS_FOLDERS = (".roo", ".kilocode")
"""Cline, Roo and Kilo count `timeout` in seconds, as Open-LLM-VTuber does."""


class Source(NamedTuple):
    """One file that has been read: its absolute path, and what its JSON says."""

    path: PurePath
    document: object

    @property
    def folder(self) -> str:
        """What is relative in it starts from here."""
        folder = self.path.parent
        return str(folder.parent if folder.name in PROJECT_FOLDERS else folder)

    @property
    def in_seconds(self) -> bool:
        """Whether its host is known to count `timeout` in seconds."""
        return self.path.name in SECONDS_FILES or self.path.parent.name in SECONDS_FOLDERS


class Imported(NamedTuple):
    """One server as a table of `broker.toml`, and the file that it comes from."""

    name: str
    table: Table
    origin: str
    remarks: list[Remark]


class Plan(NamedTuple):
    """The servers to write, by name, and what there is to say."""

    servers: dict[str, Table]
    remarks: list[Remark]


class Clash(Exception):
    """Files define a server differently, and nobody said which to take; `remarks` has them all."""

    def __init__(self, remarks: list[Remark]) -> None:
        super().__init__(f"{len(remarks)} servers are defined in two ways")
        self.remarks = remarks


def plan(
    sources: Iterable[Source],
    machine: Machine,
    *,
    existing: Iterable[Imported] = (),
    prefer: Prefer | None = None,
    secrets_as_variables: bool = False,
) -> Plan:
    """What becomes of these files.

    Args:
        existing: the servers of the `broker.toml` that they are merged into: the first file, so to say.
        prefer: whose definition counts where two files differ.
        secrets_as_variables: whether `${NAME}` takes the place of what looks secret in `env`.

    Raises:
        Clash: two files differ, and `prefer` is not given.
    """
    there = list(existing)
    found, remarks = _converted(sources, machine)
    if secrets_as_variables:
        variables = Variables({one.name: one.table for one in there}, [one.table for one in found])
        for one in found:
            variables.put(one.name, one.table)
    chosen, about = merged([*there, *found], prefer)
    new = [one for one in chosen if not any(one is other for other in there)]
    remarks += [remark for one in new for remark in one.remarks]
    return Plan({one.name: one.table for one in new}, remarks + about)


def _converted(sources: Iterable[Source], machine: Machine) -> tuple[list[Imported], list[Remark]]:
    """Every server that can be imported, and what there is to say about the others."""
    entries = [(source, *entry) for source in sources for entry in entries_of(source.document)]
    found: list[Imported] = []
    remarks: list[Remark] = []
    for source, section, old, entry in entries:
        in_seconds = section == "mcp_servers" or source.in_seconds
        name = mended(old)
        conversion = Conversion(name, source.folder, machine, in_seconds=in_seconds)
        if name != normal(old):
            conversion.remark("note", "import_renamed", old=old)
        if conversion.convert(entry):
            found.append(Imported(name, conversion.table, str(source.path), conversion.remarks))
        else:
            remarks += conversion.remarks
    return found, remarks


def entries_of(document: object) -> Iterator[tuple[str, str, object]]:
    """The section, the name and the entry of each server."""
    for section, servers in sections_of(document):
        yield from ((section, name, entry) for name, entry in servers.items())


def sections_of(document: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The places for servers in a file, be they empty; also below `mcp`, as in the settings of VS Code."""
    if isinstance(document, dict):
        servers = ((section, document.get(section)) for section in SECTIONS)
        yield from ((section, found) for section, found in servers if isinstance(found, dict))
        yield from sections_of(document.get("mcp"))


def mended(name: str) -> str:
    """What a server is called in `broker.toml`: its own name where that is possible.

    What is derived depends on the old name only: another import makes the same of it, and of no other name.
    """
    return derived(name) if why_not(normal(name)) else normal(name)


def merged(found: Iterable[Imported], prefer: Prefer | None) -> tuple[list[Imported], list[Remark]]:
    """One definition for each name.

    Raises:
        Clash: two definitions differ, and `prefer` is not given.
    """
    chosen: dict[str, Imported] = {}
    remarks: list[Remark] = []
    clashes: list[Remark] = []
    for one in found:
        other = chosen.setdefault(one.name, one)
        if other is one:
            continue
        keys = differences(other.table, one.table)
        if not keys:
            remarks.append(_about("note", "import_same", other, one))
        elif prefer is None:
            clashes.append(_about("fault", "import_clash", other, one, keys))
        else:
            taken, left = (other, one) if prefer == "first" else (one, other)
            chosen[one.name] = taken
            remarks.append(_about("note", "import_preferred", taken, left, keys))
    if clashes:
        raise Clash(clashes)
    return list(chosen.values()), remarks


def differences(one: Table, other: Table) -> list[str]:
    """The keys of `KEYS` in which two definitions differ. A key that is left out has its default."""
    empty = {"command": "", "args": [], "env": {}}
    fields = {field.name: field.default for field in msgspec.structs.fields(ServerConfig)} | empty
    return [key for key in KEYS if one.get(key, fields[key]) != other.get(key, fields[key])]


def _about(
    level: Literal["note", "fault"], word: str, one: Imported, other: Imported, keys: Iterable[str] = ()
) -> Remark:
    facts = {"server": one.name, "one": one.origin, "other": other.origin, "keys": ", ".join(keys)}
    return Remark(level, word, facts)
