"""Work whose result is shared by all who wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class _Turn(Generic[T]):
    def __init__(self) -> None:
        self.over = trio.Event()
        self.result: T | None = None


class Shared(Generic[T]):
    """Runs some work when a caller wants its result, one run at a time.

    A caller that comes during a run waits for the next run, because the result of this one may be older than
    the question. All who wait share the next run.

    Args:
        work: the work.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lock = trio.Lock()
        self._next: _Turn[T] | None = None

    async def get(self) -> T:
        """Return the result of a run that began after this call."""
        turn = self._next
        if turn is not None:
            await turn.over.wait()
            # If that run failed, its caller got the error, and this one tries again.
            return await self.get() if turn.result is None else turn.result
        turn = self._next = _Turn()
        try:
            async with self._lock:
                self._next = None
                turn.result = result = await self._work()
            return result
        finally:
            if self._next is turn:
                self._next = None
            turn.over.set()
