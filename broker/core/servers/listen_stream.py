"""The broker's own subscription at one process of a server of 2026-07-28: one request that never ends.

`subscriptions/listen` names all lists and resources that clients want to hear of. When they want others, the
broker sends a new request, and takes the old one back once the new one is acknowledged, so that nothing is
missed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker.base.rate_limit import RateLimit
from broker.core.effects import Effect, Level, Write, log
from broker.core.mcp import jsonrpc
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.ids import same_id
from broker.core.mcp.jsonrpc import Broken, Id, ServerNotification, ServerReply
from broker.core.mcp.meta import SUBSCRIPTION_ID
from broker.core.servers.subscription import (
    Asks,
    Missed,
    NotSubscribed,
    ServerSubscription,
    SubscriptionEvent,
    refused_because,
)

LISTEN_BURST = 4
LISTEN_EVERY_S = 1.0
"""A server is sent so many `subscriptions/listen` in a row, and then one in this time."""


class _ListenRequest(Struct, frozen=True):
    """A `subscriptions/listen`: its filter, and when its acknowledgement is overdue."""

    id: int
    filter: dict[str, Any]
    deadline: float

    @property
    def uris(self) -> frozenset[str]:
        """The resources in its filter."""
        return frozenset(self.filter.get("resourceSubscriptions", ()))


class _Acknowledged(Struct):
    notifications: dict[str, Raw] = {}
    meta: dict[str, Raw] = msgspec.field(default_factory=dict, name="_meta")


class _CancelledParams(Struct):
    request_id: Raw = msgspec.field(name="requestId")


class ListenStream(ServerSubscription):
    """Subscribes to all lists and resources by one request."""

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: Callable[[], float]) -> None:
        super().__init__(server, agreed, ask, timeout_s)
        self._uris: frozenset[str] = frozenset()
        self._wanted = self._filter()
        self._open: _ListenRequest | None = None
        self._next: _ListenRequest | None = None
        self._honoured: dict[str, bool | frozenset[str] | None] = {}
        self._refused = False
        """Whether the server has refused the filter that is wanted now."""
        self._deaf = False
        self._rate = RateLimit(LISTEN_BURST, LISTEN_EVERY_S)

    def hears_of(self, capability: str) -> bool:
        return self._open is not None and self._honoured.get(f"{capability}ListChanged") is True

    def want(self, uris: Collection[str], now: float) -> list[SubscriptionEvent]:
        self._uris = frozenset(uris) if self._agreed.tells_of_resources else frozenset()
        self._missed &= self._uris
        before, self._wanted = self._wanted, self._filter()
        self._refused = self._refused and self._wanted == before
        return self._go_on(now)

    def _filter(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {f"{name}ListChanged": True for name in self._agreed.tells_of_lists}
        return {**wanted, "resourceSubscriptions": sorted(self._uris)} if self._uris else wanted

    @property
    def _is_due(self) -> bool:
        if self._next is not None or self._refused:
            return False
        return self._wanted != (self._open.filter if self._open else {})

    def _go_on(self, now: float) -> list[SubscriptionEvent]:
        wanted = self._wanted
        if self._is_due and not wanted and self._open is not None:
            ended, self._open = self._open, None
            self._honoured = {}
            return [self._take_back(ended)]
        if not self._is_due or not self._rate.take(now):
            return []
        id, line = self._ask("subscriptions/listen", msgspec.json.encode({"notifications": wanted}))
        self._next = _ListenRequest(id, wanted, now + self._timeout_s())
        return [line]

    def _take_back(self, stream: _ListenRequest) -> Effect:
        params = {"requestId": stream.id, "reason": "it is no longer needed"}
        return Write(self._server, jsonrpc.notification_line("notifications/cancelled", params))

    def reply(self, id: Id, reply: ServerReply | Broken | None, now: float) -> list[SubscriptionEvent] | None:
        if self._next is not None and id == self._next.id:
            return self._refuse(self._next, reply, now)
        if self._open is not None and id == self._open.id:
            return self._ended(now)
        return None

    def _refuse(
        self, stream: _ListenRequest, reply: ServerReply | Broken | None, now: float
    ) -> list[SubscriptionEvent]:
        self._refused, self._next = stream.filter == self._wanted, None
        reason = refused_because(reply)
        heard: list[SubscriptionEvent] = [
            log(Level.WARNING, "subscription.refused", server=self._server, reason=reason)
        ]
        if self._refused and self._open is not None:
            heard += self._keep(self._open)
        return [*heard, *self._not_subscribed(self._open, reason), *self._go_on(now)]

    def _keep(self, stream: _ListenRequest) -> list[SubscriptionEvent]:
        """Keep a request that cannot be replaced, without the resources that nobody wants any more."""
        if stream.uris and not self._uris:
            self._open, self._honoured, self._deaf = None, {}, True
            return [self._take_back(stream)]
        uris = sorted(stream.uris & self._uris)
        left = {**stream.filter, "resourceSubscriptions": uris} if uris else stream.filter
        self._open = _ListenRequest(stream.id, left, stream.deadline)
        self._honoured = {name: _asked_for(said, self._uris) for name, said in self._honoured.items()}
        return []

    def _not_subscribed(self, stream: _ListenRequest | None, reason: str) -> list[SubscriptionEvent]:
        """Return the wanted resources that the server does not tell of while this request is the open one."""
        told_of = self._honoured.get("resourceSubscriptions") if stream is not None else None
        lacking = self._uris - told_of if isinstance(told_of, frozenset) else self._uris
        return [NotSubscribed(tuple(sorted(lacking)), reason)] if lacking else []

    def _ended(self, now: float) -> list[SubscriptionEvent]:
        self._open, self._deaf = None, True
        self._honoured = {}
        self._missed = set(self._uris)
        return [log(Level.INFO, "subscription.ended", server=self._server), *self._go_on(now)]

    def told(self, told: ServerNotification, now: float) -> list[SubscriptionEvent] | None:
        if told.method == "notifications/subscriptions/acknowledged":
            return self._acknowledged(told, now)
        if told.method == "notifications/cancelled":
            return self._cancelled(told, now)
        return None

    def _acknowledged(self, told: ServerNotification, now: float) -> list[SubscriptionEvent] | None:
        try:
            seen = msgspec.json.decode(told.params or b"{}", type=_Acknowledged)
        except msgspec.MsgspecError:
            return None
        named = same_id(seen.meta.get(SUBSCRIPTION_ID))
        if self._next is None or named != self._next.id:
            return None
        before, self._open, self._next = self._open, self._next, None
        asked, self._honoured = self._open, {}
        for name in asked.filter.keys() & seen.notifications.keys():
            self._honoured[name] = _asked_for(_agreed_to(seen.notifications[name]), asked.uris)
        self._refused = False
        effects: list[SubscriptionEvent] = [] if before is None else [self._take_back(before)]
        effects += self._check(self._open)
        if self._deaf or self._missed:
            effects.append(Missed(self._deaf, tuple(sorted(self._missed & self._uris))))
            self._deaf, self._missed = False, set()
        return effects + self._go_on(now)

    def _check(self, stream: _ListenRequest) -> list[SubscriptionEvent]:
        """Compare what the server acknowledges with the filter: it may be less."""
        lacking = sorted(set(stream.filter) - set(self._honoured))
        lacking_uris = (
            self._not_subscribed(stream, "it does not agree to tell of it")
            if self._uris == stream.uris
            else []
        )
        if not lacking and not lacking_uris:
            return []
        reason = f"it does not tell of {', '.join(lacking) or 'some of the resources'}"
        return [log(Level.WARNING, "subscription.partial", server=self._server, reason=reason), *lacking_uris]

    def _cancelled(self, told: ServerNotification, now: float) -> list[SubscriptionEvent] | None:
        """Take in `notifications/cancelled`: servers send it when they end a subscription."""
        try:
            id = same_id(msgspec.json.decode(told.params or b"{}", type=_CancelledParams).request_id)
        except msgspec.MsgspecError:
            return None
        return None if id is None else self.reply(id, None, now)

    @property
    def wake_at(self) -> float | None:
        if self._next is not None:
            return self._next.deadline
        return self._rate.at() if self._is_due else None

    def tick(self, now: float) -> list[SubscriptionEvent]:
        if self._next is not None and self._next.deadline <= now:
            taken_back = self._take_back(self._next)
            return [taken_back, *self._refuse(self._next, None, now)]
        return self._go_on(now)


def _asked_for(said: bool | Collection[str] | None, uris: frozenset[str]) -> bool | frozenset[str] | None:
    """Return the part of an acknowledgement that was asked for; the rest of it is not kept."""
    return said if said is None or isinstance(said, bool) else uris.intersection(said)


def _agreed_to(raw: Raw) -> bool | list[str] | None:
    """Return the acknowledgement of one member of the filter; `None` for one of an unknown form."""
    try:
        return msgspec.json.decode(raw, type=bool | list[str])
    except msgspec.MsgspecError:
        return None
