"""Calls that wait until a client of 2026-07-28 repeats its request with the answers to what it was asked.

A legacy server asks during a call, and a modern client is asked in the result of its request: the request
ends, and the call goes on without one. It is *parked* under a `requestState`, which is secret and good for
one repetition of the same request by the same owner. Sans-io.

Source: 2026-07-28, Multi Round-Trip Requests, "Server Requirements".
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from broker.gateway.byte_budget import Share
from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import AnswerQuestion, CancelCall, Effect, Outcome
from broker.gateway.conversation.eras import Objection
from broker.gateway.conversation.questions import InputQuestion

MAX_PARKED = 64
"""The parked calls of one owner."""

PREFIX = "mcp-broker:"
"""What the states of parked calls begin with, so that the states of modern servers are told from them."""

_MOST_SORTED_BYTES = 65_536
"""Larger params are not decoded: all other clients would wait for it."""

_UNKNOWN = (
    "`requestState` belongs to no call that waits for you: it was used before, or the call has ended, or the "
    "gateway was restarted; see whether the call was carried out before you make the request anew without it"
)
_OTHER = (
    "`requestState` belongs to another request; repeat the request that it came from, with the same params"
)


class Answers(Struct, frozen=True):
    """What a repeated request has of an earlier `input_required`: the state, and the answers as bytes."""

    state: object = field(default=None, name="requestState")
    responses: Raw | UnsetType = field(default=UNSET, name="inputResponses")

    @property
    def is_of_parked_call(self) -> bool:
        """Whether the state is the gateway's own."""
        return isinstance(self.state, str) and self.state.startswith(PREFIX)

    def by_name(self) -> dict[str, bytes]:
        """Return the answer to each question, by the key of the question.

        Raises:
            Objection: they are malformed.
        """
        found = {} if self.responses is UNSET else jsonrpc.members_of(bytes(self.responses))
        if found is None or any(not bytes(one).startswith(b"{") for one in found.values()):
            raise Objection(jsonrpc.INVALID_PARAMS, "`inputResponses` is not an object of objects")
        return {name: bytes(one) for name, one in found.items()}


def answers_of(params: bytes | None) -> Answers:
    """Read what a request repeats; nothing where its params are illegible, which the server tells."""
    try:
        return msgspec.json.decode(params or b"{}", type=Answers)
    except (msgspec.MsgspecError, RecursionError):
        return Answers()


def binding_of(server: str, method: str, params: bytes | None) -> bytes:
    """Return a digest of a request without its answers. A repetition has the same one, whatever the order of
    its members, unless its params are large: their bytes must be equal."""
    members: dict[str, Raw | bytes] = dict(sorted((jsonrpc.members_of(params or b"{}") or {}).items()))
    for name in ("inputResponses", "requestState"):
        members.pop(name, None)
    text = jsonrpc.join(members)
    if len(text) <= _MOST_SORTED_BYTES:
        with suppress(
            msgspec.MsgspecError, RecursionError
        ):  # numbers that Python cannot hold: as their bytes
            text = msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    return hashlib.sha256(msgspec.json.encode([server, method]) + text).digest()


class ParkedCall(Struct, eq=False):
    """A parked call. `questions` has the open ones by number; `params_bytes` is the size of its params."""

    number: int
    server: str
    state: str
    binding: bytes
    questions: dict[int, InputQuestion]
    params_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        """The number of bytes that are held for it."""
        return self.params_bytes + sum(len(one.params) for one in self.questions.values())

    def result(self) -> bytes:
        """Return the result that asks the client the open questions."""
        asked = {
            one.name: jsonrpc.join({"method": jsonrpc.encode(one.method), "params": one.params})
            for one in self.questions.values()
        }
        state = jsonrpc.encode(self.state)
        return b'{"resultType":"input_required","inputRequests":%b,"requestState":%b}' % (
            jsonrpc.join(asked),
            state,
        )


