"""What the broker itself listens to at one process, for all who listen to the broker.

A server of the older era tells of its lists without being asked, and of a resource after one
`resources/subscribe`. One of 2026-07-28 tells what a `subscriptions/listen` asks for, a request that never
ends; the broker holds one, and replaces it when other resources are wanted: the old one is taken back when
the new one is acknowledged, so that nothing is missed in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker.base.rate_limit import Pace
from broker.base.text import clip
from broker.core.effects import Effect, Level, Write, log
from broker.core.mcp import jsonrpc
from broker.core.mcp.agreement import Agreed, reason_of
from broker.core.mcp.jsonrpc import Id, Reply, Told
from broker.core.mcp.lines import same_id
from broker.core.mcp.meta import SUBSCRIPTION_ID

MAX_ASKING = 8
"""Requests to subscribe to a resource that may be under way to a server of the older era at once."""

LISTEN_BURST = 4
LISTEN_EVERY_S = 1.0
"""A server of 2026-07-28 is asked to listen so often in a row, and then once in this time."""


class Missed(Struct, frozen=True):
    """What the server said meanwhile was not heard: of its lists, or of these resources."""

    lists: bool
    uris: tuple[str, ...]


class Unheard(Struct, frozen=True):
    """The server will not tell of these resources, though it was asked to."""

    uris: tuple[str, ...]
    reason: str


Heard = Effect | Missed | Unheard
Asks = Callable[[str, bytes], tuple[int, Write]]
"""Makes a request of the broker's own: its id, and the line to write."""


