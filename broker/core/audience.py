"""Who listens, and what they are told: the way of unasked news from a server to its clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from broker.core import refusals
from broker.core.effects import Effects
from broker.core.fairness import Lane
from broker.core.refusals import Blame, Refusal
from broker.core.server import Server
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscriptions, Wants, read_wants
from broker.core.texts import clip
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


class Audience:
    """The channels that listen."""

    def __init__(self, servers: Mapping[str, Server], sessions: Sessions, effects: Effects) -> None:
        self._servers = servers
        self._sessions = sessions
        self._effects = effects
        self.subscriptions = Subscriptions()

    def listen(self, lane: Lane, body: bytes) -> Refusal | Accepted:
        """Hear from now on what servers say unasked; it replaces what the channel listened to before.

        A server that is not configured, or that tells of no resources, costs the others nothing: what is
        wanted of it is kept, and it is heard when a reload brings it back. A refusal is of the whole: params
        that cannot be read, or more than the limits.
        """
        try:
            wants = read_wants(body)
        except (ValueError, msgspec.MsgspecError) as error:
            return refusals.not_listening(str(error))
        limit = self.subscriptions.exceeded(lane, wants)
        if limit is not None:
            return refusals.too_many_listen(limit.name, limit.value)
        changed = self.subscriptions.want(lane, wants)
        followed = self._servers.keys() if wants.servers is None else wants.servers & self._servers.keys()
        return Accepted(changed, sorted(followed), self._refused(wants))

    def _refused(self, wants: Wants) -> dict[str, Refusal]:
        refused = {}
        for name in sorted((wants.servers or frozenset()) | set(wants.resources)):
            server = self._servers.get(name)
            if server is None:
                refused[name] = _not_there(name)
            elif name in wants.resources and _tells_of_none(server):
                refused[name] = refusals.tells_of_no_resources(name)
        return refused

    def tell_refused(self, lane: Lane, accepted: Accepted) -> None:
        """Tell a channel what of its wants is not heard for now: each resource, and lists without a uri."""
        wants = self.subscriptions.of(lane)
        for name, why in accepted.refused.items():
            if wants.servers is not None and name in wants.servers and name not in accepted.servers:
                self._tell_unheard([lane], name, None, why.message)
            for uri in sorted(wants.resources.get(name, ())):
                self._tell_unheard([lane], name, uri, why.message)

    def removed(self, server: str, reason: str) -> None:
        """A server is no longer configured: who has named it hears so, and hears it again if it is back."""
        for lane in self.subscriptions.followers(server):
            self._tell_unheard([lane], server, None, reason)
        self.unheard(server, list(self.subscriptions.uris(server)), reason)

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
            self._tell_unheard(self.subscriptions.subscribers(server, uri), server, uri, reason)

    def _tell_unheard(self, lanes: Iterable[Lane], server: str, uri: str | None, reason: str) -> None:
        body = msgspec.json.encode({"uri": uri, "reason": self._effects.mask(clip(reason, _REASON_CHARS))})
        self._tell(lanes, server, UNHEARD, body, uri or "")

    def _tell(self, lanes: Iterable[Lane], server: str, method: str, body: bytes, uri: str) -> None:
        for key, channel in lanes:
            connection = self._sessions.get(key)
            if connection is not None:
                message = wire.Notification(channel, 0, server, method)
                slot = ("news", channel, server, method, uri)
                post = self._sessions.post(connection, message, body, slot=slot)
                if post is not None:
                    self._effects.append(post)


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
