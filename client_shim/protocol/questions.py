"""The open questions of servers on a connection: each gets at most one answer."""

from __future__ import annotations

from client_shim import wire
from client_shim.protocol import question_bodies, reasons
from client_shim.protocol.calls import ClientCalls
from client_shim.protocol.events import Dropped, Questioned, Withdrawn
from client_shim.protocol.outbox import Outbox
from client_shim.questions import QuestionRefused

MAX_QUESTIONS = 32
"""The number of questions of one call that may be open at once, as at the broker."""


class ClientQuestions:
    """The questions that are neither answered nor withdrawn. A question ends with its call.

    Args:
        calls: the open calls; the time of a call stands still while it has an open question.
        outbox: takes the answers.
    """

    def __init__(self, calls: ClientCalls, outbox: Outbox) -> None:
        self.max_bytes: int | None = None
        """The largest message that the broker takes."""
        self._calls = calls
        self._outbox = outbox
        self._last_id = 0
        self._open: dict[int, wire.Question] = {}
        self._of_call: dict[int, set[int]] = {}
        """The ids of the open questions of each call that has any."""

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, id: object) -> bool:
        return id in self._open

    # --- from the shell ----------------------------------------------------------------------------

    def answer(self, id: int, ok: bool, body: bytes, now: float) -> bool:
        """Answer a question: with a result if `ok`, else with a JSON-RPC error object.

        Returns:
            Whether the question was open. If not, nothing is sent.

        Raises:
            TooLarge: the broker would not accept the body. The question stays open.
        """
        question = self._open.get(id)
        if question is None:
            return False
        reasons.check_answer(body, self.max_bytes)
        self._close(question, now)
        self._outbox.add(wire.encode(wire.Answer(question.channel, id, ok)), body)
        return True

    def refuse(self, question: Questioned, now: float) -> None:
        """Answer a question with the error that this client does not answer its kind."""
        refusal = question_bodies.error_body(question_bodies.not_answered(question.method))
        self.answer(question.id, False, refusal, now)

    def call_ended(self, call: int) -> None:
        """Forget the questions of a call: its end has withdrawn them at the broker."""
        for id in self._of_call.pop(call, ()):
            del self._open[id]

    # --- from the broker ---------------------------------------------------------------------------

    def asked(self, question: wire.Question, body: bytes, now: float) -> Questioned | Dropped:
        """Handle a question."""
        about = f"question {question.id} about call {question.request_id} of channel {question.channel}"
        if question.id in self._open:
            return Dropped("stray", f"{about}: it was asked already")
        self._last_id = max(self._last_id, question.id)
        if self._calls.find(question.channel, question.request_id) is None:
            if self._calls.has_ended(question.request_id):
                return Dropped("late", f"{about}: the end of the call has withdrawn it")
            return self._turn_away(question, "stray", f"{about}: there is no such call")
        if len(self._of_call.get(question.request_id, ())) >= MAX_QUESTIONS:
            return self._turn_away(question, "excess", f"{about}: it has {MAX_QUESTIONS} others")
        self._open[question.id] = question
        self._of_call.setdefault(question.request_id, set()).add(question.id)
        self._calls.pause(question.request_id, now)
        return Questioned(*question, body)

    def _turn_away(self, question: wire.Question, why: str, what: str) -> Dropped:
        """Answer a question that the shell does not get: its server must not wait."""
        error = question_bodies.error_body(QuestionRefused(question_bodies.INTERNAL_ERROR, what))
        self._outbox.add(wire.encode(wire.Answer(question.channel, question.id, False)), error)
        return Dropped(why, what)

    def withdrawn(self, cancel: wire.Cancel, now: float) -> Withdrawn | Dropped:
        """Handle the withdrawal of a question."""
        question = self._open.get(cancel.id)
        if question is None or question.channel != cancel.channel:
            why = "late" if question is None and 0 < cancel.id <= self._last_id else "stray"
            return Dropped(why, f"a withdrawal of question {cancel.id} of channel {cancel.channel}")
        self._close(question, now)
        return Withdrawn(question.id, question.request_id, cancel.reason)

    def _close(self, question: wire.Question, now: float) -> None:
        del self._open[question.id]
        others = self._of_call[question.request_id]
        others.remove(question.id)
        if not others:
            del self._of_call[question.request_id]
            self._calls.resume(question.request_id, now)
