"""Law 2: who waits for a broker is woken or told why in vain, in time, and is told nothing of another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from client_shim.asyncio.channel import Channel, ListenSet
from client_shim.asyncio.waiters import Waiters
from client_shim.errors import Unavailable

PATIENCE_S = 10


def channel(number: int) -> Channel:
    """A channel of a connection that is not there."""
    return Channel(number, lambda: None, ListenSet())


def run(meanwhile: Callable[[Waiters], object], *waits: tuple[Channel, float | None]) -> list[object]:
    """How each of these waits ended, with this done meanwhile. A wait has the seconds that it may take."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        waiters = Waiters(loop, Context())

        def wait(whose: Channel, s: float | None) -> Awaitable[None]:
            return waiters.wait(whose, None if s is None else loop.time() + s)

        tasks = [asyncio.ensure_future(wait(*one)) for one in waits]
        await asyncio.sleep(0)
        assert waiters
        meanwhile(waiters)
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
        assert not waiters
        return [str(end) if isinstance(end, Unavailable) else end for end in ends]

    return asyncio.run(main())


def test_all_are_woken_and_nothing_is_left_of_them() -> None:
    """A welcome is for all channels, whether their time is bounded or not."""
    assert run(Waiters.wake, (channel(1), None), (channel(2), 60.0)) == [None, None]


def test_the_end_of_a_channel_is_that_of_its_own_waits() -> None:
    """Law 5: the others go on waiting, each until its own time."""
    one, other = channel(1), channel(2)
    ends = run(
        lambda waiters: waiters.fail(Unavailable("closed"), one), (one, None), (other, 0.01), (one, 60.0)
    )
    assert ends == ["closed", None, "closed"]


def test_who_was_woken_is_not_failed_afterwards() -> None:
    """Law 2: a wait has one end, and the first counts."""

    def both(waiters: Waiters) -> None:
        waiters.wake()
        waiters.fail(Unavailable("lost"))

    assert run(both, (channel(1), None)) == [None]


def test_each_gets_an_error_of_its_own() -> None:
    """One exception in two tasks would have the traceback of both."""

    async def main() -> None:
        waiters = Waiters(asyncio.get_running_loop(), Context())
        tasks = [asyncio.ensure_future(waiters.wait(channel(n), None)) for n in range(2)]
        await asyncio.sleep(0)
        waiters.fail(error := Unavailable("no broker"))
        await asyncio.wait(tasks, timeout=PATIENCE_S)
        assert len({id(error), *(id(task.exception()) for task in tasks)}) == 3

    asyncio.run(main())


def test_a_cancelled_wait_leaves_nothing() -> None:
    """Law 4: and its timer does not speak to a wait that is over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiters = Waiters(loop, Context())
        task = asyncio.ensure_future(waiters.wait(channel(1), loop.time() + 60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled()
        assert not waiters

    asyncio.run(main())
