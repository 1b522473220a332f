"""Entries are found and replaced in any JSON and TOML, and nothing else changes (properties)."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import pytest
import tomli
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.command.attach import json_edit, toml_edit
from broker.command.attach.hosts import BY_NAME, connecting
from broker.command.attach.ledger import Record
from broker.command.attach.plan import entries_of, parsed, with_values
from broker.command.attach.restore import restored
from broker.command.importing import jsonc

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is not a failure."""

CURSOR, CODEX = BY_NAME["cursor"], BY_NAME["codex"]
COMMAND = ["/usr/bin/mcp-broker", "connect", "x"]

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
SCALAR = st.one_of(st.booleans(), st.integers(-(10**6), 10**6), TEXT, st.just("[a] // \" # '"))
ENTRY = st.dictionaries(TEXT, st.one_of(SCALAR, st.lists(SCALAR, max_size=3)), max_size=4)
ENTRIES = st.dictionaries(TEXT, ENTRY, min_size=1, max_size=4)
BOOL = st.booleans()
SPACE = st.sampled_from(["", " ", "\n", "\r\n\t", "/* [{, */", "// }\n", " // \" '\n  "])


def jsonc_of(value: Any, draw: st.DrawFn) -> str:
    """Return a value as JSON with spaces, comments and trailing commas anywhere."""

    def gap() -> str:
        return draw(SPACE)

    if not isinstance(value, (dict, list)):
        return f"{gap()}{json.dumps(value, ensure_ascii=draw(BOOL))}{gap()}"
    items = [jsonc_of(item, draw) for item in (value.values() if isinstance(value, dict) else value)]
    if isinstance(value, dict):
        items = [f"{gap()}{json.dumps(key)}{gap()}:{item}" for key, item in zip(value, items, strict=True)]
    trailing = draw(st.sampled_from([",", ""])) if items else ""
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{gap()}{opening}{','.join(items)}{trailing}{gap()}{closing}{gap()}"


@st.composite
def json_files(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A host's file in JSON, with its servers."""
    servers = draw(ENTRIES)
    around = draw(st.dictionaries(st.sampled_from(["a", "mcp", "projects"]), SCALAR, max_size=2))
    value = {**around, "mcpServers": servers, "z": {"mcpServers": {"no": {"command": "x"}}}}
    return jsonc_of(value, draw), servers


@patiently
@given(json_files())
def test_json_entries_are_where_they_are_found(file: tuple[str, dict[str, Any]]) -> None:
    """Each place holds the value of its entry."""
    text, servers = file
    places = json_edit.entries(text, ("mcpServers",))
    assert {name: jsonc.loads(text[place]) for name, place in places.items()} == servers


@patiently
@given(json_files(), st.data())
def test_json_attached_and_restored_is_the_same_text(
    file: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    """Any subset of entries, replaced and restored: byte for byte what it was."""
    text, servers = file
    document = parsed(CURSOR, text, PurePath("x"))
    chosen = data.draw(st.sets(st.sampled_from(sorted(servers))))
    after = {name: connecting(CURSOR, servers[name], COMMAND) for name in chosen}
    new = with_values(CURSOR, document, after)
    assert entries_of(parsed(CURSOR, new, PurePath("x"))) == {**servers, **after}
    records = {
        name: Record(server=name, before=text[document.places[name]], after=after[name]) for name in chosen
    }
    result = restored(CURSOR, parsed(CURSOR, new, PurePath("x")), records)
    assert (result.text, result.changed, result.missing) == (text, [], [])


NAME = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6) | TEXT


@st.composite
def toml_files(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A host's file in TOML, with its servers as tables, some with a subtable."""
    servers: dict[str, Any] = draw(st.dictionaries(NAME, ENTRY, min_size=1, max_size=3))
    comment = st.sampled_from(["", "\n", "# [mcp_servers.fake]\n", '\n# """\n\n'])
    parts = [draw(comment), 'top = """\n[mcp_servers.fake]\n"""\n', draw(comment)]
    for name, entry in list(servers.items()):
        entry.pop("env", None)
        table = tomlkit.document()
        table["mcp_servers"] = tomlkit.table(is_super_table=True)
        table["mcp_servers"][name] = entry
        parts += [tomlkit.dumps(table).rstrip("\n"), draw(st.sampled_from(["\n", " # x\n"])), draw(comment)]
        if draw(st.booleans()):
            servers[name] = {**entry, "env": {"A": "b"}}
            parts += [f"[mcp_servers.{tomlkit.key(name).as_string()}.env]\nA = 'b'\n", draw(comment)]
    parts.append("[profiles.a]\nb = [\n 1, # ]\n]\n")
    return "".join(parts), servers


@patiently
@given(toml_files(), st.data())
def test_toml_attached_and_restored_is_the_same_text(
    file: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    """The same for TOML, where an entry is a table with its subtables."""
    text, servers = file
    document = parsed(CODEX, text, PurePath("x"))
    assert entries_of(document) == servers
    assert set(document.places) == set(servers)
    chosen = data.draw(st.sets(st.sampled_from(sorted(servers))))
    after = {name: connecting(CODEX, servers[name], COMMAND) for name in chosen}
    new = with_values(CODEX, document, after)
    assert tomli.loads(new)["mcp_servers"] == {**servers, **after}
    records = {
        name: Record(server=name, before=text[document.places[name]], after=after[name]) for name in chosen
    }
    assert restored(CODEX, parsed(CODEX, new, PurePath("x")), records).text == text


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers.time = { command = "uvx" }\n',
        '[mcp_servers]\ntime = { command = "uvx" }\n',
        '[mcp_servers.time.env]\nA = "b"\n[mcp_servers.time]\ncommand = "uvx"\n',
        '[mcp_servers.time]\ncommand = "uvx"\n[other]\n[mcp_servers.time.env]\nA = "b"\n',
    ],
)
def test_an_entry_in_pieces_is_left_out(text: str) -> None:
    """What is not one table with its subtables is not changed."""
    assert toml_edit.entries(text, ("mcp_servers",)) == {}


def test_duplicate_keys_are_left_out() -> None:
    """Which of two entries counts depends on the host's parser (law 8)."""
    text = '{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}, "b": {}}}'
    assert list(json_edit.entries(text, ("mcpServers",))) == ["b"]
    assert json_edit.entries('{"mcpServers": {}, "mcpServers": {"a": {}}}', ("mcpServers",)) == {}
