"""Decides which entries of a host's file are attached, and writes the new text. No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import tomli

from broker.command.attach import json_edit, toml_edit
from broker.command.attach.hosts import Host
from broker.command.attach.ledger import Record, is_exact
from broker.command.attach.shared import bound
from broker.command.attach.texts import AttachError
from broker.command.importing import jsonc
from broker.command.importing.conversion import Conversion, Machine, Remark
from broker.command.importing.hosts import Found, servers_in, switched
from broker.command.importing.naming import valid_name
from broker.command.importing.placeholders import SYSTEM_VARIABLES, named_in
from broker.command.importing.plan import Source, differences
from broker.command.importing.secrets import VariableNames, variables_of
from broker.command.importing.shapes import Table, flat, is_server, own_of_host, remote

CONNECT = "connect"

_PER_HOST = ("timeout", "timeout_start_sec", "enabled")
"""The keys in which the definitions of two hosts may differ: they stay in each host's entry."""

_UNSAID = ("import_private", "import_program", "import_left_out", "import_timeout", "import_time")
"""The remarks of an import that do not concern a host that keeps its keys, and a broker of the same user."""


class Left(NamedTuple):
    """An entry that stays as it is: its name, and the word of `texts` that says why, with its facts."""

    name: str
    word: str
    facts: Mapping[str, object]


class Plan(NamedTuple):
    """What an attach changes.

    Attributes:
        text: the new text of the host's file.
        records: what each attached entry was and is, by its name.
        tables: the servers that are new in `broker.toml`, by their names there.
        left: the entries that stay as they are.
        remarks: what the user should know of the new servers.
    """

    text: str
    records: dict[str, Record]
    tables: dict[str, Table]
    left: list[Left]
    remarks: list[Remark]


class HostDocument(NamedTuple):
    """A host's file: its text, its value, and where each entry stands."""

    text: str
    value: dict[str, Any]
    section: tuple[str, ...]
    places: dict[str, slice]


def parsed(host: Host, text: str, path: PurePath) -> HostDocument:
    """Parse a host's file.

    Raises:
        AttachError: it is not what the host writes.
    """
    try:
        value = tomli.loads(text) if host.format == "toml" else jsonc.loads(text or "{}")
    except tomli.TOMLDecodeError as error:
        raise AttachError("attach_not_toml", path=path, problem=error) from None
    except jsonc.NotJson as error:
        line, _ = jsonc.place(text, error.at)
        raise AttachError("attach_not_json", path=path, line=line) from None
    except RecursionError:
        raise AttachError("attach_not_json", path=path, line=1) from None
    if not isinstance(value, dict):
        raise AttachError("attach_not_json", path=path, line=1)
    section = next((keys for keys in host.sections if _at(value, keys)), host.sections[0])
    edit = toml_edit if host.format == "toml" else json_edit
    return HostDocument(text, value, section, edit.entries(text, section) if _at(value, section) else {})


