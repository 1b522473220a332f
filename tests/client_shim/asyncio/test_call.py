"""Law 2: a call that waits for a broker is woken by a change, or by its own time, and by no other call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from client_shim.asyncio.call import WaitingCalls
from client_shim.asyncio.channel import Channel, ListenSet
from client_shim.protocol.backoff import NEVER

PATIENCE_S = 10


def channel(number: int) -> Channel:
    """A channel of a connection that is not there."""
    return Channel(number, lambda: None, ListenSet())


def woken(meanwhile: Callable[[WaitingCalls], object], *waits: tuple[Channel, float]) -> list[bool]:
    """Do something while these wait, each for so many seconds at most; return which of them it has woken."""

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        waiting = WaitingCalls(loop, Context())

        def wait(whose: Channel, s: float) -> Awaitable[None]:
            return waiting.wait(whose, loop.time() + s)

        tasks = [asyncio.ensure_future(wait(*one)) for one in waits]
        await asyncio.sleep(0)
        assert waiting
        meanwhile(waiting)
        for _ in range(3):
            await asyncio.sleep(0)
        ended = [task.done() for task in tasks]
        waiting.wake()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        assert not waiting
        return ended

    return asyncio.run(main())


def test_all_are_woken_and_nothing_is_left_of_them() -> None:
    """A welcome is for all channels, whether their time is bounded or not."""
    assert woken(WaitingCalls.wake, (channel(1), NEVER), (channel(2), 60.0)) == [True, True]


def test_the_end_of_a_channel_wakes_its_own_waits_only() -> None:
    """Law 5: thousands of others go on waiting."""
    one, other = channel(1), channel(2)
    ended = woken(lambda waiting: waiting.wake(one), (one, NEVER), (other, 60.0), (one, 60.0))
    assert ended == [True, False, True]


def test_a_wait_ends_by_itself_when_its_time_is_over() -> None:
    """Law 2: though nothing changes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = WaitingCalls(loop, Context())
        await asyncio.wait_for(waiting.wait(channel(1), loop.time() + 0.01), PATIENCE_S)
        assert not waiting

    asyncio.run(main())


def test_a_wait_that_is_woken_twice_has_one_end() -> None:
    """A welcome and a close in one turn of the loop."""

    def twice(waiting: WaitingCalls) -> None:
        waiting.wake()
        waiting.wake()

    assert woken(twice, (channel(1), NEVER)) == [True]


def test_a_cancelled_wait_leaves_nothing() -> None:
    """Law 4: and its timer does not speak to a wait that is over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = WaitingCalls(loop, Context())
        task = asyncio.ensure_future(waiting.wait(channel(1), loop.time() + 60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled()
        assert not waiting

    asyncio.run(main())
