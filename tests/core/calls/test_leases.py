"""A lease: one channel has a stateful server for itself, the others wait, and it ends in every way it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.calls import leases
from broker.core.calls.queue import ChannelKey, FairQueue, Lease
from broker.core.clients.connections import Peer
from broker.core.effects import Level
from broker.core.mcp.methods import Era
from client_shim import wire
from client_shim.wire import Code
from tests.core.calls.test_queue import call
from tests.core.fake_server import Json, Process
from tests.core.world import Client, World, ready

LEASE_S = 60.0


def leased(**table: object) -> tuple[World, Client, Client]:
    """A broker whose server is leased for a minute, and two clients; calls have ten minutes."""
    world = ready(**{"lease_sec": LEASE_S, "timeout": 600.0, **table})
    return world, world.client(b"a"), world.client(b"b")


def held(world: World) -> Json | None:
    """What `status` shows of the lease."""
    return leases.shown(world.engine.servers["time"], world.now)


def holder(world: World) -> ChannelKey | None:
    """The channel that has the server for itself."""
    lease = world.engine.servers["time"].queue.lease
    return lease.holder if lease is not None else None


def said(world: World, event: str) -> list[dict[str, Any]]:
    """The facts of the log lines about an event."""
    lines = [note for note in world.notes if note.event == event]
    assert all(note.level is Level.INFO for note in lines)
    return [dict(note.facts) for note in lines]


def answer(process: Process) -> None:
    """The server answers all that it was asked and has not answered."""
    for request in process.calls:
        if request["id"] not in process.answered:
            process.reply(request, "ok")


# --- which requests need it ------------------------------------------------------------------------------

AT_THE_SERVER = {
    "tools/call": {"name": "echo"},
    "resources/read": {"uri": "u"},
    "prompts/get": {"name": "p"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "p"}},
    "x/allowed": {},
}
FROM_MEMORY = ["tools/list", "prompts/list", "server/discover", "ping"]


@pytest.mark.parametrize("method", AT_THE_SERVER)
def test_whatever_reaches_the_server_takes_the_lease_and_needs_it(method: str) -> None:
    """Two clients' calls of any kind are never side by side in one browser."""
    world, first, second = leased(allow_methods=["x/allowed"])
    world.scripts["time"].capabilities = None
    first.request("time", method, AT_THE_SERVER[method])
    assert holder(world) == (b"a", 1)
    for other, params in AT_THE_SERVER.items():
        second.request("time", other, params)
    process = world.processes["time"]
    assert sum(len(process.got(one)) for one in AT_THE_SERVER) == 1


@pytest.mark.parametrize("method", FROM_MEMORY)
def test_what_the_broker_answers_from_memory_neither_takes_it_nor_needs_it(method: str) -> None:
    """A page that only lists tools does not use the browser, and need not wait behind its own call for it."""
    world, first, second = leased()
    first.request("time", method)
    assert holder(world) is None
    first.call()
    second.call()
    asked = second.request("time", method)
    assert len(second.endings(asked)) == 1
    assert isinstance(second.endings(asked)[0][0], wire.Result)
    assert holder(world) == (b"a", 1)


@pytest.mark.parametrize("method", FROM_MEMORY)
def test_what_waits_for_the_start_of_the_server_does_not_wait_for_the_lease(method: str) -> None:
    """It was behind a call of its own channel when the server started, and that call waits for the lease."""
    world = World({"time": {"lease_sec": LEASE_S}})
    world.scripts["time"].mute = {"initialize", "server/discover"}
    world.start()
    first, second = world.client(b"a"), world.client(b"b")
    first.call()
    second.call()
    asked = second.request("time", method)
    process = world.processes["time"]
    world.scripts["time"].mute = set()
    (probe,) = process.got("server/discover") or process.got("initialize")
    answered = world.scripts["time"].answer(probe)
    assert answered is not None
    process.say(answered)
    assert holder(world) == (b"a", 1)
    assert len(process.calls) == 1
    assert isinstance(second.endings(asked)[0][0], wire.Result)


def test_a_call_that_does_not_reach_the_server_takes_no_lease() -> None:
    """The broker knows that there is no such tool."""
    world, first, _ = leased()
    assert first.fault(first.call(tool="no-such")).code == Code.UNKNOWN_TOOL
    assert holder(world) is None


# --- how long it lasts ------------------------------------------------------------------------------------


