"""Decides what `detach` restores, entry by entry, and writes the new text. No I/O of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import tomli

from broker.command.attach import json_edit, toml_edit
from broker.command.attach.hosts import ADDRESS_KEYS, PROCESS_KEYS, Host
from broker.command.attach.ledger import Record
from broker.command.attach.plan import HostDocument, entries_of, parsed, with_values
from broker.command.importing import jsonc
from broker.command.importing.shapes import Table

_IDENTITY = ("command", "args", "url", "serverUrl", "httpUrl")
"""The keys by which an entry of the broker is known. If the user changed one, the entry is the user's."""


class Restored(NamedTuple):
    """What a detach changes.

    Attributes:
        text: the new text of the host's file.
        values: the entries that it restores, as the values that they were.
        finished: the entries whose records are no longer needed.
        edited: entry → the keys that were changed meanwhile, which keep their new values.
        dropped: entry → the keys about the process that were changed meanwhile, which are restored.
        changed: the entries that run something else by now, which stay as they are.
        missing: the entries that were removed meanwhile.
    """

    text: str
    values: dict[str, Table]
    finished: list[str]
    edited: dict[str, str]
    dropped: dict[str, str]
    changed: list[str]
    missing: list[str]


def restored(
    host: Host, document: HostDocument, records: Mapping[str, Record], *, force: bool = False
) -> Restored:
    """Return what restoring these entries changes.

    Args:
        force: restore entries that run something else by now, and entries that were removed, too.
    """
    result = Restored(document.text, {}, [], {}, {}, [], [])
    texts: dict[str, Table | str] = {}
    for name, record in records.items():
        current = entries_of(document).get(name)
        if current is None or name not in document.places:
            result.missing.append(name)
            continue
        before = value_of(host, document.section, name, record.before)
        keys = sorted(key for key in {*record.after, *current} if current.get(key) != record.after.get(key))
        if current == before:
            result.finished.append(name)
        elif not keys or (force and set(keys) & set(_IDENTITY)):
            texts[name], result.values[name] = record.before, before
        elif not set(keys) & set(_IDENTITY):
            kept = [key for key in keys if key not in (*PROCESS_KEYS, *ADDRESS_KEYS)]
            texts[name] = record.before if not kept else _with_edits(before, current, kept)
            result.values[name] = _with_edits(before, current, kept)
            if kept:
                result.edited[name] = ", ".join(kept)
            dropped = [key for key in keys if key not in kept]
            if dropped:
                result.dropped[name] = ", ".join(dropped)
        else:
            result.changed.append(name)
    result.finished.extend(texts)
    result = result._replace(text=with_values(host, document, texts))
    return _with_missing(host, document.section, records, result) if force else result


def _with_missing(
    host: Host, section: tuple[str, ...], records: Mapping[str, Record], result: Restored
) -> Restored:
    """Return the result with the entries that were removed, inserted again where the section still exists."""
    edit = toml_edit if host.format == "toml" else json_edit
    for name in list(result.missing):
        text = edit.inserted(result.text, section, name, records[name].before)
        before = value_of(host, section, name, records[name].before)
        if text is not None and entries_of(parsed(host, text, PurePath(host.name))).get(name) == before:
            result = result._replace(text=text)
            result.values[name] = before
            result.missing.remove(name)
            result.finished.append(name)
    return result


def value_of(host: Host, section: tuple[str, ...], name: str, text: str) -> Table:
    """Return the value of an entry's text."""
    if host.format == "json":
        value: Any = jsonc.loads(text)
    else:
        value = tomli.loads(text)
        for key in (*section, name):
            value = value[key]
    return dict(value)


def _with_edits(before: Table, current: Mapping[str, object], keys: list[str]) -> Table:
    """Return the entry as it was, with what the user changed since."""
    kept = {key: value for key, value in before.items() if key not in keys}
    return {**kept, **{key: current[key] for key in keys if key in current}}
