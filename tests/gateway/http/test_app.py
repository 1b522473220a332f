"""Streamable HTTP of both eras, over real sockets: what the specification's pages on it demand."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.core.clients.subscriptions import MAX_URIS_OF_ONE
from broker.gateway.http import metrics
from broker.gateway.http.sse import EventPosition
from tests.e2e.harness import ROOT, RunningBroker, rogue, running, wait_until
from tests.gateway.gateways import (
    LEGACY,
    META,
    MODERN,
    Answer,
    Http,
    RunningGateway,
    close_all,
    data_of,
    gateway,
    settled,
    text_of,
)

LONG = {"name": "progress", "arguments": {"steps": 100, "delay": 0.1}, "_meta": {"progressToken": 1}}
"""A call that tells of its progress for ten seconds."""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running({"rogue": rogue("--era", "modern"), "old": rogue(), "other": rogue()}) as found:
        yield found


@pytest.fixture(scope="module")
def door(broker: RunningBroker) -> Iterator[RunningGateway]:
    with gateway(broker) as found:
        yield found


@pytest.fixture
def client(door: RunningGateway) -> Iterator[Http]:
    yield door.http()
    close_all()


# ---------------------------------------------------------------- 2026-07-28


def test_a_request_is_answered_with_json(client: Http) -> None:
    """2026-07-28, "Sending Messages", rule 6; no session is made."""
    answer = client.ask("tools/call", {"name": "echo", "arguments": {"text": "hello"}})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in answer.headers
    assert text_of(answer) == {"text": "hello"}


def test_progress_makes_it_a_stream(client: Http) -> None:
    """2026-07-28, "Receiving Messages": notifications before the response, under the client's own token."""
    params = {
        "name": "progress",
        "arguments": {"steps": 3, "delay": 0.05},
        "_meta": {"progressToken": "mine"},
    }
    answer = client.ask("tools/call", params)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    *before, last = answer.messages
    assert [one["params"]["progressToken"] for one in before] == ["mine"] * 3
    assert last["id"] == 1
    assert b"id:" not in answer.body  # these streams are not resumable


def test_a_client_that_leaves_cancels(client: Http, broker: RunningBroker) -> None:
    """2026-07-28, "Cancellation"; law 4: nothing is left."""
    before = len(client.call("cancelled"))
    stream = client.stream("tools/call", {"name": "hang", "arguments": {}})
    stream.close()
    wait_until(lambda: len(client.call("cancelled")) == before + 1)
    settled(broker)


def test_headers_have_to_say_what_the_body_says(client: Http) -> None:
    """2026-07-28, "Server Validation"; the error carries the request's id."""
    answer = client.ask("tools/call", {"name": "echo"}, mcp_name="hang")
    assert (answer.status, answer.message["error"]["code"], answer.message["id"]) == (400, -32020, 1)
    assert client.ask("tools/list", mcp_method=None).message["error"]["code"] == -32020


def test_an_unknown_version_is_told_the_known_ones(client: Http) -> None:
    """2026-07-28, "Protocol Version Header"."""
    params = {"_meta": {META + "protocolVersion": "2099-01-01"}}
    answer = client.ask("tools/list", params, mcp_protocol_version="2099-01-01")
    assert answer.status == 400
    assert MODERN in answer.message["error"]["data"]["supported"]


def test_an_unknown_method_is_404_with_its_error(client: Http) -> None:
    """2026-07-28, "Protocol Version Header": the JSON-RPC error tells it from an unknown path."""
    answer = client.ask("initialize", {})
    assert (answer.status, answer.message["error"]["code"]) == (404, -32601)


def test_a_subscription_is_a_stream_that_stays(client: Http) -> None:
    """2026-07-28, "Subscriptions": acknowledged first, tagged with the id of its request."""
    stream = client.stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    first = stream.next()
    assert first is not None
    assert first["method"] == "notifications/subscriptions/acknowledged"
    client.call("add_tool", name="another")
    told = stream.next()
    assert told is not None
    assert told["method"] == "notifications/tools/list_changed"
    assert (
        told["params"]["_meta"][META + "subscriptionId"] == first["params"]["_meta"][META + "subscriptionId"]
    )
    stream.close()


def test_a_get_of_the_new_era_is_refused(client: Http) -> None:
    """2026-07-28, "Earlier Streamable HTTP Revisions"."""
    assert client.send("GET", None, {"mcp-protocol-version": MODERN}).status == 405


