"""Finds and writes the tables of a section in TOML, without changing anything else.

An entry is the table `[SECTION.NAME]` with its subtables, in one piece. tomlkit keeps the style of a file
too, but cannot give an entry back byte for byte once it was replaced, so the text itself is cut.
Source: TOML 1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tomli

from broker.config.names import toml_key

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*'
    r"|[\[\]{}]|\n|[^\"'#\[\]{}\n]+|.",
    re.DOTALL,
)


class Table(NamedTuple):
    """A table of a file: its keys from the root, and its text from the header to its last statement."""

    path: tuple[str, ...]
    start: int
    end: int


def entries(text: str, section: Sequence[str]) -> dict[str, slice]:
    """Return where each entry of a section stands. An entry that is not one piece of tables is left out."""
    found: dict[str, list[int]] = {}
    all_tables = list(tables(text))
    depth = len(section)
    for at, table in enumerate(all_tables):
        if len(table.path) > depth and table.path[:depth] == tuple(section):
            found.setdefault(table.path[depth], []).append(at)
    return {
        name: slice(all_tables[ats[0]].start, all_tables[ats[-1]].end)
        for name, ats in found.items()
        if ats == list(range(ats[0], ats[-1] + 1)) and all_tables[ats[0]].path == (*section, name)
    }


def tables(text: str) -> Iterator[Table]:
    """Yield the tables of a valid TOML file. Comments and empty lines after a table are not part of it."""
    path: tuple[str, ...] = ()
    start, end = -1, 0
    for first, last in _statements(text):
        if text[first] == "[":
            if start >= 0:
                yield Table(path, start, end)
            path, start = _path(text[first:last]), first
        end = last
    if start >= 0:
        yield Table(path, start, end)


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each header and each `key = value` begins and ends, its comment included."""
    depth, first, last = 0, -1, -1
    for token in _TOKEN.finditer(text):
        if token[0] == "\n" and depth == 0:
            if first >= 0:
                yield first, last
            first = -1
        elif token[0].strip():
            blank = len(token[0]) - len(token[0].lstrip())
            if first < 0 and not token[0].startswith("#"):
                first = token.start() + blank
            last = token.start() + len(token[0].rstrip())
            depth += (token[0] in ("[", "{")) - (token[0] in ("]", "}"))
    if first >= 0:
        yield first, last


def _path(header: str) -> tuple[str, ...]:
    """Return the keys of a table header; of an array of tables none, so that it belongs to no entry."""
    value: Any = tomli.loads(header)
    keys: list[str] = []
    while isinstance(value, dict) and value:
        ((key, value),) = value.items()
        keys.append(key)
    return tuple(keys) if isinstance(value, dict) else ()


def inserted(text: str, section: Sequence[str], name: str, value: str) -> str | None:
    """Return the text with the tables of an entry at its end; `None` if the entry is there already."""
    value_of: Any = tomli.loads(text)
    for key in section:
        value_of = value_of.get(key, {})
    line_end = "\r\n" if "\r\n" in text else "\n"
    return None if name in value_of else f"{text.rstrip()}{line_end * 2}{value}{line_end}"


def rendered(text: str, place: slice, value: Mapping[str, object]) -> str:
    """Return a table with the header of the one at this place, and these keys."""
    from tomlkit import inline_table, item

    old = text[place]
    line_end = "\r\n" if "\r\n" in text else "\n"
    lines = [old.partition("\n")[0].rstrip("\r")]
    for key, content in value.items():
        if isinstance(content, dict):
            table = inline_table()
            table.update(content)
            content = table
        lines.append(f"{toml_key(key)} = {item(content).as_string()}")
    return line_end.join(lines)
