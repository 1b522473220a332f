"""Calls as the tasks that make them see them: those that wait for a broker, and those under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import Any, TypedDict

from client_shim import log
from client_shim.asyncio.channel import Channel
from client_shim.asyncio.questions import QuestionTasks
from client_shim.errors import BrokerError
from client_shim.protocol import outbox, payload, reasons
from client_shim.protocol.backoff import NEVER
from client_shim.protocol.payload import PreparedRequest
from client_shim.questions import OnQuestion

OnProgress = Callable[[float, "float | None", "str | None"], "Awaitable[object] | object"]
OnLog = Callable[[str, Any, "str | None"], "Awaitable[object] | object"]
OnRaw = Callable[[bytes], "Awaitable[object] | object"]


class Options(TypedDict, total=False):
    """The options of every request; `BrokerClient.request` describes them."""

    timeout: float | None
    on_progress: OnProgress | None
    on_log: OnLog | None
    on_question: OnQuestion | None
    progress_extends: bool
    input_responses: Mapping[str, Any] | None
    request_state: str | None
    meta: Mapping[str, Any] | None


MAX_WAITING = 256
"""Progress and log messages that wait for a slow callback. Beyond it the oldest is dropped."""

PROGRESS, LOG = "progress", "log message"


class PendingCall:
    """The connection adds what the server says and the outcome; the caller's own task takes both in order."""

    __slots__ = ("_said", "_waiter", "id", "outcome", "questions", "subject")

    def __init__(self, id: int, subject: str, questions: QuestionTasks | None = None) -> None:
        self.id = id
        self.subject = subject
        self.questions = questions
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
        """Set the outcome of the call, which withdraws its questions."""
        self.outcome = outcome
        self.close_questions()
        self._wake()

    @property
    def was_answered(self) -> bool:
        """Whether the server may have had an answer to a question of the call."""
        return self.questions is not None and self.questions.answered

    def close_questions(self) -> None:
        """Withdraw the questions of the call."""
        if self.questions is not None:
            self.questions.close()

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


def progress_reader(on_progress: OnProgress) -> OnRaw:
    """Return a callback that decodes the params of a progress notification for `on_progress`."""
    return _reader(payload.progress, on_progress)


def log_reader(on_log: OnLog) -> OnRaw:
    """Return a callback that decodes the params of a log message for `on_log`."""
    return _reader(payload.log_message, on_log)


def _reader(decode: Callable[[bytes], tuple[Any, ...] | None], callback: Callable[..., object]) -> OnRaw:
    def read(params: bytes) -> object:
        fields = decode(params)
        return None if fields is None else callback(*fields)

    return read


class WaitingCalls:
    """The tasks of one connection that wait for a broker. They are bounded as the requests in an outbox are.

    Args:
        context: the context of their timers. Even a cancelled timer keeps its context until it is due, so it
            must not be the caller's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._waiters: dict[asyncio.Future[None], Channel] = {}
        self._size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiters)

    async def wait(self, channel: Channel, until: float, request: PreparedRequest | None = None) -> None:
        """Wait for `wake`, at most until then (by the loop's clock), with this request to be sent.

        Raises:
            Busy: as many calls wait as an outbox holds, or as many bytes.
        """
        size_bytes = 0 if request is None else len(request.body or b"")
        if request is not None and self._is_full(size_bytes):
            raise reasons.too_many_wait(request.subject, len(self._waiters), self._size_bytes)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = channel
        self._size_bytes += size_bytes
        timer = self._loop.call_at(until, _wake, waiter, context=self._context) if until < NEVER else None
        try:
            await waiter
        finally:
            self._size_bytes -= size_bytes
            del self._waiters[waiter]
            if timer is not None:
                timer.cancel()

    def _is_full(self, size_bytes: int) -> bool:
        too_large = self._size_bytes > 0 and self._size_bytes + size_bytes > outbox.MAX_BYTES
        return too_large or len(self._waiters) >= outbox.MAX_MESSAGES

    def wake(self, channel: Channel | None = None) -> None:
        """Wake all tasks, or those of one channel: they see for themselves whether to go on waiting."""
        for waiter, waiting_channel in self._waiters.items():
            if channel in (None, waiting_channel):
                _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
