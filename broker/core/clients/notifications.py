"""Notifications of servers to the channels that have subscribed to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from broker.base.backlog import Backlog, Job, JobKey
from broker.base.metrics import Counters
from broker.base.text import clip
from broker.core import refusals
from broker.core.calls.queue import ChannelKey
from broker.core.clients import key_rights
from broker.core.clients.connections import Connection, Connections
from broker.core.clients.subscriptions import MAX_URIS, Subscription, Subscriptions, read_subscription
from broker.core.effects import Effects
from broker.core.refusals import Blame, Refusal
from broker.core.servers.server import Server
from broker.core.servers.visibility import Visibility
from client_shim import wire
from client_shim.wire import Code

UPDATED = "notifications/resources/updated"

_REASON_CHARS = 400

NOT_THERE = "the server has no such resource"
NOT_SUBSCRIBED = "no client has subscribed to it"

UNHEARD = "$broker/not_subscribed"
"""The broker's own notification that a subscription is not served; MCP has none for it."""


class Accepted(Struct, frozen=True):
    """The outcome of a `listen`.

    Args:
        changed: servers whose subscribed resources have changed.
        servers: servers whose lists are followed.
        refused: server → why the channel hears nothing of it for now. It does as soon as that changes.
    """

    changed: set[str]
    servers: list[str]
    refused: dict[str, Refusal]

    def body(self) -> bytes:
        """Return the result, as docs/protocol.md has it."""
        result: dict[str, Any] = {"servers": self.servers}
        if self.refused:
            result["not_subscribed"] = {
                name: {"code": why.code.value, "message": why.message, "hint": why.hint}
                for name, why in self.refused.items()
            }
        return msgspec.json.encode(result)


class _News(NamedTuple):
    """One notification: about a resource, or, without a uri, about lists."""

    method: str
    uri: str = ""


