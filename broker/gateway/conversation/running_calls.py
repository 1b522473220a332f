"""Calls under way as the shell runs them: the task of each, and the questions that wait for an answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from broker.gateway.byte_budget import Share
from broker.gateway.conversation.effects import AnswerQuestion, CancelCall, Effect, Outcome
from broker.gateway.conversation.parked_calls import ParkedCalls

logger = logging.getLogger("mcp-broker")

PARKED_S = 3600.0
"""How long a call may stay parked. Well before it the broker withdraws what is open (`answer_timeout`)."""

_STATE_BYTES = 24


class Decides(Protocol):
    """Decides what follows from what happens to a call: a conversation, or the parked calls."""

    def replied(self, call: int, outcome: Outcome) -> list[Effect]: ...
    def progressed(self, call: int, params: bytes) -> list[Effect]: ...
    def logged(self, call: int, params: bytes) -> list[Effect]: ...
    def asked(self, call: int, question: int, method: str, params: bytes) -> list[Effect]: ...
    def withdrawn(self, call: int, question: int) -> list[Effect]: ...


class CallHolder(NamedTuple):
    """What a call belongs to: who decides, what carries the effects out, and the calls by their numbers."""

    decides: Decides
    run: Callable[[list[Effect]], None]
    calls: dict[int, RunningCall]


class RunningCall:
    """A call under way. It may move from one holder to another one.

    Args:
        holder: what it belongs to at first, under this number.
    """

    def __init__(self, holder: CallHolder, number: int) -> None:
        self._holder = holder
        self._number = number
        self._task: asyncio.Task[object] | None = None
        self._questions: dict[int, asyncio.Future[AnswerQuestion]] = {}
        self._last_question = 0
        holder.calls[number] = self

    def start(self, run: Coroutine[Any, Any, object]) -> None:
        """Run it as a task."""
        self._task = asyncio.get_running_loop().create_task(run)
        self._task.add_done_callback(lambda _: self._holder.calls.pop(self._number, None))

    def move(self, holder: CallHolder, number: int) -> None:
        """Let it belong to another holder, under this number."""
        self._holder.calls.pop(self._number, None)
        self._holder, self._number = holder, number
        holder.calls[number] = self

    def cancel(self) -> None:
        """Cancel it at the server."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until its task is over."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    # --- what happens to it ------------------------------------------------------------------------------

    def replied(self, outcome: Outcome) -> None:
        """End the call: its holder need not wait for its task any more."""
        self._holder.calls.pop(self._number, None)
        self._holder.run(self._holder.decides.replied(self._number, outcome))

    def progressed(self, params: bytes) -> None:
        """The server told of progress."""
        self._holder.run(self._holder.decides.progressed(self._number, params))

    def logged(self, params: bytes) -> None:
        """The server logged something."""
        self._holder.run(self._holder.decides.logged(self._number, params))

    async def asked(self, method: str, params: bytes) -> AnswerQuestion:
        """Return the client's answer to a question of the server."""
        self._last_question += 1
        number = self._last_question
        answer: asyncio.Future[AnswerQuestion] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self._holder.run(self._holder.decides.asked(self._number, number, method, params))
            return await answer
        except asyncio.CancelledError:
            self._holder.run(self._holder.decides.withdrawn(self._number, number))
            raise
        finally:
            del self._questions[number]

    def answer(self, answer: AnswerQuestion) -> None:
        """Answer a question that is still open."""
        waiting = self._questions.get(answer.question)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


class Parking:
    """The parked calls of one owner, and their tasks.

    Args:
        share: counts what is held for them; `None`: it is not counted.
        dropped: counts the messages that are dropped; `None`: a counter of its own.
    """

    def __init__(
        self,
        share: Share | None = None,
        parked_s: float = PARKED_S,
        dropped: Counter[str] | None = None,
    ) -> None:
        self.calls = ParkedCalls(lambda: secrets.token_urlsafe(_STATE_BYTES), share=share, dropped=dropped)
        self._parked_s = parked_s
        self._running: dict[int, RunningCall] = {}
        self._holder = CallHolder(self.calls, self._run, self._running)
        self._alarms: dict[int, asyncio.TimerHandle] = {}

    def park(self, number: int, call: RunningCall) -> None:
        """Take a call that its conversation has parked."""
        call.move(self._holder, number)
        loop = asyncio.get_running_loop()
        self._alarms[number] = loop.call_later(self._parked_s, self._expired, number)

    def resume(self, number: int, holder: CallHolder, call: int) -> None:
        """Give a parked call to a session."""
        self._alarms.pop(number).cancel()
        self._running[number].move(holder, call)

    def _expired(self, number: int) -> None:
        self._alarms.pop(number, None)
        self._run(self.calls.release(number, f"nobody has resumed it for {self._parked_s:g} s"))

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AnswerQuestion(call=call) if call in self._running:
                    self._running[call].answer(effect)
                case CancelCall(call=call, reason=reason) if call in self._running:
                    logger.info("gateway.parked_call_cancelled", extra={"reason": reason})
                    self._running[call].cancel()
                case _:
                    pass
        for number in [one for one in self._alarms if self.calls.get(one) is None]:
            self._alarms.pop(number).cancel()

    def release(self, reason: str) -> None:
        """Cancel all."""
        self._run(self.calls.closed(reason))

    async def aclose(self) -> None:
        """Cancel all, and wait for it."""
        self.release("its client is gone, or the gateway is being stopped")
        await asyncio.gather(*(one.ended() for one in list(self._running.values())))
