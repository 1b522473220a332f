"""What clients may do to the gateway: each is bounded, costs the others nothing, and leaves nothing."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from broker.core.clients.subscriptions import MAX_URIS_OF_ONE
from broker.gateway.tokens import digest_of
from tests.e2e.harness import RunningBroker, Table, rogue, running, wait_until
from tests.gateway.gateways import ANSWER_S, Answer, Http, RunningGateway, close_all, gateway, named, settled

LIMITS = {
    "body_bytes": 100_000,
    "header_bytes": 8192,
    "body_sec": 1.0,
    "connections": 60,
    "sessions": 20,
    "streams": 20,
    "stream_bytes": 65_536,
    "session_idle_sec": 2.0,
    "replay_sec": 1.0,
}
TOKENS: dict[str, Table] = {
    "tokens.flood": {"sha256": digest_of("flood").hex(), "rate": 20.0},
    "tokens.narrow": {"sha256": digest_of("narrow").hex(), "servers": ["rogue"], "tools": ["echo"]},
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running({"rogue": rogue("--era", "modern"), "other": rogue()}) as found:
        yield found


@pytest.fixture(scope="module")
def door(broker: RunningBroker) -> Iterator[RunningGateway]:
    sections: dict[str, Any] = {"limits": LIMITS, **TOKENS}
    with gateway(broker, **sections) as found:
        yield found


@pytest.fixture
def client(door: RunningGateway) -> Iterator[Http]:
    yield door.http()
    close_all()


def as_holder(door: RunningGateway, token: str, server: str = "rogue") -> Http:
    return Http(door.port, f"/mcp/{server}", {"authorization": f"Bearer {token}"})


def raw(door: RunningGateway, *pieces: bytes) -> bytes:
    """Send bytes, and read until the gateway ends the connection."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=ANSWER_S) as plug:
        for piece in pieces:
            try:
                plug.sendall(piece)
            except OSError:
                break
        return read_all(plug)


def read_all(plug: socket.socket) -> bytes:
    """What comes until the gateway ends a connection."""
    found, until = b"", time.monotonic() + ANSWER_S
    with suppress(ConnectionResetError), named(f"the gateway does not end {plug.getsockname()}"):
        while piece := plug.recv(65536):
            found += piece
            if time.monotonic() > until:
                raise TimeoutError
    return found


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing more once the test has failed: each request may take `ANSWER_S`."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- one request


def test_a_body_is_bounded(door: RunningGateway, client: Http) -> None:
    """Law 6: by what it says that it has, and by what comes."""
    big = b'{"x":"' + b"x" * 200_000 + b'"}'
    assert client.send("POST", big).status == 413
    token = door.token.encode()
    head = b"POST /mcp/rogue HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer %s\r\ntransfer-encoding: chunked\r\n\r\n" % token
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert b" 413 " in raw(door, head, *[chunk] * 1000).partition(b"\r\n")[0]


def test_a_body_that_does_not_end_is_ended(door: RunningGateway) -> None:
    """A body that comes byte by byte holds nothing for ever."""
    head = b"POST /mcp/rogue HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer %s\r\ncontent-length: 100\r\n\r\n{" % door.token.encode()
    assert b" 408 " in raw(door, head).partition(b"\r\n")[0]


def test_the_bodies_of_a_token_are_bounded_together(broker: RunningBroker) -> None:
    """Law 6: many requests may each have a large body. Law 5: another token's requests are served."""
    limits = {"body_bytes": 100_000, "token_bytes": 100_000}
    with gateway(broker, limits=limits, **TOKENS) as door, ExitStack() as opened:
        head = b"POST /mcp/rogue HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        head += b"authorization: Bearer %s\r\ncontent-length: 99000\r\n\r\n" % door.token.encode()
        plug = opened.enter_context(socket.create_connection(("127.0.0.1", door.port), timeout=30))
        plug.sendall(head + b"x" * 60_000)
        wait_until(lambda: door.figures()["held_bytes"] == 60_000, door.figures)
        answer = raw(door, head + b"x" * 60_000)
        assert b" 429 " in answer.partition(b"\r\n")[0]
        assert b"token_bytes" in answer
        assert as_holder(door, "narrow").call("echo", a="x" * 20_000) == {"a": "x" * 20_000}
        plug.close()
        wait_until(lambda: door.figures()["held_bytes"] == 0, door.figures)
        assert "gateway.bytes_full" in door.log()


@pytest.mark.parametrize("ends", [True, False])
def test_headers_are_bounded(door: RunningGateway, ends: bool) -> None:
    """10,000 bytes of headers, in one line or in many, with an end or without one."""
    lines = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 90) for number in range(100))
    for more in (lines, b"x: " + b"y" * 10_000 + b"\r\n"):
        head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + more + (b"\r\n" if ends else b"")
        assert b" 431 " in raw(door, head).partition(b"\r\n")[0]


