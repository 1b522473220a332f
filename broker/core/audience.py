"""Who listens, and what they are told: the way of unasked news from a server to its clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from broker.core import refusals
from broker.core.effects import Effects
from broker.core.fairness import Lane
from broker.core.refusals import Refusal
from broker.core.server import Server
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscriptions, Wants, read_wants
from broker.core.texts import clip
from client_shim import wire

UPDATED = "notifications/resources/updated"

UNHEARD = "$broker/not_subscribed"
"""No method of MCP, which has none for it."""


class Audience:
    """The channels that listen."""

    def __init__(self, servers: Mapping[str, Server], sessions: Sessions, effects: Effects) -> None:
        self._servers = servers
        self._sessions = sessions
        self._effects = effects
        self.subscriptions = Subscriptions()

    def listen(self, lane: Lane, body: bytes) -> Refusal | set[str]:
        """Hear from now on what servers say unasked; it replaces what the channel listened to before.

        The servers of which other resources are subscribed than before, or why it cannot be.
        """
        try:
            wants = read_wants(body)
        except (ValueError, msgspec.MsgspecError) as error:
            return refusals.not_listening(str(error))
        refusal = self._unheard(wants)
        if refusal is not None:
            return refusal
        limit = self.subscriptions.exceeded(lane, wants)
        if limit is not None:
            return refusals.too_many_listen(limit.name, limit.value)
        return self.subscriptions.want(lane, wants)

    def _unheard(self, wants: Wants) -> Refusal | None:
        for name in sorted((wants.servers or frozenset()) | set(wants.resources)):
            if name not in self._servers:
                return refusals.unknown_server(name, self._servers)
        for name in wants.resources:
            catalogue = self._servers[name].catalogue
            if catalogue is not None and not catalogue.agreed.tells_of_resources:
                return refusals.tells_of_no_resources(name)
        return None

    def heard_of(self, lane: Lane) -> list[str]:
        """The servers of which a channel hears when their lists change."""
        wanted = self.subscriptions.of(lane).servers
        return sorted(self._servers if wanted is None else wanted)

    def list_changed(self, server: str, notification: str) -> None:
        """One of its lists is another one than before."""
        self._tell(self.subscriptions.listeners(server), server, notification, b"{}", "")

    def resource_updated(self, server: str, uri: str, body: bytes) -> bool:
        """A resource may have changed; whether there is anybody to tell."""
        lanes = self.subscriptions.subscribers(server, uri)
        self._tell(lanes, server, UPDATED, body, uri)
        return bool(lanes)

    def unheard(self, server: str, uris: Iterable[str], reason: str) -> None:
        """The server will not tell of these resources, and who waits for that should know."""
        for uri in uris:
            body = msgspec.json.encode({"uri": uri, "reason": self._effects.mask(clip(reason))})
            self._tell(self.subscriptions.subscribers(server, uri), server, UNHEARD, body, uri)

    def _tell(self, lanes: Iterable[Lane], server: str, method: str, body: bytes, uri: str) -> None:
        for key, channel in lanes:
            connection = self._sessions.get(key)
            if connection is not None:
                message = wire.Notification(channel, 0, server, method)
                slot = ("news", channel, server, method, uri)
                post = self._sessions.post(connection, message, body, slot=slot)
                if post is not None:
                    self._effects.append(post)
