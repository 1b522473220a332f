"""The wire protocol: every byte of it, and that no bytes of anybody's do more than be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_shim import wire
from client_shim.wire import Code, Kind, Message, WireError

GOLDEN = Path(__file__).parents[1] / "golden" / f"wire-v{wire.VERSION}.json"
VECTORS: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["vectors"]
SHAPES: dict[str, Any] = {kind.name.lower(): getattr(wire, kind.name.title()) for kind in Kind}

MAX_NUMBER = 2**63 - 1
numbers = st.integers(0, MAX_NUMBER)
texts = st.text(max_size=30)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
maps = st.dictionaries(texts, plain, max_size=5)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(wire.Hello, numbers, numbers, st.lists(st.integers(0, 9)), maps),
    st.builds(wire.Welcome, numbers, numbers, texts, texts, st.dictionaries(texts, numbers, max_size=3)),
    st.builds(
        wire.Request,
        *(numbers, numbers, texts, texts, texts),
        st.none() | st.integers(-(2**63), MAX_NUMBER),
        st.integers(0, 255),
        st.none() | maps,
    ),
    st.builds(wire.Result, numbers, numbers),
    st.builds(wire.Error, numbers, numbers),
    st.builds(wire.Fault, numbers, numbers, texts, texts, maps),
    st.builds(wire.Notification, numbers, numbers, texts, texts),
    st.builds(wire.Cancel, numbers, numbers, st.none() | texts),
    st.builds(wire.Credit, numbers, numbers, numbers),
    st.builds(wire.Question, numbers, numbers, numbers, texts, texts),
    st.builds(wire.Answer, numbers, numbers, st.booleans()),
    st.builds(wire.Goodbye, numbers, numbers, texts, st.none() | numbers),
)


# --- the golden vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_golden_vector(vector: dict[str, Any]) -> None:
    """Section 3: the vectors are the protocol. They change with the version, and with nothing else."""
    message = SHAPES[vector["kind"]](**vector["fields"])
    header = bytes.fromhex(vector["header"])
    assert wire.decode(header) == message
    assert type(wire.decode(header)) is type(message)
    assert wire.encode(message) == header
    wire.check_body(message, None if vector["body"] is None else vector["body"].encode())


def test_there_is_a_golden_vector_for_every_kind() -> None:
    """Section 3: no kind may change its bytes unseen."""
    assert {vector["kind"] for vector in VECTORS} == {kind.name.lower() for kind in Kind}
    assert {bytes.fromhex(vector["header"])[2] for vector in VECTORS} == set(Kind)


# --- what goes in comes out --------------------------------------------------------------------------


@settings(deadline=None)
@given(messages)
def test_decode_gives_back_what_was_encoded(message: Message) -> None:
    """Section 3: both ends see the same message, of the same type."""
    header = wire.encode(message)
    again = wire.decode(header)
    assert again == message
    assert type(again) is type(message)
    assert wire.encode(again) == header


# --- what is refused ---------------------------------------------------------------------------------


def packed(*fields: object) -> bytes:
    """Any array as a header."""
    return bytes(msgpack.packb(fields))


REFUSED = {
    "nothing at all": (b"", Code.MALFORMED),
    "not msgpack": (b"\xc1", Code.MALFORMED),
    "cut short": (wire.encode(wire.Result(1, 2))[:-1], Code.MALFORMED),
    "with something behind it": (wire.encode(wire.Result(1, 2)) + b"\x00", Code.MALFORMED),
    "text that is not UTF-8": (b"\x95\x01\x0c\x00\x00\xa1\xff", Code.MALFORMED),
    "a key that is a number": (b"\x96\x01\x01\x00\x00\x90\x81\x01\x02", Code.MALFORMED),
    "a map": (b"\x80", Code.MALFORMED),
    "a number": (b"\x01", Code.MALFORMED),
    "no elements": (packed(), Code.MALFORMED),
    "three elements": (packed(1, 4, 1), Code.MALFORMED),
    "a newer version that is shorter": (packed(2), Code.WIRE_VERSION),
    "deeper than msgpack goes": (b"\x91" * 5000 + b"\xc0", Code.MALFORMED),
    "an array of four thousand million": (b"\xdd\xff\xff\xff\xff\x01", Code.MALFORMED),
    "an older version": (packed(0, 4, 1, 1), Code.WIRE_VERSION),
    "a newer version": (packed(2, 4, 1, 1), Code.WIRE_VERSION),
    "a version that is true": (packed(True, 4, 1, 1), Code.WIRE_VERSION),
    "a version that is text": (packed("1", 4, 1, 1), Code.WIRE_VERSION),
    "kind 0": (packed(1, 0, 1, 1), Code.UNKNOWN_KIND),
    "kind 13": (packed(1, 13, 1, 1), Code.UNKNOWN_KIND),
    "a kind that is true": (packed(1, True, 1, 1), Code.UNKNOWN_KIND),
    "a kind that is text": (packed(1, "result", 1, 1), Code.UNKNOWN_KIND),
    "a kind that is a list": (packed(1, [4], 1, 1), Code.UNKNOWN_KIND),
    "channel -1": (packed(1, 4, -1, 1), Code.MALFORMED),
    "id -1": (packed(1, 4, 1, -1), Code.MALFORMED),
    "channel 2**63": (packed(1, 4, 2**63, 1), Code.MALFORMED),
    "id 2**63": (packed(1, 4, 1, 2**63), Code.MALFORMED),
    "an id that is text": (packed(1, 4, 1, "1"), Code.MALFORMED),
    "an id that is true": (packed(1, 4, 1, True), Code.MALFORMED),
    "an id that is a fraction": (packed(1, 4, 1, 1.0), Code.MALFORMED),
    "a field too many": (packed(1, Kind.RESULT, 1, 1, 1), Code.MALFORMED),
    "a field too few": (packed(1, Kind.CANCEL, 1, 1), Code.MALFORMED),
    "text for a number": (packed(1, Kind.CREDIT, 0, 0, "1"), Code.MALFORMED),
    "true for a number": (packed(1, Kind.CREDIT, 0, 0, True), Code.MALFORMED),
    "a number for true": (packed(1, Kind.ANSWER, 1, 1, 1), Code.MALFORMED),
    "bytes for text": (packed(1, Kind.GOODBYE, 1, 1, b"bye"), Code.MALFORMED),
    "nothing for text": (packed(1, Kind.GOODBYE, 1, 1, None), Code.MALFORMED),
    "nothing for a last id": (packed(1, Kind.GOODBYE, 0, 0, "bye", None), Code.MALFORMED),
    "true for a last id": (packed(1, Kind.GOODBYE, 0, 0, "bye", True), Code.MALFORMED),
    "a list for a map": (packed(1, Kind.REQUEST, 1, 1, "", "", "", None, 0, []), Code.MALFORMED),
    "above the limit": (packed(1, Kind.GOODBYE, 1, 1, "x" * wire.MAX_HEADER_BYTES), Code.TOO_LARGE),
}


@pytest.mark.parametrize(("header", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_decode_refuses(header: bytes, code: Code) -> None:
    """Section 3: a header that does not fit is refused with the code that says why."""
    with pytest.raises(WireError) as caught:
        wire.decode(header)
    assert caught.value.code is code


@pytest.mark.parametrize("fields", [(1, 13, 5, 6), (1, 4, 5, 6, 7)])
def test_a_refusal_names_channel_and_id_where_they_can_be_read(fields: tuple[int, ...]) -> None:
    """Law 10: whoever sent it learns which of its requests it was about."""
    with pytest.raises(WireError) as caught:
        wire.decode(packed(*fields))
    assert (caught.value.channel, caught.value.id) == (5, 6)


@pytest.mark.parametrize(
    "header",
    [
        packed("\x01" * 60_000, 4, 1, 1),
        packed(1, "\x01" * 60_000, 1, 1),
        b"\x94" + b"\x91" * 1000 + b"\xc0" + b"\x04\x01\x01",
        b"\x94\x01" + b"\x91" * 1000 + b"\xc0" + b"\x01\x01",
    ],
    ids=["long version", "long kind", "deep version", "deep kind"],
)
def test_a_refusal_is_short_whatever_was_refused(header: bytes) -> None:
    """Law 6: the refusal travels in a header itself, so what it quotes of the other side is bounded."""
    with pytest.raises(WireError) as caught:
        wire.decode(header)
    assert len(str(caught.value)) < 200


def test_a_header_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    """Law 6: `MAX_HEADER_BYTES` holds in both directions, to the byte."""
    frame = len(wire.encode(wire.Goodbye(0, 0, "x" * 60_000))) - 60_000
    longest = wire.Goodbye(0, 0, "x" * (wire.MAX_HEADER_BYTES - frame))
    assert wire.decode(wire.encode(longest)) == longest
    with pytest.raises(WireError, match="_meta") as caught:
        wire.encode(longest._replace(reason=longest.reason + "x"))
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize(
    "value", [object(), 2**64, "\ud800", {1, 2}], ids=["object", "big", "surrogate", "set"]
)
def test_encode_refuses_what_msgpack_cannot_carry(value: object) -> None:
    """Law 10: the caller gets a typed error before anything is sent."""
    with pytest.raises(WireError, match="cannot be sent") as caught:
        wire.encode(wire.Request(1, 1, "i", "s", "m", None, 0, {"k": value}))
    assert caught.value.code is Code.MALFORMED


def read(header: bytes) -> Message | WireError:
    """Decode any bytes, as either end does."""
    try:
        return wire.decode(header)
    except WireError as error:
        return error


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(header: bytes) -> None:
    """Law 5: no bytes of a client can raise anything else in the broker."""
    seen = read(header)
    assert not isinstance(seen, WireError) or str(seen)


@settings(deadline=None)
@given(st.lists(plain, max_size=8), st.sampled_from([*Kind]), st.booleans())
def test_any_array_is_a_message_or_a_wire_error(values: list[Any], kind: Kind, looks_right: bool) -> None:
    """Law 5: nor can any msgpack, also where its first elements are those of a message."""
    header = packed(wire.VERSION, kind, 1, 1, *values) if looks_right else packed(*values)
    seen = read(header)
    assert isinstance(seen, WireError) or wire.encode(seen) == header


@settings(deadline=None)
@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_a_wire_error(message: Message, data: st.DataObject) -> None:
    """Law 5: one wrong byte does not get past `decode` as an exception of another kind."""
    header = bytearray(wire.encode(message))
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    seen = read(bytes(header))
    assert 0 <= seen.id <= MAX_NUMBER


# --- bodies and costs --------------------------------------------------------------------------------

BODY_IS = {
    "hello": "refused",
    "welcome": "refused",
    "request": "allowed",
    "result": "needed",
    "error": "needed",
    "fault": "refused",
    "notification": "needed",
    "cancel": "refused",
    "credit": "refused",
    "question": "needed",
    "answer": "needed",
    "goodbye": "refused",
}


@pytest.mark.parametrize("kind", [kind.name.lower() for kind in Kind])
def test_a_kind_has_a_body_or_has_none(kind: str) -> None:
    """Section 3: a second frame where none belongs, or none where one does, is malformed."""
    vector = next(vector for vector in VECTORS if vector["kind"] == kind)
    message = SHAPES[kind](**vector["fields"])
    for body, fits in ((None, BODY_IS[kind] != "needed"), (b"{}", BODY_IS[kind] != "refused")):
        if fits:
            wire.check_body(message, body)
            continue
        with pytest.raises(WireError, match=kind) as caught:
            wire.check_body(message, body)
        assert caught.value.code is Code.MALFORMED
        assert (caught.value.channel, caught.value.id) == (message.channel, message.id)


def test_cost_is_what_both_ends_count() -> None:
    """Section 5, credit: header and body and the overhead of a message, whatever type the body has."""
    assert wire.cost(b"1234", None) == 4 + wire.MESSAGE_OVERHEAD_BYTES
    assert wire.cost(b"1234", b"56") == 6 + wire.MESSAGE_OVERHEAD_BYTES
    assert wire.cost(b"1234", memoryview(b"56")) == 6 + wire.MESSAGE_OVERHEAD_BYTES
    assert wire.cost(b"", memoryview(b"12345678").cast("I")) == 8 + wire.MESSAGE_OVERHEAD_BYTES
