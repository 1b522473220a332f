"""The supervisors together: the memory of the servers, for `memory_high`."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from broker.core.servers.budget import SOON_S
from broker.hub import Hub
from broker.processes.trees import Tree
from broker.upstream.supervisors import Supervisors
from tests.core.world import World


@pytest.mark.parametrize("limit", [{"memory_high": 65_536}, {}])
def test_the_memory_is_measured_as_long_as_there_is_a_limit(
    limit: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it cannot be read for a while the last figures stay; that is logged once, not every second."""
    world = World({"time": {}}, limit)
    world.start()
    told: list[object] = []
    monkeypatch.setattr(world.engine.budget, "measured", lambda used, now: told.append(used))
    answers: list[object] = [OSError(errno.EMFILE, "no more"), OSError(errno.EMFILE, "no more"), 7, 8]

    async def trees() -> dict[str, Tree]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return {"time": Tree([], cast(int, answer), 0.0)}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            supervisors = Supervisors(Hub(world.engine, lambda: world.now), cast(Any, None), nursery)
            monkeypatch.setattr(supervisors, "trees", trees)
            nursery.start_soon(supervisors.watch_memory)
            await trio.sleep(4.5 * SOON_S)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert told == ([{"time": 7}, {"time": 8}] if limit else [])
    assert caplog.text.count("server.memory_unknown") == bool(limit)
