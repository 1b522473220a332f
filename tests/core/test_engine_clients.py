"""Lists and management, which need no call of a server; how far clients may go; and their end."""

from __future__ import annotations

import json

import pytest

from broker.core import refusals
from broker.core.clients.connections import CloseReason
from broker.core.clients.requests import MAX_MANAGING, MAX_MANAGING_OF_ONE
from broker.core.servers.lifecycle import State
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json
from tests.core.world import World

# --- lists -------------------------------------------------------------------------------------------


def test_a_list_is_answered_from_memory() -> None:
    """Section 2: a hundred page opens ask the server nothing."""
    world = World()
    process = world.start()
    asked = len(process.lines)
    for number in range(100):
        client = world.client(str(number).encode())
        assert client.result(client.request("time", "tools/list")) == {"tools": [{"name": "echo"}]}
    assert len(process.lines) == asked


@pytest.mark.parametrize("state", [State.BACKOFF, State.DRAINING, State.HANDSHAKE, State.STOPPED])
def test_a_list_is_answered_while_the_server_is_not_there(state: State) -> None:
    """Section 2: a page that opens during a restart sees the tools."""
    world = World()
    world.start()
    world.scripts["time"].mute = {"initialize", "server/discover"}
    world.slow_to_end |= {"time"} if state is State.DRAINING else set()
    if state is State.STOPPED:
        world.stop()
    else:
        world.exit()
    if state is State.HANDSHAKE:
        world.wait(1.0)
    assert world.lifecycles["time"].state is state
    client = world.client()
    assert client.result(client.request("time", "tools/list")) == {"tools": [{"name": "echo"}]}


def test_a_list_that_is_asked_for_before_it_is_there_waits_for_it() -> None:
    """Law 8: a first page that opens with the broker sees all tools, not none."""
    world = World()
    client = world.client()
    world.scripts["time"].mute = {"tools/list"}
    process = world.start()
    early = client.request("time", "tools/list")
    assert not client.endings(early)
    process.reply(process.got("tools/list")[0], {"tools": [{"name": "late"}]})
    assert client.result(early) == {"tools": [{"name": "late"}]}
    world.assert_empty()


@pytest.mark.parametrize("early", [False, True], ids=["ready", "starting"])
def test_a_list_that_the_server_does_not_have_is_an_empty_one(early: bool) -> None:
    """As in both SDKs. It is asked for once, though nothing declares it."""
    world = World()
    world.scripts["time"].lacks = {"prompts/list"}
    if not early:
        world.start()
    client = world.client()
    if early:
        world.scripts["time"].mute = {"tools/list"}
        process = world.start()
        id = client.request("time", "prompts/list")
        assert not client.endings(id)
        process.reply(process.got("tools/list")[0], {"tools": []})
    else:
        id = client.request("time", "prompts/list")
    assert client.result(id) == {"prompts": []}
    assert client.result(client.request("time", "prompts/list")) == {"prompts": []}
    assert len(world.processes["time"].got("prompts/list")) == 1
    assert not world.engine.servers["time"].remarks
    world.assert_empty()


def test_a_changed_list_is_the_next_answer() -> None:
    """Section 2: the server says so, and every client sees the new one."""
    world = World()
    process = world.start()
    client = world.client()
    process.script.lists["tools/list"] = ["echo", "new"]
    process.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert len(client.result(client.request("time", "tools/list"))["tools"]) == 2
    assert "catalogue.changed" in [note.event for note in world.notes]


def test_an_unknown_tool_makes_the_broker_look_again() -> None:
    """Section 2: a server may have changed its tools without a word."""
    world = World()
    process = world.start()
    client = world.client()
    process.script.lists["tools/list"] = ["echo", "new"]
    assert client.fault(client.call(tool="new")).code == Code.UNKNOWN_TOOL
    client.call(tool="new")
    assert len(process.calls) == 1


def test_discovery_and_ping_are_the_brokers_to_answer() -> None:
    """Section 2: what the server is was asked once; `ping` of an older era is about the way to the broker."""
    world = World()
    process = world.start()
    client = world.client()
    found = client.result(client.request("time", "server/discover"))
    assert found["supportedVersions"] == ["2025-11-25"]
    assert client.result(client.request("time", "ping")) == {}
    assert not process.got("ping")