def test_numbers_that_python_cannot_hold_pass(client: Http) -> None:
    """Law 7; agentgateway#445, mastra#23068: unknown fields and odd numbers arrive as they were sent."""
    body = client.body_of("tools/call", {"name": "echo", "arguments": {"n": 7}}, modern=True)
    raw = body.replace(b'"arguments": {"n": 7}', b'"arguments": {"n":1e400,"n":2,"unknown":[1.0]}')
    answer = client.send("POST", raw, client.standard("tools/call", {"name": "echo"}))
    assert answer.message["result"]["content"][0]["text"] == '{"n":1e400,"n":2,"unknown":[1.0]}'


# ---------------------------------------------------------------- legacy


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
def test_a_session_begins_with_initialize(client: Http, version: str) -> None:
    """2025-11-25, "Session Management", rule 1."""
    session = client.initialized(version)
    assert session.result["protocolVersion"] == version
    assert text_of(session.ask("tools/call", {"name": "echo", "arguments": {"text": "x"}})) == {"text": "x"}


def test_without_a_session_it_is_400_and_with_an_unknown_one_404(client: Http) -> None:
    """2025-11-25, "Session Management", rules 2 to 4: at 404, and at 404 only, a client starts anew."""
    assert client.send("POST", client.body_of("tools/list", {})).status == 400
    session = client.initialized()
    headers: dict[str, str | None] = {"mcp-session-id": session.id[:-3] + "abc"}
    assert client.send("POST", client.body_of("tools/list", {}), headers).status == 404


def test_a_session_is_of_one_server(door: RunningGateway, client: Http) -> None:
    """Law 3."""
    session = client.initialized()
    other = door.http("other", **{"mcp-session-id": session.id})
    assert other.send("POST", other.body_of("tools/list", {})).status == 404


def test_delete_ends_a_session(client: Http) -> None:
    """2025-11-25, "Session Management", rule 5."""
    session = client.initialized()
    assert session.send("DELETE").status == 204
    assert session.ask("tools/list").status == 404
    assert session.send("DELETE").status == 404


def test_sessions_outlive_a_restart_and_those_that_are_over_stay_so(broker: RunningBroker) -> None:
    """claude-code#55970, mcp-proxy#149, python-sdk#3556, supergateway#123: the most reported pain of all."""
    with gateway(broker) as door:
        kept, ended = door.http().initialized(), door.http().initialized()
        ended.send("DELETE")
        for number in (signal.SIGTERM, signal.SIGKILL):
            door.stop(number)
            door.start()
            assert text_of(kept.ask("tools/call", {"name": "echo", "arguments": {"a": 1}})) == {"a": 1}
            assert ended.ask("tools/list").status == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, None])
def test_log_level_and_subscriptions_outlive_a_restart_and_a_pause(
    broker: RunningBroker, number: signal.Signals | None
) -> None:
    """A client sets them once, and is not told that its session left the memory of a gateway."""
    uri, quiet = "rogue://one", {"name": "log", "arguments": {"level": "info"}}
    with gateway(broker, limits={"session_idle_sec": 0.2, "replay_sec": 0.2}) as door:
        client = door.http()
        session = client.initialized()
        assert "result" in session.ask("logging/setLevel", {"level": "error"}).message
        assert "result" in session.ask("resources/subscribe", {"uri": uri}).message
        if number is None:
            wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
        else:
            door.stop(number)
            door.start()
        assert text_of(session.ask("tools/call", quiet)) == 0
        stream = session.listen()
        missed = stream.next()  # it cannot be known whether it has changed meanwhile
        wait_until(lambda: uri in json.dumps(client.call("subscribed")))
        client.call("touch", uri=uri)
        for told in (missed, stream.next()):
            assert told is not None
            assert (told["method"], told["params"]["uri"]) == ("notifications/resources/updated", uri)


def test_a_get_stream_tells_of_changes(client: Http, broker: RunningBroker) -> None:
    """2025-11-25, "Listening for Messages from the Server"."""
    session = client.initialized()
    stream = session.listen()
    assert stream.headers["x-accel-buffering"] == "no"
    session.ask("tools/call", {"name": "add_tool", "arguments": {"name": "one_more"}})
    told = stream.next()
    assert told is not None
    assert told["method"] == "notifications/tools/list_changed"
    stream.close()


