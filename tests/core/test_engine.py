"""What clients may say, and what they hear if they may not: hello, frames, requests that are refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from broker.core.effects import Level
from broker.core.mcp.methods import Era
from broker.core.servers.lifecycle import Event
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import INSTANCE, World

# --- hello -------------------------------------------------------------------------------------------


def test_hello_is_answered_with_instance_and_limits() -> None:
    """Section 3: what a client needs to know before its first request."""
    world = World(max_message_bytes=100_000, credit_bytes=70_000)
    welcome = world.stranger().hello()
    limits = {"max_message_bytes": 100_000, "credit_bytes": 70_000, "request_credit_bytes": 70_000}
    assert welcome == wire.Welcome(0, 0, INSTANCE, "0.1.0", limits)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (wire.Request(1, 5, INSTANCE, "time", "tools/list", None, 0, None), None),
        (wire.Answer(1, 5, True), b"{}"),
        (wire.Result(1, 5), b"{}"),
    ],
)
def test_hello_comes_first(message: wire.Message, body: bytes | None) -> None:
    """Section 3: who has not said who it is gets nothing but that."""
    world = World()
    world.start()
    stranger = world.stranger()
    stranger.say(message, body)
    fault = stranger.only_fault()
    assert (fault.code, fault.channel, fault.id) == (Code.HELLO_FIRST, 1, 5)
    assert len(world.engine.connections) == 0


@pytest.mark.parametrize(
    "message",
    [wire.Cancel(1, 5, None), wire.Goodbye(0, 0, "x"), wire.Goodbye(1, 0, "x"), wire.Credit(0, 0, 5)],
)
def test_what_asks_for_nothing_gets_no_answer_after_the_end(message: wire.Message) -> None:
    """Law 9: a connection that was closed may have said it before it knew; it is counted."""
    world = World()
    client = world.client()
    world.cut(client)
    client.say(message)
    assert client.inbox == []
    assert world.engine.counters["late.frame"] == 1


@pytest.mark.parametrize("ending", [False, True])
def test_a_request_that_crosses_the_goodbye_is_late_and_no_mistake(ending: bool) -> None:
    """Law 9: it is refused and counted; the operator who stops a broker is not warned of its clients."""
    world = World()
    world.start()
    client = world.client() if ending else world.stranger()
    if ending:
        world.run(world.engine.clients.goodbye, "the broker is shutting down")
        client.inbox.clear()
        del world.closed[client.key]  # it is closed, but not broken: the client has yet to read why
    client.say(wire.Request(1, 5, INSTANCE, "time", "tools/list", None, 0, None))
    assert client.only_fault().code == Code.HELLO_FIRST
    assert world.engine.counters["late.frame"] == int(ending)
    warned = [note.event for note in world.notes if note.level >= Level.WARNING]
    assert warned == ([] if ending else ["frame.refused"])


@pytest.mark.parametrize("versions", [[], [2, 3], ["1"], [[[[]]]], list(range(2, 1_000))])
def test_a_client_of_other_versions_is_told_both_sides(versions: list[Any]) -> None:
    """Section 3: versions are agreed on in the hello."""
    world = World()
    stranger = world.stranger()
    stranger.send(msgpack.packb((1, 1, 0, 0, versions, {})))
    fault = stranger.only_fault()
    assert fault.code == Code.WIRE_VERSION
    assert "the broker 1" in fault.message or len(versions) > 100
    assert world.engine.connections.get(b"a") is None


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({}, "unnamed"),
        ({"name": ""}, "unnamed"),
        ({"name": 5}, "unnamed"),
        ({"name": "x\x1b"}, "x\N{REPLACEMENT CHARACTER}"),
        ({"name": "n" * 500}, "n" * 64 + "…"),
    ],
)
def test_the_name_of_a_client_is_fit_to_be_shown(about: dict[str, Any], name: str) -> None:
    """Law 6: it gets into `status` and the log."""
    world = World()
    stranger = world.stranger()
    stranger.say(wire.Hello(0, 0, [1], about))
    connection = world.engine.connections.get(b"a")
    assert connection is not None
    assert connection.name == name


def test_there_are_only_so_many_connections() -> None:
    """Law 6, `limits.connections`: the next is told so, and those that are there stay."""
    world = World(connections=2)
    first = world.client(b"a")
    world.client(b"b")
    third = world.stranger(b"c")
    fault = third.hello()
    assert isinstance(fault, wire.Fault)
    assert (fault.code, fault.data["limit"]) == (Code.BUSY, "connections")
    world.cut(first)
    assert isinstance(world.stranger(b"c").hello(), wire.Welcome)


# --- frames that do not fit --------------------------------------------------------------------------


BAD_FRAMES: dict[str, tuple[bytes, bytes | None, Code]] = {
    "empty": (b"", None, Code.MALFORMED),
    "not msgpack": (b"\xc1", None, Code.MALFORMED),
    "another version": (msgpack.packb((2, 3, 1, 9)), None, Code.WIRE_VERSION),
    "an unknown kind": (msgpack.packb((1, 99, 1, 9)), None, Code.UNKNOWN_KIND),
    "a field too few": (msgpack.packb((1, 8, 1, 9)), None, Code.MALFORMED),
    "a body too many": (wire.encode(wire.Cancel(1, 9, None)), b"{}", Code.MALFORMED),
    "a body too few": (wire.encode(wire.Answer(1, 9, True)), None, Code.MALFORMED),
    "a result": (wire.encode(wire.Result(1, 9)), b"{}", Code.METHOD_REFUSED),
    "id 0": (wire.encode(wire.Request(1, 0, INSTANCE, "time", "x", None, 0, None)), None, Code.MALFORMED),
    "channel 0": (
        wire.encode(wire.Request(0, 9, INSTANCE, "time", "x", None, 0, None)),
        None,
        Code.MALFORMED,
    ),
    "a long kind": (msgpack.packb((1, "\x01" * 60_000, 1, 9)), None, Code.UNKNOWN_KIND),
    "a deep kind": (b"\x94\x01" + b"\x91" * 1000 + b"\xc0" + b"\x01\x01", None, Code.UNKNOWN_KIND),
    "a deep version": (b"\x94" + b"\x91" * 1000 + b"\xc0" + b"\x03\x01\x01", None, Code.WIRE_VERSION),
}


@pytest.mark.parametrize(("header", "body", "code"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
@pytest.mark.parametrize("known", [True, False], ids=["client", "stranger"])
def test_a_frame_that_does_not_fit_is_answered(
    header: bytes, body: bytes | None, code: Code, known: bool
) -> None:
    """Law 9: it is counted and answered, from a client or from a stranger, and the connection stays."""
    world = World()
    client = world.client() if known else world.stranger()
    client.send(header, body)
    fault = client.only_fault()
    assert fault.code in ((code,) if known else (code, Code.HELLO_FIRST, Code.TOO_LARGE))
    assert world.engine.counters[f"refused.{fault.code}"] == 1
    assert (world.engine.connections.get(client.key) is not None) is known


def test_a_second_hello_is_refused() -> None:
    """Section 3: who a connection belongs to is settled once."""
    world = World()
    client = world.client()
    connection = world.engine.connections.get(client.key)
    client.say(wire.Hello(0, 0, [wire.VERSION], {"name": "other"}))
    assert client.only_fault().code == Code.METHOD_REFUSED
    assert world.engine.connections.get(client.key) is connection


def test_a_message_of_too_many_frames_is_answered() -> None:
    """Law 9: the endpoint says that it came; whose request it was cannot be known."""
    world = World()
    client = world.client()
    world.run(world.engine.clients.malformed, client.key, "it has 3 frames")
    fault = client.only_fault()
    assert (fault.code, fault.id) == (Code.MALFORMED, 0)
    assert "3 frames" in fault.message


OF_AN_OPEN_REQUEST: dict[str, tuple[bytes, bytes | None]] = {
    "its id again": (wire.encode(wire.Request(1, 1, INSTANCE, "time", "tools/list", None, 0, None)), None),
    "its id again, for nobody": (wire.encode(wire.Request(2, 1, "old", "nobody", "x", None, 0, None)), b"["),
    "a cancel with a body": (wire.encode(wire.Cancel(1, 1, None)), b"{}"),
    "a cancel that is cut short": (msgpack.packb((1, 8, 1, 1)), None),
    "an unknown kind": (msgpack.packb((1, 99, 1, 1)), None),
}


@pytest.mark.parametrize(("header", "body"), OF_AN_OPEN_REQUEST.values(), ids=OF_AN_OPEN_REQUEST.keys())
@pytest.mark.parametrize("service", ["time", "$broker"])
def test_a_bad_frame_does_not_end_an_open_request(header: bytes, body: bytes | None, service: str) -> None:
    """Law 2: a fault with the id of an open request would be its ending, and another would follow."""
    world = World()
    process = world.start()
    client = world.client()
    id = client.call(service) if service == "time" else client.request(service, "status")
    client.send(header, body)
    ((message, _),) = client.inbox
    assert isinstance(message, wire.Fault)
    assert message.id == 0
    if service == "time":
        process.reply(process.calls[0], "ok")
    else:
        world.managed(world.managing[0], b'"ok"')
    assert client.result(id) == "ok"


# --- requests that are refused -----------------------------------------------------------------------


def test_a_request_for_another_instance_is_refused() -> None:
    """Section 5, stale calls: what was meant for an earlier broker is not run by this one."""
    world = World()
    process = world.start()
    client = world.client()
    fault = client.fault(client.call(instance="i-0"))
    assert fault.code == Code.WRONG_INSTANCE
    assert not process.calls


def test_the_five_ways_a_server_may_not_be_there_are_told_apart() -> None:
    """Law 10: unknown, without such a tool, switched off, starting, down; each with its next step."""
    world = World({"time": {}, "slow": {}, "off": {"enabled": False}, "bad": {}})
    world.scripts["slow"].mute = {"server/discover", "initialize"}
    world.scripts["bad"].mute = {"server/discover", "initialize"}
    for name in ("time", "slow", "bad"):
        world.start(name)
    world.engine.servers["bad"].remembered = Era.LEGACY
    world.exit("bad")
    world.exit("bad", "it exited with status 3")
    client = world.client()
    faults = [
        client.fault(client.call("tmie")),
        client.fault(client.call("time", "ehco")),
        client.fault(client.call("off")),
        client.fault(client.call("bad", timeout_ms=10)),
    ]
    slow = client.call("slow", timeout_ms=10)
    world.wait(0.01)
    faults.append(client.fault(slow))
    assert [fault.code for fault in faults] == [
        Code.UNKNOWN_SERVER,
        Code.UNKNOWN_TOOL,
        Code.SERVER_DISABLED,
        Code.SERVER_DOWN,
        Code.SERVER_STARTING,
    ]
    assert len({fault.message for fault in faults}) == len({fault.data["hint"] for fault in faults}) == 5
    assert "did you mean time?" in faults[0].data["hint"]
    assert "did you mean echo?" in faults[1].data["hint"]
    assert "it exited with status 3" in faults[3].message
    assert faults[3].data["retry_after_s"] > 0


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("initialize", {}, Code.METHOD_REFUSED),
        ("resources/subscribe", {"uri": "x"}, Code.METHOD_REFUSED),
        ("tasks/list", {}, Code.METHOD_REFUSED),
        ("notifications/cancelled", {"requestId": 1}, Code.UNKNOWN_METHOD),
        ("x/y", {}, Code.UNKNOWN_METHOD),
        ("", {}, Code.UNKNOWN_METHOD),
        ("tools/list", {"cursor": "1"}, Code.INVALID_PARAMS),
        ("tools/list", {"cursor": ""}, Code.INVALID_PARAMS),
        ("tools/call", {"name": "echo", "_meta": {}}, Code.META_IN_BODY),
        ("tools/call", [], Code.INVALID_BODY),
        ("tools/call", {}, Code.UNKNOWN_TOOL),
        ("tools/call", {"name": 5}, Code.UNKNOWN_TOOL),
        ("tools/call", {"name": "echo", "task": {"ttl": 1}}, Code.METHOD_REFUSED),
    ],
)
@pytest.mark.parametrize("early", [False, True], ids=["ready", "starting"])
def test_what_is_refused_never_reaches_a_server(method: str, params: object, code: Code, early: bool) -> None:
    """Section 2: before a byte is written, whether the server is there already or comes later."""
    world = World()
    client = world.client()
    if early:
        world.feed("time", Event.START)
        world.processes["time"].lines.clear()
    process = world.start()
    before = len([line for line in process.lines if line.get("method") == method])
    fault = client.fault(client.request("time", method, params))
    assert fault.code == code
    assert len(process.got(method)) == before
    world.assert_empty()


@pytest.mark.parametrize(
    "body", [b'{"a":NaN}', b'{"a":"\xff"}', b'{\r"name":"echo"}', b'{"name":1e999,"_meta":1}', b"", b"{}{}"]
)
def test_a_body_that_is_not_one_line_of_json_is_refused(body: bytes) -> None:
    """Section 5: at the door, with the id of the request."""
    world = World()
    process = world.start()
    client = world.client()
    fault = client.fault(client.request("time", "tools/call", body=body))
    assert fault.code in (Code.INVALID_BODY, Code.META_IN_BODY)
    assert not process.calls


def test_a_meta_that_is_not_json_is_refused() -> None:
    """Law 7: msgpack could carry bytes; JSON cannot."""
    world = World()
    world.start()
    client = world.client()
    assert client.fault(client.call(meta={"k": b"\x00"})).code == Code.INVALID_BODY


def test_a_body_above_the_limit_is_answered() -> None:
    """Section 5, too large: by the broker, with both numbers; one byte less passes."""
    world = World(max_message_bytes=65_536)
    process = world.start()
    client = world.client()
    client.request("time", "tools/call", body=b'{"name":"echo"}'.ljust(65_536))
    assert len(process.calls) == 1
    fault = client.fault(client.request("time", "tools/call", body=b"x" * 65_537))
    assert (fault.code, fault.data["size_bytes"], fault.data["limit_bytes"]) == (
        Code.TOO_LARGE,
        65_537,
        65_536,
    )


def test_allowed_methods_are_passed_on() -> None:
    """Section 3, `allow_methods`: for what a server has beyond the specification."""
    world = World({"time": {"allow_methods": ["x/y"]}})
    process = world.start()
    client = world.client()
    id = client.request("time", "x/y", {"a": 1})
    (request,) = process.got("x/y")
    assert request["params"] == {"a": 1}
    process.reply(request, 5)
    assert client.result(id) == 5
