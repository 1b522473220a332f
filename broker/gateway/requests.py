"""The requests of a client that have no answer yet, and the calls that are made on their behalf."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from broker.gateway.effects import Effect, Outcome, RequestId
from broker.gateway.jsonrpc import ClientRequest
from broker.gateway.questions import Round

Replied = Callable[["OpenRequest", Outcome], list[Effect]]
"""Takes the outcome of the call of a request."""


class OpenRequest(Struct):
    """A request that has no answer yet."""

    request: ClientRequest
    is_modern: bool
    replied: Replied | None = None
    """Takes the outcome of the call that is under way."""
    call: int | None = None
    rounds: int = 0
    """How often the server asked the client something."""
    round: Round | None = None
    """What the client is asked meanwhile."""

    @property
    def id(self) -> RequestId:
        """The id that the client gave it."""
        return self.request.id


class OpenRequests:
    """The table of them, by id and by the number of the call."""

    def __init__(self) -> None:
        self._by_id: dict[RequestId, OpenRequest] = {}
        self._by_call: dict[int, OpenRequest] = {}
        self._last_call = 0

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

    def remove(self, entry: OpenRequest) -> None:
        """Forget a request, and its call."""
        self.end_call(entry)
        if self._by_id.get(entry.id) is entry:
            del self._by_id[entry.id]

    def next_call(self) -> int:
        """Return the number of a new call. No number is used twice."""
        self._last_call += 1
        return self._last_call

    def start_call(self, entry: OpenRequest, replied: Replied) -> int:
        """Return the number of a new call on behalf of a request, and remember what takes its outcome."""
        entry.call, entry.replied = self.next_call(), replied
        self._by_call[entry.call] = entry
        return entry.call

    def of_call(self, call: int) -> OpenRequest | None:
        """Return the request of a call that is under way."""
        return self._by_call.get(call)

    def end_call(self, entry: OpenRequest) -> Replied | None:
        """Forget the call of a request; return what takes its outcome."""
        if entry.call is not None:
            self._by_call.pop(entry.call, None)
        replied, entry.call, entry.replied = entry.replied, None, None
        return replied

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()
        self._by_call.clear()
