"""The supervisors together: the memory of the servers, for `memory_high`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from broker.core.servers.budget import MEASURE_S, SOON_S
from broker.hub import Hub
from broker.processes.trees import Mark, Tree
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


@pytest.mark.parametrize("what", ["starts", "waits"])
def test_whatever_needs_a_figure_does_not_wait_for_the_next_measurement(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after a server has started, or waits for room; while nothing happens, at long intervals."""
    size = {"starts": 1, "waits": 100_000}[what]
    world = World({"a": {}, "b": {"start": "demand"}}, {"memory_high": 65_536})
    world.start("a")
    world.rest("b")
    client, measured_at = world.client(), list[float]()
    client.call("a")

    async def trees() -> dict[str, Tree]:
        measured_at.append(trio.current_time())
        return {name: Tree([], size, 0.0) for name in world.processes}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            supervisors = Supervisors(Hub(world.engine, lambda: world.now), cast(Any, None), nursery)
            monkeypatch.setattr(supervisors, "trees", trees)
            nursery.start_soon(supervisors.watch_memory)
            await trio.sleep(MEASURE_S + 2.5 * SOON_S)
            assert len(measured_at) == 2
            client.call("b")
            await trio.sleep(SOON_S)
            assert len(measured_at) == 3
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_the_figures_of_a_process_are_not_taken_for_those_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A restart while a thread reads /proc: the old tree is nobody's by then."""
    kept, old, new = Mark("kept"), Mark("old"), Mark("new")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            supervisors = Supervisors(Hub(World().engine), cast(Any, None), nursery)
            processes = {"kept": SimpleNamespace(mark=kept), "restarted": SimpleNamespace(mark=old)}
            for name, process in processes.items():
                supervisor = SimpleNamespace(process=process)
                supervisors._controlled[name] = cast(Any, SimpleNamespace(supervisor=supervisor))

            async def read(_: Callable[..., object], marks: list[Mark]) -> dict[str, Tree]:
                processes["restarted"].mark = new
                return {mark.cookie: Tree([], 1, 0.0) for mark in marks}

            monkeypatch.setattr(trio.to_thread, "run_sync", read)
            assert await supervisors.trees() == {"kept": Tree([], 1, 0.0)}

    trio.run(main)
