"""The budget: `memory_high`, by the figures of the processes that there are."""

from __future__ import annotations

from broker.core.servers.budget import MEASURE_S, SOON_S
from client_shim.wire import Code
from tests.core.servers.test_budget import MIB, limited, made_room, served, states
from tests.core.world import Client, World

LIMIT = {"memory_high": 100 * MIB}


def measure(world: World, **used: int) -> None:
    """The servers with a process use so many MiB."""
    world.run(world.engine.budget.measured, {name: size * MIB for name, size in used.items()})


def answer(world: World, name: str) -> None:
    """A server answers its last call."""
    process = world.processes[name]
    process.reply(process.calls[-1], name)


def test_above_memory_high_idle_servers_are_stopped_until_it_is_enough() -> None:
    """Those unused for longest first; a server of which nothing is known is no help. Each is counted once."""
    world, client = limited("abcd", LIMIT)
    for name in "dabc":
        served(world, client, name)
    measure(world, a=30, b=50, c=60)
    assert (states(world), made_room(world)) == ("idle idle ready ready", ["a", "b"])
    measure(world, c=60, d=10)
    assert (states(world), made_room(world)) == ("idle idle ready ready", ["a", "b"])


def test_above_memory_high_no_further_server_is_started() -> None:
    """Until it is measured that there is room again; the refusal says how much is in use."""
    world, client = limited("ab", LIMIT)
    running = client.call("a", timeout_ms=600_000)
    measure(world, a=120)
    id = client.call("b", timeout_ms=1000)
    assert states(world) == "ready starting"
    world.wait(1.0)
    fault = client.fault(id)
    assert (fault.code, fault.data["limit"], fault.data["used"]) == (Code.BUSY, "memory_high", 120 * MIB)
    assert "the servers use 120 MiB, and memory_high is 100 MiB" in fault.message
    waiting = client.call("b", timeout_ms=600_000)
    measure(world, a=90)
    assert states(world) == "ready ready"
    assert client.endings(running) == client.endings(waiting) == []


def test_a_server_that_is_idle_makes_room_for_one_that_is_called() -> None:
    """The memory of a process that has ended is free, before the next measurement says so."""
    world, client = limited("ab", LIMIT)
    running = client.call("a")
    measure(world, a=120)
    waiting = client.call("b")
    answer(world, "a")
    assert (client.result(running), states(world), made_room(world)) == ("a", "idle ready", ["a"])
    assert client.endings(waiting) == []


def above(used: int = 120) -> tuple[World, Client]:
    """A server that alone uses more than `memory_high` has been called and is idle."""
    world, client = limited("ab", LIMIT, idle_stop_sec=600.0)
    served(world, client, "a")
    measure(world, a=used)
    return world, client


def test_a_server_that_alone_uses_too_much_stays() -> None:
    """To stop it would help nobody, and each call would start it again."""
    world, client = above()
    for _ in range(5):
        served(world, client, "a")
        measure(world, a=120)
    assert (world.spawned, made_room(world)) == ({"a": 1, "b": 0}, [])


def test_the_memory_of_a_process_that_has_ended_does_not_keep_its_server_from_starting() -> None:
    """It was idle for long, or was stopped by an operator: nothing runs, so there is room."""
    world, client = above()
    world.wait(600.0)
    assert states(world) == "idle idle"
    served(world, client, "a")
    assert (states(world), world.engine.counters["no-room"]) == ("ready idle", 0)
    measure(world, a=120)
    world.stop("a")
    measure(world, a=120)  # taken before it ended
    world.start("a")
    assert states(world) == "ready idle"


def test_a_server_that_alone_uses_too_much_makes_room_for_one_that_is_called() -> None:
    """Each call stops one server and starts one, and between calls nothing is stopped or started."""
    world, client = above()
    for number, name in enumerate("bab", start=1):
        served(world, client, name)
        measure(world, **{name: 120})
        measure(world, **{name: 120})
        assert len(made_room(world)) == number
    assert (world.spawned, states(world)) == ({"a": 2, "b": 2}, "idle ready")


def test_the_last_server_stays_whatever_the_others_used() -> None:
    """Those unused for longest are stopped, and the one used last stays though it is too large."""
    world, client = limited("abc", LIMIT)
    for name in "abc":
        served(world, client, name)
    measure(world, a=10, b=10, c=120)
    assert (states(world), made_room(world)) == ("idle idle ready", ["a", "b"])


def test_a_new_process_is_not_taken_for_the_one_before() -> None:
    """An operator restarts a server that has grown: others start at once, and it is measured soon."""
    world, client = limited("ab", LIMIT)
    running = client.call("a", timeout_ms=600_000)
    measure(world, a=120)
    world.restart("a")
    assert world.engine.budget.measure_s == SOON_S
    client.call("a", timeout_ms=600_000)
    served(world, client, "b")
    assert client.fault(running).code == Code.SERVER_DIED


def test_the_memory_is_measured_sooner_while_something_is_unknown() -> None:
    """Every ten seconds; every second after a start, and while a server waits for room."""
    world, client = limited("ab", LIMIT)
    budget = world.engine.budget
    assert budget.measure_s == MEASURE_S
    running = client.call("a", timeout_ms=600_000)
    assert budget.measure_s == SOON_S
    measure(world, a=120)
    assert budget.measure_s == MEASURE_S
    client.call("b", timeout_ms=600_000)
    assert budget.measure_s == SOON_S
    assert client.endings(running) == []


def test_without_a_limit_nothing_is_asked_and_nothing_is_stopped() -> None:
    """The default: thirty servers that all run."""
    world, client = limited("abcdefgh", {})
    for name in "abcdefgh":
        served(world, client, name)
    measure(world, **dict.fromkeys("abcdefgh", 10_000))
    assert set(states(world).split()) == {"ready"}
    assert not world.engine.budget.is_short


def test_a_figure_that_comes_late_does_not_keep_a_server_from_starting() -> None:
    """It was taken before the process ended; since then the server waits for its next one."""
    world, client = limited("ab", {**LIMIT, "max_running": 1})
    running = client.call("a", timeout_ms=600_000)
    waiting = client.call("b", timeout_ms=600_000)
    measure(world, a=10, b=120)
    answer(world, "a")
    assert (client.result(running), states(world)) == ("a", "idle ready")
    assert client.endings(waiting) == []
