"""When the budget looks: after whatever may free a place, and not at every message (law 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from broker.core.effects import Idle
from broker.core.servers.lifecycle import Event
from client_shim import wire
from tests.core.clients.test_notifications import ALL
from tests.core.fake_server import Json
from tests.core.reloading import Reloads
from tests.core.servers.test_budget import MIB, limited, made_room, served, states
from tests.core.world import Client, World

LONG_MS = 600_000


def call_and_give_up(world: World, client: Client) -> None:
    """A call whose time is up, and which the process still has."""
    client.call("a", timeout_ms=10)
    world.wait(0.01)


def subscribe(_: World, client: Client) -> None:
    """A client subscribes to a resource, which starts the server."""
    client.listen(a=["u"])


def read_again(world: World, client: Client) -> None:
    """The broker reads a list that has changed."""
    served(world, client, "a")
    world.scripts["a"].mute = {"tools/list"}
    world.processes["a"].tell("tools/list_changed")


def pause(world: World, client: Client) -> None:
    """It is about to be stopped."""
    served(world, client, "a")
    world.engine.servers["a"].queue.paused = True


def late_reply(world: World, _: Client) -> None:
    """The reply to the call that was given up."""
    process = world.processes["a"]
    process.reply(process.calls[-1], "late")


def read(world: World, _: Client) -> None:
    """The list is read."""
    process = world.processes["a"]
    process.reply(process.got("tools/list")[-1], {"tools": []})


def change_table(world: World, **table: Json | float | bool) -> None:
    """A reload gives the servers another table."""
    Reloads(world).reload({name: {"start": "demand", **table} for name in "ab"})


class Use(NamedTuple):
    """A use of the server `a`, with the table that it needs: how it begins, and how it ends."""

    table: Json
    begin: Callable[[World, Client], object]
    end: Callable[[World, Client], object]


ONE: Json = {"max_in_flight": 1, "timeout": 600.0}
USES = {
    "subscription": Use({}, subscribe, lambda _, client: client.listen()),
    "channel that subscribed": Use({}, subscribe, lambda _, client: client.say(wire.Goodbye(1, 0, ""))),
    "connection that subscribed": Use({}, subscribe, lambda world, client: world.cut(client)),
    "lease": Use(
        {"lease_sec": 60.0, "idle_stop_sec": 600.0},
        lambda world, client: served(world, client, "a"),
        lambda world, _: world.wait(60.0),
    ),
    "late reply": Use(ONE, call_and_give_up, late_reply),
    "no reply": Use(ONE, call_and_give_up, lambda world, _: world.wait(600.0)),
    "list": Use({}, read_again, read),
    "list without an answer": Use({}, read_again, lambda world, _: world.wait(600.0)),
    "pause": Use({}, pause, lambda world, _: world.run(world.engine.registry.resume, "a")),
    "state": Use(
        {"stateful": True},
        lambda world, client: served(world, client, "a"),
        lambda world, _: change_table(world, stateful=True, idle_stop_sec=600.0),
    ),
    "resource that clients see": Use(
        {}, subscribe, lambda world, _: change_table(world, resources={"hide": ["u"]})
    ),
}


@pytest.mark.parametrize("what", USES)
def test_the_end_of_each_use_makes_room_at_once(what: str) -> None:
    """A call waits for the place; nothing else happens that would have the budget look."""
    use = USES[what]
    world, client = limited("ab", {"max_running": 1}, **use.table)
    world.scripts["a"].capabilities = ALL
    use.begin(world, client)
    other = world.client(b"b")
    id = other.call("b", timeout_ms=100 * LONG_MS)
    assert states(world) == "ready starting"
    use.end(world, client)
    assert (states(world), made_room(world)) == ("idle ready", ["a"])
    assert other.endings(id) == []


def test_a_server_that_waits_rests_as_soon_as_its_only_use_ends() -> None:
    """It was started for a subscription, which is withdrawn before there is room."""
    world, client = limited("ab", {"max_running": 1})
    client.call("a", timeout_ms=LONG_MS)
    client.listen(b=["u"])
    assert states(world) == "ready starting"
    client.listen()
    assert states(world) == "ready idle"


def test_a_server_that_ends_and_is_started_again_keeps_its_place_from_then_on() -> None:
    """`mcp-broker start` while an idle process ends: its state stays, but what follows is another process."""
    world, client = limited("ab", {"memory_high": MIB})
    for name in "ab":
        served(world, client, name)
    world.slow_to_end.add("b")
    world.feed("b", Event.IDLE)
    world.run(world.engine.budget.measured, {"a": MIB, "b": MIB})
    assert states(world) == "ready draining"
    world.start("b")
    assert (states(world), made_room(world)) == ("idle draining", ["a"])


def test_a_server_that_a_reload_removes_makes_room() -> None:
    """An operator starts it while it is being removed, so it is removed with a process."""
    world, client = limited("ab", {"max_running": 1}, stateful=True)
    reloads = Reloads(world)
    served(world, client, "a")
    id = client.call("b", timeout_ms=LONG_MS)
    reloads.reload({"b": {"start": "demand", "stateful": True}})
    world.slow_to_end.add("a")
    reloads.go_on("a")
    world.feed("a", Event.START)
    world.bury("a")
    reloads.finish()
    assert states(world) == "ready"
    assert client.endings(id) == []


def test_a_server_is_told_once_to_rest() -> None:
    """Other steps, with looks of their own, may come before it does: it may be called again meanwhile."""
    world, client = limited("abc", {"max_running": 1})
    client.call("a", timeout_ms=LONG_MS)
    engine = world.engine
    for name in "bc":
        world.lifecycles[name].on(Event.START, world.now)
        engine.budget.ask(name, world.now)
    effects = [*world.step(engine.budget.changed), *world.step(engine.budget.changed)]
    assert [one.server for one in effects if isinstance(one, Idle)] == ["b", "c"]


@pytest.mark.parametrize("limits", [{"max_running": 30}, {"memory_high": MIB}])
def test_messages_that_free_no_place_cost_no_look(
    limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: thirty servers that may not be stopped, one that waits, and a client that calls and cancels."""
    names = [f"s{number:02}" for number in range(31)]
    world = World({name: {"start": "demand", "stateful": name == "s01"} for name in names}, limits)
    for name in names:
        world.rest(name)
    client = world.client()
    looks, look = list[float](), world.engine.budget.look
    for name in names[:30]:
        client.call(name, timeout_ms=LONG_MS)
    world.run(world.engine.budget.measured, dict.fromkeys(names, MIB))
    waiting = client.call(names[30], timeout_ms=LONG_MS)
    assert world.engine.budget.is_short

    def counted(now: float) -> None:
        looks.append(now)
        look(now)

    monkeypatch.setattr(world.engine.budget, "look", counted)
    stateful = world.processes["s01"]
    stateful.reply(stateful.calls[0], "answer")
    for number in range(100):
        name = f"s{number % 2:02}"
        process = world.processes[name]
        id = client.call(name, timeout_ms=LONG_MS, flags=wire.WANTS_PROGRESS)
        process.progress(process.calls[-1]["params"]["_meta"]["progressToken"], 0.5)
        process.reply(process.calls[-1], "answer")
        assert client.result(id) == "answer"
        client.say(wire.Cancel(1, client.call(names[30]), None))
        world.wait(0.1)
    assert looks == []
    busy = world.processes["s00"]
    busy.reply(busy.calls[0], "answer")  # now it is idle
    assert 0 < len(looks) < 10
    assert made_room(world) == ["s00"]
    assert client.endings(waiting) == []


def test_a_server_that_alone_uses_too_much_costs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be done about it until another one is called, so its calls change nothing."""
    world, client = limited("ab", {"memory_high": MIB})
    served(world, client, "a")
    world.run(world.engine.budget.measured, {"a": 2 * MIB})
    looks = list[float]()
    monkeypatch.setattr(world.engine.budget, "look", looks.append)
    for _ in range(10):
        served(world, client, "a")
    assert (looks, states(world)) == ([], "ready idle")
