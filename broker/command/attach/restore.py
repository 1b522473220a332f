"""Decides what `detach` restores, entry by entry, and writes the new text. No I/O of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tomli

from broker.command.attach.hosts import Host
from broker.command.attach.ledger import Record
from broker.command.attach.plan import Document, entries_of, with_values
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
        edited: entry → the keys that the user changed meanwhile, which keep the user's values.
        changed: the entries that run something else by now, which stay as they are.
        missing: the entries that were removed meanwhile.
    """

    text: str
    values: dict[str, Table]
    finished: list[str]
    edited: dict[str, str]
    changed: list[str]
    missing: list[str]


def restored(
    host: Host, document: Document, records: Mapping[str, Record], *, force: bool = False
) -> Restored:
    """Return what restoring these entries changes.

    Args:
        force: restore entries that run something else by now, too.
    """
    result = Restored(document.text, {}, [], {}, [], [])
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
            texts[name] = result.values[name] = _with_edits(before, current, keys)
            result.edited[name] = ", ".join(keys)
        else:
            result.changed.append(name)
    result.finished.extend(texts)
    return result._replace(text=with_values(host, document, texts))


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