class ParkedCalls:
    """The parked calls of one owner: of a token, or of one connection to a socket.

    A call leaves when its request is repeated, when it ends, or when it has no open question any more: then
    nothing can be answered, and it is cancelled.

    Args:
        new_state: returns a random text that was never used before.
        limit: how many calls may be parked at once.
        share: counts the bytes of their params and questions; `None`: they are not counted.
        dropped: counts the messages that are dropped, with those of others; `None`: a counter of its own.
    """

    def __init__(
        self,
        new_state: Callable[[], str],
        limit: int = MAX_PARKED,
        share: Share | None = None,
        dropped: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """The numbers of calls that were parked, were resumed, or ended in another way."""
        self.dropped: Counter[str] = Counter() if dropped is None else dropped
        """The numbers of messages that were dropped, by their kind, also those of its conversations."""
        self._new_state = new_state
        self._limit = limit
        self._share = share
        self._by_number: dict[int, ParkedCall] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> ParkedCall | None:
        """Return the parked call of this number."""
        return self._by_number.get(number)

    def park(
        self, server: str, method: str, params: bytes | None, questions: dict[int, InputQuestion]
    ) -> ParkedCall | None:
        """Take in the call of a request that has these open questions; `None` if there is no room for it.

        Its number and its state are never used again.
        """
        if len(self) >= self._limit:
            return None
        binding, state = binding_of(server, method, params), PREFIX + self._new_state()
        parked = ParkedCall(self._last + 1, server, state, binding, dict(questions), len(params or b""))
        if not self._take(parked.held_bytes):
            return None
        self._last += 1
        self._by_number[parked.number] = parked
        self.counts["parked"] += 1
        return parked

    def _take(self, size: int) -> bool:
        """Count bytes as held; return whether there is room for them."""
        return self._share is None or self._share.take(size) is None

    def _give(self, size: int) -> None:
        if self._share is not None:
            self._share.give(size)

    def _pop(self, number: int) -> ParkedCall | None:
        """Let a call go, and what is held for it."""
        parked = self._by_number.pop(number, None)
        if parked is not None:
            self._give(parked.held_bytes)
        return parked

    def resume(self, state: object, binding: bytes) -> ParkedCall:
        """Let the call go whose request is repeated.

        Raises:
            Objection: no parked call has this state, or it belongs to another request, which can still be
                repeated.
        """
        found = next((one for one in self._by_number.values() if one.state == state), None)
        if found is None or found.binding != binding:
            self.dropped["unusable state"] += 1
            raise Objection(jsonrpc.INVALID_PARAMS, _UNKNOWN if found is None else _OTHER)
        self._pop(found.number)
        self.counts["resumed"] += 1
        return found

    # --- what happens to a parked call -------------------------------------------------------------------

    def asked(self, number: int, question: int, method: str, params: bytes) -> list[Effect]:
        """The server asks more. The client learns of it when it repeats the request."""
        parked = self._by_number.get(number)
        if parked is None:
            return []
        if not self._take(len(params)):
            self.dropped["question without room"] += 1
            return [refused_question(number, question, "there is no room for what the client is asked")]
        parked.questions[question] = InputQuestion(f"question-{question}", method, params, question)
        return []

    def withdrawn(self, number: int, question: int) -> list[Effect]:
        """A question is no longer open."""
        parked = self._by_number.get(number)
        if parked is None:
            return []
        if withdrawn := parked.questions.pop(question, None):
            self._give(len(withdrawn.params))
        return [] if parked.questions else self.release(number, "its questions were withdrawn")

    def replied(self, number: int, outcome: Outcome) -> list[Effect]:
        """The call has ended, and no request is there for the outcome."""
        if self._pop(number) is not None:
            self.counts["ended"] += 1
        return []

    def progressed(self, number: int, params: bytes) -> list[Effect]:
        """Drop and count progress."""
        self.dropped["progress of a parked call"] += 1
        return []

    def logged(self, number: int, params: bytes) -> list[Effect]:
        """Drop and count a log message."""
        self.dropped["log message of a parked call"] += 1
        return []

    def release(self, number: int, reason: str) -> list[Effect]:
        """Cancel a parked call."""
        if self._pop(number) is None:
            return []
        self.counts["cancelled"] += 1
        return [CancelCall(number, reason)]

    def closed(self, reason: str) -> list[Effect]:
        """Cancel all."""
        return [effect for number in list(self._by_number) for effect in self.release(number, reason)]


def refused_question(
    call: int, question: int, why: str, code: int = jsonrpc.INTERNAL_ERROR
) -> AnswerQuestion:
    """Return the answer to a question that is not passed on."""
    return AnswerQuestion(call, question, False, jsonrpc.encode({"code": code, "message": why}))
