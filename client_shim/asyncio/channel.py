"""A channel: the place of one client object in its connection, and what it listens to there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from client_shim import log
from client_shim.errors import BrokerError, CallError
from client_shim.protocol import payload, reasons
from client_shim.protocol.payload import Ask
from client_shim.wire import MANAGEMENT

Listener = Callable[[str, str, bytes], None]

LIST_CHANGED = {f"notifications/{kind}/list_changed": kind for kind in ("tools", "resources", "prompts")}
"""method → what it is about"""

UPDATED = "notifications/resources/updated"

LISTEN_AGAIN_S = 1.0
"""The least time until a broker that was too busy to be listened to is asked again."""

NOT_SUBSCRIBED = "$broker/not_subscribed"
"""The broker's own word for a resource that the server will not tell of."""


class Wants(NamedTuple):
    """What a channel wants to hear: of the lists of all servers, and of resources, each with its server."""

    lists: bool = False
    resources: frozenset[tuple[str, str]] = frozenset()

    def __bool__(self) -> bool:
        return self.lists or bool(self.resources)

    def ask(self, timeout_s: float | None = None) -> Ask:
        """The request that says so to the broker."""
        resources: dict[str, list[str]] = {}
        for server, uri in sorted(self.resources):
            resources.setdefault(server, []).append(uri)
        params: dict[str, object] = {"servers": None if self.lists else [], "resources": resources}
        return payload.ask(MANAGEMENT, "listen", params, timeout_s=timeout_s)


class Channel:
    """The place of one client object in its connection.

    Args:
        listener: gives what hears the channel's notifications (service, method, params), while it lives.
        wants: what it listens to, now and after each reconnection.
    """

    __slots__ = ("changing", "listened", "listener", "number", "wants")

    def __init__(self, number: int, listener: Callable[[], Listener | None], wants: Wants) -> None:
        self.number = number
        self.listener = listener
        self.wants = wants
        self.listened = False
        self.changing = asyncio.Lock()
        """Held while what it listens to is being changed."""


class Listening:
    """A `listen` that the connection itself has sent: its answer is of interest to the channel only.

    Where the channel had listened before, on a link that was lost, everything may have changed meanwhile. It
    is told so, of every server and resource, for nobody can know what has.
    """

    def __init__(
        self,
        channel: Channel,
        deliver: Callable[[Channel, str, str, bytes], None],
        again: Callable[[float], object],
    ) -> None:
        self._channel = channel
        self._deliver = deliver
        self._ask_again = again
        self._again, channel.listened = channel.listened, True
        self._wants = channel.wants

    def add(self, _: object) -> bool:
        """There is no progress of it."""
        return True

    def end(self, outcome: bytes | BrokerError) -> None:
        """The broker has answered."""
        if reasons.is_for_the_next(outcome):  # it is asked once it is there, as after every reconnection
            self._channel.listened = self._again
            return
        if isinstance(outcome, CallError):
            log.warn(f"the broker does not tell of changes: {outcome}")
            self._channel.listened = self._again
            if outcome.retry_after_s is not None:
                delay_s = max(outcome.retry_after_s, LISTEN_AGAIN_S)
                self._ask_again(delay_s)
        elif isinstance(outcome, bytes) and self._again:
            for server, method, body in self._missed(outcome):
                self._deliver(self._channel, server, method, body)

    def _missed(self, outcome: bytes) -> Iterator[tuple[str, str, bytes]]:
        for server in payload.followed(outcome):
            for method in LIST_CHANGED:
                yield server, method, b"{}"
        for server, uri in sorted(self._wants.resources):
            yield server, UPDATED, json.dumps({"uri": uri}).encode()
