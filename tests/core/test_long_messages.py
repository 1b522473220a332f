"""Laws 2, 3 and 5: a long message is read in several steps, and what happens between them keeps its order."""

from __future__ import annotations

import json

import pytest

from broker.core.clients.connections import CloseReason
from broker.core.mcp.pieces import LONG_BYTES, PIECE_BYTES
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import Client, World, ready

LONG = "x" * (2 * LONG_BYTES)
SOON_S = 0.001


def stepwise(**limits: int) -> tuple[World, Client]:
    """A broker whose server is ready, and a client; a long message is read a step at a time."""
    world = World(**limits)
    world.start()
    client = world.client()
    world.reads_on = False
    return world, client


def say_long(client: Client) -> int:
    """Call a tool with long params."""
    return client.request("time", "tools/call", {"name": "echo", "arguments": {"a": LONG}})


def reply_of(world: World, text: object = LONG) -> bytes:
    """A long result of the last call."""
    id = world.processes["time"].calls[-1]["id"]
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": {"text": text}}).encode()


# --- servers -----------------------------------------------------------------------------------------


def test_a_long_result_comes_after_some_steps() -> None:
    """Law 7: as the bytes it came in."""
    world, client = stepwise()
    id = client.call()
    world.run(world.engine.replies.line, "time", reply_of(world))
    assert not client.endings(id)
    assert world.engine.backlog.is_busy("time")  # so the hub holds the next line
    world.wait(SOON_S)
    assert client.result(id) == {"text": LONG}


def test_a_call_that_ends_meanwhile_ends_once() -> None:
    """Law 2: its time is up while its result is being read."""
    world, client = stepwise()
    id = client.call(timeout_ms=10)
    world.run(world.engine.replies.line, "time", reply_of(world))
    world.now += 0.01
    world.wait(SOON_S)
    assert client.fault(id).code == Code.DEADLINE
    assert world.engine.servers["time"].dropped["late.reply"] == 1


def test_what_a_process_wrote_before_it_ended_is_not_read_for_the_next() -> None:
    """Law 3: the rest of the line is dropped, and counted."""
    world, client = stepwise()
    id = client.call()
    world.run(world.engine.replies.line, "time", reply_of(world))
    world.exit()
    world.wait(SOON_S)
    assert client.fault(id).code == Code.SERVER_DIED
    assert world.engine.counters["dropped.late.line"] == 1


def test_a_further_long_line_ends_the_reading_of_the_first() -> None:
    """Law 2: none is lost, even if it does not wait."""
    world, client = stepwise()
    first = client.call()
    line = reply_of(world)
    second = client.call()
    world.run(world.engine.replies.line, "time", line)
    world.run(world.engine.replies.line, "time", reply_of(world))
    world.wait(SOON_S)
    assert client.result(first) == client.result(second) == {"text": LONG}


def test_other_servers_are_heard_meanwhile() -> None:
    """Law 5: the steps of others come in between."""
    world = World({"time": {}, "other": {}})
    world.start("time")
    world.start("other")
    client = world.client()
    world.reads_on = False
    long, short = client.call(), client.call("other")
    world.run(world.engine.replies.line, "time", reply_of(world))
    world.processes["other"].reply(world.processes["other"].calls[-1], "here")
    assert (client.result(short), client.endings(long)) == ("here", [])


def test_two_long_lines_take_turns() -> None:
    """Law 5: a step has one piece, of however many lines."""
    world = World({"time": {}, "other": {}})
    ids = []
    client = world.client()
    for name in ("time", "other"):
        world.start(name)
        ids.append(client.call(name))
    world.reads_on = False
    for name in ("time", "other"):
        id = world.processes[name].calls[-1]["id"]
        line = b'{"jsonrpc":"2.0","id":%d,"result":"%b"}' % (id, LONG.encode())
        world.run(world.engine.replies.line, name, line)
    steps = 0
    while world.engine.backlog:
        world.run(world.engine.tick)
        steps += 1
    assert steps >= 2 * len(LONG) // PIECE_BYTES - 4  # each began with a step of its own
    assert [client.result(id) for id in ids] == [LONG, LONG]


