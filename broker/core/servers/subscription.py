"""The broker's own subscription at one server process, on behalf of all clients.

A server of the older era tells of its lists without a request, and of a resource after one
`resources/subscribe`. `listen_stream` has the subscription to a server of 2026-07-28.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct

from broker.base.text import clip
from broker.core.effects import Effect, Level, Write, log
from broker.core.mcp.agreement import Agreed, reason_of
from broker.core.mcp.jsonrpc import Broken, Id, ServerNotification, ServerReply

MAX_ASKING = 8
"""The `resources/subscribe` and `unsubscribe` that may be under way to a server at once."""


class Missed(Struct, frozen=True):
    """Changes of the lists, or of these resources, that the broker may not have heard of."""

    lists: bool
    uris: tuple[str, ...]


class NotSubscribed(Struct, frozen=True):
    """Resources whose changes the server will not tell of, and why."""

    uris: tuple[str, ...]
    reason: str


SubscriptionEvent = Effect | Missed | NotSubscribed
Asks = Callable[[str, bytes], tuple[int, Write]]
"""Makes a request of the broker's own: its id, and the line to write."""


class ServerSubscription:
    """What the subscriptions of both eras have in common.

    Args:
        server: the name of the server.
        agreed: the result of the handshake.
        ask: makes the requests.
        timeout_s: returns the time that the server has to answer one.
    """

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: Callable[[], float]) -> None:
        self._server = server
        self._agreed = agreed
        self._ask = ask
        self._timeout_s = timeout_s
        self._missed: set[str] = set()

    @property
    def waits(self) -> bool:
        """Whether a request of it that will be answered is open."""
        return False

    def hears_of(self, capability: str) -> bool:
        """Return whether the server tells when the lists of this capability change."""
        return capability in self._agreed.tells_of_lists

    def start(self, uris: Collection[str], missed: bool, now: float) -> list[SubscriptionEvent]:
        """Subscribe to these resources. `missed`: an earlier process of the server had told of them."""
        self._missed = set(uris) if missed else set()
        if uris and not self._agreed.tells_of_resources:
            reason = f"it does not offer to tell of resources, and {len(uris)} are subscribed"
            warning = log(Level.WARNING, "resource.not_subscribed", server=self._server, reason=reason)
            return [warning, NotSubscribed(tuple(sorted(uris)), reason)]
        return self.want(uris, now)

    def want(self, uris: Collection[str], now: float) -> list[SubscriptionEvent]:
        """Subscribe to these resources and to no other ones."""
        raise NotImplementedError

    def reply(self, id: Id, reply: ServerReply | Broken | None, now: float) -> list[SubscriptionEvent] | None:
        """Take in a reply, `None` if its time is up; return `None` if it answers no request of this one."""
        raise NotImplementedError

    def told(self, told: ServerNotification, now: float) -> list[SubscriptionEvent] | None:
        """Take in a notification; return `None` for one that is not about a subscription."""
        return None

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        raise NotImplementedError

    def tick(self, now: float) -> list[SubscriptionEvent]:
        """Do what is due at this time."""
        raise NotImplementedError


class _Change(Struct, frozen=True):
    """A `resources/subscribe` or `unsubscribe` without an answer so far."""

    uri: str
    on: bool
    deadline: float


class LegacySubscription(ServerSubscription):
    """Subscribes to each resource by a request of its own, when the first client wants it, until the last."""

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: Callable[[], float]) -> None:
        super().__init__(server, agreed, ask, timeout_s)
        self._wanted: Collection[str] = ()
        self._has: set[str] = set()
        self._asked: dict[int, _Change] = {}
        self._todo: OrderedDict[str, None] = OrderedDict()

    @property
    def waits(self) -> bool:
        """Whether a subscription is being changed."""
        return bool(self._asked)

    def want(self, uris: Collection[str], now: float) -> list[SubscriptionEvent]:
        if self._agreed.tells_of_resources:
            self._todo.update(dict.fromkeys(sorted(set(uris) ^ set(self._wanted))))
            self._wanted = frozenset(uris)
            self._missed &= self._wanted
        return self._go_on(now)

    def _go_on(self, now: float) -> list[SubscriptionEvent]:
        did: list[SubscriptionEvent] = []
        under_way = {change.uri for change in self._asked.values()}
        for uri in [uri for uri in self._todo if uri not in under_way]:
            if len(self._asked) == MAX_ASKING:
                break
            del self._todo[uri]
            on = uri in self._wanted
            if on is not (uri in self._has):
                method = "resources/subscribe" if on else "resources/unsubscribe"
                id, line = self._ask(method, msgspec.json.encode({"uri": uri}))
                self._asked[id] = _Change(uri, on, now + self._timeout_s())
                did.append(line)
        return did

    def reply(self, id: Id, reply: ServerReply | Broken | None, now: float) -> list[SubscriptionEvent] | None:
        change = self._asked.pop(id, None) if type(id) is int else None
        return None if change is None else self._settled(change, reply, now)

    def _settled(
        self, change: _Change, reply: ServerReply | Broken | None, now: float
    ) -> list[SubscriptionEvent]:
        did: list[SubscriptionEvent] = []
        if not isinstance(reply, ServerReply) or reply.result is None:
            reason = refused_because(reply)
            facts = {"server": self._server, "uri": clip(change.uri), "reason": reason}
            did.append(log(Level.WARNING, "resource.not_subscribed", **facts))
            did += [NotSubscribed((change.uri,), reason)] if change.on else []
        elif change.on:
            self._has.add(change.uri)
        if not change.on:
            self._has.discard(change.uri)
        if change.uri in self._missed:
            self._missed.discard(change.uri)
            did.append(Missed(False, (change.uri,)))
        return did + self._go_on(now)

    @property
    def wake_at(self) -> float | None:
        return min(change.deadline for change in self._asked.values()) if self._asked else None

    def tick(self, now: float) -> list[SubscriptionEvent]:
        did: list[SubscriptionEvent] = []
        for id, change in list(self._asked.items()):
            if change.deadline <= now:
                del self._asked[id]
                did += self._settled(change, None, now)
        return did


def refused_because(reply: ServerReply | Broken | None) -> str:
    """Return the reason of a refusal, for people."""
    if not isinstance(reply, ServerReply):
        return "it gave no answer that can be read in time"
    return reason_of(reply.error)