def test_its_time_counts_from_the_end_of_the_last_call_and_never_within_one() -> None:
    """A page that loads for two minutes does not lose the browser meanwhile."""
    world, first, second = leased()
    process = world.processes["time"]
    first.call()
    waiting = second.call()
    world.wait(2 * LEASE_S)
    shown = {"client": "page", "pid": 42, "channel": 1, "waiting": 1}
    assert held(world) == {**shown, "since_s": 120.0, "idle_s": 0.0, "ends_in_s": LEASE_S}
    answer(process)
    world.wait(LEASE_S - 1.0)
    assert held(world) == {**shown, "since_s": 179.0, "idle_s": 59.0, "ends_in_s": 1.0}
    assert len(process.calls) == 1
    world.wait(1.0)
    assert holder(world) == (b"b", 1)
    answer(process)
    assert second.result(waiting) == "ok"


def test_every_call_of_the_holder_begins_its_time_anew() -> None:
    """The others wait as long as it calls."""
    world, first, second = leased(timeout=6000.0)
    first.call()
    second.call()
    for _ in range(10):
        first.call()
        answer(world.processes["time"])
        world.wait(LEASE_S - 1.0)
        assert holder(world) == (b"a", 1)
    world.wait(1.0)
    assert holder(world) == (b"b", 1)


@pytest.mark.parametrize("method", FROM_MEMORY)
def test_what_is_answered_from_memory_does_not_keep_it(method: str) -> None:
    """A host that pings twice a minute and does nothing else has not used the browser."""
    world, first, second = leased()
    first.call()
    answer(world.processes["time"])
    second.call()
    for _ in range(4):
        world.wait(LEASE_S / 4)
        first.request("time", method)
    assert holder(world) == (b"b", 1)


def test_a_call_of_the_holder_that_waits_for_a_place_is_a_call() -> None:
    """Its time does not run out while the server does not read, or has no place for it."""
    world, first, second = leased()
    first.call()
    answer(world.processes["time"])
    world.run(world.engine.registry.congested, "time", True)
    first.call()
    second.call()
    world.wait(3 * LEASE_S)
    assert holder(world) == (b"a", 1)
    world.run(world.engine.registry.congested, "time", False)
    assert [len(world.processes["time"].calls), holder(world)] == [2, (b"a", 1)]


def test_an_open_question_is_within_a_call() -> None:
    """Somebody thinks for four minutes about what the server asked."""
    world, first, second = leased(serialized=True, asks_within_calls=True, answer_timeout=500.0)
    takes: Json = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    first.call(flags=wire.TAKES_QUESTIONS, meta=takes)
    second.call()
    world.processes["time"].say({"id": "q", "method": "elicitation/create", "params": {"message": "?"}})
    assert [message for message, _ in first.inbox if isinstance(message, wire.Question)]
    world.wait(4 * LEASE_S)
    assert holder(world) == (b"a", 1)


def test_the_holder_has_as_many_calls_at_once_as_the_server_takes() -> None:
    """`max_in_flight` holds within the lease."""
    world, first, second = leased(max_in_flight=3)
    for _ in range(5):
        second.call(channel=2)
        first.call()
    process = world.processes["time"]
    assert holder(world) == (b"b", 2)
    assert len(process.calls) == 3
    answer(process)
    assert len(process.calls) == 5
    assert holder(world) == (b"b", 2)


# --- how it ends ------------------------------------------------------------------------------------------


def reload_without(world: World, first: Client) -> None:
    """A reload takes `lease_sec` out of the table."""
    (server,) = world.config.servers.values()
    retune(world, lease_sec=None)
    assert server.lease_sec == LEASE_S


def retune(world: World, **keys: object) -> None:
    """The table of the server has changed."""
    (server,) = world.config.servers.values()
    changed = msgspec.structs.replace(server, **keys)
    world.engine.configure(msgspec.structs.replace(world.config, servers={server.name: changed}))
    world.run(world.engine.registry.retune, server.name)


ENDS: dict[str, tuple[str, Callable[[World, Client], None]]] = {
    "its channel is closed": ("closed", lambda _, one: one.say(wire.Goodbye(1, 0, "closed"))),
    "its connection is closed": ("closed", lambda _, one: one.say(wire.Goodbye(0, 0, "closed"))),
    "its connection is lost": ("closed", lambda world, one: world.cut(one)),
    "it makes no call": ("idle", lambda world, _: world.wait(LEASE_S)),
    "the operator": (
        "released",
        lambda world, _: world.run(world.engine.dispatch.leases.release, world.engine.servers["time"]),
    ),
    "the process exits": ("process-gone", lambda world, _: world.exit()),
    "the operator restarts it": ("process-gone", lambda world, _: world.restart()),
    "the operator stops it": ("process-gone", lambda world, _: world.stop()),
    "a reload": ("reload", reload_without),
}


