"""JSON as `mcp-broker import` reads it: comments, trailing commas, a mark, and nothing else is loosened."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.command.importing.jsonc import NotJson, loads, place
from tests.command.importing.asking import Run, Write, servers

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1,}', {"a": 1}),
        ("[1, 2, ]", [1, 2]),
        ('{"a": [1,],}', {"a": [1]}),
        ('// first\n{"a": 1} // last', {"a": 1}),
        ('{/* "a": 0, */"a": 1}', {"a": 1}),
        ('{"a": 1, /* no more */ }', {"a": 1}),
        ('{"a": 1, // no more\n}', {"a": 1}),
        ('{"a": "//x, }"}', {"a": "//x, }"}),
        (r'{"a": "\" // "}', {"a": '" // '}),
        ('{"a": "/* x */",}', {"a": "/* x */"}),
        (r'{"a": "^\\d+\\s"}', {"a": r"^\d+\s"}),
        (r'{"a": "C:\\temp\\new"}', {"a": r"C:\temp\new"}),
    ],
)
def test_comments_and_trailing_commas(text: str, value: object) -> None:
    """As editors keep them; what stands in a text is untouched."""
    assert loads(text) == value


REFUSED = {
    r'{"a": "\d"}': (7, "json_backslash"),
    r'{"a": "^\\d+\s*"}': (12, "json_backslash"),
    r'{"a": "\x41"}': (7, "json_backslash"),
    r'{"a": "\u12"}': (7, "json_backslash"),
    r'{"a": "it\'s"}': (9, "json_backslash"),
    '{"a": "x\ty"}': (8, "json_control"),
    '{"a": "x\ny"}': (8, "json_control"),
    '{"a": "x\0y"}': (8, "json_control"),
    "{'a': 1}": (1, "json_quote"),
    "{\"a\": 'x'}": (6, "json_quote"),
    "{a: 1}": (1, "json_key"),
    '{"a": NaN}': (6, "json_number"),
    '{"a": NaN1}': (6, "json_number"),
    '{"a": -Infinity}': (6, "json_number"),
    '{"a": [1,], "b": Infinity}': (17, "json_number"),
    '{"a": 0x10}': (7, "json_number"),
    '{"a": +1}': (6, "json_number"),
    '{"a": .5}': (6, "json_number"),
    '{"a": 1.}': (7, "json_number"),
    '{"a": 01}': (7, "json_number"),
    '{"a": True}': (6, "json_word"),
    '{"a": undefined}': (6, "json_word"),
    "[,]": (1, "json_empty"),
    "{,}": (1, "json_empty"),
    "[1,,2]": (3, "json_empty"),
    "[1,,]": (3, "json_empty"),
    '{"a": }': (6, "json_empty"),
    '{"a" 1}': (5, "json_colon"),
    '{"a": 1 "b": 2}': (8, "json_comma"),
    '{"a": 1}}': (8, "json_extra"),
    '{"a": [1, 2}': (11, "json_extra"),
    '{"a": "x': (6, "json_unterminated"),
    '{"a": {"b": 1}': (14, "json_unclosed"),
    '{"a": 1} /* x': (9, "json_comment"),
    "# x\n{}": (0, "json_comment"),
    '{"a": npx}': (6, "json_text"),
    "": (0, "json_nothing"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_nothing_else_is_loosened(text: str) -> None:
    """Each mistake has its place and its own words."""
    with pytest.raises(NotJson) as caught:
        loads(text)
    assert (caught.value.at, caught.value.word) == REFUSED[text]


@given(values, st.data())
def test_what_is_added_changes_nothing(value: object, data: st.DataObject) -> None:
    """Comments and spaces between any two tokens, and a comma before a bracket that follows a value."""
    pieces = json.JSONEncoder(ensure_ascii=data.draw(st.booleans())).iterencode(value)
    noise = st.sampled_from(["", " ", "\n", '// "x\n', "/* , ] } */"])
    text = ""
    for piece in pieces:
        trailing = (
            "," if piece in ("]", "}") and text.rstrip()[-1:] not in "[{" and data.draw(st.booleans()) else ""
        )
        text += trailing + (data.draw(noise) if piece in ("]", "}", "[", "{") else "") + piece
    assert loads(text + data.draw(noise)) == value


@given(values, st.data())
def test_a_text_that_was_changed_is_read_as_the_standard_reads_it(value: object, data: st.DataObject) -> None:
    """One character more, less or other: the same value as from the standard library, or an error in it."""
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    other = data.draw(st.sampled_from(["", "\\", "'", '"', "x", "0", "+", "\t", ".", "N", "]", "{", ":"]))
    changed = text[:at] + other + text[at + data.draw(st.integers(0, 1)) :]
    try:
        expected: Any = json.loads(changed, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        expected = NotJson
    found, at = _read(changed)
    assert 0 <= at <= len(changed)
    assert found == expected or (
        expected is NotJson and (",]" in changed or ",}" in changed.replace(" ", ""))
    )


def _read(text: str) -> tuple[Any, int]:
    """The value of a text, or where it is not JSON."""
    try:
        return loads(text), 0
    except NotJson as error:
        return NotJson, error.at


def test_the_place_is_told_with_what_to_write(run: Run, write: Write) -> None:
    """Line and column, in a file with comments too; nothing is written."""
    path = write(
        "a.json", '{ // mine\n  "mcpServers": {\n    "grep": {"command": "grep", "args": ["\\d+"]}\n}}'
    )
    done = run(path)
    assert done.exit_code == 2
    assert f"{path}:3:43: not JSON: a single \\ in a text; write it twice: \\\\ is one" in done.stderr


def test_an_error_never_shows_a_value(run: Run, write: Write) -> None:
    """A secret without its quotation marks is not repeated."""
    for text in ('{"KEY": sk-live-0123456789}', '{"KEY": "a" sk-live-0123456789}', "{sk-live-0123456789: 1}"):
        assert "0123456789" not in run(write("a.json", text)).stderr


def test_a_backslash_that_is_lost_is_told(run: Run, write: Write) -> None:
    """`\\b` and `\\t` are valid, and mean a control character: most likely nobody wanted one."""
    done = run(write("a.json", r'{"mcpServers": {"a": {"command": "npx", "args": ["\bword\b"]}}}'))
    assert "it contains the control character \\x08; if a \\ was meant, write it twice" in done.stderr
    assert servers()["a"]["args"] == ["\bword\b"]


def test_line_and_column() -> None:
    """Both from 1."""
    assert [place("ab\ncd", at) for at in (0, 1, 3, 4, 5)] == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
