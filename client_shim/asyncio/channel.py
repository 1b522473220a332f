"""A channel: one client object within its connection, and what the channel listens to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from client_shim import log
from client_shim.errors import BrokerError, CallError, InvalidRequest
from client_shim.protocol import payload, reasons
from client_shim.protocol.payload import PreparedRequest
from client_shim.wire import MANAGEMENT

LIST_CHANGED = {f"notifications/{kind}/list_changed": kind for kind in ("tools", "resources", "prompts")}
"""method → the kind of list"""

UPDATED = "notifications/resources/updated"

LISTEN_AGAIN_S = 1.0
"""The shortest delay before `listen` is repeated to a broker that was too busy for it."""

NOT_SUBSCRIBED = "$broker/not_subscribed"
"""The broker's notification about a resource whose changes the server does not announce."""


class Receiver(Protocol):
    """Receives what the connection delivers to a channel, in the event loop, one call at a time."""

    def notified(self, server: str, method: str, params: bytes) -> None:
        """Handle a notification of a server."""

    def connection_changed(self, connected: bool) -> None:
        """Handle the loss of the broker, or its return."""


class ListenSet(NamedTuple):
    """What a channel listens to: lists of these servers (`None`: all), and resources by server and uri."""

    servers: frozenset[str] | None = frozenset()
    resources: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, servers: Iterable[str] | None, resources: Mapping[str, Iterable[str]]) -> ListenSet:
        """Return the set for the arguments of `BrokerClient.listen`.

        Raises:
            InvalidRequest: a string is given in place of a collection of strings.
        """
        if any(isinstance(names, str) for names in (servers, *resources.values())):
            raise InvalidRequest(
                "`listen` takes collections of names and uris, and not a string in their place"
            )
        pairs = frozenset((server, str(uri)) for server, uris in resources.items() for uri in uris)
        return cls(None if servers is None else frozenset(servers), pairs)

    @property
    def is_empty(self) -> bool:
        """Whether it contains nothing to listen to."""
        return self.servers == frozenset() and not self.resources

    def request(self, timeout_s: float | None = None) -> PreparedRequest:
        """Return the `listen` request that replaces the broker's record of this channel."""
        resources: dict[str, list[str]] = {}
        for server, uri in sorted(self.resources):
            resources.setdefault(server, []).append(uri)
        servers = None if self.servers is None else sorted(self.servers)
        params: dict[str, object] = {"servers": servers, "resources": resources}
        return payload.prepare(MANAGEMENT, "listen", params, timeout_s=timeout_s)


class Channel:
    """One client object within its connection.

    Args:
        listener: returns the receiver of the channel's notifications, or `None` once that was collected.
        listen_set: what the channel listens to, now and after each reconnection.
    """

    __slots__ = ("changing", "listen_set", "listened", "listener", "number")

    def __init__(self, number: int, listener: Callable[[], Receiver | None], listen_set: ListenSet) -> None:
        self.number = number
        self.listener = listener
        self.listen_set = listen_set
        self.listened = False
        """Whether a `listen` of this channel was accepted before."""
        self.changing = asyncio.Lock()
        """Held while `listen_set` is being changed."""


class ListenCall:
    """A `listen` that the connection itself sends for a channel.

    If the channel listened before, on a connection that was lost, anything may have changed since. So the
    channel is notified of every list and resource that it listens to.
    """

    questions = None
    """A `listen` takes no questions."""

    def __init__(
        self,
        channel: Channel,
        deliver: Callable[[Channel, str, str, bytes], None],
        repeat_after: Callable[[float], object],
    ) -> None:
        self._channel = channel
        self._deliver = deliver
        self._repeat_after = repeat_after
        self._listened_before, channel.listened = channel.listened, True
        self._listen_set = channel.listen_set

    def add(self, *_: object) -> bool:
        """Ignore progress and log messages: a `listen` has none."""
        return True

    def end(self, outcome: bytes | BrokerError) -> None:
        """Handle the broker's answer."""
        if isinstance(outcome, bytes):
            if self._listened_before:
                for server, method, params in self._missed(outcome):
                    self._deliver(self._channel, server, method, params)
            return
        if reasons.is_for_the_next(outcome):  # the connection listens again after every reconnection
            self._channel.listened = self._listened_before
        elif isinstance(outcome, CallError):
            log.warn(f"the broker does not tell of changes: {outcome}")
            self._channel.listened = self._listened_before
            if outcome.retry_after_s is not None:
                self._repeat_after(max(outcome.retry_after_s, LISTEN_AGAIN_S))

    def _missed(self, outcome: bytes) -> Iterator[tuple[str, str, bytes]]:
        for server in payload.followed(outcome):
            for method in LIST_CHANGED:
                yield server, method, b"{}"
        for server, uri in sorted(self._listen_set.resources):
            yield server, UPDATED, json.dumps({"uri": uri}).encode()