@pytest.mark.parametrize("how", ENDS)
def test_it_ends_and_the_next_one_that_waits_is_served(how: str) -> None:
    """In whatever way; and the log says why."""
    reason, end = ENDS[how]
    world, first, second = leased()
    first.call()
    answer(world.processes["time"])
    waiting = second.call()
    assert second.endings(waiting) == []
    end(world, first)
    if how == "the operator stops it":
        assert second.fault(waiting).code == Code.SERVER_DOWN
        assert holder(world) is None
    else:
        world.wait(2.0)  # where there has to be another process
        answer(world.processes["time"])
        assert second.result(waiting) == "ok"
        assert holder(world) == (None if reason == "reload" else (b"b", 1))
    facts = {"server": "time", "client": "page", "pid": 42, "channel": 1}
    held_s = LEASE_S if reason == "idle" else 0.0
    assert said(world, "lease.granted")[0] == {**facts, "waited_s": 0.0}
    assert said(world, "lease.ended") == [{**facts, "reason": reason, "held_s": held_s}]
    assert world.engine.counters[f"lease.ended.{reason}"] == 1


@pytest.mark.parametrize("how", [how for how in ENDS if how not in ("a reload", "it makes no call")])
def test_the_end_in_the_middle_of_calls_leaves_the_server_to_one_channel(how: str) -> None:
    """What runs, or may still be worked on, is over before the next channel has its turn."""
    world, first, second = leased()
    process = world.processes["time"]
    running = [first.call(), first.call()]
    waiting = second.call()
    ENDS[how][1](world, first)
    assert holder(world) != (b"a", 1)
    if how == "the operator stops it":
        assert second.fault(waiting).code == Code.SERVER_DOWN
        return
    if world.processes.get("time") is not process:
        world.wait(2.0)
        assert [first.fault(id).data["not_sent_again"] for id in running] == ["stateful"] * 2
        process = world.processes["time"]
        assert len(process.calls) == 1
    else:
        assert len(process.calls) == 2
        process.reply(process.calls[0], "late")
        assert len(process.calls) == 2
        process.reply(process.calls[1], "late")
        assert len(process.calls) == 3
    assert holder(world) == (b"b", 1)
    answer(process)
    assert second.result(waiting) == "ok"


@pytest.mark.parametrize(
    ("silent", "keys", "after_s"),
    [
        ({"ping"}, {}, 20.0),
        (set(), {}, 5.0),
        (set(), {"cancel_grace_sec": 2.0}, 2.0),
        (set(), {"serialized": True}, 5.0),
    ],
)
def test_a_cancelled_call_that_is_never_answered_delays_the_next_client(
    silent: set[str], keys: Json, after_s: float
) -> None:
    """By the timeout, or by the grace after the ping behind the cancellation: SDKs end such a call in
    silence."""
    world, first, second = leased(timeout=20.0, **keys)
    world.scripts["time"].mute = silent
    first.call()
    second.call(timeout_ms=100_000)
    world.cut(first)
    world.wait(after_s - 0.1)
    assert [len(world.processes["time"].calls), holder(world)] == [1, None]
    world.wait(0.1)
    assert [len(world.processes["time"].calls), holder(world)] == [2, (b"b", 1)]


def test_the_holder_goes_on_beside_a_call_that_it_has_cancelled() -> None:
    """It is its own state that both of them work on."""
    world, first, _ = leased()
    first.say(wire.Cancel(1, first.call(), None))
    first.call()
    assert [len(world.processes["time"].calls), holder(world)] == [2, (b"a", 1)]


def test_after_a_release_the_former_holder_comes_last() -> None:
    """Though its next call was there before those of the others."""
    world, first, second = leased(max_in_flight=1)
    third = world.client(b"c")
    first.call()
    first.call()
    for waiting in (second, third):
        waiting.call()
    ENDS["the operator"][1](world, first)
    order = []
    for _ in range(3):
        answer(world.processes["time"])
        order.append(holder(world))
        ENDS["the operator"][1](world, first)
    assert order == [(b"b", 1), (b"c", 1), (b"a", 1)]


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("how", [how for how, (reason, _) in ENDS.items() if reason == "closed"])
def test_a_channel_that_only_waits_and_closes_never_has_it(how: str, count: int) -> None:
    """Its calls end in pieces, and meanwhile the lease may be free."""
    world, first, second = leased()
    third = world.client(b"c")
    first.call()
    for _ in range(count):
        second.call()
    waiting = third.call()
    ENDS[how][1](world, second)
    assert holder(world) == (b"a", 1)
    ENDS["the operator"][1](world, first)
    answer(world.processes["time"])
    world.wait(0.0)
    assert holder(world) == (b"c", 1)
    answer(world.processes["time"])
    assert third.result(waiting) == "ok"
    assert [line["channel"] for line in said(world, "lease.granted")] == [1, 1]


