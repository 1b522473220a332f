"""Who listens, and what they are told: the way of unasked news from a server to its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from broker.base.backlog import Backlog, Job
from broker.base.metrics import Counters
from broker.base.text import clip
from broker.core import refusals
from broker.core.calls.queue import ChannelKey
from broker.core.clients.connections import Connections
from broker.core.clients.subscriptions import MAX_URIS, Subscription, Subscriptions, read_subscription
from broker.core.effects import Effects
from broker.core.refusals import Blame, Refusal
from broker.core.servers.server import Server
from client_shim import wire
from client_shim.wire import Code

UPDATED = "notifications/resources/updated"

_REASON_CHARS = 400

UNHEARD = "$broker/not_subscribed"
"""No method of MCP, which has none for it."""


class Accepted(Struct, frozen=True):
    """What came of a `listen`.

    Args:
        changed: the servers of which other resources are subscribed than before.
        servers: those whose lists are followed.
        refused: server → why it is not heard for now; it is as soon as that changes.
    """

    changed: set[str]
    servers: list[str]
    refused: dict[str, Refusal]

    def body(self) -> bytes:
        """The result, as docs/protocol.md has it."""
        result: dict[str, Any] = {"servers": self.servers}
        if self.refused:
            result["not_subscribed"] = {
                name: {"code": why.code.value, "message": why.message, "hint": why.hint}
                for name, why in self.refused.items()
            }
        return msgspec.json.encode(result)


class _News(NamedTuple):
    """What there is to hear: a notification about a resource, or, without a uri, about lists."""

    method: str
    uri: str = ""


class Notifications:
    """The channels that listen.

    Args:
        servers: each server by its name.
        backlog: where many are told by and by.
    """

    def __init__(
        self,
        servers: Mapping[str, Server],
        connections: Connections,
        counters: Counters,
        effects: Effects,
        backlog: Backlog,
    ) -> None:
        self._servers = servers
        self._connections = connections
        self._counters = counters
        self._effects = effects
        self._backlog = backlog
        self._news: dict[str, dict[_News, bytes | str | None]] = {}
        """What is still to be told of a server, each with its params: as they came, or for what reason."""
        self.subscriptions = Subscriptions()
        self.unwanted: Callable[[str], object] = lambda server: None
        """Told that a server has told of a resource that nobody has subscribed to."""

    def listen(self, lane: ChannelKey, body: bytes) -> Refusal | Accepted:
        """Hear from now on what servers say unasked; it replaces what the channel listened to before.

        A server that is not configured, or that tells of no resources, costs the others nothing: what is
        wanted of it is kept, and it is heard when a reload brings it back. A refusal is of the whole: params
        that cannot be read, or more than the limits.
        """
        try:
            wants = read_subscription(body)
        except (ValueError, msgspec.MsgspecError) as error:
            return refusals.not_listening(str(error))
        limit = self.subscriptions.exceeded(lane, wants)
        if limit is not None:
            return refusals.too_many_listen(limit.name, limit.value)
        changed = self.subscriptions.want(lane, wants)
        followed = self._servers.keys() if wants.servers is None else wants.servers & self._servers.keys()
        return Accepted(changed, sorted(followed), self._refused(wants))

    def _refused(self, wants: Subscription) -> dict[str, Refusal]:
        refused = {}
        for name in sorted((wants.servers or frozenset()) | set(wants.resources)):
            server = self._servers.get(name)
            if server is None:
                refused[name] = _not_there(name)
            elif name in wants.resources and _tells_of_none(server):
                refused[name] = refusals.tells_of_no_resources(name)
        return refused

    def tell_refused(self, lane: ChannelKey, accepted: Accepted) -> None:
        """Tell a channel what of its wants is not heard for now: each resource, and lists without a uri."""
        wants = self.subscriptions.of(lane)
        for name, why in accepted.refused.items():
            said = self._reason(why.message)
            if wants.servers is not None and name in wants.servers and name not in accepted.servers:
                self._tell(lane, name, _News(UNHEARD), said)
            for uri in sorted(wants.resources.get(name, ())):
                self._tell(lane, name, _News(UNHEARD, uri), said)

    def removed(self, server: str, reason: str) -> None:
        """A server is no longer configured: who has named it hears so, and hears it again if it is back."""
        self.unheard(server, ["", *self.subscriptions.uris(server)], reason)

    def list_changed(self, server: str, notification: str) -> None:
        """One of its lists is another one than before."""
        self._put(server, _News(notification), b"{}")

    def resource_updated(self, server: str, uri: str, body: bytes) -> bool:
        """The server says that a resource has changed; whether there can be anybody to tell."""
        if not self.subscriptions.has_subscribers(server) or len(self._news.get(server, ())) >= MAX_URIS:
            return False
        self._put(server, _News(UPDATED, uri), body)
        return True

    def missed(self, server: str, uris: Iterable[str]) -> None:
        """These resources may have changed."""
        for uri in uris:
            self._put(server, _News(UPDATED, uri), None)

    def unheard(self, server: str, uris: Iterable[str], reason: str) -> None:
        """The server will not tell of these resources, and who waits for that should know."""
        said = self._reason(reason)
        for uri in uris:
            self._put(server, _News(UNHEARD, uri), said)

    def _reason(self, reason: str) -> str:
        return self._effects.mask(clip(reason, _REASON_CHARS))

    def _put(self, server: str, news: _News, said: bytes | str | None) -> None:
        """Tell it by and by. While it waits for its turn, the same again takes its place."""
        waiting = self._news.setdefault(server, {})
        if news in waiting:
            self._counters.add("replaced.news")
        waiting[news] = said
        self._backlog.begin(("news", server), self._tell_all(server, waiting))

    def _tell_all(self, server: str, waiting: dict[_News, bytes | str | None]) -> Job:
        while waiting:
            news = next(iter(waiting))
            said, is_heard = waiting.pop(news), False
            for lane in self._lanes(server, news):
                if lane is not None:
                    is_heard = True
                    self._tell(lane, server, news, said)
                yield
            if not is_heard and type(said) is bytes and news.uri:
                self.unwanted(server)
        del self._news[server]

    def _lanes(self, server: str, news: _News) -> Iterator[ChannelKey | None]:
        table = self.subscriptions
        if news.uri:
            return table.subscribers(server, news.uri)
        return table.listeners(server, by_name=news.method == UNHEARD)

    def _tell(self, lane: ChannelKey, server: str, news: _News, said: bytes | str | None) -> None:
        key, channel = lane
        connection = self._connections.get(key)
        if connection is not None:
            message = wire.Notification(channel, 0, server, news.method)
            slot = ("news", channel, server, news.method, news.uri)
            post = self._connections.post(connection, message, _body(news, said), slot=slot)
            if post is not None:
                self._effects.append(post)


def _body(news: _News, said: bytes | str | None) -> bytes:
    if isinstance(said, bytes):
        return said
    params = {"uri": news.uri} if said is None else {"uri": news.uri or None, "reason": said}
    return msgspec.json.encode(params)


def _tells_of_none(server: Server) -> bool:
    """Whether it is known that it tells of no resources."""
    return server.catalogue is not None and not server.catalogue.agreed.tells_of_resources


def _not_there(server: str) -> Refusal:
    """A server that a channel wants to hear, and that is not configured. (No names are compared: of a
    thousand servers that takes seconds.)
    """
    return Refusal(
        Code.UNKNOWN_SERVER,
        f"there is no server {clip(server)!r}; it is heard once the config has one",
        "add a [servers.NAME] table for it to broker.toml, then `mcp-broker reload`; that is all",
        Blame.CALLER,
        {"server": clip(server)},
    )
