"""The wait for the calls of a server that is about to be stopped: bounded, and its line is opened again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.hub import Hub
from tests.core.world import World, ready


class Pipe:
    """What the hub writes to a server."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Take a line."""
        self.lines.append(line)

    def opened(self) -> None:
        """Nothing to do."""

    def unfit(self, reason: str) -> None:
        """Nothing to do."""

    def demand(self) -> None:
        """Nothing to do."""

    def keep(self, text: bytes) -> None:
        """Nothing to do."""


def with_a_call() -> tuple[World, Hub, Pipe]:
    """A server that has a call, and a hub around its multiplexer."""
    world = ready()
    world.client().call(timeout_ms=600_000)
    hub, pipe = Hub(world.config, world.mux, lambda: world.now), Pipe()
    hub.backends["time"] = pipe
    return world, hub, pipe


Then = Callable[[World, Hub, trio.CancelScope], Awaitable[None]]


def draining(then: Then) -> tuple[World, Pipe, int | None]:
    """Begin to wait for the call, with a further call in line, and let something happen; what came of it."""
    world, hub, pipe = with_a_call()
    left: list[int] = []

    async def drain() -> None:
        left.append(await hub.drain_server("time", 100.0))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            assert world.mux.servers["time"].line.paused
            world.client(b"b").call()
            assert world.mux.servers["time"].line.waiting == 1
            await then(world, hub, nursery.cancel_scope)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return world, pipe, left[0] if left else None


def test_a_wait_that_is_broken_off_gives_the_server_its_calls_again() -> None:
    """Issue 4: a line is never left paused for ever."""

    async def broken_off(world: World, hub: Hub, scope: trio.CancelScope) -> None:
        scope.cancel()

    world, pipe, left = draining(broken_off)
    assert (left, len(pipe.lines), world.mux.servers["time"].line.paused) == (None, 1, False)


def test_a_server_that_goes_on_after_all_is_not_waited_for() -> None:
    """Issue 4: `start` takes back a `stop` that still waits."""

    async def resumed(world: World, hub: Hub, scope: trio.CancelScope) -> None:
        hub.resume("time")

    world, pipe, left = draining(resumed)
    assert (left, len(pipe.lines), world.mux.servers["time"].line.running) == (2, 1, 2)


@pytest.mark.parametrize("ending", ["patience", "death"])
def test_the_wait_ends_with_its_time_or_with_the_server(ending: str) -> None:
    """Issue 4: what is left then is cut off; what is in line stays there, and is given nothing meanwhile."""

    async def happens(world: World, hub: Hub, scope: trio.CancelScope) -> None:
        if ending == "death":
            hub.gone("time", "it exited with status 1")

    world, pipe, left = draining(happens)
    line = world.mux.servers["time"].line
    assert (left, line.running, line.waiting) == ((1, 1, 1) if ending == "patience" else (0, 0, 1))
    assert (pipe.lines, line.paused) == ([], True)
    world.exit()
    world.wait(1.0)
    assert (line.paused, len(world.processes["time"].calls)) == (False, 1)
