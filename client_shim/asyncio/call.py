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
OnRaw = Callable[[bytes], "Awaitable[object] | object"]

MAX_WAITING = 256
"""Progress and log messages that wait for a slow callback. Beyond it the oldest is dropped."""

PROGRESS, LOG = "progress", "log"


class PendingCall:
    """The connection adds what the server says and the outcome; the caller's own task takes both in order."""

    __slots__ = ("_said", "_waiter", "id", "outcome", "subject")

    def __init__(self, id: int, subject: str) -> None:
        self.id = id
        self.subject = subject
        self.outcome: bytes | BrokerError | None = None
        self._said: deque[tuple[str, bytes]] = deque(maxlen=MAX_WAITING)
        self._waiter: asyncio.Future[None] | None = None

    def add(self, kind: str, params: bytes) -> bool:
        """Add a notification about this call; return false if the oldest was dropped to make room."""
        has_room = len(self._said) < MAX_WAITING
        self._said.append((kind, params))
        self._wake()
        return has_room

    def end(self, outcome: bytes | BrokerError) -> None:
        """Set the outcome of the call."""
        self.outcome = outcome
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def follow(self, on_progress: OnRaw | None, on_log: OnRaw | None) -> bytes:
        """Report progress and log messages until the call ends; return its result, or raise its error.

        The callbacks run in the caller's task, in order and before the result: no other call waits for them.
        """
        while True:
            while self._said:
                kind, params = self._said.popleft()
                await self._report(kind, on_progress if kind is PROGRESS else on_log, params)
            if isinstance(self.outcome, bytes):
                return self.outcome
            if self.outcome is not None:
                raise self._release_outcome(self.outcome)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _release_outcome(self, error: BrokerError) -> BrokerError:
        """Return the error, and drop it here: a raised error refers to this call, which would be a cycle."""
        self.outcome = None
        return error

    async def _report(self, kind: str, callback: OnRaw | None, params: bytes) -> None:
        if callback is None:
            return
        try:
            result: Any = callback(params)
            if hasattr(result, "__await__"):
                await result
        except Exception as error:
            log.warn(f"{self.subject}: the {kind} callback failed: {error}", error)


def progress_reader(on_progress: OnProgress | None) -> OnRaw | None:
    """Return a callback that decodes the params of a progress notification for `on_progress`."""
    return None if on_progress is None else _reader(payload.progress, on_progress)


def log_reader(on_log: OnLog | None) -> OnRaw | None:
    """Return a callback that decodes the params of a log message for `on_log`."""
    return None if on_log is None else _reader(payload.log_message, on_log)


def _reader(decode: Callable[[bytes], tuple[Any, ...] | None], callback: Callable[..., object]) -> OnRaw:
    def read(params: bytes) -> object:
        fields = decode(params)
        return None if fields is None else callback(*fields)

    return read
