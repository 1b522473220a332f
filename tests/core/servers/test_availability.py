"""Laws 2, 8 and 10: whether a server can serve a call, and the words for why not, in every state of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core.servers.availability import When, never, when
from broker.core.servers.lifecycle import State
from client_shim.wire import Code
from tests.core.world import World


def starting(world: World) -> None:
    """Its handshake is not over."""
    world.scripts["time"].mute = {"initialize", "server/discover"}
    world.start()


def backing_off(world: World) -> None:
    """It has ended by itself, and is started again in a second."""
    world.start()
    world.exit()


def broken(world: World) -> None:
    """It has ended too often, just now."""
    backing_off(world)


def broken_long_ago(world: World) -> None:
    """So long that a call may have it started."""
    broken(world)
    world.wait(30.0)


def stopped(world: World) -> None:
    """An operator has stopped it."""
    world.start()
    world.stop()


def stopping(world: World) -> None:
    """It has been stopped, and its process is not gone."""
    world.start()
    world.slow_to_end = {"time"}
    world.stop()


def restarting(world: World) -> None:
    """It is being replaced, and the old process is not gone."""
    world.start()
    world.slow_to_end = {"time"}
    world.restart()


STATES: list[tuple[Callable[[World], object], dict[str, object], State, When, When]] = [
    (starting, {}, State.HANDSHAKE, When.LATER, When.LATER),
    (lambda world: world.start(), {}, State.READY, When.NOW, When.NOW),
    (backing_off, {}, State.BACKOFF, When.TOO_LATE, When.LATER),
    (broken, {"start_limit_burst": 1}, State.BROKEN, When.TOO_LATE, When.TOO_LATE),
    (broken_long_ago, {"start_limit_burst": 1}, State.BROKEN, When.ON_DEMAND, When.ON_DEMAND),
    (lambda world: None, {}, State.STOPPED, When.TOO_LATE, When.TOO_LATE),
    (stopped, {}, State.STOPPED, When.TOO_LATE, When.TOO_LATE),
    (stopping, {}, State.DRAINING, When.TOO_LATE, When.TOO_LATE),
    (restarting, {}, State.DRAINING, When.LATER, When.LATER),
]
"""The way into a state, its table, the state, and the answers for a call with 0.1 s and with 30 s."""


@pytest.mark.parametrize(("come", "table", "state", "soon", "patient"), STATES)
def test_when_a_server_can_serve_a_call(
    come: Callable[[World], object], table: dict[str, object], state: State, soon: When, patient: When
) -> None:
    """Law 2: a call that would certainly wait too long is refused at once."""
    world = World({"time": table})
    come(world)
    server = world.engine.servers["time"]
    assert server.lifecycle.state is state
    assert [when(server, world.now + after_s, world.now) for after_s in (0.1, 30.0)] == [soon, patient]
    assert never(server) is None


def test_the_answer_is_what_happens_to_a_call() -> None:
    """Law 2: in each of these states."""
    for come, table, _, soon, _ in STATES:
        world = World({"time": table})
        come(world)
        client = world.client()
        id = client.call(timeout_ms=100)
        refused = bool(client.endings(id))
        assert refused is (soon is When.TOO_LATE)
        if refused:
            assert client.fault(id).code == Code.SERVER_DOWN


def test_a_server_that_is_not_run_takes_no_calls() -> None:
    """Law 10: and says which table of the config to change."""
    world = World({"time": {"enabled": False}})
    refusal = never(world.engine.servers["time"])
    assert refusal is not None
    assert "broker.toml" in refusal.message + refusal.hint


def test_a_server_that_is_removed_takes_no_calls() -> None:
    """Law 10: though its process may still be there."""
    world = World()
    world.start()
    world.run(world.engine.registry.withdraw, "time")
    refusal = never(world.engine.servers["time"])
    assert refusal is not None
    assert refusal.code == Code.UNKNOWN_SERVER
