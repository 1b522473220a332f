"""What a relay does when the gateway is gone: the host must not notice, and nothing is sent twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.gateway.stdio.relay_state import MAX_REMEMBERED, RelayState

INITIALIZE = {"id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "x": [1, None]}}
TOLD = {"capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}}}


def line(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()


def read(lines: list[bytes]) -> list[Any]:
    return [json.loads(one) for one in lines]


def opened() -> RelayState:
    """A legacy session, with one subscription."""
    state = RelayState("n")
    state.from_host(line(INITIALIZE))
    assert state.from_gateway(line({"id": 0, "result": TOLD})) == [line({"id": 0, "result": TOLD})]
    state.from_host(line({"method": "notifications/initialized"}))
    state.from_host(line({"id": 1, "method": "resources/subscribe", "params": {"uri": "x:a"}}))
    state.from_gateway(line({"id": 1, "result": {}}))
    return state


def test_what_the_gateway_says_passes_as_it_is() -> None:
    state = opened()
    for passed in (
        b'{"jsonrpc":"2.0","id":7,"result":{"n":1e400}}',
        b"odd",
        b'{"jsonrpc":"2.0","method":"x"}',
    ):
        assert state.from_gateway(passed) == [passed]


def test_requests_without_an_answer_end_when_the_gateway_is_gone() -> None:
    """Law 8: whether they were carried out cannot be known."""
    state = opened()
    for id in (2, "2", 3, 4):
        state.from_host(line({"id": id, "method": "tools/call"}))
    state.from_gateway(line({"id": 3, "result": {}}))
    state.from_host(line({"method": "notifications/cancelled", "params": {"requestId": 4}}))
    told = read(state.lost("the gateway is gone", []))
    assert [one["id"] for one in told] == [2, "2"]
    assert "unknown" in told[0]["error"]["message"]
    assert told[0]["error"]["data"]["outcome"] == "unknown"
    assert state.lost("once more", []) == []


@pytest.mark.parametrize(
    "value", [b"9" * 5000, b"-" + b"1" * 641, b"1e999", b"[" * 500 + b"]" * 500, b'"\\ud800"']
)
def test_whatever_a_request_holds_it_is_known_to_wait(value: bytes) -> None:
    """Law 2: what the gateway takes is answered here when the gateway is gone."""
    state = RelayState("n")
    state.from_host(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"a":%b}}' % value)
    assert [one["id"] for one in read(state.lost("gone", []))] == [7]


def test_what_the_gateway_cannot_have_read_is_sent_later_and_only_then() -> None:
    """Neither lost nor sent twice."""
    state = opened()
    unsent = line({"id": 2, "method": "tools/call"})
    state.from_host(unsent)
    assert state.lost("gone", [unsent]) == []
    assert unsent not in state.replay([unsent])
    assert state.from_gateway(line({"id": 2, "result": {}})) == [line({"id": 2, "result": {}})]


def test_a_session_is_opened_again_and_the_host_does_not_hear_of_it() -> None:
    state = opened()
    state.from_host(line({"id": 5, "method": "logging/setLevel", "params": {"level": "error"}}))
    state.from_gateway(line({"id": 5, "result": {}}))
    state.lost("gone", [])
    again = read(state.replay([]))
    assert [one["method"] for one in again] == [
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "resources/subscribe",
    ]
    assert again[0]["params"] == INITIALIZE["params"]
    ids = [one["id"] for one in again if "id" in one]
    assert len(set(ids)) == 3
    assert not {0, 1, 5} & {*ids}
    told = read([one for id in ids for one in state.from_gateway(line({"id": id, "result": TOLD}))])
    assert [one["method"] for one in told] == [
        "notifications/tools/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    ]


def test_an_initialize_without_an_answer_is_made_again_for_the_host() -> None:
    state = RelayState("n")
    state.from_host(line(INITIALIZE))
    assert state.lost("gone", []) == []
    (again,) = read(state.replay([]))
    assert again["id"] == 0
    assert len(state.from_gateway(line({"id": 0, "result": TOLD}))) == 1


def test_a_subscription_of_a_modern_client_goes_on() -> None:
    """Its acknowledgment came before; while nobody listened, everything may have changed."""
    state = RelayState("n")
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}
    listen = {"id": "s", "method": "subscriptions/listen", "params": {"notifications": wanted}}
    meta = {"io.modelcontextprotocol/subscriptionId": "s"}
    acknowledged = {
        "method": "notifications/subscriptions/acknowledged",
        "params": {"_meta": meta, "notifications": wanted},
    }
    state.from_host(line(listen))
    assert state.from_gateway(line(acknowledged)) == [line(acknowledged)]
    assert state.lost("gone", []) == []
    assert read(state.replay([])) == [{"jsonrpc": "2.0", **listen}]
    told = read(state.from_gateway(line(acknowledged)))
    assert [(one["method"], one["params"]["_meta"]) for one in told] == [
        ("notifications/tools/list_changed", meta),
        ("notifications/resources/updated", meta),
    ]
    assert state.from_gateway(line(acknowledged)) == [line(acknowledged)]


def test_a_question_of_the_server_is_withdrawn() -> None:
    """Its conversation is gone, so nobody would take the answer. Once, and before its request ends."""
    state = opened()
    state.from_host(line({"id": 5, "method": "tools/call", "params": {}}))
    for id in ("a", "b", "c"):
        state.from_gateway(line({"id": id, "method": "elicitation/create", "params": {}}))
    state.from_host(line({"id": "a", "result": {}}))
    notice = {"method": "notifications/cancelled", "params": {"requestId": "c", "reason": "over"}}
    assert state.from_gateway(line(notice)) == [line(notice)]
    withdrawn, ended = read(state.lost("gone", []))
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == "b"
    assert ended["id"] == 5


def test_what_it_remembers_is_bounded() -> None:
    """Law 6, for a host that asks and asks, and a gateway that does not answer."""
    state = RelayState("n")
    for id in range(MAX_REMEMBERED + 5):
        state.from_host(line({"id": id, "method": "tools/call"}))
    assert len(state.lost("gone", [])) == MAX_REMEMBERED


def test_odd_messages_do_no_harm() -> None:
    state = RelayState("n")
    for odd in (
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"id":{}}',
        b'{"method":3,"id":[1]}',
        b'{"id":1,"params":[]}',
    ):
        state.from_host(odd)
        state.from_gateway(odd)
    state.from_gateway(b'{"jsonrpc":"2.0","id":')
    assert all(json.loads(one) for one in state.lost("gone", []))


def test_an_initialize_that_was_lost_with_its_gateway_still_waits() -> None:
    """The bridge then answers it itself, if the gateway stays away."""
    state = RelayState("n")
    state.from_host(line(INITIALIZE))
    assert state.is_opening
    assert state.lost("gone", []) == []
    assert state.is_opening
    assert read(state.replay([]))[0]["method"] == "initialize"
    state.from_gateway(line({"id": 0, "result": TOLD}))
    assert not state.is_opening