def test_a_get_stream_that_would_hear_of_nothing_is_refused(broker: RunningBroker) -> None:
    """Law 9: where the subscriptions of a token are all taken, its clients are told, and may come back."""
    with gateway(broker, limits={"session_idle_sec": 0.2, "replay_sec": 0.2}) as door:
        client = door.http()
        session = client.initialized()
        assert "result" in session.ask("resources/subscribe", {"uri": "rogue://one"}).message
        wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
        uris = [f"rogue://{number}" for number in range(MAX_URIS_OF_ONE)]
        all_taken = client.stream("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
        assert all_taken.next() is not None
        refused = session.send("GET", None, {"accept": "text/event-stream"})
        assert (refused.status, refused.headers["retry-after"]) == (503, "5"), refused
        assert "subscribed resources" in refused.message["error"]["message"]
        assert door.figures()["listen_refused"] > 0
        assert "gateway.not_listening" in door.log()
        all_taken.close()
        streams = [session.listen()]

        def is_served() -> bool:
            if streams[-1].status != 200:
                streams.append(session.listen())
            return streams[-1].status == 200

        wait_until(is_served, door.figures)
        missed = streams[-1].next()  # the refused streams were to bring it
        assert missed is not None
        assert (missed["method"], missed["params"]["uri"]) == (
            "notifications/resources/updated",
            "rogue://one",
        )


def test_an_answer_is_brought_also_where_changes_are_not_told(broker: RunningBroker) -> None:
    """Law 2: a client that comes back to a request needs no subscription, also for an answer that is lost."""
    with gateway(broker, limits={"session_idle_sec": 0.2}) as door:
        client = door.http()
        session = client.initialized()
        assert "result" in session.ask("resources/subscribe", {"uri": "rogue://one"}).message
        wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
        uris = [f"rogue://{number}" for number in range(MAX_URIS_OF_ONE)]
        all_taken = client.stream("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
        assert all_taken.next() is not None
        params = {"name": "progress", "arguments": {"steps": 3, "delay": 0.3}, "_meta": {"progressToken": 1}}
        stream = session.stream("tools/call", params)
        assert stream.next() is not None
        stream.close()
        assert session.send("GET", None, {"accept": "text/event-stream"}).status == 503
        again = session.listen(stream.last_id)
        assert again.status == 200
        assert b'"result"' in again.rest()
        lost = session.listen(str(EventPosition("0" * 16, b"7", 1)))
        assert lost.status == 200
        told = lost.next()
        assert told is not None
        assert (told["id"], "may have happened" in told["error"]["message"]) == (7, True)


def test_a_second_get_stream_is_served(client: Http) -> None:
    """supergateway#126; 2025-11-25, "Multiple Connections": a message goes on one stream only."""
    session = client.initialized()
    first, second = session.listen(), session.listen()
    session.ask("tools/call", {"name": "add_tool", "arguments": {"name": "two_streams"}})
    told = second.next()
    assert told is not None
    for _ in range(5):  # further ones end the oldest, which is the first
        session.listen()
    assert first.next() is None
    second.close()


def test_a_client_is_never_refused_because_of_its_own_dead_stream(client: Http) -> None:
    """A client whose connection broke without a word opens the next one, as often as it likes."""
    session = client.initialized()
    streams = [session.listen() for _ in range(12)]
    assert {stream.status for stream in streams} == {200}


def test_a_stream_is_resumed_where_it_was_cut(client: Http) -> None:
    """2025-11-25, "Resumability and Redelivery": what was missed comes again, and the answer too."""
    session = client.initialized()
    params = {
        "name": "progress",
        "arguments": {"steps": 6, "delay": 0.2},
        "_meta": {"progressToken": 1},
    }
    stream = session.stream("tools/call", params)
    first = stream.next()
    assert first is not None
    assert first["params"]["progress"] == 1
    stream.close()
    again = session.listen(stream.last_id)
    seen = []
    while (message := again.next()) is not None:
        seen.append(message)
    assert [one["params"]["progress"] for one in seen[:-1]] == [2, 3, 4, 5, 6]
    assert "result" in seen[-1]


def test_a_request_goes_on_without_its_client(client: Http) -> None:
    """2025-11-25, "Sending Messages to the Server": a disconnection is no cancellation."""
    session = client.initialized()
    before = client.call("requests").get("tools/call", 0)
    cancelled = len(client.call("cancelled"))
    session.stream("tools/call", {"name": "sleep", "arguments": {"seconds": 1.3}}).close()
    again = session.ask("tools/call", {"name": "sleep", "arguments": {"seconds": 0}})
    assert again.status == 200
    assert client.call("requests")["tools/call"] > before
    time.sleep(0.3)
    assert len(client.call("cancelled")) == cancelled


def test_a_session_that_is_used_does_not_age(broker: RunningBroker) -> None:
    """Neither one that listens and hears nothing, nor one whose call is under way, though its client left."""
    with gateway(broker, limits={"session_idle_sec": 0.2, "replay_sec": 0.2}) as door:
        client = door.http()
        busy, listening = client.initialized(), client.initialized()
        stream = listening.listen()
        busy.stream("tools/call", {"name": "sleep", "arguments": {"seconds": 600}}).close()
        for _ in range(3):  # others have aged since
            client.initialized()
            wait_until(lambda: door.figures()["sessions"] == 2, door.figures)
        client.call("add_tool", name="not_aged")
        told = stream.next()
        assert told is not None
        assert told["method"] == "notifications/tools/list_changed"
        busy.notify("notifications/cancelled", {"requestId": busy._last_id})
        stream.close()
        wait_until(lambda: door.figures()["sessions"] == 0, door.figures)


def test_a_cancellation_of_a_legacy_client_is_a_notification(client: Http, broker: RunningBroker) -> None:
    session = client.initialized()
    before = len(client.call("cancelled"))
    stream_of = session.body_of("tools/call", {"name": "hang", "arguments": {}})
    cancelled_id = json.loads(stream_of)["id"]
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(session.send("POST", stream_of)))
    thread.start()
    wait_until(lambda: broker.server("rogue")["in_flight"] > 0)
    assert session.notify("notifications/cancelled", {"requestId": cancelled_id}).status == 202
    thread.join(30)
    assert answers[0].status == 200
    wait_until(lambda: len(client.call("cancelled")) == before + 1)


def test_an_answer_that_was_lost_in_a_restart_is_told(broker: RunningBroker) -> None:
    """Law 2: a client that comes back for it gets an error, and does not wait for its own timeout."""
    with gateway(broker) as door:
        session = door.http().initialized()
        params = {
            "name": "progress",
            "arguments": {"steps": 100, "delay": 0.1},
            "_meta": {"progressToken": 1},
        }
        stream = session.stream("tools/call", params)
        assert stream.next() is not None
        door.stop(signal.SIGKILL)
        door.start()
        told = session.listen(stream.last_id).next()
        assert told is not None
        assert "may have happened" in told["error"]["message"]
        assert told["id"] == 2


def test_a_slow_answer_becomes_a_stream_with_an_id_to_come_back_by(client: Http) -> None:
    """ghst#118: proxies end what is silent for a minute. A client of 2025-11-25 gets an id at once (rule 6);
    older ones cannot read an event without data."""
    slow = {"name": "sleep", "arguments": {"seconds": 1.2}}
    answer = client.initialized().ask("tools/call", slow)
    assert answer.headers["content-type"] == "text/event-stream"
    assert data_of(answer.body)[0] == ""
    assert "" not in data_of(client.initialized("2025-06-18").ask("tools/call", slow).body)


def test_an_id_is_used_once_at_a_time(client: Http) -> None:
    session = client.initialized()
    stream = session.stream("tools/call", LONG)
    session._last_id -= 1
    answer = session.ask("tools/list")
    assert (answer.status, answer.message["error"]["code"]) == (400, -32600)
    stream.close()


# ---------------------------------------------------------------- both


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"accept": "application/json"}, 406),
        ({"host": "evil.example.org"}, 403),
        ({"origin": "https://evil.example.org"}, 403),
        ({"authorization": None}, 401),
        ({"authorization": "Bearer wrong"}, 401),
    ],
)
def test_a_refusal_says_what_to_do(client: Http, headers: dict[str, str | None], status: int) -> None:
    """Law 10; 1Panel#13264: what is configured is enforced."""
    answer = client.send("POST", client.body_of("tools/list", {}), headers)
    assert answer.status == status
    assert ";" in answer.message["error"]["message"]


