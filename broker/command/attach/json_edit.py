"""Finds and writes the entries of a section in JSON with comments, without changing anything else.

Source: RFC 8259; the "JSON with comments" mode of VS Code, which Zed, OpenCode and Gemini CLI read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from broker.command.importing.jsonc import integer, plain

_DECODER = json.JSONDecoder(parse_int=integer)
_GAP = re.compile(r"[ \t\r\n,:]*")


def entries(text: str, section: Sequence[str]) -> dict[str, slice]:
    """Return where the value of each entry of a section stands. Entries with duplicate keys are left out.

    Args:
        text: valid JSON with comments.
        section: the keys that lead to the section.
    """
    json_text = plain(text)
    at = _section(json_text, section)
    members = [] if at is None else list(_members(json_text, at))
    names = [name for name, _ in members]
    return {name: place for name, place in members if names.count(name) == 1}


def inserted(text: str, section: Sequence[str], name: str, value: str) -> str | None:
    """Return the text with a new first entry in a section; `None` if there is no such section."""
    json_text = plain(text)
    at = _section(json_text, section)
    if at is None or json_text[at] != "{":
        return None
    begin = at + 1
    first = _after_gap(json_text, begin)
    gap = text[begin:first] if text[begin:first].isspace() else " "
    comma = "," if json_text[first] != "}" else ""
    return f"{text[:begin]}{gap}{json.dumps(name, ensure_ascii=False)}: {value}{comma}{text[begin:]}"


def _section(text: str, keys: Sequence[str]) -> int | None:
    """Return where a section begins; `None` if it is missing, or stands there twice."""
    at = _after_gap(text, 0)
    for key in keys:
        found = [place.start for name, place in _members(text, at) if name == key]
        if len(found) != 1:
            return None
        at = found[0]
    return at


def _members(text: str, at: int) -> Iterator[tuple[str, slice]]:
    """Yield each key of the object at this position, with the place of its value."""
    if text[at] != "{":
        return
    at = _after_gap(text, at + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        first = _after_gap(text, at)
        _, last = _DECODER.raw_decode(text, first)
        yield name, slice(first, last)
        at = _after_gap(text, last)


def _after_gap(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def rendered(text: str, place: slice, value: Mapping[str, object]) -> str:
    """Return a value in the layout of the one at this place: on one line, or a line for each key.

    A member that the old value has too keeps its text: Python cannot hold every number of JSON.
    """
    old = text[place]
    items = list(_members_of(value, old))
    if "\n" not in old or not items:
        return f"{{{', '.join(items)}}}"
    line_end = "\r\n" if "\r\n" in text else "\n"
    begin = text.rfind("\n", 0, place.start) + 1
    base = re.match(r"[ \t]*", text[begin:])[0]  # type: ignore[index]
    inner = re.search(r"\n([ \t]*)[^\s}]", old)
    indent = inner[1] if inner and len(inner[1]) > len(base) else f"{base}  "
    lines = [f"{indent}{item}" for item in items]
    return f"{{{line_end}{f',{line_end}'.join(lines)}{line_end}{base}}}"


def _members_of(value: Mapping[str, object], old: str) -> Iterator[str]:
    """Yield the members of a value, those that the old text has too with the text that they have there."""
    json_text = plain(old)
    there = dict(_members(json_text, 0))
    for name, item in value.items():
        at = there.get(name)
        is_same = at is not None and _DECODER.decode(json_text[at]) == item
        yield f"{_json(name)}: {old[at] if at is not None and is_same else _json(item)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