@pytest.mark.parametrize("how", ["its channel is closed", "its connection is lost"])
def test_a_holder_with_many_calls_closes(how: str) -> None:
    """Its calls end in pieces: none of them brings the lease back."""
    world, first, second = leased(max_in_flight=1)
    for _ in range(300):
        first.call()
    waiting = second.call()
    ENDS[how][1](world, first)
    answer(world.processes["time"])
    world.wait(0.0)
    assert holder(world) == (b"b", 1)
    answer(world.processes["time"])
    assert second.result(waiting) == "ok"
    assert len(world.processes["time"].calls) == 2


def test_two_channels_of_one_connection_are_two_clients() -> None:
    """A backend, or the gateway, has one connection and a channel for each of its pages."""
    world, first, _ = leased()
    first.call()
    first.call(channel=2)
    first.say(wire.Goodbye(2, 0, "closed"))
    assert holder(world) == (b"a", 1)
    first.call(channel=3)
    first.say(wire.Goodbye(1, 0, "closed"))
    answer(world.processes["time"])
    assert holder(world) == (b"a", 3)


def test_nothing_of_a_leased_server_is_sent_again() -> None:
    """Another process lacks the state, however harmless the call is."""
    world = World({"time": {"lease_sec": LEASE_S}})
    world.scripts["time"].annotations = {"echo": {"readOnlyHint": True}}
    world.start()
    first = world.client()
    id = first.call()
    world.exit()
    assert first.fault(id).data["not_sent_again"] == "stateful"


# --- a reload ---------------------------------------------------------------------------------------------


def test_a_server_becomes_leased_when_the_calls_that_it_has_are_over() -> None:
    """They are of several channels, and the first holder is alone from its first call on."""
    world = ready()
    first, second = world.client(b"a"), world.client(b"b")
    for client in (first, second):
        client.call()
    retune(world, lease_sec=LEASE_S)
    waiting = first.call()
    process = world.processes["time"]
    process.reply(process.calls[0], "ok")
    assert [len(process.calls), holder(world)] == [2, None]
    process.reply(process.calls[1], "ok")
    assert [len(process.calls), holder(world)] == [3, (b"a", 1)]
    answer(process)
    assert first.result(waiting) == "ok"


def test_another_time_holds_at_once() -> None:
    """The holder keeps it, for as long as the table says now."""
    world, first, _ = leased()
    first.call()
    answer(world.processes["time"])
    retune(world, lease_sec=5.0)
    assert holder(world) == (b"a", 1)
    world.wait(5.0)
    assert holder(world) is None


# --- what those are told that wait ------------------------------------------------------------------------


def test_who_waits_too_long_is_told_who_has_it_and_until_when() -> None:
    """Law 10."""
    world, first, second = leased()
    first.call()
    answer(world.processes["time"])
    world.wait(20.0)
    id = second.call(timeout_ms=15_000)
    world.wait(15.0)
    fault = second.fault(id)
    assert fault.code == Code.DEADLINE
    assert fault.message == (
        "tools/call waited 15 s for server 'time', which client 'page' (pid 42) has had for itself for 35 s; "
        "its lease ends in 25 s at the earliest"
    )
    assert fault.data["hint"] == "give the call more time, or end the lease: `mcp-broker release time`"
    assert (fault.data["holder"], fault.data["holder_pid"]) == ("page", 42)
    assert (fault.data["held_s"], fault.data["retry_after_s"]) == (35.0, 25.0)
    assert holder(world) == (b"a", 1)


def test_while_the_holder_calls_the_time_of_the_lease_has_not_begun() -> None:
    """At the earliest it ends that long after now."""
    world, first, second = leased()
    first.call()
    id = second.call(timeout_ms=1000)
    world.wait(1.0)
    assert "its lease ends in 60 s at the earliest" in second.fault(id).message


