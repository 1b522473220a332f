"""From other hosts' JSON to the servers of `broker.toml`: which, under what name, from which file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, NamedTuple

import msgspec

from broker.command.importing.entry import FEW, KEYS, Conversion, Machine, Remark
from broker.command.importing.hosts import PROJECT_FOLDERS, Found
from broker.command.importing.naming import mended, told_apart
from broker.command.importing.placeholders import Variables as Asked
from broker.command.importing.placeholders import named_in
from broker.command.importing.secrets import Variables
from broker.command.importing.shapes import Table
from broker.config.names import normal
from broker.config.schema import ServerConfig

Prefer = Literal["first", "last"]


class Source(NamedTuple):
    """One file that has been read: its absolute path, what it says and in which form, and its servers."""

    path: PurePath
    found: list[Found]

    @property
    def folder(self) -> str:
        """What is relative in it starts from here."""
        folder = self.path.parent
        return str(folder.parent if folder.name in PROJECT_FOLDERS else folder)


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
    read = list(sources)
    entries = [one.entry for source in read for one in source.found]
    variables = Asked(frozenset(named_in(entries)))
    found: list[Imported] = []
    remarks: list[Remark] = []
    for source in read:
        for name, one in zip(told_apart(source.found), source.found, strict=True):
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
    """The word for why a server has another name than in its file."""
    if name == normal(one.name):
        return None
    if not one.name:
        return "import_unnamed"
    return "import_renamed" if name == mended(one.name) else "import_apart"


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
    empty = {"command": "", "args": [], "env": {}, "env_inherit": []}
    fields = {field.name: field.default for field in msgspec.structs.fields(ServerConfig)} | empty
    keys = [key for key in KEYS if key in other or key not in FEW]
    return [key for key in keys if one.get(key, fields[key]) != other.get(key, fields[key])]


def _about(
    level: Literal["note", "fault"], word: str, one: Imported, other: Imported, keys: Iterable[str] = ()
) -> Remark:
    facts = {"server": one.name, "one": one.origin, "other": other.origin, "keys": ", ".join(keys)}
    return Remark(level, word, facts)
