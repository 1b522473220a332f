"""A call under way, as the task that made it follows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from client_shim import log, payload
from client_shim.errors import BrokerError

OnProgress = Callable[[float, "float | None", "str | None"], "Awaitable[object] | object"]

MAX_PROGRESS = 256
"""Progress that waits for a slow callback. Beyond it the oldest is dropped: the newest says more."""


class Call:
    """The reader puts progress and the end in; the caller's own task takes them out, in this order."""

    __slots__ = ("_progress", "_waiter", "id", "outcome", "subject")

    def __init__(self, id: int, subject: str) -> None:
        self.id = id
        self.subject = subject
        self.outcome: bytes | BrokerError | None = None
        self._progress: deque[bytes] = deque(maxlen=MAX_PROGRESS)
        self._waiter: asyncio.Future[None] | None = None

    def add_progress(self, body: bytes) -> bool:
        """Take a progress notification in; false where an older one had to make room."""
        room = len(self._progress) < MAX_PROGRESS
        self._progress.append(body)
        self._wake()
        return room

    def end(self, outcome: bytes | BrokerError) -> None:
        """The call is over."""
        self.outcome = outcome
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def follow(self, on_progress: OnProgress | None) -> bytes:
        """Report progress until the end comes; return the result or raise the error that it is.

        The callback runs in the caller's task: in order, before the result, and with nobody else waiting.
        """
        while True:
            while self._progress:
                await self._report(self._progress.popleft(), on_progress)
            if isinstance(self.outcome, bytes):
                return self.outcome
            if self.outcome is not None:
                raise self._let_go(self.outcome)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _let_go(self, error: BrokerError) -> BrokerError:
        """A raised error holds this call. If the call held the error too, both would stay, and the client."""
        self.outcome = None
        return error

    async def _report(self, body: bytes, on_progress: OnProgress | None) -> None:
        progress = payload.progress(body)
        if on_progress is None or progress is None:
            return
        try:
            result: Any = on_progress(*progress)
            if hasattr(result, "__await__"):
                await result
        except Exception as error:
            log.warn(f"{self.subject}: the progress callback failed: {error}", error)
