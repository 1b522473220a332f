"""Laws 2 and 5: what concerns thousands of calls or clients is done in pieces; each call still ends once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.backlog import PIECES, Backlog, JobKey, JobKind
from broker.core.mcp.methods import Era
from client_shim import wire
from client_shim.wire import Code
from tests.core.clients.test_notifications import ALL, LISTS
from tests.core.steps import CALLS_A_STEP, Counted
from tests.core.world import Client, World

MANY = 6000
"""Calls or listeners: to do all in one step makes more calls than a step may."""

SOON_S = 0.001


def countdown(done: list[str], name: str, pieces: int) -> Iterator[None]:
    """A job of so many pieces."""
    for _ in range(pieces):
        done.append(name)
        yield


def test_a_short_job_is_done_at_once() -> None:
    """Nobody waits for another step where one will do."""
    backlog, done = Backlog(), list[str]()
    backlog.begin(JobKey("pump"), countdown(done, "a", PIECES - 1))
    assert (len(done), len(backlog)) == (PIECES - 1, 0)


@given(st.lists(st.integers(0, 4 * PIECES), max_size=5))
def test_no_step_is_long_and_every_job_comes_to_its_end(lengths: list[int]) -> None:
    """However many there are, and however long they are."""
    backlog, done = Backlog(), list[str]()
    for number, length in enumerate(lengths):
        backlog.leave(JobKey("release", detail=number), countdown(done, str(number), length))
    while backlog:
        before = len(done)
        backlog.go_on()
        assert len(done) - before <= PIECES
    assert [done.count(str(number)) for number in range(len(lengths))] == lengths


def test_two_jobs_share_a_step() -> None:
    """A long one does not keep a short one waiting."""
    backlog, done = Backlog(), list[str]()
    backlog.leave(JobKey("expire"), countdown(done, "long", 100 * PIECES))
    backlog.leave(JobKey("pump"), countdown(done, "short", 10))
    backlog.go_on()
    assert done.count("short") == 10


def test_one_job_with_the_same_key_does_for_both() -> None:
    """So there are never more of them than there are keys."""
    backlog, done = Backlog(), list[str]()
    backlog.leave(JobKey("pump", "s"), countdown(done, "first", 1))
    backlog.leave(JobKey("pump", "s"), countdown(done, "second", 1))
    assert (len(backlog), backlog.is_busy("s"), backlog.is_busy("t")) == (1, True, False)
    backlog.finish("s")
    assert (done, len(backlog)) == (["first"], 0)


@pytest.mark.parametrize("kind", get_args(JobKind))
def test_a_server_may_have_the_name_of_a_kind_of_job(kind: JobKind) -> None:
    """Law 5: a job about another server, or about a connection, does not hold up the server of that name."""
    backlog, done = Backlog(), list[str]()
    backlog.leave(JobKey(kind, "other", kind.encode(), "detail"), countdown(done, "other", 1))
    assert not backlog.is_busy(kind)
    backlog.leave(JobKey("line", kind), countdown(done, "its own", 1))
    assert backlog.is_busy(kind)
    backlog.finish(kind)
    assert (done, backlog.is_busy(kind), len(backlog)) == (["its own"], False, 1)


# -- calls that end together ------------------------------------------------------------------------------


def crowd(in_flight: int, *, repeatable: bool = False) -> tuple[World, Client, list[int]]:
    """A server with so many calls at once, and `MANY` in all."""
    world = World({"time": {"max_in_flight": in_flight}}, calls_per_connection=MANY, calls_per_channel=MANY)
    if repeatable:
        world.scripts["time"].annotations = {"echo": {"readOnlyHint": True}}
    world.start()
    client = world.client()
    return world, client, [client.call(timeout_ms=10_000) for _ in range(MANY)]


def cut_off(world: World) -> None:
    """Its connection is lost."""
    world.cut(world.clients[b"a"])


def withdraw(world: World) -> None:
    """It is no longer configured."""
    world.run(world.engine.registry.withdraw, "time")


ENDINGS: dict[str, tuple[Callable[[World], object], float, int, set[Code]]] = {
    "overdue in line": (lambda world: None, 10.0, 1, {Code.DEADLINE}),
    "overdue at the server": (lambda world: None, 10.0, MANY, {Code.DEADLINE}),
    "the server is withdrawn": (withdraw, 0.0, 1, {Code.UNKNOWN_SERVER}),
    "the server has died": (lambda world: world.exit(), 0.0, MANY, {Code.SERVER_DIED}),
    "the server was stopped": (lambda world: world.stop(), 0.0, 1, {Code.SERVER_DOWN, Code.SERVER_DIED}),
    "the client is gone": (cut_off, 0.0, MANY, set()),
}
"""What ends many calls → how it comes, how long that takes, how many are at the server, and the fault."""


@pytest.mark.parametrize("name", ENDINGS)
def test_many_calls_end_together_each_once_and_in_no_long_step(name: str) -> None:
    """Laws 2 and 5: 16,368 calls that were overdue at once took 158 ms in one step."""
    end, after_s, in_flight, codes = ENDINGS[name]
    world, client, ids = crowd(in_flight)
    counted = Counted(world)
    end(world)
    world.wait(after_s + SOON_S)
    assert counted.most < CALLS_A_STEP
    assert counted.steps > MANY // PIECES
    left = len(world.engine.dispatch.table)
    assert left == (1 if name == "the server is withdrawn" else 0)  # that which the server has goes on
    if name != "the client is gone":
        ended = Counter(message.id for message, _ in client.inbox)
        assert ended == Counter(ids) - Counter(ids[:left])
        faults = {message.code for message, _ in client.inbox if isinstance(message, wire.Fault)}
        assert faults == {code.value for code in codes}


def test_a_call_that_is_answered_between_two_pieces_is_not_ended_again() -> None:
    """Law 2: whatever comes first ends it; here the reply to one whose time is up, but whose turn is not."""
    world, client, ids = crowd(MANY)
    process = world.processes["time"]
    world.now += 10.0
    world.run(world.engine.tick)
    assert world.engine.backlog
    process.reply(process.calls[-1], "just in time")
    world.wait(SOON_S)
    assert client.result(ids[-1]) == "just in time"
    assert [len(client.endings(id)) for id in (ids[0], ids[PIECES], ids[-2])] == [1, 1, 1]
    client.inbox.clear()
    world.assert_empty()


def test_a_call_that_is_overdue_is_not_begun_because_its_turn_to_end_has_not_come() -> None:
    """Law 2: a reply makes room in the middle of that, and the next call is overdue as well."""
    world, _client, _ids = crowd(1)
    process = world.processes["time"]
    world.now += 10.0
    world.run(world.engine.tick)
    world.wait(SOON_S)
    assert len(process.calls) == 1
    assert not len(world.engine.dispatch.table)


def test_what_a_dead_process_had_cannot_be_answered_by_the_next() -> None:
    """Law 3: it is there before all of those calls have been told."""
    world, client, ids = crowd(MANY)
    world.exit()
    orphans = [call for call in world.engine.dispatch.table.of_server("time") if call.orphaned]
    assert orphans
    world.start()
    world.processes["time"].say(json.dumps({"jsonrpc": "2.0", "id": orphans[0].id, "result": 1}).encode())
    world.wait(SOON_S)
    assert all(client.fault(id).code == Code.SERVER_DIED for id in ids[:: MANY // 10])


def test_many_calls_are_sent_again_in_their_order() -> None:
    """A server that died with many calls that only read is given them again, the first one first."""
    world, client, ids = crowd(MANY, repeatable=True)
    counted = Counted(world)
    world.exit()
    world.wait(5.0)
    assert counted.most < CALLS_A_STEP
    calls = world.processes["time"].calls
    assert len(calls) == MANY
    for call in calls:
        world.processes["time"].reply(call, "again")
    assert all(client.result(id) == "again" for id in ids[:: MANY // 10])


def test_a_server_that_is_removed_meanwhile_leaves_nothing() -> None:
    """Laws 2 and 4: what is not done yet is done before its row goes."""
    world, client, ids = crowd(1)
    world.run(world.engine.registry.withdraw, "time")
    world.processes.clear()
    world.run(world.engine.registry.gone, "time", "it was removed")
    world.run(world.engine.registry.remove, "time")
    assert all(len(client.endings(id)) == 1 for id in ids[:: MANY // 10])
    client.inbox.clear()
    world.assert_empty()


def test_large_params_that_wait_are_given_one_by_one() -> None:
    """Law 6: whether the server reads shows only after some of them were written."""
    world = World()
    world.start()
    client = world.client()
    world.run(world.engine.registry.congested, "time", True)
    for _ in range(8):
        client.request("time", "tools/call", {"name": "echo", "arguments": {"x": "x" * 900_000}})
    world.run(world.engine.registry.congested, "time", False)
    assert 0 < len(world.processes["time"].calls) < 8
    world.run(world.engine.registry.congested, "time", True)
    world.wait(SOON_S)
    assert len(world.processes["time"].calls) < 8
    world.run(world.engine.registry.congested, "time", False)
    world.wait(SOON_S)
    assert len(world.processes["time"].calls) == 8


# -- many who listen --------------------------------------------------------------------------------------


def audience(channels: int, *uris: str) -> tuple[World, list[Client]]:
    """Clients with so many channels in all, each of which listens to these resources and all lists."""
    world = World()
    script = world.scripts["time"]
    script.era, script.capabilities, script.lists = Era.LEGACY, ALL, dict(LISTS)
    world.start()
    clients = [world.client(b"%d" % number) for number in range(-(-channels // 1000))]
    for number in range(channels):
        clients[number // 1000].listen(None, channel=number % 1000 + 1, time=list(uris))
    for client in clients:
        client.inbox.clear()
    return world, clients


def updated(uri: str, number: object = 0) -> bytes:
    """What a server says of a resource."""
    params = {"uri": uri, "number": number}
    return json.dumps(
        {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}
    ).encode()


def test_a_batch_of_updates_is_told_in_pieces_and_only_its_last_word() -> None:
    """Laws 5 and 9: 1000 updates in one line and 1000 listeners held a neighbour's call up for 2.1 s."""
    world, clients = audience(1000, "u")
    counted = Counted(world)
    world.processes["time"].say(b"[%b]" % b",".join(updated("u", number) for number in range(1000)))
    world.wait(SOON_S)
    assert counted.most < CALLS_A_STEP
    told = clients[0].news()
    assert len(told) <= 3 * 1000
    assert {channel for channel, *_ in told} == set(range(1, 1001))
    assert {params["number"] for *_, params in told[-1000:]} == {999}
    assert world.engine.counters["replaced.news"] >= 997


def test_a_changed_list_is_told_in_pieces() -> None:
    """Law 5: all channels may follow it."""
    world, clients = audience(MANY)
    counted = Counted(world)
    world.scripts["time"].lists["tools/list"] = ["another"]
    world.processes["time"].tell("tools/list_changed")
    world.wait(SOON_S)
    assert counted.most < CALLS_A_STEP
    assert sum(len(client.news()) for client in clients) == MANY


def test_a_long_uri_costs_no_more_than_a_short_one() -> None:
    """Law 5: it is a part of many that could have been subscribed to."""
    world, clients = audience(1, "/", "u")
    counted = Counted(world)
    world.processes["time"].say(b"[%b]" % b",".join(updated("/" * 900, n) for n in range(1000)))
    world.wait(SOON_S)
    assert counted.most < CALLS_A_STEP
    assert clients[0].news()


def test_who_stops_listening_meanwhile_is_told_nothing_more() -> None:
    """Law 4: also where the telling has begun."""
    world, clients = audience(1000, "u")
    world.processes["time"].say(updated("u"))
    assert world.engine.backlog
    clients[0].listen([], channel=1000)
    clients[0].news()
    world.wait(SOON_S)
    assert 1000 not in {channel for channel, *_ in clients[0].news()}
