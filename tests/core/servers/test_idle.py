"""A server without a process until it is called: `start = "demand"`, and `idle_stop_sec`."""

from __future__ import annotations

import pytest

from broker.core.servers.lifecycle import Event, State
from client_shim import wire
from client_shim.wire import Code
from tests.core.clients.test_notifications import ALL
from tests.core.fake_server import Process
from tests.core.world import Client, World

IDLE_S = 10.0


def demanded(**table: object) -> World:
    """A broker that has started; its server waits for the first call, and no lists were kept of it."""
    world = World({"time": {"start": "demand", "idle_stop_sec": IDLE_S, "watchdog_sec": 0, **table}})
    world.rest()
    return world


def used(**table: object) -> tuple[World, Client]:
    """The same after one call, which has ended now."""
    world = demanded(**table)
    client = world.client()
    answered(world, client, client.call())
    return world, client


def answered(world: World, client: Client, id: int) -> None:
    """The process answers its last call."""
    process = world.processes["time"]
    process.reply(process.calls[-1], id)
    assert client.result(id) == id


def state(world: World) -> State:
    """The state of the server."""
    return world.lifecycles["time"].state


# --- the first call ----------------------------------------------------------------------------------


def test_the_first_call_starts_it_and_no_other_one() -> None:
    """A broker with thirty servers has as many processes as were called."""
    tables = {name: {"start": "demand"} for name in ("a", "b", "c")}
    world = World(tables)
    for name in tables:
        world.rest(name)
    world.client().call("b")
    assert world.spawned == {"a": 0, "b": 1, "c": 0}
    assert len(world.processes["b"].calls) == 1


def test_a_call_starts_no_server_that_ended_by_itself_and_is_never_restarted() -> None:
    """`restart = "never"` holds on demand too; law 10: the refusal names the command that starts it."""
    world, client = used(restart="never")
    world.exit()
    fault = client.fault(client.call())
    assert (fault.code, world.spawned["time"]) == (Code.SERVER_DOWN, 1)
    assert "mcp-broker start time" in fault.data["hint"]


def test_a_list_that_nobody_knows_starts_it_once() -> None:
    """The first start of all: after that the lists are in memory."""
    world = demanded()
    client = world.client()
    assert client.result(client.request("time", "tools/list"))["tools"] == [{"name": "echo"}]
    world.wait(IDLE_S)
    assert state(world) is State.IDLE
    assert client.result(client.request("time", "tools/list"))["tools"] == [{"name": "echo"}]
    assert client.result(client.request("time", "server/discover"))["capabilities"] == {"tools": {}}
    assert (state(world), world.spawned["time"]) == (State.IDLE, 1)


@pytest.mark.parametrize("what", ["ping", "listen", "status", "time"])
def test_what_needs_no_process_starts_none(what: str) -> None:
    """Seen elsewhere: a ping that woke every server. Nor does it keep one from being idle."""
    world, client = used()
    world.wait(IDLE_S)
    if what == "ping":
        assert client.result(client.request("time", "ping")) == {}
    elif what == "listen":
        client.listen()
    elif what == "status":
        client.request("$broker", "status")
    world.wait(1000.0)
    assert (state(world), world.spawned["time"]) == (State.IDLE, 1)


@pytest.mark.parametrize("tools", [[], None])
def test_a_list_without_tools_is_not_believed_for_ever(tools: list[str] | None) -> None:
    """Nobody calls a server without tools, so no call would ever show that it has some by now."""
    world = demanded()
    world.scripts["time"].lists = {"tools/list": []} if tools is not None else {}
    client = world.client()
    assert client.result(client.request("time", "tools/list"))["tools"] == []
    world.wait(IDLE_S)
    world.scripts["time"].lists = {"tools/list": ["new"]}
    assert client.result(client.request("time", "tools/list"))["tools"] == [{"name": "new"}]


def test_who_subscribes_to_a_resource_has_it_started() -> None:
    """Only a process tells of resources; a client that listens to lists alone needs none."""
    world, client = used()
    world.wait(IDLE_S)
    world.scripts["time"].capabilities = ALL
    client.listen(time=["u"])
    assert state(world) is State.READY
    world.wait(1000.0)
    assert state(world) is State.READY
    client.listen()
    world.wait(2 * IDLE_S)
    assert state(world) is State.IDLE


def test_a_process_that_fails_is_tried_like_any_other() -> None:
    """Backoff and breaker keep their meaning."""
    world = demanded(start_limit_burst=1, protocol="legacy")
    world.scripts["time"].mute = {"initialize"}
    client = world.client()
    id = client.call()
    world.exit(reason="no network")
    assert "no network" in client.fault(id).message
    assert state(world) is State.BROKEN


# --- the end of a process that nobody uses ------------------------------------------------------------


def test_it_is_ended_after_its_time_and_not_before() -> None:
    """Counted from the end of the last call; seen elsewhere: a time-out that was accepted and never came."""
    world, client = used()
    world.wait(IDLE_S - 1)
    answered(world, client, client.call())
    world.wait(IDLE_S - 1)
    assert state(world) is State.READY
    world.wait(1)
    assert (state(world), world.processes) == (State.IDLE, {})
    answered(world, client, client.call())
    assert (world.spawned["time"], world.lifecycles["time"].restarts) == (2, 0)
    world.wait(1000.0)
    assert state(world) is State.IDLE
    world.assert_empty()