class Listening:
    """The part that both eras have in common, and all that a server has which tells of nothing.

    Args:
        server: its name.
        agreed: what it offers.
        ask: makes the requests.
        timeout_s: how long it may leave one unanswered.
    """

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: float) -> None:
        self._server = server
        self._agreed = agreed
        self._ask = ask
        self._timeout_s = timeout_s
        self._missed: set[str] = set()

    def hears_of(self, capability: str) -> bool:
        """Whether the server tells when the lists of this capability change."""
        return capability in self._agreed.tells_of_lists

    def start(self, uris: Collection[str], missed: bool, now: float) -> list[Heard]:
        """The server is open; `missed`: an earlier process of it had told of these resources."""
        self._missed = set(uris) if missed else set()
        if uris and not self._agreed.tells_of_resources:
            reason = f"it does not offer to tell of resources, and {len(uris)} are subscribed"
            warning = log(Level.WARNING, "resource.not_subscribed", server=self._server, reason=reason)
            return [warning, Unheard(tuple(sorted(uris)), reason)]
        return self.want(uris, now)

    def want(self, uris: Collection[str], now: float) -> list[Heard]:
        """These resources are wanted from now on."""
        raise NotImplementedError

    def reply(self, id: Id, reply: Reply | None, now: float) -> list[Heard] | None:
        """A reply, `None` where it cannot be read; `None` comes back if it is to no request of this one's."""
        raise NotImplementedError

    def told(self, told: Told, now: float) -> list[Heard] | None:
        """A notification about a subscription; `None` if it is none."""
        return None

    @property
    def wake_at(self) -> float | None:
        """When `tick` is due."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Heard]:
        """Time has passed."""
        raise NotImplementedError


class _Asked(Struct, frozen=True):
    uri: str
    on: bool
    deadline: float


class Each(Listening):
    """A server of the older era: a request for each resource, the first time and the last."""

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: float) -> None:
        super().__init__(server, agreed, ask, timeout_s)
        self._wanted: Collection[str] = ()
        self._has: set[str] = set()
        self._asked: dict[int, _Asked] = {}
        self._todo: OrderedDict[str, None] = OrderedDict()

    def want(self, uris: Collection[str], now: float) -> list[Heard]:
        if self._agreed.tells_of_resources:
            self._todo.update(dict.fromkeys(sorted(set(uris) ^ set(self._wanted))))
            self._wanted = frozenset(uris)
            self._missed &= self._wanted
        return self._go_on(now)

    def _go_on(self, now: float) -> list[Heard]:
        effects: list[Heard] = []
        under_way = {asked.uri for asked in self._asked.values()}
        for uri in [uri for uri in self._todo if uri not in under_way]:
            if len(self._asked) == MAX_ASKING:
                break
            del self._todo[uri]
            on = uri in self._wanted
            if on is not (uri in self._has):
                method = "resources/subscribe" if on else "resources/unsubscribe"
                id, line = self._ask(method, msgspec.json.encode({"uri": uri}))
                self._asked[id] = _Asked(uri, on, now + self._timeout_s)
                effects.append(line)
        return effects

    def reply(self, id: Id, reply: Reply | None, now: float) -> list[Heard] | None:
        asked = self._asked.pop(id, None) if type(id) is int else None
        return None if asked is None else self._settled(asked, reply, now)

    def _settled(self, asked: _Asked, reply: Reply | None, now: float) -> list[Heard]:
        effects: list[Heard] = []
        if reply is None or reply.result is None:
            reason = _reason(reply)
            facts = {"server": self._server, "uri": clip(asked.uri), "reason": reason}
            effects.append(log(Level.WARNING, "resource.not_subscribed", **facts))
            effects += [Unheard((asked.uri,), reason)] if asked.on else []
        elif asked.on:
            self._has.add(asked.uri)
        if not asked.on:
            self._has.discard(asked.uri)
        if asked.uri in self._missed:
            self._missed.discard(asked.uri)
            effects.append(Missed(False, (asked.uri,)))
        return effects + self._go_on(now)

    @property
    def wake_at(self) -> float | None:
        return min(asked.deadline for asked in self._asked.values()) if self._asked else None

    def tick(self, now: float) -> list[Heard]:
        effects: list[Heard] = []
        for id, asked in list(self._asked.items()):
            if asked.deadline <= now:
                del self._asked[id]
                effects += self._settled(asked, None, now)
        return effects


class _Stream(Struct, frozen=True):
    """One `subscriptions/listen`: what it asks for, and until when it must be acknowledged."""

    id: int
    filter: dict[str, Any]
    deadline: float

    @property
    def uris(self) -> frozenset[str]:
        """The resources that it asks for."""
        return frozenset(self.filter.get("resourceSubscriptions", ()))


class _Acknowledged(Struct):
    notifications: dict[str, Raw] = {}
    meta: dict[str, Raw] = msgspec.field(default_factory=dict, name="_meta")


class _Cancelled(Struct):
    request_id: Raw = msgspec.field(name="requestId")


class Stream(Listening):
    """A server of 2026-07-28: one request for everything."""

    def __init__(self, server: str, agreed: Agreed, ask: Asks, timeout_s: float) -> None:
        super().__init__(server, agreed, ask, timeout_s)
        self._uris: frozenset[str] = frozenset()
        self._wanted = self._filter()
        self._open: _Stream | None = None
        self._next: _Stream | None = None
        self._honoured: dict[str, bool | frozenset[str] | None] = {}
        self._refused = False
        """Whether the server will not do what is wanted now."""
        self._deaf = False
        self._pace = Pace(LISTEN_BURST, LISTEN_EVERY_S)

    def hears_of(self, capability: str) -> bool:
        return self._open is not None and self._honoured.get(f"{capability}ListChanged") is True

    def want(self, uris: Collection[str], now: float) -> list[Heard]:
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

    def _go_on(self, now: float) -> list[Heard]:
        wanted = self._wanted
        if self._is_due and not wanted and self._open is not None:
            ended, self._open = self._open, None
            self._honoured = {}
            return [self._take_back(ended)]
        if not self._is_due or not self._pace.take(now):
            return []
        id, line = self._ask("subscriptions/listen", msgspec.json.encode({"notifications": wanted}))
        self._next = _Stream(id, wanted, now + self._timeout_s)
        return [line]

    def _take_back(self, stream: _Stream) -> Effect:
        params = {"requestId": stream.id, "reason": "it is no longer needed"}
        return Write(self._server, jsonrpc.notification_line("notifications/cancelled", params))

    def reply(self, id: Id, reply: Reply | None, now: float) -> list[Heard] | None:
        if self._next is not None and id == self._next.id:
            return self._refuse(self._next, reply, now)
        if self._open is not None and id == self._open.id:
            return self._ended(now)
        return None

    def _refuse(self, stream: _Stream, reply: Reply | None, now: float) -> list[Heard]:
        self._refused, self._next = stream.filter == self._wanted, None
        reason = _reason(reply)
        heard: list[Heard] = [log(Level.WARNING, "subscription.refused", server=self._server, reason=reason)]
        if self._refused and self._open is not None:
            heard += self._keep(self._open)
        return [*heard, *self._unheard(self._open, reason), *self._go_on(now)]

    def _keep(self, stream: _Stream) -> list[Heard]:
        """It cannot be replaced: it stays for those who are left, without what only others wanted."""
        if stream.uris and not self._uris:
            self._open, self._honoured, self._deaf = None, {}, True
            return [self._take_back(stream)]
        uris = sorted(stream.uris & self._uris)
        left = {**stream.filter, "resourceSubscriptions": uris} if uris else stream.filter
        self._open = _Stream(stream.id, left, stream.deadline)
        self._honoured = {name: _asked_for(said, self._uris) for name, said in self._honoured.items()}
        return []

    def _unheard(self, stream: _Stream | None, reason: str) -> list[Heard]:
        """Of which of the wanted resources the server will not tell, as long as this stream is the one."""
        told_of = self._honoured.get("resourceSubscriptions") if stream is not None else None
        lacking = self._uris - told_of if isinstance(told_of, frozenset) else self._uris
        return [Unheard(tuple(sorted(lacking)), reason)] if lacking else []

    def _ended(self, now: float) -> list[Heard]:
        self._open, self._deaf = None, True
        self._honoured = {}
        self._missed = set(self._uris)
        return [log(Level.INFO, "subscription.ended", server=self._server), *self._go_on(now)]

    def told(self, told: Told, now: float) -> list[Heard] | None:
        if told.method == "notifications/subscriptions/acknowledged":
            return self._acknowledged(told, now)
        if told.method == "notifications/cancelled":
            return self._cancelled(told, now)
        return None

    def _acknowledged(self, told: Told, now: float) -> list[Heard] | None:
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
        effects: list[Heard] = [] if before is None else [self._take_back(before)]
        effects += self._check(self._open)
        if self._deaf or self._missed:
            effects.append(Missed(self._deaf, tuple(sorted(self._missed & self._uris))))
            self._deaf, self._missed = False, set()
        return effects + self._go_on(now)

    def _check(self, stream: _Stream) -> list[Heard]:
        """What the server agrees to may be less than what it offers."""
        lacking = sorted(set(stream.filter) - set(self._honoured))
        unheard = (
            self._unheard(stream, "it does not agree to tell of it") if self._uris == stream.uris else []
        )
        if not lacking and not unheard:
            return []
        reason = f"it does not tell of {', '.join(lacking) or 'some of the resources'}"
        return [log(Level.WARNING, "subscription.partial", server=self._server, reason=reason), *unheard]

    def _cancelled(self, told: Told, now: float) -> list[Heard] | None:
        """A server says so, too, when it tears a subscription down."""
        try:
            id = same_id(msgspec.json.decode(told.params or b"{}", type=_Cancelled).request_id)
        except msgspec.MsgspecError:
            return None
        return None if id is None else self.reply(id, None, now)

    @property
    def wake_at(self) -> float | None:
        if self._next is not None:
            return self._next.deadline
        return self._pace.at() if self._is_due else None

    def tick(self, now: float) -> list[Heard]:
        if self._next is not None and self._next.deadline <= now:
            taken_back = self._take_back(self._next)
            return [taken_back, *self._refuse(self._next, None, now)]
        return self._go_on(now)


def _asked_for(said: bool | Collection[str] | None, uris: frozenset[str]) -> bool | frozenset[str] | None:
    """Of what a server agrees to, what it was asked for: more of its words need not be kept."""
    return said if said is None or isinstance(said, bool) else uris.intersection(said)


def _agreed_to(raw: Raw) -> bool | list[str] | None:
    """What a server says to one thing that it was asked to tell of; anything else is not taken apart."""
    try:
        return msgspec.json.decode(raw, type=bool | list[str])
    except msgspec.MsgspecError:
        return None


def _reason(reply: Reply | None) -> str:
    if reply is None:
        return "it gave no answer that can be read in time"
    return reason_of(reply.error)