def test_an_unknown_server_is_404_with_the_list(door: RunningGateway) -> None:
    answer = door.http("nobody").send("POST", b"{}")
    assert answer.status == 404
    assert answer.message["error"]["data"]["servers"] == ["old", "other", "rogue"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"jsonrpc":"2.0"}', b'{"id":1}', b"\xff"])
def test_what_is_no_message_is_400(client: Http, body: bytes) -> None:
    assert client.send("POST", body).status == 400


def test_a_401_leads_to_no_dance(door: RunningGateway) -> None:
    """No metadata, and no authorization server where clients look for one."""
    answer = Http(door.port, "/mcp/rogue", {}).send("POST", b"{}")
    assert "resource_metadata" not in answer.headers["www-authenticate"]
    for path in (
        "/.well-known/oauth-protected-resource/mcp/rogue",
        "/.well-known/oauth-authorization-server",
    ):
        assert Http(door.port, path, {}).send("GET").status == 404


def test_healthz_needs_no_token(door: RunningGateway) -> None:
    answer = Http(door.port, "/healthz", {}).send("GET")
    assert answer.status == 200
    assert json.loads(answer.body)["status"] == "ok"
    assert json.loads(answer.body)["sessions"] >= 0


def test_metrics_tell_of_sessions_and_refusals(door: RunningGateway, client: Http) -> None:
    """Prometheus reads them without a token, as /healthz is read: they name no client and no server."""
    session = client.initialized()
    assert client.send("POST", b"{}", {"authorization": "Bearer another"}).status == 401
    answer = Http(door.port, "/metrics", {}).send("GET")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    figures = door.figures()
    for name in metrics.GAUGES:
        assert found.pop((f"mcp_gateway_{name}",)) == figures[name], name
    for name in metrics.COUNTERS:
        assert found.pop((f"mcp_gateway_{name}_total",)) == figures[name], name
    assert figures["sessions"] > 0
    assert found[("mcp_gateway_refused_total", "401")] > 0
    assert {name for name, _ in found} == {"mcp_gateway_refused_total"}
    assert session.send("DELETE").status == 204