def test_headers_that_do_not_end_are_ended(door: RunningGateway) -> None:
    assert b" 408 " in raw(door, b"GET /healthz HTTP/1.1\r\nhost: lo").partition(b"\r\n")[0]


def test_a_connection_that_says_nothing_is_closed(door: RunningGateway) -> None:
    assert raw(door) == b""


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused(door: RunningGateway, rubbish: bytes) -> None:
    answer = raw(door, rubbish)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 400


def test_refusals_before_a_request_is_there_are_counted(broker: RunningBroker) -> None:
    """Law 9: also those of the connection, for which no request came to the endpoint."""
    with gateway(broker, limits={"connections": 1, "body_sec": 0.5, "header_bytes": 8192}) as door:
        head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
        for request in (b"GET\r\n\r\n", head, head + b"x: " + b"y" * 10_000):
            assert raw(door, request).startswith(b"HTTP/1.1 4")
        stream = door.http().stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert stream.status == 200
        assert raw(door).startswith(b"HTTP/1.1 503 ")
        stream.close()
        pages: list[Answer] = []

        def has_room() -> bool:
            pages.append(Http(door.port, "/metrics", {}).send("GET"))
            return pages[-1].status == 200

        wait_until(has_room, door.log)
        counted = dict(
            re.findall(r'^mcp_gateway_refused_total{status="(\d+)"} (\d+)$', pages[-1].body.decode(), re.M)
        )
        assert int(counted.pop("503")) == len(pages)
        assert counted == {"400": "1", "408": "1", "431": "1"}
        assert "status=431" in door.log()


# ---------------------------------------------------------------- many


def test_abandoned_sessions_leave_nothing(door: RunningGateway, client: Http, broker: RunningBroker) -> None:
    """python-sdk#2455: more sessions than are held in memory, none of them closed; the oldest still serve."""
    first = client.initialized()
    sessions = [client.initialized() for _ in range(60)]
    for session in sessions[::2]:
        session.listen().close()
    assert first.ask("tools/list").status == 200
    settled(broker)
    wait_until(lambda: door.figures()["sessions"] == 0, door.figures)
    wait_until(lambda: channels(broker) <= 1, lambda: broker.status()["clients"])


def test_streams_of_a_token_are_bounded(door: RunningGateway, client: Http) -> None:
    """Law 6; the refusal says that one can come back later."""
    listens = [
        client.stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        for _ in range(20)
    ]
    assert {stream.status for stream in listens} == {200}
    refused = client.ask("tools/list")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert as_holder(door, "narrow").ask("tools/list").status == 200  # another token has a count of its own
    close_all()
    wait_until(lambda: client.ask("tools/list").status == 200, door.figures)


def test_connections_that_show_no_token_keep_nobody_out(door: RunningGateway, client: Http) -> None:
    """Law 5: whoever reaches the port can open some. The oldest go, and the log says so."""
    plugs: list[socket.socket] = []
    try:
        for _ in range(3):
            plugs += [socket.create_connection(("127.0.0.1", door.port), timeout=30) for _ in range(60)]
            assert client.ask("tools/list").status == 200
        assert read_all(plugs[0]) == b""
        assert "gateway.connections_full" in door.log()
    finally:
        for plug in plugs:
            plug.close()


def test_connections_of_clients_are_bounded(broker: RunningBroker) -> None:
    """Where every connection has a request under way, there is no room for another one; else one goes."""
    with gateway(broker, limits={"connections": 4}) as door:
        client = door.http()
        streams = [
            client.stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
            for _ in range(4)
        ]
        assert {stream.status for stream in streams} == {200}
        assert b" 503 " in raw(door).partition(b"\r\n")[0]
        streams[0].close()
        wait_until(lambda: client.ask("tools/list").status == 200, door.figures)
        with ExitStack() as kept:
            for _ in range(8):
                connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
                kept.callback(connection.close)
                connection.request("GET", "/mcp/nobody", headers=client.headers)
                response = connection.getresponse()
                assert (response.status, bool(response.read())) == (404, True)


def test_requests_that_do_not_wait_for_answers_are_bounded(door: RunningGateway) -> None:
    """Law 6: each would take memory while the first one is under way."""
    assert raw(door, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000).count(b" 200 ") <= 17


def test_a_token_has_a_rate(door: RunningGateway, client: Http) -> None:
    """Law 5: the flood of one token does not slow another's calls."""
    flood = as_holder(door, "flood")
    with threads(8) as pool:
        asked = [pool.submit(flood.ask, "tools/list") for _ in range(200)]
        began = time.monotonic()
        assert {client.ask("tools/list").status for _ in range(20)} == {200}
        assert time.monotonic() - began < 10
        statuses = [one.result().status for one in asked]
    assert statuses.count(429) > 100
    assert 200 in statuses


