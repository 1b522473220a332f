"""The requests of a client that have no answer yet, the calls on their behalf, and how both end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from broker.gateway.conversation import eras, faults, jsonrpc
from broker.gateway.conversation.effects import (
    BrokerFault,
    CancelCall,
    Effect,
    FinishRequest,
    ListenTo,
    MakeCall,
    Outcome,
    RequestId,
    SendMessage,
    ServerRefusal,
    ServerResult,
)
from broker.gateway.conversation.eras import Discovery
from broker.gateway.conversation.jsonrpc import ClientRequest
from broker.gateway.conversation.questions import InputQuestion, OpenQuestions, Round
from broker.gateway.conversation.subscriptions import Interests

DISCOVER_S = 5.0
"""How long opening a session waits for a server that still starts: hosts give up after 30 s."""

Replied = Callable[["OpenRequest", Outcome], list[Effect]]
"""Takes the outcome of the call of a request."""


class OpenRequest(Struct):
    """A request that has no answer yet."""

    request: ClientRequest
    is_modern: bool
    replied: Replied | None = None
    """Takes the outcome of the call that is under way."""
    call: int | None = None
    is_listen: bool = False
    """Whether that call sets what is listened to."""
    rounds: int = 0
    """How often the server asked the client something."""
    round: Round | None = None
    """What a legacy client is asked meanwhile on behalf of a modern server."""
    capabilities: dict[str, Any] = {}
    """Those that the client declared for it."""
    asked: dict[int, InputQuestion] = {}
    """number → question of a legacy server that a modern client has not been sent yet"""

    @property
    def id(self) -> RequestId:
        """The id that the client gave it."""
        return self.request.id


class OpenRequests:
    """The table of them, by id and by the number of the call, and the ways in which they end.

    Args:
        questions: what the client is asked on their behalf: withdrawn when they end.
        interests: what they subscribed to: no longer listened to once they end.
    """

    def __init__(self, questions: OpenQuestions, interests: Interests) -> None:
        self._questions = questions
        self._interests = interests
        self._by_id: dict[RequestId, OpenRequest] = {}
        self._by_call: dict[int, OpenRequest] = {}
        self._last_call = 0
        self._last_listen = 0
        """The call of the last `ListenTo`."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id: RequestId) -> bool:
        return id in self._by_id

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._by_call)

    def all(self) -> list[OpenRequest]:
        """Return the requests in the order in which they came."""
        return list(self._by_id.values())

    def get(self, id: RequestId) -> OpenRequest | None:
        """Return the request of this id."""
        return self._by_id.get(id)

    def add(self, entry: OpenRequest) -> None:
        """Take a request in."""
        self._by_id[entry.id] = entry

    def next_call(self) -> int:
        """Return the number of a new call. No number is used twice."""
        self._last_call += 1
        return self._last_call

    def start_call(self, entry: OpenRequest, replied: Replied) -> int:
        """Return the number of a new call on behalf of a request, and remember what takes its outcome."""
        entry.call, entry.replied = self.next_call(), replied
        self._by_call[entry.call] = entry
        return entry.call

    def discover(self, entry: OpenRequest, replied: Replied) -> list[Effect]:
        """Ask the broker, for a short time only, what the server is."""
        call = self.start_call(entry, replied)
        return [MakeCall(call, "server/discover", timeout_s=DISCOVER_S)]

    def of_call(self, call: int) -> OpenRequest | None:
        """Return the request of a call that is under way."""
        return self._by_call.get(call)

    def end_call(self, entry: OpenRequest) -> Replied | None:
        """Forget the call of a request; return what takes its outcome."""
        if entry.call is not None:
            self._by_call.pop(entry.call, None)
        replied, entry.call, entry.replied, entry.is_listen = entry.replied, None, None, False
        return replied

    # --- what is listened to -------------------------------------------------------------------------------

    def listen(self) -> list[Effect]:
        """Hear what is wanted now, where that is not what is heard already."""
        news = self._interests.news()
        if news is None:
            return []
        self._last_listen = self.next_call()
        return [ListenTo(self._last_listen, *news)]

    def listen_for(self, entry: OpenRequest, replied: Replied) -> list[Effect]:
        """The same for a request that waits for it: each is told whether the server tells of resources."""
        self._interests.news()
        self._last_listen = call = self.start_call(entry, replied)
        entry.is_listen = True
        return [ListenTo(call, *self._interests.wanted(), is_awaited=True)]

    def is_last_listen(self, call: int) -> bool:
        """Return whether this is the call that asked for what is listened to now."""
        return call == self._last_listen

    # --- how requests end ----------------------------------------------------------------------------------

    def answer(self, entry: OpenRequest, result: bytes) -> list[Effect]:
        """End a request with a result."""
        return [
            *self._questions.withdraw(entry.id),
            SendMessage(jsonrpc.result_message(entry.id, result), entry.id),
            *self.finish(entry),
        ]

    def refuse(
        self, entry: OpenRequest, message: str, code: int = jsonrpc.INTERNAL_ERROR, data: Any = None
    ) -> list[Effect]:
        """End a request with an error of the gateway's own."""
        return [
            *self._questions.withdraw(entry.id),
            refusal(entry.id, code, message, data),
            *self.finish(entry),
        ]

    def fail(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        """End a request with the error that its call ended in."""
        if isinstance(outcome, ServerRefusal):
            error = eras.modern_error(outcome.body) if entry.is_modern else outcome.body
            id = entry.id
            sent = SendMessage(jsonrpc.error_of(id, error), id, eras.error_code(error))
            return [*self._questions.withdraw(id), sent, *self.finish(entry)]
        fault = outcome if isinstance(outcome, BrokerFault) else BrokerFault("internal", "an odd result")
        return self.refuse(entry, faults.message_of(fault), faults.code_of(fault), faults.data_of(fault))

    def let_go(self, entry: OpenRequest, reason: str | None) -> list[Effect]:
        """Cancel what is under way for a request, at the server and at the client."""
        effects = self._questions.withdraw(entry.id)
        if entry.call is not None:
            if not entry.is_listen:  # what is listened to is set, not taken back
                effects.append(CancelCall(entry.call, reason))
            self.end_call(entry)
        return effects

    def finish(self, entry: OpenRequest) -> list[Effect]:
        """Forget a request. Once a subscription is over, its resources are no longer listened to."""
        self.end_call(entry)
        if self._by_id.get(entry.id) is entry:
            del self._by_id[entry.id]
        was_subscription = self._interests.remove(entry.id)
        return [FinishRequest(entry.id), *(self.listen() if was_subscription else [])]

    def close(self) -> list[Effect]:
        """Cancel what is under way for all of them, and forget everything."""
        effects: list[Effect] = []
        for entry in self.all():
            if entry.call is not None:
                effects.append(CancelCall(entry.call, "the client is gone"))
            effects.append(FinishRequest(entry.id))
        self._by_id.clear()
        self._by_call.clear()
        self._questions.clear()
        self._interests.clear()
        return effects


def discovered(outcome: Outcome) -> Discovery | None:
    """Return what a `server/discover` found, also of a server that is not ready; `None` if it failed."""
    if isinstance(outcome, ServerResult):
        return eras.discovery_of(outcome.body)
    still_starts = isinstance(outcome, BrokerFault) and outcome.code in faults.STILL_STARTING
    return eras.STILL_UNKNOWN if still_starts else None


def refusal(id: RequestId, code: int, message: str, data: Any = None) -> SendMessage:
    """Return the message that refuses a request."""
    return SendMessage(jsonrpc.error_message(id, code, message, data), id, code)
