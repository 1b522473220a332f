"""The budget: `max_running`, the idle server unused for longest first, a busy one never."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from broker.core.servers.lifecycle import Event
from client_shim import wire
from client_shim.wire import Code
from tests.core.clients.test_notifications import ALL
from tests.core.fake_server import Json
from tests.core.reloading import Reloads
from tests.core.world import Client, World

MIB = 1024 * 1024


def limited(
    names: str = "abc", budget: Mapping[str, int] | None = None, **table: object
) -> tuple[World, Client]:
    """Servers that wait for their first call, of which two may run."""
    tables: dict[str, Json] = {name: {"start": "demand", **table} for name in names}
    world = World(tables, {"max_running": 2} if budget is None else budget)
    for name in names:
        world.rest(name)
    return world, world.client()


def served(world: World, client: Client, name: str) -> None:
    """A call is answered; a second later it was the last one."""
    id = client.call(name)
    process = world.processes[name]
    process.reply(process.calls[-1], name)
    assert client.result(id) == name
    world.wait(1.0)


def states(world: World) -> str:
    """The states of the servers."""
    return " ".join(one.state.value for one in world.lifecycles.values())


def logged(world: World, event: str) -> list[object]:
    """The servers that an event was logged of."""
    return [note.facts["server"] for note in world.notes if note.event == event]


def made_room(world: World) -> list[object]:
    """The servers that were stopped to make room: each stop is logged and counted once."""
    servers = logged(world, "server.made_room")
    assert world.engine.counters["made-room"] == len(servers)
    return servers


# --- room ----------------------------------------------------------------------------------------------


def test_the_idle_server_unused_for_longest_makes_room() -> None:
    """Not the one that started first, and no more than one; the log says which, and for how long idle."""
    world, client = limited()
    for name in "aba":
        served(world, client, name)
    served(world, client, "c")
    assert states(world) == "ready idle ready"
    assert (logged(world, "server.no_room"), made_room(world)) == (["c"], ["b"])
    assert world.engine.counters["no-room"] == 1
    world.assert_empty()


def test_a_call_waits_until_a_busy_server_is_idle() -> None:
    """A busy one is never stopped; the call is served once, as soon as another call has ended."""
    world, client = limited()
    first, second, third = client.call("a"), client.call("b"), client.call("c")
    assert states(world) == "ready ready starting"
    world.wait(5.0)
    assert client.endings(third) == []
    process = world.processes["b"]
    process.reply(process.calls[-1], "b")
    assert (client.result(second), states(world)) == ("b", "ready idle ready")
    assert len(world.processes["c"].calls) == 1
    assert client.endings(first) == []


def test_a_call_that_finds_no_room_in_time_says_so() -> None:
    """Law 10: which limit, how much is in use, and what to do; the server rests, and nothing is left."""
    world, client = limited()
    client.call("a", timeout_ms=600_000)
    client.call("b", timeout_ms=600_000)
    id = client.call("c", timeout_ms=2000)
    world.wait(2.0)
    fault = client.fault(id)
    assert (fault.code, fault.data["blame"], fault.data["limit"]) == (Code.BUSY, "operator", "max_running")
    assert (fault.data["value"], fault.data["used"]) == (2, 2)
    assert "max_running" in fault.message
    assert "max_running" in fault.data["hint"]
    assert states(world) == "ready ready idle"


def test_those_that_wait_are_served_in_order() -> None:
    """First come, first served; a server that asks later does not overtake."""
    world, client = limited("abcd", {"max_running": 1})
    running = client.call("a")
    for name in "cbd":
        client.call(name, timeout_ms=600_000)
    for before, name in zip("acb", "cbd", strict=True):
        process = world.processes[before]
        process.reply(process.calls[-1], before)
        assert world.processes.keys() == {name}
    assert client.result(running) == "a"


def test_a_server_that_nobody_calls_rests_instead_of_taking_the_place_of_another() -> None:
    """At the start of the broker: more servers with `start = "boot"` than may run; the rest on demand."""
    world = World({name: {} for name in "abc"}, {"max_running": 2})
    for name in "abc":
        world.feed(name, Event.START)
    assert states(world) == "ready ready idle"
    assert world.engine.budget.lack(world.engine.servers["c"]) is not None
    served(world, world.client(), "c")
    assert states(world) == "idle ready ready"
    assert world.engine.budget.lack(world.engine.servers["c"]) is None


@pytest.mark.parametrize("what", ["subscription", "lease", "stateful", "paused", "starting", "given up"])
def test_what_is_not_idle_is_not_stopped(what: str) -> None:
    """A subscription needs the process, a lease and a stateful one keep something there, and so on."""
    tables: dict[str, Json] = {"lease": {"lease_sec": 60.0}, "stateful": {"stateful": True}}
    world, client = limited("ab", {"max_running": 1}, **tables.get(what, {}), max_in_flight=1)
    world.scripts["a"].capabilities = ALL
    if what == "starting":
        world.scripts["a"].mute = {"initialize", "server/discover"}
        client.call("a", timeout_ms=10)
    elif what == "given up":
        client.call("a", timeout_ms=10)
    else:
        served(world, client, "a")
    if what == "subscription":
        client.listen(a=["u"])
    elif what == "paused":
        world.engine.servers["a"].queue.paused = True
    world.wait(0.01)
    id = client.call("b", timeout_ms=3000)
    world.wait(3.0)
    assert client.fault(id).code == Code.BUSY
    assert "a" in world.processes


def test_a_stateful_server_with_an_idle_time_may_be_stopped() -> None:
    """Its operator has said that its process may end while nobody uses it."""
    world, client = limited("ab", {"max_running": 1}, stateful=True, idle_stop_sec=600.0)
    served(world, client, "a")
    served(world, client, "b")
    assert states(world) == "idle ready"


def test_an_end_that_is_under_way_makes_room_for_one() -> None:
    """A slow end is not a reason to stop a second server."""
    world, client = limited()
    for name in "ab":
        served(world, client, name)
    world.slow_to_end |= {"a", "b"}
    id = client.call("c")
    world.wait(3.0)
    assert states(world) == "draining ready starting"
    world.bury("a")
    assert states(world) == "idle ready ready"
    assert client.endings(id) == []


def test_a_server_that_is_called_while_it_makes_room_waits_in_turn() -> None:
    """Law 2, and no livelock: the place goes to the first that waited, then back when that is idle."""
    world, client = limited("ab", {"max_running": 1})
    served(world, client, "a")
    world.slow_to_end.add("a")
    b, a = client.call("b"), client.call("a")
    world.bury("a")
    assert states(world) == "starting ready"
    process = world.processes["b"]
    process.reply(process.calls[-1], "b")
    assert (client.result(b), states(world)) == ("b", "ready idle")
    process = world.processes["a"]
    process.reply(process.calls[-1], "a")
    assert client.result(a) == "a"
    assert world.spawned == {"a": 2, "b": 1}


def test_a_process_that_is_replaced_keeps_its_place() -> None:
    """An operator's `restart`, and the second start of a server that exits at the era probe."""
    world, client = limited("ab", {"max_running": 1}, max_in_flight=1)
    waiting = [client.call(name, timeout_ms=600_000) for name in "aab"][-1]
    world.restart("a")
    assert (states(world), client.endings(waiting)) == ("ready starting", [])


