"""Who waits until calls can be made: the tasks of an asyncio loop, each until a time of its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextvars import Context

from client_shim.channel import Channel
from client_shim.errors import Unavailable


class Waiters:
    """Those of one connection.

    Args:
        context: what their timers run in. Even a cancelled timer keeps its context until it is due, so it
            must not be the caller's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waiters: dict[asyncio.Future[None], Channel] = {}

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def wait(self, channel: Channel, until: float | None, why_not: Callable[[], Unavailable]) -> None:
        """Wait for `wake`, at the latest until then (by the loop's clock).

        Raises:
            Unavailable: what `fail` was given, or `why_not` says when the time is up.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = channel
        timer = None
        if until is not None:
            timer = self._loop.call_at(until, _give_up, waiter, why_not, context=self._context)
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)
            del waiter  # an error that it raised holds this frame, and neither must keep the other
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Calls can be made."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: Unavailable, channel: Channel | None = None) -> None:
        """They wait in vain; only those of one channel where it is given."""
        for waiter, whose in self._waiters.items():
            if channel is None or whose is channel:
                _fail(waiter, error)


def _give_up(waiter: asyncio.Future[None], why_not: Callable[[], Unavailable]) -> None:
    _fail(waiter, why_not())


def _fail(waiter: asyncio.Future[None], error: Unavailable) -> None:
    """Each waiter gets a copy: one exception raised in two tasks would mix their tracebacks."""
    if not waiter.done():
        waiter.set_exception(copy.copy(error))