# --- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "name", "channels"),
    [
        ({"calls_per_channel": 3}, "calls_per_channel", [1, 1, 1, 1]),
        ({"calls_per_connection": 3}, "calls_per_connection", [1, 2, 3, 4]),
        ({"calls": 3}, "calls", [1, 2, 3, 4]),
    ],
)
def test_a_flood_is_refused_with_the_name_of_the_limit(
    limits: dict[str, int], name: str, channels: list[int]
) -> None:
    """Law 6: what is beyond a limit is answered at once; what was within it is served."""
    world = World(**limits)
    process = world.start()
    client = world.client()
    *taken, beyond = [client.call(channel=channel) for channel in channels]
    fault = client.fault(beyond)
    assert (fault.code, fault.data["limit"], fault.data["value"]) == (Code.BUSY, name, 3)
    for request in process.calls:
        process.reply(request, "ok")
    assert [client.result(id) for id in taken] == ["ok"] * 3
    assert client.endings(client.call()) == []


@pytest.mark.parametrize("keys", [{}, {"max_in_flight": 3}, {"serialized": True}])
@pytest.mark.parametrize("connections", [1, 2])
def test_behind_a_thousand_calls_a_single_one_waits_for_what_runs(keys: Json, connections: int) -> None:
    """Law 5: for at most `max_in_flight` calls, on another channel as well as on another connection."""
    world = World({"time": keys})
    process = world.start()
    clients = [world.client(str(number).encode()) for number in range(connections)]
    for _ in range(1000):
        clients[0].call(channel=1)
    at_once = world.config.servers["time"].concurrency
    for done in range(100):
        process.reply(process.calls[done], "ok")
    id = clients[-1].call(channel=2)
    others = 0
    while not clients[-1].endings(id):
        process.reply(process.calls[100 + others], "ok")
        others += 1
    assert others <= at_once + 1  # the last one is its own


def test_another_channel_has_its_own_limit() -> None:
    """Law 5: one page that floods does not use up what the other pages of its backend have."""
    world = World(calls_per_channel=2)
    world.start()
    client = world.client()
    flood = [client.call(channel=1) for _ in range(10)]
    assert sum(len(client.endings(id)) for id in flood) == 8
    assert client.endings(client.call(channel=2)) == []


def test_the_params_that_wait_are_bounded_together() -> None:
    """Law 6, `limits.queue_bytes`: what was written to a server does not count any more."""
    world = World({"time": {"max_in_flight": 1}}, queue_bytes=65_536)
    process = world.start()
    client = world.client()
    big = json.dumps({"name": "echo", "arguments": "x" * 40_000}).encode()
    ids = [client.request("time", "tools/call", body=big) for _ in range(3)]
    assert [len(client.endings(id)) for id in ids] == [0, 0, 1]
    assert client.fault(ids[2]).data["limit"] == "queue_bytes"
    process.reply(process.calls[0], "ok")
    assert client.endings(client.request("time", "tools/call", body=big)) == []


# --- management --------------------------------------------------------------------------------------


def test_management_is_handed_over_and_its_outcome_is_the_ending() -> None:
    """Section 3: `$broker` is the broker itself, as in ZeroMQ's 8/MMI."""
    world = World()
    client = world.client()
    good = client.request(wire.MANAGEMENT, "status", {"a": 1})
    bad = client.request(wire.MANAGEMENT, "restart")
    first, second = world.managing
    assert (first.method, first.body, second.body) == ("status", b'{"a": 1}', b"{}")
    world.managed(second, refusals.unknown_server("x", []))
    world.managed(first, b'{"ok":1}')
    assert client.result(good) == {"ok": 1}
    assert client.fault(bad).code == Code.UNKNOWN_SERVER
    world.assert_empty()


