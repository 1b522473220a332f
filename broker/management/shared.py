"""One piece of work for all who want its result at the same time."""

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
    """Does some work when somebody wants its result, one at a time.

    Who comes while it is done waits for the next time, as what is found now may be older than the question.
    All who wait share that one.

    Args:
        work: what is to be done.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lock = trio.Lock()
        self._next: _Turn[T] | None = None

    async def get(self) -> T:
        """The result of work that began after this was called."""
        turn = self._next
        if turn is not None:
            await turn.over.wait()
            # Where it failed its caller was told, and this one tries again.
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
