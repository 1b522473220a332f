"""A server that can take one call at a time: a call that was given up there is not over yet."""

from __future__ import annotations

import pytest

from client_shim import wire
from client_shim.wire import Code
from tests.core.world import World, ready

LATE = {"result": {"id": 0, "result": "late"}, "error": {"id": 0, "error": {"code": 1, "message": "stopped"}}}


@pytest.fixture(params=[{"serialized": True}, {"max_in_flight": 1}], ids=["serialized", "max_in_flight"])
def world(request: pytest.FixtureRequest) -> World:
    """A broker whose server takes one call at a time."""
    return ready(**request.param)


def give_up(world: World, how: str, late: bytes = b"a") -> None:
    """A call gets to the server, and is given up in one of the ways there are."""
    client = world.client(late)
    id = client.call(timeout_ms=1000 if how == "deadline" else None)
    if how == "cancel":
        client.say(wire.Cancel(1, id, None))
    elif how == "channel":
        client.say(wire.Goodbye(1, 0, "closed"))
    elif how == "lost":
        world.cut(client)
    else:
        world.wait(1.0)
        assert client.fault(id).code == Code.DEADLINE


HOWS = ("cancel", "deadline", "channel", "lost")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("late", ["result", "error", "broken"])
def test_the_next_call_waits_for_the_late_reply(world: World, how: str, late: str) -> None:
    """Issue 5: the server may still be at it, and takes no second one."""
    process, other = world.processes["time"], world.client(b"other")
    give_up(world, how)
    second = other.call()
    assert len(process.calls) == 1
    id = process.calls[0]["id"]
    process.say(
        b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % id if late == "broken" else {**LATE[late], "id": id}
    )
    process.reply(process.calls[1], "ok")
    assert other.result(second) == "ok"
    world.assert_empty()


@pytest.mark.parametrize("how", HOWS)
def test_the_next_call_is_served_by_the_next_process(world: World, how: str) -> None:
    """Issue 5: what the old one was at has ended with it."""
    other = world.client(b"other")
    give_up(world, how)
    second = other.call()
    world.exit()
    world.wait(5.0)
    (request,) = world.processes["time"].calls
    world.processes["time"].reply(request, "ok")
    assert other.result(second) == "ok"


@pytest.mark.parametrize("how", HOWS)
def test_a_server_that_never_replies_is_given_the_next_after_its_timeout(world: World, how: str) -> None:
    """Issue 5: as servers do that end a cancelled call in silence; the time is the server's `timeout`."""
    process, other = world.processes["time"], world.client(b"other")
    give_up(world, how)
    other.call(timeout_ms=100_000)
    world.wait(29.9)
    assert len(process.calls) == 1
    world.wait(0.1)
    assert len(process.calls) == 2
    assert world.engine.counters["dropped.never.replied"] == 1


def test_a_reply_to_something_else_frees_no_place(world: World) -> None:
    """Law 8: only the id of that very call does."""
    process, other = world.processes["time"], world.client(b"other")
    give_up(world, "cancel")
    other.call()
    id = process.calls[0]["id"]
    for stray in (id + 1, f"{id}x", 0, -id):
        process.say({"id": stray, "result": {}})
    assert len(process.calls) == 1


def test_the_second_late_reply_is_nobodys(world: World) -> None:
    """Law 2: ids are never given twice, so a server that answers twice ends nobody else's call."""
    process, other = world.processes["time"], world.client(b"other")
    give_up(world, "cancel")
    second = other.call()
    for _ in range(3):
        process.reply(process.calls[0], "late")
    assert other.endings(second) == []
    assert world.engine.counters["dropped.late.reply"] == 3


def test_who_waits_behind_it_is_told_so() -> None:
    """Law 10: the message counts what is in front."""
    world = ready(serialized=True, timeout=60.0)
    other = world.client(b"other")
    give_up(world, "cancel")
    second = other.call(timeout_ms=1000)
    world.wait(1.0)
    assert "behind 1 other call" in other.fault(second).message