def test_the_subscriptions_of_a_token_are_its_own(
    door: RunningGateway, client: Http, broker: RunningBroker
) -> None:
    """Law 5: the broker limits subscriptions, calls and refusals by connection, and each token has one.

    A client that has taken all subscriptions of its token is told so, and no other token is short of any.
    """
    greedy, one_more = as_holder(door, "narrow"), {"resourceSubscriptions": ["rogue://one more"]}
    uris = [f"rogue://{number}" for number in range(MAX_URIS_OF_ONE)]
    taken = greedy.stream("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}}).next()
    assert taken is not None
    assert taken["method"] == "notifications/subscriptions/acknowledged", taken
    refused = greedy.ask("subscriptions/listen", {"notifications": one_more}).message["error"]
    assert refused["data"]["code"] == "busy", refused
    told = client.stream("subscriptions/listen", {"notifications": one_more}).next()
    assert told is not None
    assert told["params"]["notifications"] == one_more
    assert {"gateway: own", "gateway: narrow"} <= {one["name"] for one in broker.status()["clients"]}


def test_a_token_opens_what_it_is_for(door: RunningGateway) -> None:
    """1Panel#13264: what is configured is enforced."""
    narrow = as_holder(door, "narrow")
    assert narrow.call("echo", a=1) == {"a": 1}
    body = narrow.body_of("tools/call", {"name": "echo", "arguments": {}}, modern=True)
    odd = body.replace(b'"name": "echo"', b'"name":"whoami","Name":"whoami","name":"echo"')
    answer = narrow.send("POST", odd, narrow.standard("tools/call", {"name": "echo"}))
    assert answer.message["result"]["content"][0]["text"] == "{}"  # no parser may read another name
    assert narrow.ask("tools/call", {"name": "whoami", "arguments": {}}).status == 403
    for answer in (narrow.ask("tools/list"), narrow.initialized().ask("tools/list")):
        assert [tool["name"] for tool in answer.message["result"]["tools"]] == ["echo"]  # in no list either
    assert as_holder(door, "narrow", "other").ask("tools/list").status == 403
    assert as_holder(door, "narrow", "nobody").send("POST", b"{}").status == 403


def test_a_session_is_of_one_token(door: RunningGateway, client: Http) -> None:
    """Law 3: an id that another client learned opens nothing."""
    session = client.initialized()
    answer = as_holder(door, "narrow").send("POST", b"{}", {"mcp-session-id": session.id})
    assert answer.status == 400
    body = client.body_of("tools/list", {})
    assert as_holder(door, "narrow").send("POST", body, {"mcp-session-id": session.id}).status == 404


def channels(broker: RunningBroker) -> int:
    """How many channels hold something in the broker."""
    return sum(int(one["channels"]) for one in broker.status()["clients"])


def test_the_memory_of_a_burst_is_given_back(broker: RunningBroker) -> None:
    """Law 6: malloc would keep it for later, which looks like a leak."""
    sizes = [3_000_000, 5_000_000, 1_000_000, 8_000_000, 2_000_000, 3_500_000] * 3
    with gateway(broker, limits={"session_idle_sec": 0.5}) as door, threads(6) as pool:
        before = door.memory
        for asked in [pool.submit(door.http().call, "echo", a="x" * size) for size in sizes]:
            asked.result(2 * ANSWER_S)
        wait_until(lambda: door.memory < before + 24 * 1024 * 1024, lambda: door.memory - before)


# ---------------------------------------------------------------- slow readers


def test_a_client_that_does_not_read_is_cut() -> None:
    """Law 6: what waits for it is bounded, and its call is cancelled.

    The broker is this test's own: after a cancelled call without an answer of its server, log messages belong
    to no call, and there would be little to read. That the connection ends shows the cut: one that was
    answered in full stays open for longer than `read_all` waits.
    """
    with running({"rogue": rogue("--era", "modern")}) as broker, gateway(broker, limits=LIMITS) as door:
        client, before, calls = door.http(), door.memory, broker.server("rogue")["calls"]
        params = {
            "name": "log",
            "arguments": {"level": "info", "text": "x" * 60_000, "times": 2000},
            "_meta": {"io.modelcontextprotocol/logLevel": "info"},
        }
        body = client.body_of("tools/call", params, modern=True)
        headers = client.standard("tools/call", params) | client.headers
        head = "POST /mcp/rogue HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", door.port), timeout=ANSWER_S) as plug:
            plug.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: broker.server("rogue")["calls"] > calls, lambda: broker.server("rogue"))
            settled(broker)
            assert len(read_all(plug)) < 60_000 * 2000  # nothing, where the reset was first
        assert door.memory < before + 64 * 1024 * 1024
