"""Plans an import: which servers, under which names, from which file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Literal, NamedTuple

import msgspec

from broker.command.importing.conversion import KEYS, RARE_KEYS, Conversion, Machine, Remark
from broker.command.importing.hosts import PROJECT_FOLDERS, Found
from broker.command.importing.naming import distinct_names, valid_name
from broker.command.importing.placeholders import SYSTEM_VARIABLES, named_in
from broker.command.importing.secrets import (
    VariableNames,
    Variables,
    replace_secrets,
    variables_for,
    variables_of,
)
from broker.command.importing.shapes import Table
from broker.config.names import normal
from broker.config.schema import ServerConfig

Prefer = Literal["first", "last"]


class Source(NamedTuple):
    """A host's file: its absolute path and its servers."""

    path: PurePath
    found: list[Found]

    @property
    def folder(self) -> str:
        """The folder to which its paths are relative."""
        folder = self.path.parent
        return str(folder.parent if folder.name in PROJECT_FOLDERS else folder)


class Imported(NamedTuple):
    """One server as a table of `broker.toml`, and the file that it comes from."""

    name: str
    table: Table
    origin: str
    remarks: list[Remark]


class ImportPlan(NamedTuple):
    """The servers to write, by name, the remarks, and the variables."""

    servers: dict[str, Table]
    remarks: list[Remark]
    variables: Variables


class Clash(Exception):
    """Files define a server differently, and `prefer` is not given; `remarks` names all of them."""

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
    known: Mapping[str, str] | None = None,
) -> ImportPlan:
    """Return the servers to write and the remarks about them.

    Args:
        existing: the servers of the `broker.toml` to merge into; it counts as the first file.
        prefer: the file whose definition is taken if two differ.
        secrets_as_variables: whether to write `${NAME}` for secrets in `env`.
        known: variables that are set already, with their values.

    Raises:
        Clash: two files differ, and `prefer` is not given.
    """
    there = list(existing)
    found, remarks = _converted(sources, machine)
    secrets: dict[str, str] = {}
    if secrets_as_variables:
        tables = [(one.name, one.table) for one in found]
        secrets = replace_secrets(tables, {one.name: one.table for one in there}, known or {})
    chosen, about = merged([*there, *found], prefer)
    new = [one for one in chosen if not any(one is other for other in there)]
    remarks += [remark for one in new for remark in one.remarks]
    servers = {one.name: one.table for one in new}
    used = {name for one in chosen for name in variables_of(one.table)}
    used_secrets = {name: value for name, value in secrets.items() if name in used}
    return ImportPlan(servers, remarks + about, variables_for(servers, used_secrets, known or {}))


def _converted(sources: Iterable[Source], machine: Machine) -> tuple[list[Imported], list[Remark]]:
    """Return the servers that can be imported, and the remarks about the others."""
    read = list(sources)
    entries = [one.entry for source in read for one in source.found]
    variables = VariableNames(SYSTEM_VARIABLES.union(named_in(entries)))
    found: list[Imported] = []
    remarks: list[Remark] = []
    for source in read:
        for name, one in zip(distinct_names(source.found), source.found, strict=True):
            folder = one.folder or source.folder
            conversion = Conversion(name, one, folder, machine, variables)
            if word := _renamed(name, one):
                conversion.remark("note", word, old=one.name, folder=one.folder)
            if conversion.convert():
                found.append(Imported(name, conversion.table, str(source.path), conversion.remarks))
            else:
                remarks += conversion.remarks
    return found, remarks


def _renamed(name: str, one: Found) -> str | None:
    """Return the word that says why a server has another name than in its file."""
    if name == normal(one.name):
        return None
    if not one.name:
        return "import_unnamed"
    return "import_renamed" if name == valid_name(one.name) else "import_apart"


def merged(found: Iterable[Imported], prefer: Prefer | None) -> tuple[list[Imported], list[Remark]]:
    """Return one definition for each name.

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
    """Return the keys in which two definitions differ. A missing key has its default."""
    empty = {"command": "", "args": [], "env": {}, "env_inherit": []}
    fields = {field.name: field.default for field in msgspec.structs.fields(ServerConfig)} | empty
    keys = [key for key in KEYS if key in other or key not in RARE_KEYS]
    return [key for key in keys if one.get(key, fields[key]) != other.get(key, fields[key])]


def _about(
    level: Literal["note", "fault"], word: str, one: Imported, other: Imported, keys: Iterable[str] = ()
) -> Remark:
    facts = {"server": one.name, "one": one.origin, "other": other.origin, "keys": ", ".join(keys)}
    return Remark(level, word, facts)
