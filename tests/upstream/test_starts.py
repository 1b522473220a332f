"""The order of starts: as many at once as the config says, and first those that somebody waits for."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from broker.upstream.starts import DISTANCE_S, Slot, Starts

TAKES_S = 1.0


def order(names: str, wanted: str, *, limit: int = 2, wanted_after: str = "") -> list[tuple[float, str]]:
    """Start these servers, each for a second; when and in which order they had their turn.

    `wanted`: somebody waits for them from the beginning; for those of `wanted_after` half a second later.
    """
    began, running = list[tuple[float, str]](), set[str]()

    async def start(name: str, starts: Starts) -> None:
        slot = Slot(starts, lambda: name in wanted or (name in wanted_after and trio.current_time() >= 0.5))
        await slot.acquire()
        began.append((trio.current_time(), name))
        running.add(name)
        assert len(running) <= limit
        await trio.sleep(TAKES_S)
        running.remove(name)
        slot.release()

    async def main() -> None:
        starts = Starts(limit, trio.current_time())
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(start, name, starts)
                await trio.testing.wait_all_tasks_blocked()
        assert starts.held == 0

    trio.run(main, clock=MockClock(autojump_threshold=0.001))
    return began


def test_there_are_never_more_at_once_than_may_be() -> None:
    """`starts_at_once`: a storm of thirty is a queue."""
    names = "abcdefghijklmnopqrstuvwxyz0123"
    began = order(names, "", limit=4)
    assert sorted(name for _, name in began) == sorted(names)
    assert began[-1][0] < len(names) / 4 * TAKES_S + 1


def test_a_server_that_somebody_waits_for_comes_first() -> None:
    """Also if the call comes while all slots are held."""
    assert [name for _, name in order("abcdef", "", limit=1, wanted_after="e")] == list("aebcdf")
    assert [name for _, name in order("abcdef", "d", limit=1)] == list("adbcef")


def test_starts_for_which_nobody_waits_keep_a_distance() -> None:
    """Each holds the loop up for a while, and clients are answered between two; no call waits for it."""
    began = order("abcd", "", limit=4)
    assert [round(at, 6) for at, _ in began] == [round(number * DISTANCE_S, 6) for number in range(1, 5)]
    assert (0.0, "d") in order("abcd", "d", limit=4)


def test_the_distance_is_counted_from_the_end_of_a_start() -> None:
    """The loop stands still during a start, which takes long on a busy machine."""

    async def main() -> None:
        starts = Starts(2)
        first, second = Slot(starts), Slot(starts)
        await first.acquire()
        clock.jump(1.0)  # the loop stood still
        first.started()
        before = trio.current_time()
        await second.acquire()
        assert trio.current_time() >= before + DISTANCE_S

    clock = MockClock(autojump_threshold=0.001)
    trio.run(main, clock=clock)


def test_a_start_that_is_cancelled_while_it_waits_keeps_no_slot() -> None:
    """Law 6: a server that a reload removes meanwhile."""

    async def main() -> None:
        starts = Starts(1)
        first, second, third = (Slot(starts) for _ in range(3))
        await first.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.acquire)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        first.release()
        await third.acquire()
        assert starts.held == 1

    trio.run(main, clock=MockClock(autojump_threshold=0.001))


def test_a_start_that_is_called_off_while_it_waits_takes_no_slot() -> None:
    """Neither from the queue, nor while it keeps its distance from the last start."""

    async def main() -> None:
        starts = Starts(1)
        first, in_the_queue, at_a_distance = (Slot(starts) for _ in range(3))
        await first.acquire()
        began = trio.current_time()
        with trio.fail_after(TAKES_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_the_queue.acquire)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(at_a_distance.acquire)
                await trio.testing.wait_all_tasks_blocked()
                in_the_queue.release()
                first.release()
                await trio.testing.wait_all_tasks_blocked()
                at_a_distance.release()
        assert (in_the_queue.held, at_a_distance.held, starts.held) == (False, False, 0)
        assert trio.current_time() < began + DISTANCE_S

    trio.run(main, clock=MockClock(autojump_threshold=0.001))


def test_a_changed_limit_holds_at_once() -> None:
    """`reload`: those that wait begin; those that have begun go on."""

    async def main() -> None:
        starts = Starts(1)
        slots = [Slot(starts) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for slot in slots:
                nursery.start_soon(slot.acquire)
            await trio.testing.wait_all_tasks_blocked()
            assert starts.held == 1
            starts.adjust(3)
            assert starts.held == 3

    trio.run(main, clock=MockClock(autojump_threshold=0.001))
