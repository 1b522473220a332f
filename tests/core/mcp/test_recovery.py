"""The id of a line that does not parse: that of the line itself, or none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mcp.recovery import abridged, recover_id
from tests.core.json_text import values
from tests.core.mcp.test_pieces import result_of


@pytest.mark.parametrize(
    ("line", "id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}', 7),
        (b'{"result":{"id":1,"a":[{"id":2}]},"id": -7 ,"x":NaN}', -7),
        (b'{"id":"abc","result":NaN}', "abc"),
        (b'{"result":"\\"id\\":5,","id":7,NaN}', 7),
        (b'{"result":{"id":7,"a":NaN', None),
        (b'{"result":["id",7,NaN],"id":8,', 8),
        (b'{"id":12', None),
        (b'{"id":12 ', None),
        (b'{"id":12.5,NaN}', None),
        (b'{"id":1e3,NaN}', None),
        (b'{"id":null,NaN}', None),
        (b'{"id":[1],NaN}', None),
        (b'{"id":"a\\u0062",NaN}', None),
        (b'{"id":' + b"1" * 5000 + b",NaN}", None),
        (b"no json, id:7", None),
        (b'"id":7,', None),
        (b"", None),
    ],
)
def test_the_id_of_a_broken_line(line: bytes, id: object) -> None:
    """Section 5 and law 8: the call ends at once with the id of the line itself, whole or not at all."""
    assert recover_id(line) == id


@given(st.integers(0, 2**63 - 1), values, st.data())
def test_a_line_that_was_cut_gives_its_own_id_or_none(id: int, value: object, data: st.DataObject) -> None:
    """Law 3: no id from inside of a result, and none that was cut short, ends another call."""
    members = {"id": id, "result": {"id": 1, "inner": value}, "jsonrpc": "2.0"}
    order = data.draw(st.permutations(list(members)))
    line = json.dumps({key: members[key] for key in order}).encode()
    cut = data.draw(st.integers(0, len(line)))
    assert recover_id(line) == id
    assert recover_id(line[:cut]) in (id, None)


def test_a_string_without_an_end_is_read_once() -> None:
    """Law 5: with a look at the rest for each quote in it, this line would take longer than the test may."""
    assert recover_id(b'{"result":"' + rb"\"" * 400_000) is None
    assert recover_id(b'{"result":"' + rb"\"" * 400_000 + b"\\") is None


@pytest.mark.parametrize(
    ("end", "id"),
    [
        (b'],"jsonrpc":"2.0","id":7}', 7),
        (b'],"id":"a-7" , "jsonrpc":"2.0"} \r', "a-7"),
        (b'],"x":{"id":7}', None),
        (b'],"x":{"id":7}}', None),
        (b'],"x":"id","id":7.5}', None),
        (b'],"x":"\\"id\\":7}', None),
        (b'"id":7}', None),
        (b"", None),
    ],
)
def test_the_id_behind_a_long_result(end: bytes, id: object) -> None:
    """Laws 3 and 5: of a long line only beginning and end are looked at, and none inside of it is its own."""
    assert recover_id(b'{"result":[' + b'{"id":1,"a":NaN},"[",' * 5000 + b"NaN" + end) == id


@pytest.mark.parametrize("piece", [b"[", b'"",', b'{"id":1},'])
def test_a_long_line_that_does_not_parse_holds_nobody_up(piece: bytes) -> None:
    """Law 5: to go through the whole of it would take longer than the test may."""
    assert recover_id(b'{"result":[' + piece * (32 * 2**20 // len(piece))) is None


@pytest.mark.parametrize("inside", [b'{"id":1},', b'"x\\"id\\":1,', b"[[],[]],"])
@pytest.mark.parametrize(
    ("end", "id"), [(b'NaN],"id":7}', 7), (b'NaN],"x":{"id":7}', None), (b'"id":7}', None)]
)
def test_a_long_line_is_told_by_its_head_and_its_tail(inside: bytes, end: bytes, id: object) -> None:
    """Law 3: what is left out between them changes neither what is open nor what is in a string."""
    inside += b'",' if inside.startswith(b'"') else b""
    line = b'{"result":[' + inside * (2**20 // len(inside)) + end
    short = result_of(abridged(line))
    assert len(short) < 2**17
    assert recover_id(short) == recover_id(line) == id