def test_only_so_much_management_is_under_way() -> None:
    """Law 6: `logs --follow` in a loop does not pile up; law 5: nor does it keep others from asking."""
    world = World()
    client, other = world.client(b"a"), world.client(b"b")
    ids = [client.request(wire.MANAGEMENT, "status") for _ in range(MAX_MANAGING_OF_ONE + 1)]
    busy = client.fault(ids[-1])
    assert (busy.code, busy.data["limit"]) == (Code.BUSY, "management requests")
    assert other.endings(other.request(wire.MANAGEMENT, "status")) == []
    assert len(world.managing) == MAX_MANAGING_OF_ONE + 1
    for number in range(MAX_MANAGING // MAX_MANAGING_OF_ONE + 1):
        client = world.client(str(number).encode())
        ids = [client.request(wire.MANAGEMENT, "status") for _ in range(MAX_MANAGING_OF_ONE)]
    assert client.fault(ids[-1]).code == Code.BUSY
    assert len(world.managing) == MAX_MANAGING


def test_management_that_is_under_way_when_the_broker_ends_is_answered() -> None:
    """Law 2: before the goodbye, as a call is; whether it was carried out is not guessed (law 8)."""
    world = World()
    client, other = world.client(b"a"), world.client(b"b")
    ids = [client.request(wire.MANAGEMENT, "restart", {"server": "time"}) for _ in range(2)]
    world.run(world.engine.clients.goodbye, "the broker was stopped")
    for id in ids:
        fault = client.fault(id)
        assert (fault.code, fault.data["outcome"]) == (Code.SHUTTING_DOWN, "unknown")
    assert [type(message) for message, _ in client.inbox[-1:]] == [wire.Goodbye]
    assert len(other.inbox) == 1
    for request in world.managing:
        world.managed(request, b"{}")
    assert len(client.endings(ids[0])) == 1
    assert world.engine.counters["late.managed"] == 2
    world.assert_empty()


def test_management_of_a_client_that_is_gone_ends_in_silence() -> None:
    """Law 4: and the count says so."""
    world = World()
    client = world.client()
    client.request(wire.MANAGEMENT, "status")
    world.cut(client)
    world.managed(world.managing[0], b"{}")
    assert world.engine.counters["late.managed"] == 1
    world.assert_empty()


def test_no_server_can_be_called_as_management_is() -> None:
    """Section 3: the name begins with `$`, which the config does not take."""
    world = World()
    client = world.client()
    assert client.fault(client.request("$Broker", "status")).code == Code.UNKNOWN_SERVER


# --- credit, and the end of a connection -------------------------------------------------------------


def test_a_client_that_does_not_read_is_closed_and_the_others_are_not() -> None:
    """Law 6: at `limits.outbox_bytes`; law 5: nobody else notices."""
    world = World(credit_bytes=65_536, outbox_bytes=65_536)
    process = world.start()
    idle, awake = world.client(b"idle"), world.client(b"awake")
    for _ in range(4):
        idle.call()
        process.reply(process.calls[-1], "x" * 40_000)
    assert world.closed == {b"idle": CloseReason.CREDIT}
    assert isinstance(idle.inbox[-1][0], wire.Goodbye)  # beyond its credit, or it would wait for ever
    assert world.engine.counters["closed.credit"] == 1
    id = awake.call()
    process.reply(process.calls[-1], "ok")
    assert awake.result(id) == "ok"
    world.assert_empty()


def test_a_client_that_does_not_read_is_closed_once() -> None:
    """Law 2: also where one event makes it overflow many times, as the death of its server does."""
    world = World(credit_bytes=65_536, outbox_bytes=65_536)
    process = world.start()
    client = world.client()
    for _ in range(42):
        client.call()
    for request in process.calls[:2]:
        process.reply(request, "x" * 65_100)
    assert not world.closed
    world.exit()
    assert world.engine.counters["closed.credit"] == 1
    assert [message for message, _ in client.inbox if isinstance(message, wire.Goodbye)] != []
    world.assert_empty()


def test_credit_lets_the_next_message_out() -> None:
    """Section 5, credit: as the client reads, what waited goes out."""
    world = World(credit_bytes=65_536)
    process = world.start()
    client = world.client()
    first, second = client.call(), client.call()
    for request in process.calls:
        process.reply(request, "x" * 70_000)
    assert (len(client.endings(first)), len(client.endings(second))) == (1, 0)
    client.say(wire.Credit(0, 0, wire.cost(wire.encode(wire.Result(1, first)), b"x" * 70_002)))
    assert len(client.endings(second)) == 1


@pytest.mark.parametrize("read_bytes", [-1, -(2**63), 10_000, 2**63])
def test_credit_for_what_was_not_sent_is_refused(read_bytes: int) -> None:
    """Section 5, credit: it is what stands between a client and all of libzmq's memory."""
    world = World()
    client = world.client()
    connection = world.engine.connections.get(client.key)
    assert connection is not None
    unread = connection.unread_bytes
    client.say(wire.Credit(0, 0, read_bytes))
    fault = client.only_fault()
    assert fault.code == Code.MALFORMED
    assert connection.unread_bytes == unread + wire.cost(wire.encode(fault), None)


@pytest.mark.parametrize("how", ["goodbye", "lost"])
def test_a_client_that_goes_leaves_nothing(how: str) -> None:
    """Law 4: its calls are cancelled upstream, those in line never start, and its row is gone."""
    world = World({"time": {"max_in_flight": 2}})
    process = world.start()
    client, other = world.client(b"a"), world.client(b"b")
    for _ in range(4):
        client.call()
    waiting = other.call()
    if how == "goodbye":
        client.say(wire.Goodbye(0, 0, "done"))
    else:
        world.cut(client)
    cancelled = [line["params"]["requestId"] for line in process.got("notifications/cancelled")]
    assert cancelled == [request["id"] for request in process.calls[:2]]
    assert world.closed == {b"a": CloseReason(how)}
    assert len(world.engine.connections) == 1
    process.reply(process.calls[2], "ok")
    assert other.result(waiting) == "ok"
    assert len(process.calls) == 3
    world.assert_empty()


def test_a_channel_that_is_released_leaves_its_siblings() -> None:
    """Section 3: one page of a backend closes; the others go on over the same connection."""
    world = World()
    process = world.start()
    client = world.client()
    mine, yours = client.call(channel=1), client.call(channel=2)
    client.say(wire.Goodbye(1, 0, "closed"))
    (cancelled,) = process.got("notifications/cancelled")
    assert cancelled["params"]["requestId"] == process.calls[0]["id"]
    process.reply(process.calls[0], "too late")
    process.reply(process.calls[1], "ok")
    assert client.endings(mine) == []
    assert client.result(yours) == "ok"
    assert not world.closed


def test_lost_twice_and_lost_before_hello_are_nothing() -> None:
    """Section 2: the transport may say it again, or of somebody who never came in."""
    world = World()
    client = world.client()
    world.cut(client)
    world.cut(client)
    world.cut(world.stranger(b"x"))
    assert world.engine.counters["closed.lost"] == 1


# --- the end of the broker ---------------------------------------------------------------------------


def test_a_broker_that_drains_takes_nothing_new_and_finishes_what_it_has() -> None:
    """Section 3, `drain_sec`: what runs may end."""
    world = World()
    process = world.start()
    client = world.client()
    running = client.call()
    world.run(world.engine.refuse_new)
    assert client.fault(client.call()).code == Code.SHUTTING_DOWN
    assert client.fault(client.request(wire.MANAGEMENT, "status")).code == Code.SHUTTING_DOWN
    late = world.stranger(b"late").hello()
    assert isinstance(late, wire.Fault)
    assert late.code == Code.SHUTTING_DOWN
    process.reply(process.calls[0], "ok")
    assert client.result(running) == "ok"


def test_a_broker_that_drains_begins_none_of_the_calls_that_wait() -> None:
    """Law 8: of a call that is begun in the last moment and cut off, nobody knows whether it took effect."""
    world = World({"time": {"serialized": True}})
    process = world.start()
    client = world.client()
    running, *waiting = [client.call() for _ in range(300)]
    world.run(world.engine.refuse_new)
    world.wait(1.0)
    faults = [client.fault(id) for id in waiting]
    assert {fault.code for fault in faults} == {Code.SHUTTING_DOWN.value}
    assert not any("outcome" in fault.data for fault in faults)
    process.reply(process.calls[0], "ok")
    assert client.result(running) == "ok"
    assert len(process.calls) == 1
    assert world.engine.is_drained


def test_goodbye_ends_every_call_and_then_every_connection() -> None:
    """Law 2: the last thing a client hears is why, after an ending for each of its requests."""
    world = World({"time": {"max_in_flight": 1}})
    world.start()
    clients = [world.client(b"a"), world.client(b"b")]
    ids = [(client, client.call()) for client in clients for _ in range(3)]
    world.run(world.engine.clients.goodbye, "the broker was stopped")
    assert {client.fault(id).code for client, id in ids} == {Code.SHUTTING_DOWN.value}
    for client in clients:
        assert client.inbox[-1][0] == wire.Goodbye(0, 0, "the broker was stopped", last_id=3)
    assert set(world.closed.values()) == {CloseReason.SHUTDOWN}
    assert len(world.engine.connections) == 0
    world.assert_empty()


@pytest.mark.parametrize("ids", [[1, 2, 3], [7, 2, 5], [9]])
def test_the_goodbye_has_the_highest_id_that_was_taken_in(ids: list[int]) -> None:
    """RFC 9113, section 6.8: above it nothing was begun, whatever ids a client gives and in which order.

    What is refused because the broker ends was not taken in; nor is one connection told of another's.
    """
    world = World()
    world.start()
    client, other = world.client(b"a"), world.client(b"b")
    for id in ids:
        client.call(id=id)
    world.run(world.engine.refuse_new)
    assert client.fault(client.call(id=20)).code == Code.SHUTTING_DOWN
    assert client.fault(client.call(id=21, instance="another")).code == Code.WRONG_INSTANCE
    world.run(world.engine.clients.goodbye, "it ends")
    assert client.inbox[-1][0] == wire.Goodbye(0, 0, "it ends", last_id=max(ids))
    assert other.inbox[-1][0] == wire.Goodbye(0, 0, "it ends", last_id=0)


def test_lists_and_management_are_taken_in_too() -> None:
    """What the broker answers itself has been begun as much as what a server does."""
    world = World()
    world.start()
    client = world.client()
    connection = world.engine.connections.get(client.key)
    assert connection is not None
    for service, method in (("time", "tools/list"), (wire.MANAGEMENT, "status"), (wire.MANAGEMENT, "listen")):
        assert client.request(service, method, {}) == connection.last_id


def test_a_broker_is_drained_when_every_answer_has_left() -> None:
    """Neither a command that is under way nor an answer that waits for credit is cut off by the end."""
    world = World(credit_bytes=65_536)
    process = world.start()
    client = world.client()
    ids = [client.call(), client.call()]
    client.request(wire.MANAGEMENT, "restart", {"server": "time"})
    world.run(world.engine.refuse_new)
    for request in process.calls:
        process.reply(request, "x" * 70_000)
    assert (world.engine.under_way, world.engine.is_drained) == (1, False)
    world.managed(world.managing[0], b"{}")
    assert (world.engine.under_way, world.engine.is_drained) == (0, False)
    assert not client.endings(ids[1])
    for _ in range(2):
        assert not world.engine.is_drained
        client.say(wire.Credit(0, 0, 70_000))
    assert client.endings(ids[1])
    assert world.engine.is_drained


def test_the_goodbye_reaches_a_client_that_has_used_up_its_credit() -> None:
    """What waits for credit is dropped at the end: the client learns that, and what was not begun."""
    world = World(credit_bytes=65_536)
    process = world.start()
    client = world.client()
    ids = [client.call() for _ in range(3)]
    for request in process.calls[:2]:
        process.reply(request, "x" * 70_000)
    world.run(world.engine.clients.goodbye, "it ends")
    assert [len(client.endings(id)) for id in ids] == [1, 0, 0]
    assert client.inbox[-1][0] == wire.Goodbye(0, 0, "it ends", last_id=3)
