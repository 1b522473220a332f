"""The engine: builds the parts of the core and connects them. No I/O.

A step of the engine is one call of a part (`clients`, `replies`, `registry`, or `tick`) with the current
time, followed by `finish`, which returns the effects. Each part appends its effects to one shared list.
Messages of clients are handled in `clients.messages`, lines of servers in `servers.replies`, events of the
config and of processes in `servers.registry`, and the life of a call in `calls.dispatch`.
"""

from __future__ import annotations

import math

from broker.base.backlog import Backlog
from broker.base.metrics import Counters
from broker.base.rate_limit import soonest
from broker.base.secrets import Secrets
from broker.config.schema import Config
from broker.core import refusals
from broker.core.calls.bulk_endings import BulkEndings
from broker.core.calls.dispatch import Dispatch
from broker.core.clients.connections import Connections
from broker.core.clients.messages import Clients
from broker.core.clients.notifications import Notifications
from broker.core.effects import Effect, Effects, Level
from broker.core.servers.budget import Budget
from broker.core.servers.lifecycle import Lifecycle
from broker.core.servers.oddities import Oddities
from broker.core.servers.registry import Registry
from broker.core.servers.replies import Replies
from broker.core.servers.server import Server


class Engine:
    """All parts of one broker's core.

    Args:
        config: the current config. A reload replaces it whole (`configure`); nobody else keeps a copy.
        lifecycles: the automaton of each configured server; the engine only reads its state.
        instance: the id of this broker process, new at every start.
        version: the broker's version, which clients and servers are told.
        least: the lowest level that is logged.
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
        self.config = config
        limits = config.limits
        self.servers = {
            name: Server(config.servers[name], lifecycles[name]) for name in sorted(config.servers)
        }
        self.mask = Secrets(self.servers)
        self.effects = Effects(least, self.mask)
        self.counters = Counters()
        self.connections = Connections(
            credit_bytes=limits.credit_bytes, outbox_bytes=limits.outbox_bytes, counters=self.counters
        )
        self.backlog = Backlog()
        self.budget = Budget(
            config, self.servers, lambda one: self.registry.is_used(one), self.counters, self.effects
        )
        self.dispatch = Dispatch(
            limits,
            self.servers,
            self.connections,
            self.counters,
            self.effects,
            self.backlog,
            self.budget,
        )
        self.bulk_endings = BulkEndings(
            self.dispatch, self.servers, self.backlog, self.counters, self.effects
        )
        self.notifications = Notifications(
            self.servers, self.connections, self.counters, self.effects, self.backlog
        )
        oddities = Oddities(self.counters, self.effects)
        self.replies = Replies(
            self.servers,
            self.dispatch,
            self.notifications,
            oddities,
            self.counters,
            self.effects,
            self.backlog,
            self.budget,
        )
        self.registry = Registry(
            self.servers,
            self.replies,
            self.dispatch,
            self.bulk_endings,
            self.backlog,
            self.notifications,
            oddities,
            self.effects,
            self.budget,
            max_bytes=limits.max_message_bytes,
            client_info={"name": "mcp-broker", "version": version},
        )
        self.clients = Clients(
            limits,
            config.authorized,
            self.servers,
            self.registry,
            self.bulk_endings,
            self.connections,
            self.dispatch,
            self.notifications,
            self.counters,
            self.effects,
            self.backlog,
            instance=instance,
            version=version,
        )

    def refuse_new(self, now: float) -> None:
        """Refuse new clients and calls from now on, and end the calls that no server has begun.

        A waiting call would be begun later and cut off. Refused now, it goes to the next broker.
        """
        self.clients.closing = True
        for server in self.servers.values():
            self.bulk_endings.refuse(server, refusals.shutting_down(), now, begun=False)

    @property
    def under_way(self) -> int:
        """The number of requests that have not ended."""
        return len(self.dispatch.table) + len(self.clients.requests.managing)

    @property
    def is_drained(self) -> bool:
        """Whether every request has ended, and every answer has left for its client."""
        return not self.under_way and not self.connections.is_waiting

    def configure(self, config: Config) -> None:
        """Replace the config. Its limits hold at once, except for those that clients were told in the
        welcome.

        Each server gets its table here, and nowhere else; `registry.retune` does what follows from that.
        """
        self.config = config
        self.budget.configure(config)
        self.clients.limits = self.dispatch.limits = config.limits
        self.clients.authorized = config.authorized
        for name in self.servers.keys() & config.servers.keys():
            self.servers[name].configure(config.servers[name])

    def wake_at(self) -> float | None:
        """Return when `tick` is due next, or `None` if nothing is due."""
        if self.backlog:
            return -math.inf
        deadline, question = self.dispatch.table.next_deadline(), self.dispatch.questions.wake_at
        return soonest((deadline, question, self.registry.wake_at()))

    def tick(self, now: float) -> None:
        """Do what is due at this time."""
        self.backlog.go_on()
        self.dispatch.questions.tick(now)
        self.bulk_endings.expire(now)
        self.registry.tick(now)

    def finish(self, now: float) -> list[Effect]:
        """End a step: close clients whose outbox overflows, have the budget look if something has changed,
        and return all effects of the step."""
        if self.connections.overflowing:
            self.clients.close_overflowing(now)
        if self.budget.is_due:
            self.budget.look(now)
        effects = self.effects[:]
        self.effects.clear()
        return effects
