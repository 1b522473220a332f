"""Questions in a result: a server of 2026-07-28 asks there, and the call is made again with the answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from client_shim.errors import SERVER_AT_FAULT, InvalidReply
from client_shim.questions import Question
from client_shim.text import shown

MAX_ROUNDS = 8
"""How often a server may ask within one call."""

MAX_QUESTIONS = 32
"""How many questions one result may have."""


class InputRequired(NamedTuple):
    """The questions of one result by name, and the state that the server wants back."""

    questions: dict[str, Question]
    state: Any

    def params(self, answers: dict[str, Any]) -> dict[str, Any]:
        """Return the params to add to those of the call when it is made again."""
        given = {"inputResponses": answers} if self.questions else {}
        return given if self.state is None else {**given, "requestState": self.state}


def read(server: str, subject: str, result: Any, rounds: int) -> InputRequired | None:
    """Return what a result asks, after so many rounds; `None` if it is not of the type `input_required`.

    Raises:
        InvalidReply: the questions are malformed, or there are too many, or the server asks too often.
    """
    if not isinstance(result, dict) or result.get("resultType") != "input_required":
        return None
    if rounds >= MAX_ROUNDS:
        raise _unusable(subject, f"it asked {MAX_ROUNDS} times and asks again")
    asked, state = result.get("inputRequests"), result.get("requestState")
    requests = {} if asked is None else asked
    if not isinstance(requests, dict) or len(requests) > MAX_QUESTIONS:
        raise _unusable(subject, f"`inputRequests` is no object of at most {MAX_QUESTIONS}: {shown(asked)}")
    if not requests and state is None:
        raise _unusable(subject, "it has neither `inputRequests` nor `requestState`")
    return InputRequired({name: _question(server, subject, one) for name, one in requests.items()}, state)


def _question(server: str, subject: str, request: Any) -> Question:
    method = request.get("method") if isinstance(request, dict) else None
    if not isinstance(method, str):
        raise _unusable(subject, f"a request in `inputRequests` has no method: {shown(request, 200)}")
    return Question(server, method, request.get("params", {}))


def _unusable(subject: str, what: str) -> InvalidReply:
    return InvalidReply(f"{subject}: the server's `input_required` is unusable: {what}", hint=SERVER_AT_FAULT)
