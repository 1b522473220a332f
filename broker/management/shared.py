"""Work whose result is shared by all who wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


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
        self._begun = 0
        self._last: tuple[int, T] | None = None
        """The number of the last run that succeeded, and its result."""

    async def get(self) -> T:
        """Return the result of a run that began after this call."""
        wanted = self._begun + 1
        async with self._lock:
            if self._last is None or self._last[0] < wanted:
                self._begun = run = self._begun + 1
                self._last = run, await self._work()
            return self._last[1]
