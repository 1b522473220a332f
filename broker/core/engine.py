"""The heart of the broker: many clients in front, one process of each server behind, no I/O.

Every public method takes what happened and when, and returns what is to be done about it. What clients
say is understood in `clients.requests`, what servers say in `servers.replies`; what becomes of servers is in
`servers.registry`, and the life of a call in `calls.dispatch`.
"""

from __future__ import annotations

import math

from broker.base.backlog import Backlog
from broker.base.metrics import Counters
from broker.base.secrets import Secrets
from broker.config.schema import Config, LimitsConfig, ServerConfig
from broker.core import refusals
from broker.core.calls.dispatch import Dispatch
from broker.core.calls.endings import Endings
from broker.core.clients.connections import Connections, Peer
from broker.core.clients.notifications import Notifications
from broker.core.clients.requests import Clients
from broker.core.effects import Effect, Effects, Level
from broker.core.refusals import Refusal
from broker.core.servers.lifecycle import Lifecycle
from broker.core.servers.registry import Registry
from broker.core.servers.replies import Replies
from broker.core.servers.server import Server


class Engine:
    """Connections, calls and links of one broker, and the rules between them.

    Args:
        config: what the broker was started with.
        lifecycles: every configured server's automaton, to read its state.
        instance: the id of this broker process, new at every start.
        version: the broker's version, for clients and servers to see.
        least: the least level that is logged.
    """

    def __init__(
        self,
        config: Config,
        lifecycles: dict[str, Lifecycle],
        *,
        instance: str,
        version: str,
        least: int = Level.DEBUG,
    ) -> None:
        self.instance = instance
        limits = config.limits
        self.servers = {
            name: Server(config.servers[name], lifecycles[name]) for name in sorted(config.servers)
        }
        self.mask = Secrets(self.servers)
        self._effects = Effects(least, self.mask)
        self.counters = Counters()
        self.connections = Connections(
            credit_bytes=limits.credit_bytes, outbox_bytes=limits.outbox_bytes, counters=self.counters
        )
        self.backlog = Backlog()
        self.dispatch = Dispatch(
            limits, self.servers, self.connections, self.counters, self._effects, self.backlog
        )
        self._endings = Endings(self.dispatch, self.servers, self.backlog, self.counters, self._effects)
        self.notifications = Notifications(
            self.servers, self.connections, self.counters, self._effects, self.backlog
        )
        self._replies = Replies(self.servers, self.dispatch, self.notifications, self.counters, self._effects)
        self._registry = Registry(
            self.servers,
            self._replies,
            self.dispatch,
            self._endings,
            self.backlog,
            self.notifications,
            self._effects,
            max_bytes=limits.max_message_bytes,
            client_info={"name": "mcp-broker", "version": version},
        )
        self._clients = Clients(
            limits,
            self.servers,
            self._registry,
            self.connections,
            self.dispatch,
            self.notifications,
            self.counters,
            self._effects,
            instance=instance,
            version=version,
        )

    @property
    def closing(self) -> bool:
        """Whether the broker is ending."""
        return self._clients.closing

    def refuse_new(self, now: float) -> list[Effect]:
        """The broker is ending: it takes no further clients and calls, and begins none of those that wait.

        A waiting call would be begun later, and cut off before its time. Refused now, it goes to the next
        broker.
        """
        self._clients.closing = True
        for server in self.servers.values():
            self._endings.refuse_unbegun(server, refusals.shutting_down(), now)
        return self._done(now)

    @property
    def under_way(self) -> int:
        """The number of requests that have not ended."""
        return len(self.dispatch.table) + self._clients.managing

    @property
    def is_drained(self) -> bool:
        """Whether every request has ended, and every answer has left for its client."""
        return not self.under_way and not self.connections.is_waiting

    @property
    def limits(self) -> LimitsConfig:
        """What bounds it."""
        return self._clients.limits

    # -- clients ----------------------------------------------------------------------------------

    def received(self, key: bytes, peer: Peer, header: bytes, body: bytes | None, now: float) -> list[Effect]:
        """A message came in on the connection `key`; `peer` is who the kernel says is at its end."""
        self._clients.received(key, peer, header, body, now)
        return self._done(now)

    def refill(self, key: bytes, now: float) -> list[Effect]:
        """Nothing is left to be read of a connection that had used up its credit."""
        self._clients.refill(key)
        return self._done(now)

    def malformed(self, key: bytes, why: str, now: float) -> list[Effect]:
        """A message came in that is none of the protocol, whatever its header says."""
        self._clients.malformed(key, why, now)
        return self._done(now)

    def managed(self, key: bytes, client_id: int, outcome: bytes | Refusal, now: float) -> list[Effect]:
        """A management request was carried out, or refused."""
        self._clients.managed(key, client_id, outcome, now)
        return self._done(now)

    def lost(self, key: bytes, now: float) -> list[Effect]:
        """The transport says that this connection is gone."""
        self._clients.lost(key, now)
        return self._done(now)

    def goodbye(self, reason: str, now: float) -> list[Effect]:
        """The broker is ending: every call and every connection ends first."""
        self._clients.goodbye(reason, now)
        return self._done(now)

    # -- the config -------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """What the configured servers are called."""
        return self._registry.names

    def adjust(self, limits: LimitsConfig) -> None:
        """The limits have changed, but for what clients were told of them."""
        self._clients.limits = self.dispatch.limits = limits

    def add(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        """A server is configured that was not."""
        self._registry.add(config, lifecycle)

    def retune(self, config: ServerConfig, now: float, *, renewed: bool = False) -> list[Effect]:
        """A server's table has changed; `renewed`: its next process will be of another kind."""
        self._registry.retune(config, now, renewed=renewed)
        return self._done(now)

    def withdraw(self, name: str, now: float) -> list[Effect]:
        """A server is no longer configured: it takes no further calls."""
        self._registry.withdraw(name, now)
        return self._done(now)

    def remove(self, name: str, now: float) -> list[Effect]:
        """The process of a server is gone that is no longer configured."""
        self._registry.remove(name, now)
        return self._done(now)

    # -- servers, and time ------------------------------------------------------------------------

    def spawned(self, name: str, now: float) -> list[Effect]:
        """A new process of this server is there."""
        self._registry.spawned(name, now)
        return self._done(now)

    def heard(self, name: str, now: float) -> None:
        """The server wrote to its stderr."""
        self._registry.heard(name, now)

    def taken(self, name: str, now: float) -> None:
        """The server has read all that was written to its stdin."""
        self._registry.taken(name, now)

    def hint(self, name: str) -> str:
        """What may explain that the server is not ready yet; empty if there is nothing to say."""
        return self._registry.hint(name)

    def line(self, name: str, line: bytes, now: float) -> list[Effect]:
        """The server wrote this line to its stdout."""
        self._replies.line(name, line, now)
        return self._done(now)

    def congested(self, name: str, congested: bool, now: float) -> list[Effect]:
        """The server has stopped reading its stdin, or has begun again."""
        self._registry.congested(name, congested, now)
        return self._done(now)

    def resume(self, name: str, now: float) -> list[Effect]:
        """The server is not to be stopped after all: it is given calls again."""
        server = self.servers[name]
        server.queue.paused = False
        self.dispatch.pump(server, now)
        return self._done(now)

    def probing(self, name: str) -> bool:
        """Whether an exit of this server now means that it is of the older era."""
        return self._registry.probing(name)

    def gone(self, name: str, reason: str, now: float) -> list[Effect]:
        """The server's process ends, or has ended, for this reason."""
        self._registry.gone(name, reason, now)
        return self._done(now)

    def rests(self, name: str, now: float) -> list[Effect]:
        """The server has no process, and its lifecycle says when it will have one again."""
        self._registry.rests(name, now)
        return self._done(now)

    def wake_at(self) -> float | None:
        """When `tick` is due next; `None` while nothing waits."""
        if self.backlog:
            return -math.inf
        times = (self.dispatch.table.next_deadline(), self._registry.wake_at())
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        self.backlog.go_on()
        self._endings.expire(now)
        self._registry.tick(now)
        return self._done(now)

    def _done(self, now: float) -> list[Effect]:
        self._clients.close_overflowing(now)
        return self._effects.take()
