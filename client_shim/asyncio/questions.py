"""Runs the callback of a call for the questions that its server asks, and sends the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from client_shim import log
from client_shim.errors import TooLarge
from client_shim.protocol import question_bodies
from client_shim.protocol.events import Questioned
from client_shim.questions import OnQuestion, OnRawQuestion, Question, QuestionRefused, RawQuestion


class QuestionTasks:
    """The questions of one call: each is answered in a task of its own, in a copy of the caller's context.

    A task is cancelled when its question is withdrawn, which the end of the call does too. What it returns
    after that is not sent.

    Args:
        subject: the call, in the log.
        callback: answers a question.
        send: sends an answer: the id of the question, whether the body is a result, the body.
    """

    __slots__ = ("_callback", "_context", "_loop", "_open", "_send", "_subject", "answered")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        subject: str,
        callback: OnRawQuestion,
        send: Callable[[int, bool, bytes], object],
    ) -> None:
        self.answered = False
        """Whether the server may have had an answer."""
        self._loop = loop
        self._subject = subject
        self._callback = callback
        self._send = send
        self._context = copy_context()
        self._open: dict[int, asyncio.Task[None] | None] = {}
        """The open questions; `None` until the task is made."""

    def ask(self, question: Questioned) -> None:
        """Answer a question, a little later: a callback must not come in between two events."""
        self._open[question.id] = None
        self._loop.call_soon(self._start, question, context=self._context)

    def _start(self, question: Questioned) -> None:
        if question.id not in self._open:
            return
        task = self._loop.create_task(self._answer(question))
        if question.id in self._open:  # an eager task may have answered
            self._open[question.id] = task

    def withdraw(self, id: int) -> None:
        """Cancel the task of a question, which is not answered."""
        if (task := self._open.pop(id, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """Withdraw all questions: the call has ended, or its caller has left."""
        for id in list(self._open):
            self.withdraw(id)

    async def _answer(self, question: Questioned) -> None:
        ok, body = False, question_bodies.FAILED
        try:
            ok, body = await self._outcome(RawQuestion(question.service, question.method, question.body))
        finally:
            self._reply(question.id, ok, body)

    async def _outcome(self, question: RawQuestion) -> tuple[bool, bytes]:
        """Return whether the question was answered, and the answer or the error."""
        try:
            try:
                return True, question_bodies.checked_bytes(question, await self._callback(question))
            except QuestionRefused as refused:
                return False, question_bodies.error_body(refused)
        except Exception as error:
            log.warn(f"{self._subject}: the question callback failed: {error}", error)
            return False, question_bodies.FAILED

    def _reply(self, id: int, ok: bool, body: bytes) -> None:
        if id not in self._open:
            return  # withdrawn
        del self._open[id]
        self.answered = True
        try:
            self._send(id, ok, body)
        except TooLarge as error:
            log.warn(f"{self._subject}: {error}")
            self._send(id, False, question_bodies.FAILED)


class Asker:
    """Asks the callback of a client questions as plain data.

    Args:
        callback: a function, which may be asynchronous.
        capabilities: what the request has declared. It must cover the question.
    """

    def __init__(self, callback: OnQuestion, capabilities: Mapping[str, Any]) -> None:
        self._callback = callback
        self._capabilities = capabilities

    async def answer(self, question: Question) -> Mapping[str, Any]:
        """Return the answer to a question.

        Raises:
            QuestionRefused: the callback refuses it, or the client did not declare that it answers it.
            TypeError: the answer is not an object.
        """
        question_bodies.check_covered(question, self._capabilities)
        answer: Any = self._callback(question)
        if hasattr(answer, "__await__"):
            answer = await answer
        return question_bodies.checked_answer(question, answer)

    async def answer_raw(self, raw: RawQuestion) -> bytes:
        """Return the same for a question and an answer in JSON."""
        question = question_bodies.read(raw)
        return question_bodies.answer_body(question, await self.answer(question))
