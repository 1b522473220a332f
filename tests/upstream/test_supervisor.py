"""One server's supervisor, while something else is wanted of it."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing
from msgspec import structs
from trio.testing import MockClock

from broker.config.schema import ServerConfig
from broker.core.calls.queue import Lease
from broker.core.servers.lifecycle import Event, State
from broker.hub import Hub
from broker.processes.program import SpawnError
from broker.upstream.starts import DISTANCE_S, Slot, Starts
from broker.upstream.supervisor import Supervisor
from tests.core.world import World

OLD, NEW = "0ld-t0ken-0123456789", "n3w-t0ken-0123456789"


def supervised(world: World, config: ServerConfig, launcher: object) -> Supervisor:
    """A supervisor of the world's server `time`."""
    world.engine.servers["time"].config = config
    return Supervisor(
        world.engine.servers["time"],
        Hub(world.engine, lambda: world.now),
        launcher=cast(Any, launcher),
        starts=Starts(1),
        max_message_bytes=65_536,
    )


def test_a_process_never_runs_with_secrets_that_its_log_does_not_know() -> None:
    """Law 9, no secrets in logs: what is left of an earlier container may take a while; a reload comes."""
    config = ServerConfig(name="time", command="server", env={"TOKEN": OLD})
    world, known = World(), list[str]()

    class Launcher:
        def __init__(self) -> None:
            self.environ: dict[str, str] = {}

        async def end_owed(self, _: ServerConfig) -> None:
            known.append(supervisor.log.mask(OLD))
            world.engine.servers["time"].config = structs.replace(config, env={"TOKEN": NEW})

        def spawn(self, with_this: ServerConfig) -> None:
            known.append(supervisor.log.mask(with_this.env["TOKEN"]))
            scope.cancel()
            raise SpawnError("no such program")

    supervisor = supervised(world, config, Launcher())

    async def main() -> None:
        with scope:
            await supervisor.run()

    scope = trio.CancelScope()
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert known == ["***", "***"]


def test_who_gave_its_place_back_starts_only_in_another_one() -> None:
    """`stop`, then `start`, while an old container is removed; meanwhile the place is another's."""
    config = ServerConfig(name="time", command="server")
    world, spawned = World(), list[str]()
    removing, removed = trio.Event(), trio.Event()

    class Launcher:
        def __init__(self) -> None:
            self.environ: dict[str, str] = {}

        async def end_owed(self, _: ServerConfig) -> None:
            removing.set()
            await removed.wait()

        def spawn(self, _: ServerConfig) -> None:
            spawned.append("time")
            raise SpawnError("no such program")

    supervisor = supervised(world, config, Launcher())
    starts = supervisor._slot._starts
    another = Slot(starts)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await removing.wait()
            supervisor.stop()
            await another.acquire()
            supervisor.start()
            removed.set()
            await trio.testing.wait_all_tasks_blocked()
            assert not spawned
            another.release()
            await trio.testing.wait_all_tasks_blocked(DISTANCE_S * 2)
            assert spawned == ["time"]
            assert starts.held == 0
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_server_that_rests_because_there_is_no_room_takes_no_slot() -> None:
    """At the start of a broker with thirty servers, of which two may run, the others hold up no start."""
    world, looked_at = World({"time": {}, "b": {}}, {"max_running": 1}), list[str]()

    class Launcher:
        def __init__(self) -> None:
            self.environ: dict[str, str] = {}

        async def end_owed(self, config: ServerConfig) -> None:
            looked_at.append(config.name)

    supervisor = supervised(world, world.engine.servers["time"].config, Launcher())
    starts = supervisor._slot._starts
    supervisor._hub.upstreams["time"] = supervisor
    world.lifecycles["b"].on(Event.START, world.now)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.testing.wait_all_tasks_blocked()
            assert (supervisor.lifecycle.state, starts.held) == (State.IDLE, 0)
            await trio.sleep(2 * DISTANCE_S)
            assert looked_at == []
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_who_lost_its_room_while_it_waited_for_a_place_waits_for_room_again() -> None:
    """`stop`, then `start`, and meanwhile another server runs: never more processes than `max_running`."""
    world, spawned = World({"time": {}, "b": {}}, {"max_running": 1}), list[str]()

    class Launcher:
        def __init__(self) -> None:
            self.environ: dict[str, str] = {}

        async def end_owed(self, _: ServerConfig) -> None:
            pass

        def spawn(self, _: ServerConfig) -> None:
            spawned.append("time")
            raise SpawnError("no such program")

    server, other = world.engine.servers["time"], world.lifecycles["b"]
    supervisor = supervised(world, server.config, Launcher())
    hub, starts = supervisor._hub, supervisor._slot._starts
    hub.upstreams["time"] = supervisor
    server.queue.lease = Lease((b"a", 1), "page", 7, world.now, world.now)  # somebody uses it
    another = Slot(starts)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await another.acquire()
            nursery.start_soon(supervisor.run)
            await trio.sleep(1.0)
            supervisor.stop()
            other.on(Event.START, world.now)
            supervisor.start()
            another.release()
            await trio.sleep(1.0)
            assert (spawned, starts.held, server.room is None) == ([], 0, False)
            other.on(Event.STOP, world.now)
            hub.run(world.engine.budget.changed)
            await trio.sleep(1.0)
            assert spawned == ["time"]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
