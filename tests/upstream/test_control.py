"""The arbiter: which intent holds where two of them cross, and what happens to the process and its calls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from broker.hub import Hub
from broker.upstream import supervisors as module
from broker.upstream.control import TABLE, Control, Goal, Intent, Phase, Step
from broker.upstream.supervisors import Supervisors
from tests.core.world import ready

INTENTS = tuple(intent for intent in Intent if intent not in (Intent.DRAINED, Intent.ENDED))
FINAL = (Intent.REMOVE, Intent.SHUTDOWN)
LENGTH = 4
"""Of a walk: longer ones meet no phase that these do not."""


class Told(NamedTuple):
    """An intent, its step, the phases around it, and the goal after it."""

    intent: Intent
    step: Step
    before: Phase
    after: Phase
    goal: Goal


def walks(length: int) -> Iterator[list[Told]]:
    """Every sequence of so many intents and events."""
    for intents in product(Intent, repeat=length):
        control, walk = Control(), []
        for intent in intents:
            before = control.phase
            if before is not Phase.LEFT and intent not in TABLE[before]:
                break  # impossible: the end of a drain that did not begin
            step = control.on(intent)
            walk.append(Told(intent, step, before, control.phase, control.goal))
        else:
            yield walk


def test_every_wish_has_a_row_in_every_phase() -> None:
    """No two intents can meet in a way that nobody has thought of."""
    for phase, row in TABLE.items():
        assert set(INTENTS) <= set(row), phase


def test_what_is_removed_or_shut_down_is_never_started_again() -> None:
    """Law 1: whatever anybody wants afterwards, and at whatever moment."""
    for walk in walks(LENGTH):
        intents = [told.intent for told in walk]
        final = min((intents.index(intent) for intent in FINAL if intent in intents), default=LENGTH)
        assert not {told.step for told in walk[final:]} & {Step.START, Step.RESUME, Step.RETRY}, intents
        assert {told.goal for told in walk[final:]} <= {Goal.LEAVE}


def test_a_process_that_a_reload_replaces_ends_whatever_the_operator_wants() -> None:
    """A drain that a reload waits for is never broken off, so no call is cut before its time."""
    for walk in walks(LENGTH):
        committed = False
        for told in walk:
            committed = (committed or told.intent is Intent.REPLACE) and told.intent is not Intent.ENDED
            assert not committed or told.after not in (Phase.SETTLED, Phase.DRAINING), walk


def test_a_process_is_ended_once() -> None:
    """One drain, one end, whoever joins."""
    for walk in walks(LENGTH):
        begun: list[Step] = []
        for told in walk:
            begun = [] if told.before is Phase.SETTLED else begun
            assert told.step not in (Step.DRAIN, Step.END) or told.step not in begun, walk
            begun.append(told.step)


def test_the_newest_word_of_the_operator_counts() -> None:
    """Whatever a reload does meanwhile, unless it removes the server."""
    goals = {Intent.START: Goal.RUN, Intent.STOP: Goal.REST, Intent.RESTART: Goal.RUN}
    for walk in walks(LENGTH):
        for told in walk:
            if told.intent in goals and told.goal is not Goal.LEAVE:
                assert told.goal is goals[told.intent], walk


# -- with the steps that are taken -------------------------------------------------------------------------

DRAIN_S, CALL_S, END_S = 5.0, 3.0, 1.0
"""The time that calls are given; when the call that is there ends by itself; what a process takes to end."""


class Acted:
    """A supervisor whose processes need a second to end."""

    made: list[Acted]

    def __init__(self, server: Any, hub: Hub, **_: object) -> None:
        self.name, self.queue, self._hub = server.name, server.queue, hub
        self.process: object = None
        self.at_rest, self.waits = True, False
        self.spawned, self.cut = 0, 0
        self.died_at: list[float] = []
        self._again = False
        self._gone: trio.Event | None = None
        Acted.made.append(self)

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def start(self) -> None:
        self._again, self.at_rest = True, False
        if self.process is None:
            self._spawn()

    def begin(self) -> None:
        self.start()

    def stop(self) -> None:
        self._again = False
        if self.process is not None and self._gone is None:
            self._gone = trio.Event()
            self._nursery.start_soon(self._die)

    def restart(self) -> None:
        self.stop()
        self.start()

    async def ended(self) -> None:
        while self._gone is not None:
            await self._gone.wait()

    def _spawn(self) -> None:
        assert self.process is None
        self.process, self.queue.paused = object(), False
        self.spawned += 1

    async def _die(self) -> None:
        self.cut += self.queue.running
        self.queue.running = 0
        self.died_at.append(trio.current_time())
        self._hub.settle()
        await trio.sleep(END_S)
        gone, self._gone, self.process = self._gone, None, None
        self.at_rest = not self._again
        if self._again:
            self._spawn()
        assert gone is not None
        gone.set()


def cross(
    monkeypatch: pytest.MonkeyPatch, first: Intent, second: Intent, after_s: float
) -> tuple[str, Acted]:
    """Pass two intents on while a call runs. Return what runs in the end, and the supervisor."""
    monkeypatch.setattr(module, "Supervisor", Acted)
    monkeypatch.setattr(Acted, "made", [], raising=False)
    world = ready()
    hub = Hub(world.engine)
    queue = world.engine.servers["time"].queue

    async def tell_later(running: Supervisors) -> None:
        await trio.sleep(after_s)
        await running.carry_out(second, "time")

    async def main() -> tuple[str, Acted]:
        async with trio.open_nursery() as nursery:
            running = Supervisors(hub, cast(Any, None), nursery)
            running.add("time")
            await trio.testing.wait_all_tasks_blocked()
            (acted,) = Acted.made
            process, queue.running = acted.process, 1
            nursery.start_soon(running.carry_out, first, "time")
            nursery.start_soon(tell_later, running)
            await trio.sleep(CALL_S)
            if queue.running:
                queue.running = 0
                hub.settle()
            await trio.sleep(DRAIN_S + 3 * END_S)
            now = acted.process
            nursery.cancel_scope.cancel()
        return "none" if now is None else "the same" if now is process else "another", acted

    return trio.run(main, clock=MockClock(autojump_threshold=0))


S, R, X, P, M = Intent.START, Intent.RESTART, Intent.STOP, Intent.REPLACE, Intent.REMOVE

WHILE_IT_DRAINS = {
    (X, S): "the same",
    (X, X): "none",
    (X, R): "another",
    (X, P): "none",
    (X, M): "none",
    (R, S): "the same",
    (R, X): "none",
    (R, R): "another",
    (R, P): "another",
    (R, M): "none",
    (P, S): "another",
    (P, X): "none",
    (P, R): "another",
    (P, P): "another",
    (P, M): "none",
    (M, S): "none",
    (M, X): "none",
    (M, R): "none",
    (M, P): "none",
    (M, M): "none",
}
"""(the intent under way, the one that crosses it) → the process that is there in the end"""

WHILE_IT_ENDS = {**WHILE_IT_DRAINS, (X, S): "another", (R, S): "another"}
"""The same, once the old process can no longer be kept."""


@pytest.mark.parametrize(("first", "second"), WHILE_IT_DRAINS)
@pytest.mark.parametrize("after_s", [0.0, 1.0])
def test_wishes_that_cross_in_a_drain_cut_no_call(
    monkeypatch: pytest.MonkeyPatch, first: Intent, second: Intent, after_s: float
) -> None:
    """Laws 1 and 2: a call that ends within `drain_sec` has its answer, whatever is wanted meanwhile."""
    expected = WHILE_IT_DRAINS[first, second]
    runs, acted = cross(monkeypatch, first, second, after_s)
    assert (runs, acted.cut) == (expected, 0)
    assert acted.died_at == ([] if expected == "the same" else [CALL_S])
    assert acted.spawned == 1 + (expected == "another")
    assert acted.process is None or not acted.queue.paused


@pytest.mark.parametrize(("first", "second"), WHILE_IT_ENDS)
def test_wishes_that_cross_at_the_end_leave_one_process_at_most(
    monkeypatch: pytest.MonkeyPatch, first: Intent, second: Intent
) -> None:
    """Law 1: the next process waits until nothing is left of the last one."""
    runs, acted = cross(monkeypatch, first, second, after_s=CALL_S + END_S / 2)
    assert (runs, acted.cut, acted.died_at) == (WHILE_IT_ENDS[first, second], 0, [CALL_S])


@pytest.mark.parametrize("intent", [R, P])
def test_a_process_that_comes_just_after_the_wish_is_given_calls(
    monkeypatch: pytest.MonkeyPatch, intent: Intent
) -> None:
    """It follows the intent already: it is neither ended nor left without calls for ever."""
    monkeypatch.setattr(module, "Supervisor", Acted)
    monkeypatch.setattr(Acted, "made", [], raising=False)
    world = ready()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            running = Supervisors(Hub(world.engine, trio.current_time), cast(Any, None), nursery)
            running.add("time")
            await trio.testing.wait_all_tasks_blocked()
            (acted,) = Acted.made
            acted.process = None  # it waits for its turn to start
            running.begin(intent, "time")
            acted._spawn()
            await trio.testing.wait_all_tasks_blocked()
            assert (acted.spawned, acted.died_at, acted.queue.paused) == (2, [], False)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("first", [S, X, R, P, M])
def test_the_end_of_the_broker_waits_for_no_other_wish(
    monkeypatch: pytest.MonkeyPatch, first: Intent
) -> None:
    """The calls have had their time before; nothing is started any more."""
    runs, acted = cross(monkeypatch, first, Intent.SHUTDOWN, after_s=1.0)
    assert (runs, acted.spawned, acted.died_at) == ("none", 1, [1.0])


@pytest.mark.parametrize(
    ("intent", "runs", "spawned"), [(R, "another", 2), (P, "none", 1), (S, "another", 2)]
)
def test_a_reload_lets_rest_what_was_stopped(
    monkeypatch: pytest.MonkeyPatch, intent: Intent, runs: str, spawned: int
) -> None:
    """An edited table starts nothing that the operator has stopped; `start` and `restart` do."""
    found, acted = cross(monkeypatch, X, intent, after_s=CALL_S + 2 * END_S)
    assert (found, acted.spawned) == (runs, spawned)


class SlowToStart(Acted):
    """Its process is there a while after the start, as one that waits for its turn."""

    def start(self) -> None:
        self._again, self.at_rest = True, False
        if not self.spawned:
            self._spawn()
        elif self.process is None:
            self._nursery.start_soon(self._spawn_later)

    async def _spawn_later(self) -> None:
        await trio.sleep(0.25)
        if self.process is None and self._again:
            self._spawn()


TOLD = st.lists(
    st.tuples(st.sampled_from([S, X, R, P, Intent.RETRY]), st.sampled_from([0.0, 0.25, 0.5, 3.0]))
)


@settings(max_examples=200, deadline=None)
@given(TOLD)
def test_however_wishes_cross_a_start_serves_calls_again(told: list[tuple[Intent, float]]) -> None:
    """Law 1, and no server is left without calls: whatever was wanted before, in whatever order."""
    world = ready()

    async def main() -> None:
        hub = Hub(world.engine, trio.current_time)
        async with trio.open_nursery() as nursery:
            running = Supervisors(hub, cast(Any, None), nursery)
            running.add("time")
            acted = Acted.made[-1]
            for intent, pause_s in told:
                acted.queue.running = int(acted.process is not None)
                nursery.start_soon(running.carry_out, intent, "time")
                await trio.sleep(pause_s)
            await trio.sleep(DRAIN_S + 3 * END_S)
            running.begin(Intent.START, "time")
            await trio.sleep(DRAIN_S + 3 * END_S)
            assert acted.process is not None
            assert not acted.queue.paused
            nursery.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Supervisor", SlowToStart)
        patch.setattr(Acted, "made", [], raising=False)
        trio.run(main, clock=MockClock(autojump_threshold=0))
