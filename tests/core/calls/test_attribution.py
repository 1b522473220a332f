"""A log message names no request: it goes where exactly one can be meant, and else to who reads the logs."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.calls.attribution import MAX_GIVEN_UP, Attribution
from broker.core.calls.dispatch import MAX_LOG_WAITING
from broker.core.mcp.meta import LOG_LEVEL
from broker.core.mcp.methods import Era
from client_shim import wire
from tests.core.calls.test_queue import call
from tests.core.fake_server import Process
from tests.core.world import Client, World

ASKS = {LOG_LEVEL: "info"}


def there(era: Era = Era.MODERN, **keys: Any) -> tuple[World, Process, Client]:
    """A broker with one server, and a client."""
    world = World({"time": keys})
    world.scripts["time"].era = era
    return world, world.start(), world.client()


def logged(client: Client) -> list[tuple[int, int, bytes | None]]:
    """The log messages that it was sent: channel, id, params."""
    return [
        (message.channel, message.id, body)
        for message, body in client.inbox
        if isinstance(message, wire.Notification) and message.method == "notifications/message"
    ]


def say(process: Process, data: str = "x") -> None:
    """The server logs something."""
    process.say(
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info", "data":"%b"}}'
        % data.encode()
    )


BODY = b'{"level":"info", "data":"x"}'


def test_the_one_that_asked_hears_it() -> None:
    """Law 3: the question arrives as the bytes it came in, and only at the call that asked."""
    world, process, client = there()
    client.call(channel=1)
    id = client.call(channel=2, meta=ASKS)
    client.call(channel=3)
    say(process)
    assert logged(client) == [(2, id, BODY)]
    assert not world.kept


@pytest.mark.parametrize("asking", [0, 2])
def test_where_none_or_several_asked_it_is_kept_for_people(asking: int) -> None:
    """Law 8: it is for one of them, and cannot be known for which."""
    world, process, client = there()
    for _ in range(asking):
        client.call(meta=ASKS)
    client.call()
    say(process)
    assert (logged(client), [kept.text for kept in world.kept]) == ([], [BODY])
    assert world.engine.counters["dropped.message"] == world.engine.servers["time"].dropped["message"] == 1


def test_of_a_server_of_the_older_era_it_is_always_kept_for_people() -> None:
    """2025-11-25: the level is set for the whole session, so nobody can ask for its own."""
    world, process, client = there(Era.LEGACY)
    client.call(meta=ASKS)
    say(process)
    assert (logged(client), len(world.kept)) == ([], 1)
    assert "_meta" not in process.calls[0]["params"]


def test_one_that_waits_in_line_cannot_be_meant() -> None:
    """Law 3: the server does not know a queued call, so it cannot ask on its behalf."""
    _world, process, client = there(max_in_flight=1)
    first, _second = client.call(meta=ASKS), client.call(meta=ASKS)
    say(process)
    assert logged(client) == [(1, first, BODY)]


@pytest.mark.parametrize("until", ["late reply", "death"])
def test_one_that_was_given_up_may_still_be_meant(until: str) -> None:
    """Laws 3 and 8: what the server says of a cancelled call never reaches the one that is left, ever."""
    world, process, client = there()
    first = client.call(meta=ASKS)
    second = client.call(meta=ASKS, timeout_ms=1_000_000)
    client.say(wire.Cancel(1, first, None))
    for waited_s in (0.0, 30.0, 900.0):
        world.wait(waited_s)
        say(process)
    assert (logged(client), len(world.kept)) == ([], 3)
    if until == "late reply":
        process.refuse(process.calls[0], 0, "cancelled")
    else:
        world.exit()
        world.wait(5.0)
        process = world.processes["time"]
        second = client.call(meta=ASKS)
    client.inbox.clear()
    say(process)
    assert logged(client) == [(1, second, BODY)]


def test_one_is_not_meant_any_more_where_the_server_stops_on_cancel_and_has_read_it() -> None:
    """It reads in order, so it has read the cancellation when it answers what came behind it."""
    world, process, client = there(stops_on_cancel=True)
    process.script.mute = {"server/discover"}
    first = client.call(meta=ASKS)
    second = client.call(meta=ASKS)
    client.say(wire.Cancel(1, first, None))
    say(process)
    assert (logged(client), len(world.kept)) == ([], 1)
    process.reply(process.got("server/discover")[-1], {})
    say(process)
    assert logged(client) == [(1, second, BODY)]


def test_one_that_has_ended_is_not_meant() -> None:
    """Law 2: nothing comes after the ending."""
    world, process, client = there()
    id = client.call(meta=ASKS)
    process.reply(process.calls[0], "ok")
    client.inbox.clear()
    say(process)
    assert (logged(client), client.endings(id), len(world.kept)) == ([], [], 1)


def test_while_a_client_does_not_read_the_newest_wait_in_order() -> None:
    """Law 6: a chatty server does not get the connection of a slow client closed."""
    world = World(credit_bytes=65_536)
    world.scripts["time"].era = Era.MODERN
    process, client = world.start(), world.client()
    other = client.call()
    client.call(meta=ASKS)
    process.reply(process.calls[0], "x" * 70_000)
    for number in range(MAX_LOG_WAITING + 50):
        say(process, str(number))
    assert logged(client) == []
    client.say(wire.Credit(0, 0, 70_000))
    client.say(wire.Credit(0, 0, 65_000))
    said = [body for _, _, body in logged(client)]
    assert said == [b'{"level":"info", "data":"%d"}' % n for n in range(50, MAX_LOG_WAITING + 50)]
    assert world.engine.counters["replaced.log"] == 50
    assert client.result(other)


def test_those_that_were_given_up_are_remembered_within_a_limit() -> None:
    """Law 6: beyond it they count together, until the process is gone."""
    takers = Attribution()
    for id in range(1, MAX_GIVEN_UP + 50):
        takers.begin(call(id))
        takers.give_up(call(id))
        assert takers.end(call(id))
    assert len(takers) == MAX_GIVEN_UP + 1
    takers.begin(call(9999))
    for id in (*range(1, MAX_GIVEN_UP + 50), 0, "5", None):
        takers.release(id)
    assert (takers.only, len(takers)) == (None, 2)
    takers.release_all()
    takers.begin(left := call(10_000))
    assert takers.only is left