@pytest.mark.parametrize("page", ["metrics.md", "metrics.zh-CN.md"])
def test_every_metric_is_explained_and_no_other(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names = {*metrics.GAUGES, *(f"{name}_total" for name in metrics.COUNTERS), "refused_total"}
    assert {*re.findall(r"^\| `mcp_gateway_(\w+)` \|", text, re.MULTILINE)} == names


@pytest.mark.parametrize("path", ["/healthz", "/", "/mcp/rogue", "/.well-known/oauth-protected-resource"])
@pytest.mark.parametrize("headers", [{"host": "evil.example.org"}, {"origin": "https://evil.example.org"}])
def test_host_and_origin_are_checked_on_every_path(
    door: RunningGateway, path: str, headers: dict[str, str | None]
) -> None:
    """2026-07-28, "Security & Endpoint": on all incoming connections, so also where no token is needed."""
    assert Http(door.port, path, {}).send("GET", None, headers).status == 403


def test_a_page_of_this_machine_may_call(door: RunningGateway) -> None:
    """Fetch, "CORS protocol": the browser asks first, without the token."""
    asked = Http(door.port, "/mcp/rogue", {}).send("OPTIONS", None, {"origin": "http://localhost:6274"})
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, "http://localhost:6274")
    answer = door.http().ask("tools/list", origin="http://localhost:6274")
    assert "mcp-session-id" in answer.headers["access-control-expose-headers"]


def test_the_legacy_server_serves_both_eras(door: RunningGateway) -> None:
    """Two of the four cells; the others are the tests above."""
    client = door.http("old")
    answer = client.ask("tools/list")
    assert answer.message["result"]["resultType"] == "complete"
    session = client.initialized(LEGACY)
    assert text_of(session.ask("tools/call", {"name": "echo", "arguments": {"a": 1}})) == {"a": 1}


# ---------------------------------------------------------------- questions


def test_a_question_goes_to_the_client_that_called_and_nobody_else_answers_it(client: Http) -> None:
    """Law 3; litellm#23761, mcp-context-forge#1985: questions that were lost or went to the wrong client."""
    ask = {"name": "ask", "arguments": {"method": "elicitation/create"}}
    mine, other = client.initialized(elicitation={}), client.initialized(elicitation={})
    streams = [session.stream("tools/call", ask) for session in (mine, other)]
    questions = [stream.next() for stream in streams]
    assert [one and one["method"] for one in questions] == ["elicitation/create"] * 2
    ids = [one["id"] for one in questions if one]
    assert len(set(ids)) == 2
    other.respond(ids[0], {"action": "accept", "content": {"name": "not asked"}})  # finds no such question
    for session, number, name in ((mine, ids[0], "Ann"), (other, ids[1], "Bob")):
        session.respond(number, {"action": "accept", "content": {"name": name}})
    answers = [stream.next() for stream in streams]
    assert ["Ann" in json.dumps(answers[0]), "Bob" in json.dumps(answers[1])] == [True, True]
    assert "not asked" not in json.dumps(answers)