# --- clients -----------------------------------------------------------------------------------------


def test_what_comes_behind_a_long_request_waits_for_it() -> None:
    """Its server is given the calls in the order in which the client sent them."""
    world, client = stepwise()
    for text in (LONG, "short", LONG, "short"):
        client.request("time", "tools/call", {"name": "echo", "arguments": {"a": text}})
    assert not world.processes["time"].calls
    world.wait(SOON_S)
    calls = world.processes["time"].calls
    assert [len(call["params"]["arguments"]["a"]) for call in calls] == [len(LONG), 5, len(LONG), 5]


def test_a_long_request_is_cancelled_by_what_comes_behind_it() -> None:
    """Law 2: the cancel finds its call."""
    world, client = stepwise()
    id = say_long(client)
    client.say(wire.Cancel(1, id, "no longer wanted"))
    world.wait(SOON_S)
    assert client.fault(id).code == Code.CANCELLED


@pytest.mark.parametrize("how", ["lost", "goodbye"])
def test_a_client_that_goes_meanwhile_leaves_nothing(how: str) -> None:
    """Law 4: neither its request nor what came behind it is kept."""
    world, client = stepwise()
    say_long(client)
    client.call()
    if how == "lost":
        world.cut(client)
    else:
        client.say(wire.Goodbye(0, 0, "bye"))
    world.wait(SOON_S)
    assert client.key in world.lost | world.closed.keys()
    world.assert_empty()


def test_params_that_are_found_unfit_late_are_refused() -> None:
    """Law 10: with the reason, and nothing is sent to the server."""
    world, client = stepwise()
    id = client.request("time", "tools/call", body=b'{"a":"%b",}' % LONG.encode())
    world.wait(SOON_S)
    assert client.fault(id).code == Code.INVALID_BODY
    assert not world.processes["time"].calls
    client.inbox.clear()
    world.assert_empty()


def test_the_end_of_the_broker_refuses_a_long_request_that_is_not_taken_in() -> None:
    """Law 2: it goes to the next broker."""
    world, client = stepwise()
    id = say_long(client)
    world.run(world.engine.refuse_new)
    world.wait(SOON_S)
    assert client.fault(id).code == Code.SHUTTING_DOWN


def test_a_client_gets_no_credit_for_what_waits() -> None:
    """Law 6: what waits behind a long request is no more than its credit; it is given back afterwards."""
    world, client = stepwise(credit_bytes=16 * 2**20)
    say_long(client)
    client.inbox.clear()
    for _ in range(3):
        client.request("time", "tools/call", {"name": "echo", "arguments": {"a": "x" * (5 * 2**20)}})
    assert not client.inbox
    world.wait(SOON_S)
    credit = sum(message.read_bytes for message, _ in client.inbox if isinstance(message, wire.Credit))
    assert credit > 15 * 2**20
    assert len(world.processes["time"].calls) == 4


def test_a_client_that_sends_beyond_its_credit_is_closed() -> None:
    """Law 6: also while its messages wait."""
    world, client = stepwise(credit_bytes=16 * 2**20)
    say_long(client)
    for _ in range(6):
        if client.key not in world.closed:
            client.request("time", "tools/call", {"name": "echo", "arguments": {"a": "x" * (5 * 2**20)}})
    assert world.closed[client.key] is CloseReason.OVERDRAWN
    world.wait(SOON_S)
    world.assert_empty()


def test_a_short_request_is_taken_in_at_once() -> None:
    """Nobody waits for another step where one will do."""
    world = ready()
    client = world.client()
    world.reads_on = False
    client.request("time", "tools/call", {"name": "echo", "arguments": {"a": "x" * (LONG_BYTES - 100)}})
    assert len(world.processes["time"].calls) == 1
