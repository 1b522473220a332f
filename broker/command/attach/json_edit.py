"""Finds and writes the entries of a section in JSON with comments, without changing anything else.

Source: RFC 8259; the "JSON with comments" mode of VS Code, which Zed, OpenCode and Gemini CLI read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from broker.command.importing.jsonc import Token, tokens

_OPENING, _CLOSING = ("{", "["), ("}", "]")


def entries(text: str, section: Sequence[str]) -> dict[str, slice]:
    """Return where the value of each entry of a section stands. Entries with duplicate keys are left out.

    Args:
        text: valid JSON with comments.
        section: the keys that lead to the section.
    """
    parts = [token for token in tokens(text) if token.kind not in ("comment", "space")]
    at = 0
    for key in section:
        found = [first for name, first, _ in _members(parts, at) if name == key]
        if len(found) != 1:
            return {}
        at = found[0]
    places: dict[str, slice] = {}
    names = [name for name, _, _ in _members(parts, at)]
    for name, first, last in _members(parts, at):
        if names.count(name) == 1:
            places[name] = slice(parts[first].at, parts[last].at + len(parts[last].text))
    return places


def _members(parts: Sequence[Token], at: int) -> Iterator[tuple[str, int, int]]:
    """Yield each key of the object at this token, with the first and the last token of its value."""
    if parts[at].text != "{":
        return
    at += 1
    while parts[at].text != "}":
        if parts[at].text == ",":
            at += 1
            continue
        name, first = json.loads(parts[at].text), at + 2  # after the colon
        last = _last(parts, first)
        yield name, first, last
        at = last + 1


def _last(parts: Sequence[Token], first: int) -> int:
    """Return the last token of the value that begins with this token."""
    depth, at = 0, first
    while True:
        depth += (parts[at].text in _OPENING) - (parts[at].text in _CLOSING)
        if depth == 0:
            return at
        at += 1


def inserted(text: str, section: Sequence[str], name: str, value: str) -> str | None:
    """Return the text with a new first entry in a section; `None` if there is no such section."""
    parts = [token for token in tokens(text) if token.kind not in ("comment", "space")]
    at = 0
    for key in section:
        found = [first for one, first, _ in _members(parts, at) if one == key]
        if len(found) != 1:
            return None
        at = found[0]
    if parts[at].text != "{":
        return None
    begin, rest = parts[at].at + 1, parts[at + 1]
    gap = text[begin : rest.at] if text[begin : rest.at].isspace() else " "
    comma = "," if rest.text != "}" else ""
    return f"{text[:begin]}{gap}{json.dumps(name, ensure_ascii=False)}: {value}{comma}{text[begin:]}"


def rendered(text: str, place: slice, value: Mapping[str, object]) -> str:
    """Return a value in the layout of the one at this place: on one line, or a line for each key."""
    old, items = text[place], list(value.items())
    if "\n" not in old or not items:
        return json.dumps(value, ensure_ascii=False)
    line_end = "\r\n" if "\r\n" in text else "\n"
    begin = text.rfind("\n", 0, place.start) + 1
    base = re.match(r"[ \t]*", text[begin:])[0]  # type: ignore[index]
    inner = re.search(r"\n([ \t]*)[^\s}]", old)
    indent = inner[1] if inner and len(inner[1]) > len(base) else f"{base}  "
    lines = [f"{indent}{json.dumps(key, ensure_ascii=False)}: {_value(item)}" for key, item in items]
    return f"{{{line_end}{f',{line_end}'.join(lines)}{line_end}{base}}}"


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
