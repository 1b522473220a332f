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
    """A serialized server may still work on the cancelled call, and gets no second one."""
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
    """The cancelled call ended with the old process."""
    other = world.client(b"other")
    give_up(world, how)
    second = other.call()
    world.exit()
    world.wait(5.0)
    (request,) = world.processes["time"].calls
    world.processes["time"].reply(request, "ok")
    assert other.result(second) == "ok"


@pytest.mark.parametrize("how", HOWS)
def test_a_server_that_never_replies_is_given_the_next_a_while_after_it_has_read_the_cancellation(
    world: World, how: str
) -> None:
    """As servers do that end a cancelled call in silence; the time is `cancel_grace_sec`."""
    process, other = world.processes["time"], world.client(b"other")
    process.script.mute = {"ping"}
    give_up(world, how)
    other.call(timeout_ms=100_000)
    world.wait(10.0)
    process.reply(process.got("ping")[-1], {})
    world.wait(4.9)
    assert len(process.calls) == 1
    world.wait(0.1)
    assert len(process.calls) == 2
    assert world.engine.counters["dropped.never.replied"] == 1


@pytest.mark.parametrize("answer", ["result", "error", "broken"])
@pytest.mark.parametrize("keys", [{"stops_on_cancel": True}, {"cancel_grace_sec": 0}], ids=str)
def test_the_place_is_free_when_the_server_answers_the_ping_behind_the_cancellation(
    keys: dict[str, object], answer: str
) -> None:
    """It reads its stdin in order; whether it has stopped by then is the operator's word."""
    world = ready(serialized=True, **keys)
    process, other = world.processes["time"], world.client(b"other")
    process.script.mute = {"ping"}
    give_up(world, "cancel")
    other.call()
    assert len(process.calls) == 1
    assert [line["method"] for line in process.lines[-2:]] == ["notifications/cancelled", "ping"]
    id = process.lines[-1]["id"]
    answers = {
        "result": b'{"jsonrpc":"2.0","id":%d,"result":{}}' % id,
        "error": b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32601,"message":"no"}}' % id,
        "broken": b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % id,
    }
    process.say(answers[answer])
    assert len(process.calls) == 2
    process.say(answers[answer])
    assert world.engine.counters["dropped.late.reply"] == 0


def test_the_answer_to_the_ping_keeps_no_place_that_is_free_already() -> None:
    """A server that answers a cancelled call does so before the ping: its next call has begun by then."""
    world = ready(serialized=True, cancel_grace_sec=100)
    process, other = world.processes["time"], world.client(b"other")
    process.script.mute = {"ping"}
    give_up(world, "cancel")
    process.refuse(process.calls[0], 0, "cancelled")
    other.call()
    process.reply(process.got("ping")[-1], {})
    process.reply(process.calls[1], "ok")
    other.call()
    assert len(process.calls) == 3


@pytest.mark.parametrize("timeout", [20.0, 40.0])
def test_a_server_that_answers_no_ping_is_given_the_next_after_the_longer_of_both_times(
    timeout: float,
) -> None:
    """A handler that blocks its server holds up the answer: the server is at it still."""
    world = ready(serialized=True, timeout=timeout, cancel_grace_sec=30.0)
    process, other = world.processes["time"], world.client(b"other")
    process.script.mute = {"ping"}
    give_up(world, "cancel")
    other.call(timeout_ms=100_000)
    world.wait(max(timeout, 30.0) - 0.1)
    assert len(process.calls) == 1
    world.wait(0.1)
    assert len(process.calls) == 2


@pytest.mark.parametrize(
    "keys", [{"watchdog_sec": 0, "serialized": True}, {}], ids=["checks are off", "several calls"]
)
def test_no_ping_is_sent_where_its_answer_tells_nothing_or_checks_are_off(keys: dict[str, object]) -> None:
    """`watchdog_sec = 0` is for servers that do not stand a ping."""
    world = ready(**keys)
    give_up(world, "cancel")
    assert world.processes["time"].got("ping") == []


def test_a_server_that_exits_at_such_a_ping_is_sent_no_further_one() -> None:
    """As with health checks, which go on: the cancelled call itself may have been the reason for the exit."""
    world = ready(serialized=True, watchdog_sec=10.0)
    world.scripts["time"].mute = {"ping"}
    give_up(world, "cancel")
    world.exit()
    world.wait(5.0)
    give_up(world, "cancel", b"b")
    assert world.processes["time"].got("ping") == []
    world.wait(40.0)
    assert len(world.processes["time"].got("ping")) == 2


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
