"""A call under way, as the task that made it follows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from client_shim import log
from client_shim.errors import BrokerError
from client_shim.protocol import payload

OnProgress = Callable[[float, "float | None", "str | None"], "Awaitable[object] | object"]
OnLog = Callable[[str, Any, "str | None"], "Awaitable[object] | object"]

MAX_SAID = 256
"""Progress and log messages that wait for a slow callback. Beyond it the oldest is dropped."""


class Call:
    """The reader puts in what is said and the end; the caller's own task takes it out, in this order."""

    __slots__ = ("_said", "_waiter", "id", "outcome", "subject")

    def __init__(self, id: int, subject: str) -> None:
        self.id = id
        self.subject = subject
        self.outcome: bytes | BrokerError | None = None
        self._said: deque[payload.Progress | payload.LogMessage] = deque(maxlen=MAX_SAID)
        self._waiter: asyncio.Future[None] | None = None

    def add(self, said: payload.Progress | payload.LogMessage | None) -> bool:
        """Take in what the server said about it; false where an older word had to make room."""
        room = len(self._said) < MAX_SAID
        if said is not None:
            self._said.append(said)
            self._wake()
        return room

    def end(self, outcome: bytes | BrokerError) -> None:
        """The call is over."""
        self.outcome = outcome
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def follow(self, on_progress: OnProgress | None, on_log: OnLog | None = None) -> bytes:
        """Report what is said until the end comes; return the result or raise the error that it is.

        The callbacks run in the caller's task: in order, before the result, and with nobody else waiting.
        """
        while True:
            while self._said:
                said = self._said.popleft()
                await self._report(said, on_progress if isinstance(said, payload.Progress) else on_log)
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

    async def _report(self, said: tuple[Any, ...], callback: Callable[..., object] | None) -> None:
        if callback is None:
            return
        try:
            result: Any = callback(*said)
            if hasattr(result, "__await__"):
                await result
        except Exception as error:
            what = "progress" if isinstance(said, payload.Progress) else "log"
            log.warn(f"{self.subject}: the {what} callback failed: {error}", error)
