"""Questions of a server to a client: those in a result of `input_required`, and those that are open.

To a legacy client they are requests under ids of the gateway. Once all questions of a modern server's result
are answered, the original request is made again with the answers and with the state that the server gave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from broker.base.text import clip
from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import Effect, RequestId, SendMessage

CANCELLED = "notifications/cancelled"

MAX_ROUNDS = 8
"""How often a server may ask within one request."""

MAX_QUESTIONS = 32
"""How many requests one result may have."""

_CAPABILITIES = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""The requests that a server may have, and the capability of the client that each needs."""


class Unanswerable(Exception):
    """The client cannot be asked; with the JSON-RPC error that ends the request."""

    def __init__(self, message: str, code: int = jsonrpc.INTERNAL_ERROR, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class InputQuestion(Struct, frozen=True):
    """A question of the server; `name` is its key in `inputRequests`."""

    name: str
    method: str
    params: bytes
    number: int = 0
    """The number of a question that a legacy server asked during a call; 0 for those of a modern server."""


class Round(Struct):
    """The requests of one result, the answers so far by name, and the state to give back."""

    questions: tuple[InputQuestion, ...]
    state: bytes | None
    answers: dict[str, bytes] = {}

    @property
    def is_answered(self) -> bool:
        """Whether every request has an answer."""
        return len(self.answers) == len(self.questions)

    def retry(self, params: bytes | None) -> bytes:
        """Return the params of the request that is made again."""
        members: dict[str, Raw | bytes] = dict(jsonrpc.members_of(params or b"{}") or {})
        members.pop("inputResponses", None)
        members.pop("requestState", None)
        if self.questions:
            in_order = {one.name: self.answers[one.name] for one in self.questions}
            members["inputResponses"] = jsonrpc.join(in_order)
        if self.state is not None:
            members["requestState"] = self.state
        return jsonrpc.join(members)


class _InputRequired(Struct):
    requests: dict[str, Raw] | None = field(default=None, name="inputRequests")
    state: Raw | UnsetType = field(default=UNSET, name="requestState")


class _Asked(Struct):
    method: str
    params: Raw | UnsetType = UNSET


class _Mode(Struct):
    mode: Any = "form"
    elicitation_id: Raw | UnsetType = field(default=UNSET, name="elicitationId")


def read_round(result: bytes, capabilities: dict[str, Any], rounds: int) -> Round:
    """Read a result of `input_required` for a client with these capabilities, after so many rounds.

    Raises:
        Unanswerable: it asks for something that the client did not declare, too often, or illegibly.
    """
    if rounds == MAX_ROUNDS:
        raise Unanswerable(f"the server asked {MAX_ROUNDS} times and asks again")
    try:
        seen = msgspec.json.decode(result, type=_InputRequired)
        asked = {name: msgspec.json.decode(raw, type=_Asked) for name, raw in (seen.requests or {}).items()}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unanswerable(f"the server's `input_required` cannot be read: {clip(str(error))}") from None
    state = None if seen.state is UNSET or bytes(seen.state) == b"null" else bytes(seen.state)
    if not asked and state is None:
        raise Unanswerable("the server's `input_required` has neither `inputRequests` nor `requestState`")
    if len(asked) > MAX_QUESTIONS:
        raise Unanswerable(
            f"the server asks {len(asked)} things at once; the gateway passes {MAX_QUESTIONS} on"
        )
    for one in asked.values():
        _check(one, capabilities)
    questions = (InputQuestion(name, one.method, _params(one)) for name, one in asked.items())
    return Round(tuple(questions), state)


def _check(asked: _Asked, capabilities: dict[str, Any]) -> None:
    """Whether the client declared that it can answer this.

    Raises:
        Unanswerable: it did not.
    """
    name = _CAPABILITIES.get(asked.method)
    if name is None:
        raise Unanswerable(f"the server asks for {clip(asked.method)!r}, which MCP does not have")
    declared = capabilities.get(name)
    needs_url = name == "elicitation" and _mode(_params(asked)) == "url"
    if not isinstance(declared, dict) or (needs_url and "url" not in declared):
        needed: dict[str, Any] = {name: {"url": {}} if needs_url else {}}
        what = f"{name}.url" if needs_url else name
        raise Unanswerable(
            f"the server asks for `{asked.method}`, and this client did not declare the capability {what!r}",
            jsonrpc.MISSING_CAPABILITY,
            {"requiredCapabilities": needed},
        )


def declares(capabilities: dict[str, Any], method: str) -> bool:
    """Return whether a client with these capabilities answers such a question of a legacy server.

    The capability of elicitation may be for the mode `url` only, in which no legacy server asks here.
    """
    declared = capabilities.get(_CAPABILITIES.get(method, ""))
    return isinstance(declared, dict) and ("url" not in declared or "form" in declared)


def answers_any(capabilities: dict[str, Any]) -> bool:
    """Return whether a client with these capabilities answers any question of a legacy server."""
    return declares(capabilities, "elicitation/create") or declares(capabilities, "sampling/createMessage")


def _params(asked: _Asked) -> bytes:
    return b"{}" if asked.params is UNSET else bytes(asked.params)


def _mode(params: bytes) -> object:
    try:
        return msgspec.json.decode(params, type=_Mode).mode
    except (msgspec.MsgspecError, RecursionError):
        return None


class OpenQuestions:
    """The requests to a legacy client that it has not answered.

    Args:
        new_nonce: returns a text that makes their ids unlike those of any other conversation.
    """

    def __init__(self, new_nonce: Callable[[], str]) -> None:
        self._new_nonce = new_nonce
        self._nonce = ""
        self._last = 0
        self._open: dict[bytes, tuple[RequestId, InputQuestion]] = {}
        """id → the request on whose behalf it is, and the question"""

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, request: RequestId, question: InputQuestion) -> Effect:
        """Return the message that asks the client, on the stream of the request that it is about."""
        self._nonce = self._nonce or self._new_nonce()
        self._last += 1
        id = jsonrpc.encode(f"{self._nonce}-{self._last}")
        self._open[id] = (request, question)
        message = jsonrpc.request_message(id, question.method, legacy_params(question, id))
        return SendMessage(message, request)

    def answered(self, id: bytes) -> tuple[RequestId, InputQuestion] | None:
        """Forget a question that was answered; return it, and the request on whose behalf it was."""
        return self._open.pop(id, None)

    def withdraw(self, request: RequestId, number: int | None = None) -> list[Effect]:
        """Withdraw the question of this number, or all that are open on behalf of a request."""
        effects: list[Effect] = []
        for id, (owner, question) in list(self._open.items()) if self._open else ():
            if owner == request and number in (None, question.number):
                del self._open[id]
                effects.append(SendMessage(jsonrpc.notification_message(CANCELLED, _withdrawal(id)), request))
        return effects

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()


def _withdrawal(id: bytes) -> bytes:
    return jsonrpc.join({"requestId": id, "reason": b'"an answer is no longer wanted"'})


def legacy_params(question: InputQuestion, id: bytes) -> bytes:
    """Return the params for a legacy client: an elicitation by url must have an id of its own there."""
    if question.method != "elicitation/create" or _mode(question.params) != "url":
        return question.params
    members: dict[str, Raw | bytes] = dict(jsonrpc.members_of(question.params) or {})
    return jsonrpc.join({**members, "elicitationId": id} if "elicitationId" not in members else members)