@pytest.mark.parametrize("name", ["\x1b[31mred\n\u202e", "x" * 500, "'; rm -rf /"])
def test_the_name_of_the_holder_is_its_own_and_not_trusted(name: str) -> None:
    """It is cut, without control characters, and quoted."""
    world = ready(lease_sec=LEASE_S)
    first = world.stranger(b"a")
    first.hello(name)
    second = world.client(b"b")
    first.call()
    id = second.call(timeout_ms=1000)
    world.wait(1.0)
    message = second.fault(id).message
    assert message.isprintable()
    assert len(message) < 300
    lease = held(world)
    assert lease is not None
    assert f"client {lease['client']!r}" in message


def test_a_process_without_a_pid_is_named_without_one() -> None:
    """Over tcp and out of a container the kernel names none."""
    world = ready(lease_sec=LEASE_S)
    first = world.stranger(b"a")
    first.peer = Peer(-1, -1, -1)
    first.hello()
    first.call()
    second = world.client(b"b")
    id = second.call(timeout_ms=1000)
    world.wait(1.0)
    assert "client 'page' has had" in second.fault(id).message


def test_after_its_end_who_waits_behind_its_last_calls_is_told_so() -> None:
    """And not to raise `max_in_flight`, which would not help."""
    world, first, second = leased()
    first.call()
    ENDS["the operator"][1](world, first)
    id = second.call(timeout_ms=1000)
    world.wait(1.0)
    fault = second.fault(id)
    assert "behind 1 other call" in fault.message
    assert fault.data["hint"] == "give the call more time"


@pytest.mark.parametrize("how", ["cancel", "deadline", "channel"])
def test_a_call_that_waits_for_the_lease_ends_as_any_other_that_waits(how: str) -> None:
    """Law 2: and it never gets to the server."""
    world, first, second = leased()
    first.call()
    id = second.call(timeout_ms=5000)
    if how == "cancel":
        second.say(wire.Cancel(1, id, None))
        assert second.fault(id).code == Code.CANCELLED
    elif how == "deadline":
        world.wait(5.0)
        assert second.fault(id).code == Code.DEADLINE
    else:
        second.say(wire.Goodbye(1, 0, "closed"))
    answer(world.processes["time"])
    world.wait(LEASE_S)
    assert len(world.processes["time"].calls) == 1
    assert holder(world) is None
    world.assert_empty()


def test_a_modern_server_is_leased_as_well() -> None:
    """The lease is the broker's own; no era of the protocol matters to it."""
    world = World({"time": {"lease_sec": LEASE_S}})
    world.scripts["time"].era = Era.MODERN
    world.start()
    first, second = world.client(b"a"), world.client(b"b")
    first.call()
    second.call()
    assert [len(world.processes["time"].calls), holder(world)] == [1, (b"a", 1)]


# --- the order --------------------------------------------------------------------------------------------

CHANNEL = st.integers(1, 5)
STEPS = st.lists(
    st.tuples(st.just("join"), CHANNEL) | st.tuples(st.sampled_from(["answer", "end"]), st.just(0))
)


@given(STEPS, st.integers(1, 3))
def test_no_channel_has_it_three_times_while_another_waits_for_it(
    steps: list[tuple[str, int]], concurrency: int
) -> None:
    """Law 5, for leases: every channel that waits has its turn, and the server one channel at a time."""
    queue = FairQueue(concurrency, 1.0)
    running: list[Any] = []
    missed: dict[ChannelKey, list[ChannelKey]] = {}
    for id, (what, channel) in enumerate([*steps, *[("answer", 0), ("end", 0)] * 2 * len(steps)]):
        if what == "join":
            joined = call(id, channel)
            queue.join(joined)
            if queue.lease is None or queue.lease.holder != joined.channel_key:
                missed.setdefault(joined.channel_key, [])
        elif what == "answer" and running:
            queue.leave(running.pop(0))
        elif what == "end":
            ended = queue.end_lease()
            if ended is not None and ended.holder in queue._lanes:
                missed.setdefault(ended.holder, [])
        while (sent := queue.next()) is not None:
            sent.sent = True
            running.append(sent)
            if queue.lease is None:
                queue.lease = Lease(sent.channel_key, "x", 1, 0.0, 0.0)
                missed.pop(sent.channel_key, None)
                for others in missed.values():
                    others.append(sent.channel_key)
                    assert others.count(sent.channel_key) <= 2
            assert sent.channel_key == queue.lease.holder
        assert len({one.channel_key for one in running}) <= 1
    assert (queue.waiting, missed) == (0, {})