def _at(value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def entries_of(document: HostDocument) -> dict[str, Any]:
    """Return the entries of the host's section, by name."""
    return _at(document.value, document.section)


def attached(
    host: Host,
    document: HostDocument,
    path: PurePath,
    machine: Machine,
    *,
    existing: Mapping[str, Table | None],
    entry_for: Callable[[Table, str], Table],
    named: tuple[str, ...] = (),
) -> Plan:
    """Return what attaching the servers of a host's file changes.

    Args:
        existing: the servers of the broker by name; `None` for a definition that cannot be read.
        entry_for: makes the new entry of an old one and the server's name.
        named: the servers that the user named. Only these are attached, also if they would stay otherwise.
    """
    plan = Plan(document.text, {}, {}, [], [])
    entries = entries_of(document)
    everything = switched(servers_in(document.value, path, host.format) or [], document.value)
    found = [one for one in everything if one.folder is not None or one.name in entries]
    variables = VariableNames(SYSTEM_VARIABLES.union(named_in([one.entry for one in found])))
    new: dict[str, Table] = {}
    for one in found:
        if named and (one.name not in named or one.folder is not None):
            continue
        left = _left(one, document, is_named=bool(named))
        if left is None:
            left = _take(
                one, path, machine, variables, {**existing, **plan.tables}, plan, is_named=bool(named)
            )
        if left is not None:
            plan.left.append(left)
            continue
        new[one.name] = entry_for(entries[one.name], valid_name(one.name))
    for name, after in new.items():
        before = document.text[document.places[name]]
        plan.records[name] = Record(server=valid_name(name), before=before, after=after)
    unknown = [name for name in named if name not in {one.name for one in found if one.folder is None}]
    plan.left.extend(Left(name, "attach_unknown", {}) for name in unknown)
    return plan._replace(text=with_values(host, document, new))


def _left(one: Found, document: HostDocument, *, is_named: bool) -> Left | None:
    """Return why an entry stays as it is, by the entry itself."""
    if not isinstance(one.entry, dict) or not is_server(one.entry):
        return Left(one.name, "attach_no_server", {})
    entry = flat(one.entry)
    if is_connected(entry):
        return Left(one.name, "attach_already", {})
    if kind := own_of_host(entry) or remote(entry):
        return Left(one.name, "attach_remote", {"kind": kind})
    if one.folder is None and one.name not in document.places:
        return Left(one.name, "attach_form", {})
    if (key := next((key for key, value in one.entry.items() if not is_exact(value)), None)) is not None:
        return Left(one.name, "attach_inexact", {"key": key})
    if is_named:
        return None
    if (reason := bound(entry, one.folder)) is not None:
        return Left(one.name, *reason)
    is_off = one.off or entry.get("disabled") is True or entry.get("enabled") is False
    return Left(one.name, "attach_disabled", {}) if is_off else None


def is_connected(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry runs `mcp-broker connect`."""
    args = entry.get("args")
    program = str(entry.get("command", "")).rpartition("/")[2]
    return program == "mcp-broker" and isinstance(args, list) and args[:1] == [CONNECT]


def _take(
    one: Found,
    path: PurePath,
    machine: Machine,
    variables: VariableNames,
    existing: Mapping[str, Table | None],
    plan: Plan,
    *,
    is_named: bool,
) -> Left | None:
    """Put a server's table into the plan; return why it cannot be, if so."""
    name = valid_name(one.name)
    conversion = Conversion(name, one._replace(off=False), Source(path, []).folder, machine, variables)
    conversion.convert()
    stops = [remark for remark in conversion.remarks if remark.level == "fault"]
    stops += [one for one in conversion.remarks if one.word == "import_not_found" and not is_named]
    if stops:
        return Left(one.name, "attach_fault", {"remark": stops[0]})
    conversion.table.pop("enabled", None)
    needed = ", ".join(dict.fromkeys(variables_of(conversion.table)))
    if needed and not is_named and name not in existing:
        return Left(one.name, "attach_needs", {"variables": needed})
    if name not in existing:
        plan.tables[name] = conversion.table
        plan.remarks.extend(remark for remark in conversion.remarks if remark.word not in _UNSAID)
        return None
    there = existing[name]
    if is_named:
        return None
    if there is None:
        return Left(one.name, "attach_unread", {})
    keys = [key for key in differences(there, conversion.table) if key not in _PER_HOST]
    return Left(one.name, "attach_differs", {"keys": ", ".join(keys)}) if keys else None


def with_values(host: Host, document: HostDocument, values: Mapping[str, Table | str]) -> str:
    """Return the text with other values of these entries: as values, or as the texts that they were.

    Raises:
        AttachError: the result would not be what it should be; nothing is written then.
    """
    edit = toml_edit if host.format == "toml" else json_edit
    text = document.text
    for name in sorted(values, key=lambda name: document.places[name].start, reverse=True):
        value, place = values[name], document.places[name]
        new = value if isinstance(value, str) else edit.rendered(document.text, place, value)
        text = text[: place.start] + new + text[place.stop :]
    _check(host, document, text, values)
    return text


def _check(host: Host, document: HostDocument, text: str, values: Mapping[str, Table | str]) -> None:
    """Make sure that the new text differs from the old one in these entries only."""
    new = parsed(host, text, PurePath(host.name))
    there, was = entries_of(new), entries_of(document)
    expected = {name: value for name, value in values.items() if not isinstance(value, str)}
    is_same = (
        list(there) == list(was)
        and all(there[name] == was[name] for name in was if name not in values)
        and all(there[name] == value for name, value in expected.items())
        and _without(new.value, document.section) == _without(document.value, document.section)
    )
    if not is_same:
        raise AttachError("attach_not_edited", host=host.title)


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    """Return a value without what these keys lead to."""
    if not keys:
        return None
    first, *rest = keys
    return {key: _without(item, tuple(rest)) if key == first else item for key, item in value.items()}