class Notifications:
    """The notifications that are to be sent to channels.

    Args:
        servers: each server by its name.
        backlog: sends to many channels in later steps.
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
        """The notifications of each server that wait to be sent, with their params or their reason."""
        self.subscriptions = Subscriptions()
        self.unwanted: Callable[[str], object] = lambda server: None
        """Called when a server has told of a resource that nobody has subscribed to."""

    def listen(self, channel_key: ChannelKey, body: bytes, connection: Connection) -> Refusal | Accepted:
        """Replace what a channel listens to.

        A server that is not configured, or that does not tell of resources, does not affect the others: the
        subscription is kept, and served when a reload adds the server. A refusal is of the whole request: its
        params cannot be read, or exceed a limit.
        """
        try:
            wants = read_subscription(body)
        except (ValueError, msgspec.MsgspecError) as error:
            return refusals.not_listening(str(error))
        denied = {name for name in wants.named if not connection.may_use(name)}
        wants = wants.without(denied)
        limit = self.subscriptions.exceeded(channel_key, wants)
        if limit is not None:
            return refusals.too_many_listen(limit.name, limit.value)
        changed = self.subscriptions.want(channel_key, wants)
        followed = self._servers.keys() if wants.servers is None else wants.servers & self._servers.keys()
        refused = self._refused(wants)
        refused |= {name: key_rights.not_granted(connection.peer.key, name) for name in sorted(denied)}
        return Accepted(changed, sorted(filter(connection.may_use, followed)), refused)

    def _refused(self, wants: Subscription) -> dict[str, Refusal]:
        refused = {}
        for name in sorted((wants.servers or frozenset()) | set(wants.resources)):
            server = self._servers.get(name)
            if server is None:
                refused[name] = _not_there(name)
            elif name in wants.resources and _tells_of_none(server):
                refused[name] = refusals.tells_of_no_resources(name)
        return refused

    def tell_refused(self, channel_key: ChannelKey, accepted: Accepted) -> None:
        """Tell a channel which of its subscriptions are not served for now."""
        wants = self.subscriptions.of(channel_key)
        for name, why in accepted.refused.items():
            said = self._reason(why.message)
            if wants.servers is not None and name in wants.servers and name not in accepted.servers:
                self._tell(channel_key, name, _News(UNHEARD), said)
            for uri in sorted(wants.resources.get(name, ())):
                self._tell(channel_key, name, _News(UNHEARD, uri), said)
        for name in sorted(wants.resources.keys() - accepted.refused.keys()):
            if (visible := self._servers[name].visible) is not None:
                for uri in sorted(uri for uri in wants.resources[name] if not visible.allows_uri(uri)):
                    self._tell(channel_key, name, _News(UNHEARD, uri), NOT_THERE)

    def removed(self, server: str, reason: str) -> None:
        """Tell the channels that have named a server that it is no longer configured."""
        self.unheard(server, ["", *self.subscriptions.uris(server)], reason)

    def list_changed(self, server: str, notification: str) -> None:
        """Tell the channels that a list of a server has changed."""
        self._put(server, _News(notification), b"{}")

    def resource_updated(self, server: str, uri: str, body: bytes) -> str:
        """Tell the channels that a resource has changed. Return why it is dropped; empty if it is not."""
        if not self.subscriptions.has_subscribers(server):
            return NOT_SUBSCRIBED
        if len(self._news.get(server, ())) >= MAX_URIS:
            return f"{MAX_URIS} notifications of the server are waiting"
        self._put(server, _News(UPDATED, uri), body)
        return ""

    def missed(self, server: str, uris: Iterable[str]) -> None:
        """Tell the channels that these resources may have changed."""
        for uri in uris:
            self._put(server, _News(UPDATED, uri), None)

    def unheard(self, server: str, uris: Iterable[str], reason: str) -> None:
        """Tell the channels that the server will not tell of these resources."""
        said = self._reason(reason)
        for uri in uris:
            self._put(server, _News(UNHEARD, uri), said)

    def _reason(self, reason: str) -> str:
        return self._effects.mask(clip(reason, _REASON_CHARS))

    def _put(self, server: str, news: _News, said: bytes | str | None) -> None:
        """Send a notification in this step and later ones. While it waits, the same notification replaces
        it."""
        waiting = self._news.setdefault(server, {})
        if news in waiting:
            self._counters.add("replaced.news")
        waiting[news] = said
        self._backlog.begin(JobKey("news", server), self._tell_all(server, waiting))

    def _tell_all(self, server: str, waiting: dict[_News, bytes | str | None]) -> Job:
        while waiting:
            news = next(iter(waiting))
            said, is_heard = waiting.pop(news), False
            looked_at, is_hidden = None, False
            for channel_key in self._listening(server, news):
                if (visible := self._visible(server)) is not looked_at:  # a reload, perhaps meanwhile
                    looked_at = visible
                    is_hidden = (
                        visible is not None and news.method == UPDATED and not visible.allows_uri(news.uri)
                    )
                if is_hidden:
                    break
                if channel_key is not None:
                    is_heard = True
                    self._tell(channel_key, server, news, said)
                yield
            if not is_heard and type(said) is bytes and news.uri:
                self.unwanted(server)
        del self._news[server]

    def _visible(self, server: str) -> Visibility | None:
        row = self._servers.get(server)
        return row.visible if row is not None else None

    def _listening(self, server: str, news: _News) -> Iterator[ChannelKey | None]:
        table = self.subscriptions
        if news.uri:
            return table.subscribers(server, news.uri)
        return table.listeners(server, by_name=news.method == UNHEARD)

    def _tell(self, channel_key: ChannelKey, server: str, news: _News, said: bytes | str | None) -> None:
        key, channel = channel_key
        connection = self._connections.get(key)
        if connection is not None and connection.may_use(server):
            message = wire.Notification(channel, 0, server, news.method)
            slot = ("news", channel, server, news.method, news.uri)
            older = ("news", channel, server, UPDATED, news.uri) if news.method == UNHEARD else None
            body = _body(news, said)
            post = self._connections.post(connection, message, body, slot=slot, instead_of=older)
            if post is not None:
                self._effects.append(post)


def _body(news: _News, said: bytes | str | None) -> bytes:
    if isinstance(said, bytes):
        return said
    params = {"uri": news.uri} if said is None else {"uri": news.uri or None, "reason": said}
    return msgspec.json.encode(params)


def _tells_of_none(server: Server) -> bool:
    """Return whether it is known that the server does not tell of resources."""
    return server.catalogue is not None and not server.catalogue.agreed.tells_of_resources


def _not_there(server: str) -> Refusal:
    """Return the refusal for a server that is not configured.

    No similar name is looked for: for a thousand servers that would take seconds.
    """
    return Refusal(
        Code.UNKNOWN_SERVER,
        f"there is no server {clip(server)!r}; it is heard once the config has one",
        "add a [servers.NAME] table for it to broker.toml, then `mcp-broker reload`; that is all",
        Blame.CALLER,
        {"server": clip(server)},
    )
