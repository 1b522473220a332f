"""The calls that wait until there is a broker to send them to: tasks of an asyncio loop."""

from __future__ import annotations

import asyncio
import copy
from contextvars import Context
from typing import NamedTuple

from client_shim.asyncio.channel import Channel
from client_shim.errors import Unavailable
from client_shim.protocol import outbox, reasons
from client_shim.protocol.payload import PreparedRequest


class _Waiter(NamedTuple):
    channel: Channel
    size_bytes: int


class Waiters:
    """The waiting tasks of one connection. Calls that no broker has begun wait here too, so they are bounded.

    Args:
        context: what their timers run in. Even a cancelled timer keeps its context until it is due, so it
            must not be the caller's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waiters: dict[asyncio.Future[None], _Waiter] = {}
        self._size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def wait(
        self, channel: Channel, until: float | None, request: PreparedRequest | None = None
    ) -> None:
        """Wait for `wake`, or until then (by the loop's clock). `ask` is the call that waits, if it is one.

        Raises:
            Unavailable: the error that `fail` was given.
            Busy: as many calls wait as an outbox holds, or as many bytes.
        """
        size_bytes = 0 if request is None else len(request.body or b"")
        if request is not None and self._is_full(size_bytes):
            raise reasons.too_many_wait(request.subject, len(self._waiters), self._size_bytes)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = _Waiter(channel, size_bytes)
        self._size_bytes += size_bytes
        timer = None
        if until is not None:
            timer = self._loop.call_at(until, _wake, waiter, context=self._context)
        try:
            await waiter
        finally:
            self._size_bytes -= self._waiters.pop(waiter).size_bytes
            del waiter  # an error that it raised holds this frame, and neither must keep the other
            if timer is not None:
                timer.cancel()

    def _is_full(self, size_bytes: int) -> bool:
        too_large = self._size_bytes > 0 and self._size_bytes + size_bytes > outbox.MAX_BYTES
        return too_large or len(self._waiters) >= outbox.MAX_MESSAGES

    def wake(self) -> None:
        """Wake all: calls can be made, or how long to wait for that has changed."""
        for waiter in self._waiters:
            _wake(waiter)

    def fail(self, error: Unavailable, channel: Channel | None = None) -> None:
        """End the wait of all with this error, or of one channel where it is given.

        Each gets a copy: one exception raised in two tasks would mix their tracebacks.
        """
        for waiter, about in self._waiters.items():
            if not waiter.done() and (channel is None or about.channel is channel):
                waiter.set_exception(copy.copy(error))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