def test_zero_keeps_it() -> None:
    """The default."""
    world, _ = used(idle_stop_sec=0)
    world.wait(1e6)
    assert state(world) is State.READY


@pytest.mark.parametrize("use", ["call", "queued", "given up"])
def test_a_server_that_works_is_not_idle(use: str) -> None:
    """However long it takes; what was given up may still be under way in the process."""
    world, client = used(timeout=100.0, max_in_flight=1)
    ids = [client.call(), *([client.call()] if use == "queued" else [])]
    if use == "given up":
        client.request("time", "tools/call", {"name": "echo"}, timeout_ms=1)
    world.wait(3 * IDLE_S)
    assert state(world) is State.READY
    process = world.processes["time"]
    for id in ids:
        process.reply(process.calls[-1], id)
        assert client.result(id) == id
    world.wait(200.0)
    assert state(world) is State.IDLE


def test_a_lease_is_use() -> None:
    """The state that its holder has there would be gone."""
    world, client = used(lease_sec=50.0, stateful=True)
    world.wait(3 * IDLE_S)
    assert state(world) is State.READY
    world.wait(50.0)
    assert state(world) is State.IDLE
    answered(world, client, client.call())


def test_a_server_that_starts_with_the_broker_is_ended_as_well() -> None:
    """`start = "boot"`: there at once, and gone when nobody needs it."""
    world = World({"time": {"idle_stop_sec": IDLE_S}})
    world.start()
    world.wait(IDLE_S)
    assert state(world) is State.IDLE


@pytest.mark.parametrize(("fresh", "told"), [(["echo"], 0), (["echo", "new"], 1)])
def test_the_next_process_may_have_other_lists(fresh: list[str], told: int) -> None:
    """The same command may bring other tools, as `@latest` does: every start compares and tells."""
    world, client = used()
    client.listen()
    world.wait(IDLE_S)
    world.scripts["time"].lists["tools/list"] = fresh
    assert client.news() == []
    answered(world, client, client.call())
    assert [method for _, _, method, _ in client.news()] == ["tools/list_changed"] * told


# --- a call that crosses the end ----------------------------------------------------------------------


def ending() -> tuple[World, Client, Process]:
    """A process that was idle, and takes a while to end."""
    world, client = used()
    process = world.processes["time"]
    world.slow_to_end.add("time")
    world.wait(IDLE_S)
    assert state(world) is State.DRAINING
    return world, client, process


def test_calls_that_come_while_it_ends_are_served_once_by_the_next_process() -> None:
    """Law 2, and law 1: neither lost, nor given to a process that ends, nor a second process beside it."""
    world, client, old = ending()
    had = len(old.calls)
    first, second = client.call(), client.call()
    assert (len(old.calls), world.spawned["time"], client.endings(first)) == (had, 1, [])
    world.bury("time")
    new = world.processes["time"]
    assert len(new.calls) == 2
    for id, call in zip((first, second), new.calls, strict=True):
        new.reply(call, id)
        assert client.result(id) == id


def test_a_subscription_that_comes_while_it_ends_is_not_lost() -> None:
    """The next process tells of it."""
    world, client, _ = ending()
    world.scripts["time"].capabilities = ALL
    client.listen(time=["u"])
    world.bury("time")
    assert state(world) is State.READY
    assert world.processes["time"].got("resources/subscribe")


def test_a_call_that_is_cancelled_meanwhile_starts_the_next_process_and_no_more() -> None:
    """It was wanted when it came; it will be idle in turn."""
    world, client, _ = ending()
    id = client.call()
    client.say(wire.Cancel(1, id, None))
    world.bury("time")
    assert state(world) is State.READY
    world.wait(IDLE_S)
    assert state(world) is State.IDLE
    world.assert_empty()


@pytest.mark.parametrize("called", [False, True])
def test_a_stop_that_crosses_it_is_a_stop(called: bool) -> None:
    """The operator's word is above it: a call does not start what was stopped."""
    world, client, _ = ending()
    waiting = client.call() if called else None
    world.feed("time", Event.STOP)
    world.bury("time")
    assert state(world) is State.STOPPED
    if waiting is not None:
        assert client.fault(waiting).code == Code.SERVER_DOWN
    assert client.fault(client.call()).code == Code.SERVER_DOWN


def test_a_start_that_crosses_it_is_a_start() -> None:
    """`restart` and `start` bring a process, whether anybody calls it or not."""
    world, _, _ = ending()
    world.feed("time", Event.START)
    world.bury("time")
    assert state(world) is State.READY


def test_a_stopped_server_is_not_idle() -> None:
    """Section 2 of the states: a stop of an idle server is kept, and a start begins it."""
    world, client = used()
    world.wait(IDLE_S)
    world.stop()
    assert state(world) is State.STOPPED
    assert client.fault(client.call()).code == Code.SERVER_DOWN
    world.start()
    assert state(world) is State.READY