def test_a_session_is_opened_while_its_server_still_starts() -> None:
    """astrid#1115: hosts give up on `initialize` after 30 s."""
    with running({"rogue": rogue("--start-delay", "20")}, ready=False) as broker, gateway(broker) as door:
        broker.wait(lambda status: True)
        began = time.monotonic()
        session = door.http().initialized()
        assert time.monotonic() - began < 15
        assert session.result["serverInfo"]["name"] == "rogue"


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
def test_an_offer_of_another_protocol_is_ignored(client: Http, name: str) -> None:
    """RFC 9110, 7.8. HTTP clients of Java offer HTTP/2 with every request on a connection without TLS."""
    body = client.body_of("tools/list", {"_meta": {"Upgrade": "\r\n\r\nupgrade: h2c"}}, modern=True)
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        name: "h2c",
        "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA",
    }
    request = _written(client, body, offer)
    with _connected(client) as (plug, answers):
        for _ in range(2):  # the connection stays in use
            plug.sendall(request)
            status, _, answer = _read(answers)
            assert status == 200
            assert b'"tools"' in answer


def test_requests_that_are_sent_at_once_are_answered_in_order(client: Http) -> None:
    """RFC 9112, 9.3.2. Each response is as long as it says, and the last one ends the connection as asked."""
    bodies = [client.body_of("tools/list", {}, modern=True) for _ in range(3)]
    requests = [_written(client, body, {}) for body in bodies[:2]]
    with _connected(client) as (plug, answers):
        plug.sendall(b"".join(requests) + _written(client, bodies[2], {"connection": "close"}))
        for body in bodies:
            status, headers, answer = _read(answers)
            assert (status, headers["content-type"]) == (200, "application/json")
            assert "date" in headers
            assert json.loads(answer)["id"] == json.loads(body)["id"]
        assert headers["connection"] == "close"
        assert answers.read() == b""


@pytest.mark.parametrize("first", [None, "tools/list", "tools/call"])
def test_headers_are_bounded_for_the_second_request_too(
    client: Http, door: RunningGateway, first: str | None
) -> None:
    """Law 6: however the bytes of two requests come together. A call under way has nobody to answer then."""
    body = client.body_of("tools/list", {}, modern=True)
    long = _written(client, body, {f"x-{number}": "x" * 1000 for number in range(100)})
    params = {"name": "sleep", "arguments": {"seconds": 0.2}} if first == "tools/call" else {}
    request = b""
    if first is not None:
        request = _written(client, client.body_of(first, params, modern=True), {}, first, params)
    with _connected(client) as (plug, answers):
        plug.sendall(request + long)
        while (status := _read(answers)[0]) == 200:
            assert first, "it was the only one"
        assert status == 431
        assert answers.read() == b""
        wait_until(lambda: door.figures()["exchanges"] == 0, door.figures)
    assert "request_failed" not in door.log()


@contextmanager
def _connected(client: Http) -> Iterator[tuple[socket.socket, BufferedReader]]:
    with (
        socket.create_connection(("127.0.0.1", client.port), timeout=30) as plug,
        plug.makefile("rb") as answers,
    ):
        yield plug, answers


def _written(
    client: Http,
    body: bytes,
    headers: dict[str, str],
    method: str = "tools/list",
    params: dict[str, Any] | None = None,
) -> bytes:
    """A request of 2026-07-28."""
    told: dict[str, str | None] = {"host": "localhost", "content-type": "application/json"}
    told |= {
        "content-length": str(len(body)),
        **client.headers,
        **client.standard(method, params),
        **headers,
    }
    lines = [f"{name}: {value}\r\n" for name, value in told.items()]
    return "".join(["POST /mcp/rogue HTTP/1.1\r\n", *lines, "\r\n"]).encode() + body


def _read(answers: BufferedReader) -> tuple[int, dict[str, str], bytes]:
    status, headers = int(answers.readline().split()[1]), dict[str, str]()
    while (line := answers.readline().strip()) != b"":
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return status, headers, answers.read(int(headers["content-length"]))