def test_a_server_that_fails_gives_its_place_back() -> None:
    """While it waits for its next try, others may run."""
    world, client = limited("ab", {"max_running": 1}, restart_sec=5.0, max_in_flight=1)
    waiting = [client.call(name, timeout_ms=600_000) for name in "aab"][-1]
    world.exit("a")
    assert states(world) == "backoff ready"
    world.wait(5.0)
    assert (states(world), client.endings(waiting)) == ("starting ready", [])


@pytest.mark.parametrize("how", ["cancelled", "stopped", "gone"])
def test_who_no_longer_wants_room_is_given_none(how: str) -> None:
    """The next one that waits is; and an operator's `stop` holds."""
    world, client = limited("abc", {"max_running": 1})
    other = world.client(b"b")
    running = client.call("a")
    id = other.call("b")
    client.call("c")
    if how == "cancelled":
        other.say(wire.Cancel(1, id, None))
    elif how == "stopped":
        world.stop("b")
    else:
        world.cut(other)
    assert states(world) == f"ready {'stopped' if how == 'stopped' else 'idle'} starting"
    process = world.processes["a"]
    process.reply(process.calls[-1], "a")
    assert client.result(running) == "a"
    assert world.processes.keys() == {"c"}


def test_a_reload_changes_the_limits_at_once() -> None:
    """More room: who waits has it. Less: idle servers are stopped, busy ones as soon as they are idle."""
    world, client = limited("abc", {"max_running": 1})
    ids = {name: client.call(name, timeout_ms=600_000) for name in "abc"}
    tables = {name: {"start": "demand"} for name in "abc"}
    Reloads(world).reload(tables, {"max_running": 3})
    assert states(world) == "ready ready ready"
    process = world.processes["a"]
    process.reply(process.calls[-1], "a")
    Reloads(world).reload(tables, {"max_running": 1})
    assert (states(world), made_room(world)) == ("idle ready ready", ["a"])
    process = world.processes["c"]
    process.reply(process.calls[-1], "c")
    assert (states(world), made_room(world)) == ("idle ready idle", ["a", "c"])
    assert client.result(ids["c"]) == "c"
