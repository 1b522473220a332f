"""Brings the questions of a server to its client, and the answers back: all pairs of eras but one.

| client | modern server: in a result of `input_required` | legacy server: during a call |
| --- | --- | --- |
| legacy | requests to the client, then the call again with the answers | requests to the client |
| modern | passes | a result of `input_required`; the call is parked |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from broker.base.text import clip
from broker.gateway.conversation import eras, jsonrpc, questions
from broker.gateway.conversation.effects import (
    AnswerQuestion,
    CollectQuestions,
    Effect,
    Outcome,
    ParkCall,
    ResumeCall,
    ServerResult,
)
from broker.gateway.conversation.jsonrpc import ClientResponse
from broker.gateway.conversation.parked_calls import (
    Answers,
    ParkedCalls,
    answers_of,
    binding_of,
    refused_question,
)
from broker.gateway.conversation.questions import InputQuestion, OpenQuestions, Unanswerable
from broker.gateway.conversation.requests import OpenRequest, OpenRequests, Replied

Repeat = Callable[[OpenRequest, bytes | None], list[Effect]]
"""Makes the call of a request again, with these params."""


class ServerQuestions:
    """The questions of one server to one client.

    Args:
        server: its name.
        requests: the open requests of the client.
        open: the questions that a legacy client has not answered.
        parked: the calls that a modern client has to resume.
        repeat: makes a call again with the answers in it.
        replied: takes the outcome of a call that was resumed.
    """

    def __init__(
        self,
        server: str,
        requests: OpenRequests,
        open: OpenQuestions,
        parked: ParkedCalls,
        repeat: Repeat,
        replied: Replied,
    ) -> None:
        self._server = server
        self._requests = requests
        self._open = open
        self._parked = parked
        self._repeat = repeat
        self._replied = replied

    # --- a modern server, a legacy client ----------------------------------------------------------------

    def ask(self, entry: OpenRequest, result: bytes) -> list[Effect]:
        """Ask a legacy client what is in a modern server's result, as requests of their own."""
        try:
            entry.round = questions.read_round(result, entry.capabilities, entry.rounds)
        except Unanswerable as why:
            return self._requests.refuse(entry, str(why), why.code, why.data)
        entry.rounds += 1
        if not entry.round.questions:
            return self._make_again(entry)
        return [self._open.ask(entry.id, question) for question in entry.round.questions]

    def _make_again(self, entry: OpenRequest) -> list[Effect]:
        answered, entry.round = entry.round, None
        assert answered is not None
        return self._repeat(entry, answered.retry(entry.request.params))

    # --- a legacy server ---------------------------------------------------------------------------------

    def asked(self, entry: OpenRequest, call: int, question: InputQuestion) -> list[Effect]:
        """Ask the client what its server asks during a call."""
        if not questions.declares(entry.capabilities, question.method):
            why = f"the client does not answer {clip(question.method)!r}"
            return [refused_question(call, question.number, why, jsonrpc.METHOD_NOT_FOUND)]
        if not entry.is_modern:
            return [self._open.ask(entry.id, question)]
        if entry.request.method not in eras.MAY_ASK:
            why = f"a client of {eras.MODERN_VERSION} is not asked during `{clip(entry.request.method)}`"
            return [refused_question(call, question.number, why, jsonrpc.METHOD_NOT_FOUND)]
        entry.asked[question.number] = question
        return [CollectQuestions(call)] if len(entry.asked) == 1 else []

    def withdrawn(self, entry: OpenRequest, question: int) -> list[Effect]:
        """The server no longer wants an answer."""
        entry.asked.pop(question, None)
        return self._open.withdraw(entry.id, question)

    def answered(self, response: ClientResponse) -> list[Effect] | None:
        """Take the answer of a legacy client; return `None` if it answers no open question."""
        found = self._open.answered(response.id)
        entry = None if found is None else self._requests.get(found[0])
        if found is None or entry is None:
            return None
        question = found[1]
        if question.number and entry.call is not None:
            body = response.error if response.result is None else response.result
            return [AnswerQuestion(entry.call, question.number, response.error is None, body or b"{}")]
        if entry.round is None:
            return None
        if response.result is None:
            why = _reason(response.error or b"{}")
            return self._requests.refuse(entry, f"the client did not answer what the server asked: {why}")
        entry.round.answers[question.name] = response.result
        return self._make_again(entry) if entry.round.is_answered else []

    # --- a legacy server, a modern client ----------------------------------------------------------------

    def collected(self, entry: OpenRequest, call: int) -> list[Effect]:
        """Answer a request with the questions that are open, and park its call."""
        if not entry.asked:
            return []
        request = entry.request
        parked = self._parked.park(self._server, request.method, request.params, entry.asked)
        if parked is None:
            self._parked.dropped["question without room"] += len(entry.asked)
            why = f"{len(self._parked)} calls of the client wait for its answers already, or too large ones"
            refused = [refused_question(call, number, why) for number in entry.asked]
            entry.asked.clear()
            return [*refused]
        return [ParkCall(call, parked.number), *self._requests.answer(entry, parked.result())]

    def repeated(self, entry: OpenRequest) -> list[Effect]:
        """Take a request in that a modern client repeats with answers, to a server of either era.

        Raises:
            Objection: there is no such parked call, it is of another request, or the answers are malformed.
        """
        answers = answers_of(entry.request.params)
        if answers.is_of_parked_call:
            return self._resume(entry, answers)
        return self._requests.discover(entry, self._found_era)

    def _found_era(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        """Pass answers to a modern server, which gave the state. A legacy one would begin the call anew."""
        if isinstance(outcome, ServerResult) and eras.discovery_of(outcome.body).is_legacy:
            why = "`requestState` and `inputResponses` belong to no call that waits for you; leave them out"
            return self._requests.refuse(entry, why, jsonrpc.INVALID_PARAMS)
        return self._repeat(entry, entry.request.params)

    def _resume(self, entry: OpenRequest, answers: Answers) -> list[Effect]:
        given = answers.by_name()
        binding = binding_of(self._server, entry.request.method, entry.request.params)
        parked = self._parked.resume(answers.state, binding)
        call = self._requests.start_call(entry, self._replied)
        effects: list[Effect] = [ResumeCall(parked.number, call)]
        unanswered = []
        for question in parked.questions.values():
            if question.name in given:
                effects.append(AnswerQuestion(call, question.number, True, given[question.name]))
            else:
                unanswered += self.asked(entry, call, question)
        return [*effects, *unanswered]


def _reason(error: bytes) -> str:
    """What the client's error object says."""
    try:
        seen = msgspec.json.decode(error, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return "its error cannot be read"
    return clip(f"{seen.get('message')} ({seen.get('code')})", 300)
