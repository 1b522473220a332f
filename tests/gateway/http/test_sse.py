"""Events, their ids, and what a client that comes back has missed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from broker.gateway.conversation.jsonrpc import MAX_ID_BYTES
from broker.gateway.http.sse import EventPosition, Replay, event, place_of, primer

STREAM = "0123456789abcdef"


def events_in(stream: bytes) -> list[dict[str, str]]:
    """What a client reads: the HTML standard's algorithm, with all three line ends."""
    text = stream.decode().replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in text.split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in filter(None, block.split("\n")):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if fields:
            found.append({name: "\n".join(values) for name, values in fields.items()})
    return found


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=5))
def test_a_message_arrives_whole_whatever_whitespace_is_in_it(value: Any) -> None:
    """An SSE `data:` line ends at a raw CR: JSON with one in it (the trap of the SDK's transport) arrives."""
    text = json.dumps(value, indent=1).replace("\n", "\r").encode()
    (read,) = events_in(event(text, "a.b.1"))
    assert json.loads(read["data"]) == value
    assert read["id"] == "a.b.1"


def test_a_primer_has_an_id_and_no_data() -> None:
    """2025-11-25, "Sending Messages to the Server", rule 6."""
    assert events_in(primer("x")) == [{"id": "x", "data": ""}]


@given(st.binary(max_size=MAX_ID_BYTES), st.integers(0, 10**14))
@example(bytes(MAX_ID_BYTES), 1)
def test_an_event_id_names_its_stream_and_request(request: bytes, number: int) -> None:
    """Also the longest id of a request: a client that comes back after a restart of the gateway is told under
    this id that the answer is lost."""
    place = EventPosition(STREAM, request, number)
    assert place_of(str(place)) == place


@given(st.text())
def test_any_other_id_is_unknown(text: str) -> None:
    place = place_of(text)
    assert place is None or str(place).partition(".")[0] == text.partition(".")[0]


def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    """2025-11-25, "Resumability and Redelivery"."""
    replay = Replay(STREAM, b"1", 10_000)
    sent = [replay.add(b'{"n":%d}' % number) for number in range(5)]
    assert replay.after(2) == sent[2:]
    assert replay.after(5) == []
    assert place_of(replay.here) == EventPosition(STREAM, b"1", 5)


@given(
    st.lists(st.binary(max_size=300).map(lambda raw: json.dumps(raw.hex()).encode())), st.integers(100, 2000)
)
def test_what_is_kept_is_bounded(messages: list[bytes], limit: int) -> None:
    """Law 6; law 9: what is forgotten is counted."""
    replay = Replay(STREAM, b"", limit)
    for message in messages:
        replay.add(message)
    assert replay.held_bytes <= limit
    assert len(replay.after(0)) + replay.forgotten == len(messages)
