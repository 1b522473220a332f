"""A client's messages: whatever comes is read without an exception, and what passes on keeps its value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.jsonrpc import ClientRequest, InvalidMessage

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
IDS = st.integers(-(2**70), 2**70) | TEXTS


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_nothing_that_comes_raises(message: bytes) -> None:
    assert jsonrpc.read(message) is not None


@given(
    IDS,
    TEXTS,
    OBJECTS,
    st.none() | OBJECTS,
    st.sampled_from([None, 1, "t"]),
    st.sampled_from([None, 1, "\r\n"]),
)
def test_a_request_keeps_its_values(
    id: Any, method: str, params: dict[str, Any], meta: dict[str, Any] | None, token: Any, indent: Any
) -> None:
    """The params without their `_meta`, whatever white space is between them; all on one line."""
    params.pop("_meta", None)
    said = dict(params)
    if meta is not None:
        meta.pop("progressToken", None)
        said["_meta"] = meta if token is None else {**meta, "progressToken": token}
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": said}
    request = jsonrpc.read(json.dumps(message, indent=indent).encode())
    assert isinstance(request, ClientRequest)
    assert (json.loads(request.id), request.method) == (id, method)
    assert json.loads(request.params or b"") == params
    assert request.meta == (meta or {})
    assert request.token == (None if token is None or meta is None else json.dumps(token).encode())
    assert b"\n" not in (request.params or b"") + request.id


@pytest.mark.parametrize("id", [b"1", b'"1"', b"-5", b"1180591620717411303424", '"\u00e9"'.encode()])
def test_ids_of_another_type_are_other_ids(id: bytes) -> None:
    """The answer has the id in the type that it came in."""
    request = jsonrpc.read(b'{"jsonrpc":"2.0","id":%b,"method":"x"}' % id)
    assert isinstance(request, ClientRequest)
    assert request.id == id


@pytest.mark.parametrize(
    ("one", "other"),
    [(b'"a"', b'"\\u0061"'), (b'"/"', b'"\\/"'), (b"0", b"-0")],
)
def test_ids_that_are_equal_are_one(one: bytes, other: bytes) -> None:
    """However they are written: otherwise an open request would have two answers."""
    messages = [jsonrpc.read(b'{"jsonrpc":"2.0","id":%b,"method":"x"}' % id) for id in (one, other)]
    assert messages[0] == messages[1]


@pytest.mark.parametrize("number", [b"1e400", b"-0.0", b"1.0", b"123456789012345678901234567890", b"1E+2"])
def test_numbers_pass_as_they_are_written(number: bytes) -> None:
    request = jsonrpc.read(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"n":%b}}' % number)
    assert isinstance(request, ClientRequest)
    assert request.params == b'{"n":%b}' % number


def test_a_line_end_between_two_values_does_not_leave_the_message() -> None:
    """A host that reads lines by Python's rules would see two."""
    assert jsonrpc.result_message(b"1", b'{"a":\r1,\n"b":2}') == (
        b'{"jsonrpc":"2.0","id":1,"result":{"a": 1, "b":2}}'
    )


def test_what_nests_too_deep_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for message in (
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":%b}}' % deep,
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":%b}}}' % deep,
    ):
        assert isinstance(jsonrpc.read(message), InvalidMessage)
