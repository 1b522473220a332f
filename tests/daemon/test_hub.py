"""The hub: the wait for the calls of a server that is about to be stopped, and what is done once for all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.clients.connections import Peer
from broker.hub import LATE_S, Hub
from client_shim import wire
from tests.core.world import INSTANCE, World, ready


class Pipe:
    """What the hub writes to a server."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Take a line."""
        self.lines.append(line)

    def opened(self) -> None:
        """Nothing to do."""

    def end_process(self, reason: str) -> None:
        """Nothing to do."""

    def respawn(self, reason: str) -> None:
        """Nothing to do."""

    def demand(self) -> None:
        """Nothing to do."""

    def idle(self) -> None:
        """Nothing to do."""

    def admitted(self) -> None:
        """Nothing to do."""

    def log_output(self, text: bytes) -> None:
        """Nothing to do."""


def with_a_call() -> tuple[World, Hub, Pipe]:
    """A server that has a call, and a hub around its engine."""
    world = ready()
    world.client().call(timeout_ms=600_000)
    hub, pipe = Hub(world.engine, lambda: world.now), Pipe()
    hub.upstreams["time"] = pipe
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
            assert world.engine.servers["time"].queue.paused
            world.client(b"b").call()
            assert world.engine.servers["time"].queue.waiting == 1
            await then(world, hub, nursery.cancel_scope)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return world, pipe, left[0] if left else None


def test_a_server_that_goes_on_after_all_is_not_waited_for() -> None:
    """`start` takes back a `stop` that still waits."""

    async def resumed(world: World, hub: Hub, scope: trio.CancelScope) -> None:
        hub.run(world.engine.registry.resume, "time")

    world, pipe, left = draining(resumed)
    assert (left, len(pipe.lines), world.engine.servers["time"].queue.running) == (2, 1, 2)


@pytest.mark.parametrize("ending", ["patience", "death"])
def test_the_wait_ends_with_its_time_or_with_the_server(ending: str) -> None:
    """What is left then is cut off; what is in line stays there, and is given nothing meanwhile."""

    async def happens(world: World, hub: Hub, scope: trio.CancelScope) -> None:
        if ending == "death":
            hub.run(world.engine.registry.gone, "time", "it exited with status 1")

    world, pipe, left = draining(happens)
    line = world.engine.servers["time"].queue
    assert (left, line.running, line.waiting) == ((1, 1, 1) if ending == "patience" else (0, 0, 1))
    assert (pipe.lines, line.paused) == ([], True)
    world.exit()
    world.wait(1.0)
    assert (line.paused, len(world.processes["time"].calls)) == (False, 1)


# -- what is done once for all that is there --------------------------------------------------------------


def ask(hub: Hub, id: int) -> None:
    """The client sends a call."""
    request = wire.Request(1, id, INSTANCE, "time", "tools/call", 600_000, 0, None)
    hub.step(
        hub.engine.clients.received, b"a", Peer(), wire.encode(request), b'{"name":"echo","arguments":{}}'
    )


def test_what_comes_together_for_a_server_is_written_at_once() -> None:
    """A server is not woken for each of many calls; and their order is that in which they came."""
    _, hub, pipe = with_a_call()
    ask(hub, 2)
    ask(hub, 3)
    assert pipe.lines == []
    hub.settle()
    (written,) = pipe.lines
    first, second = map(json.loads, written.splitlines())
    assert first["id"] < second["id"]
    hub.settle()
    assert len(pipe.lines) == 1


def ticks_while_messages_pass(due: float | None) -> list[float]:
    """When the engine is told the time: a message comes every millisecond for a second, then none.

    `due` is when it wants to know the time, but for the deadlines of calls.
    """
    told: list[float] = []
    world, _, pipe = with_a_call()

    def wake_at() -> float | None:
        return due if not told else None

    async def main() -> None:
        hub = Hub(world.engine)
        hub.upstreams["time"] = pipe
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.tick)
            for id in range(2, 1004):
                await trio.sleep(0.001)
                ask(hub, id)
                hub.settle()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.engine, "tick", told.append)
        patch.setattr(world.engine, "wake_at", wake_at)
        trio.run(main, clock=MockClock(autojump_threshold=0))
    return told


def test_while_messages_pass_the_alarm_is_put_off() -> None:
    """To be woken by it costs as much as a call. When they stop it rings once, and then no more."""
    (told,) = ticks_while_messages_pass(None)
    assert 1.002 < told <= 1.002 + LATE_S


def test_what_is_due_while_messages_pass_is_a_little_late_at_most() -> None:
    """Law 2: what servers have due is seen within `LATE_S`, however many messages pass."""
    told = ticks_while_messages_pass(0.5)
    assert 0.5 <= told[0] <= 0.5 + LATE_S
