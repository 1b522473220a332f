"""Registry of the configured servers: applies the events of the config and of their processes.

The lines of a process are handled in `replies`.
"""

from __future__ import annotations

from collections.abc import Collection

from broker.base.backlog import Backlog, HeavyJob, JobKey
from broker.base.rate_limit import soonest
from broker.base.tolerances import Oddity, Tolerated
from broker.config.schema import ServerConfig
from broker.core.calls.bulk_endings import BulkEndings
from broker.core.calls.dispatch import Dispatch
from broker.core.clients.notifications import NOT_THERE, Notifications
from broker.core.effects import Demand, Effects, EndProcess, Idle, Level
from broker.core.mcp.methods import Era
from broker.core.servers import availability
from broker.core.servers.budget import Budget
from broker.core.servers.catalogue import Catalogue
from broker.core.servers.health import Health, HealthVerdict
from broker.core.servers.kept import KeptCatalogue
from broker.core.servers.lifecycle import Lifecycle
from broker.core.servers.oddities import Oddities
from broker.core.servers.replies import Replies
from broker.core.servers.server import Server
from broker.core.servers.session import McpSession


class Registry:
    """The configured servers.

    Args:
        table: the servers by name; only the registry changes it.
        replies: applies what the sessions did.
        dispatch: the open calls.
        bulk_endings: ends many calls at once.
        backlog: the unfinished jobs.
        notifications: tells the channels that subscribed.
        oddities: counts and logs what servers send that is odd or dropped.
        budget: is told when a use of a server ends.
        max_bytes: the limit of one list of a server.
        client_info: the broker's name and version for servers.
    """

    def __init__(
        self,
        table: dict[str, Server],
        replies: Replies,
        dispatch: Dispatch,
        bulk_endings: BulkEndings,
        backlog: Backlog,
        notifications: Notifications,
        oddities: Oddities,
        effects: Effects,
        budget: Budget,
        *,
        max_bytes: int,
        client_info: dict[str, str],
    ) -> None:
        self._table = table
        self._replies = replies
        self._dispatch = dispatch
        self._bulk_endings = bulk_endings
        self._backlog = backlog
        self._notifications = notifications
        self._oddities = oddities
        self._effects = effects
        self._budget = budget
        self._max_bytes = max_bytes
        self._client_info = client_info

    @property
    def names(self) -> list[str]:
        """The names of the configured servers."""
        return [name for name, server in self._table.items() if not server.withdrawn]

    # -- what the config says ---------------------------------------------------------------------

    def add(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        """Add a server that is newly configured."""
        server = Server(config, lifecycle)
        server.awaited = bool(self._uris(server))
        rows = sorted({**self._table, config.name: server}.items())
        self._table.clear()
        self._table.update(rows)

    def restore(self, name: str, kept: KeptCatalogue) -> None:
        """Answer the lists of a server from what an earlier broker kept, until its process is ready."""
        server = self._table[name]
        server.catalogue = kept.catalogue(server.visible)
        server.remembered = kept.era

    def renew(self, name: str, now: float) -> None:
        """Follow the changed table of a server, whose next process will be another program."""
        self._table[name].outdated = True
        self.retune(name, now)

    def retune(self, name: str, now: float) -> None:
        """Follow the changed table of a server, whose next process will be the same program."""
        server = self._table[name]
        if server.outdated and server.session is None:
            server.forget()
        self._show(server, now)
        if (refusal := availability.never(server)) is not None:
            self._bulk_endings.refuse(server, refusal, now)
        self._dispatch.leases.retune(server, now)
        self._dispatch.pump(server, now)

    def _show(self, server: Server, now: float) -> None:
        """Follow the filters of its table: lists, calls and subscriptions, from now on."""
        subscribed = self._notifications.subscriptions.uris(server.name)
        before = set(self._uris(server))
        if catalogues := server.show():
            key = JobKey("sift", server.name)
            self._backlog.drop(key)  # it would compare them with the filters before
            self._backlog.begin(key, self._sift(server, catalogues, now))
        allowed = set(self._uris(server))
        if allowed != before:
            self._notifications.unheard(server.name, sorted(before - allowed), NOT_THERE)
            self._notifications.missed(server.name, sorted((allowed - before) & subscribed))
            self.want([server.name], now)
        if not server.is_veiled:
            self._oddities.note_patterns(server)

    def _sift(self, server: Server, catalogues: list[Catalogue], now: float) -> HeavyJob:
        """Compare the lists with other filters; then tell clients of the changes, and answer who waits."""
        for catalogue in catalogues:
            changed = yield from catalogue.show()
            for notification in changed if catalogue is server.known else ():
                self._notifications.list_changed(server.name, notification)
        self._oddities.note_patterns(server)
        for method in server.pending_lists.methods:
            if server.session is None or not server.session.is_reading(method):
                self._dispatch.answer_lists(server, method, now)

    def _uris(self, server: Server) -> Collection[str]:
        """Return the resources that clients have subscribed to, of those that they may see."""
        uris = self._notifications.subscriptions.uris(server.name)
        visible = server.visible
        return uris if visible is None else [uri for uri in uris if visible.allows_uri(uri)]

    def withdraw(self, name: str, now: float) -> None:
        """Take no further calls for a server that is no longer configured; the calls that it has go on."""
        server = self._table[name]
        server.withdrawn = True
        self._bulk_endings.refuse(server, availability.removed(name), now)

    def remove(self, name: str, now: float) -> None:
        """Remove a server whose process is gone, with all that was known of it."""
        server = self._table[name]
        self._bulk_endings.server_died(server, _why(server, "it was stopped"), now)
        self._bulk_endings.refuse(server, availability.removed(name), now)
        self._backlog.finish(name)
        del self._table[name]
        self._budget.changed(now)
        if server.known is not None:
            for notification in server.known.changes_since(None):
                self._notifications.list_changed(name, notification)
        if server.withdrawn:
            self._notifications.removed(
                name, f"{availability.REMOVED}; it is heard again when a reload brings it back"
            )

    # -- what happens to it -----------------------------------------------------------------------

    def spawned(self, name: str, now: float) -> None:
        """Begin the session with a new process."""
        server = self._table[name]
        server.queue.paused = False
        server.begin()
        server.session = McpSession(
            lambda: server.config,
            server.remembered,
            self._dispatch.table.new_id,
            self._max_bytes,
            self._client_info,
            uris=self._uris(server),
            again=server.known is not None or server.awaited,
            spared=server.spared,
            visible=lambda: server.visible,
        )
        self._replies.apply(server, server.session, server.session.greet(now), now)

    def want(self, names: Collection[str], now: float) -> None:
        """Subscribe at these servers to what clients want now."""
        for name in sorted(names):
            server = self._table.get(name)  # it may have been removed since they subscribed
            if server is not None:
                self._use(server, now)
            if server is not None and server.session is not None:
                did = server.session.want(self._uris(server), now)
                self._replies.apply(server, server.session, did, now)
            if server is not None:
                self._budget.use_ended(server)

    def _use(self, server: Server, now: float) -> None:
        """Note that clients use it; whoever subscribes to a resource of an idle server has it started."""
        server.used_at = now
        if server.lifecycle.idle and self._uris(server):
            self._effects.append(Demand(server.name))

    def heard(self, name: str, now: float) -> None:
        """Note that a starting server shows signs of life: it wrote to its stderr."""
        session = self._table[name].session
        if session is not None:
            session.heard(now)

    def congested(self, name: str, congested: bool, now: float) -> None:
        """Hold its calls while it does not read its stdin."""
        server = self._table[name]
        server.queue.held = congested
        self._dispatch.pump(server, now)

    def suspend(self, name: str, _now: float) -> None:
        """Give it no more calls: its process must end."""
        self._table[name].queue.paused = True

    def resume(self, name: str, now: float) -> None:
        """Give it calls again: it is not to be stopped after all."""
        server = self._table[name]
        server.queue.paused = False
        self._dispatch.freed(server, now)

    def gone(self, name: str, reason: str, now: float) -> None:
        """End its session and its calls: its process ends, or has ended, for this reason."""
        server = self._table[name]
        if server.session is not None:
            server.spared |= set(server.session.unbearable(server.lifecycle.failing))
        if server.session is not None and not server.session.opened:
            self._not_opened(server, server.session)
        self._replies.process_gone(name)
        server.forget_process()
        self._dispatch.questions.process_gone(server, now)
        self._dispatch.leases.process_gone(server, now)
        self._bulk_endings.server_died(server, _why(server, reason), now)
        self._dispatch.answer_lists(server, None, now)
        if server.outdated:
            server.forget()

    def _not_opened(self, server: Server, session: McpSession) -> None:
        """Remember whether the next process must start without the era probe: this one may have failed at it.

        An era that was remembered and failed is forgotten.
        """
        again = server.lifecycle.respawning
        server.remembered = Era.LEGACY if again or session.probe_refused else None
        if again:
            self._oddities.tolerate(
                server, Tolerated(Oddity.PROBE_HANG if session.hung else Oddity.PROBE_EXIT)
            )

    def taken(self, name: str, now: float) -> None:
        """Note that a starting server has read all that was written to its stdin."""
        session = self._table[name].session
        if session is not None:
            session.taken(now)

    def rests(self, name: str, now: float) -> None:
        """End or keep its waiting calls: it has no process, and its lifecycle says when the next starts."""
        server = self._table[name]
        self._bulk_endings.server_rests(server, now)
        if server.lifecycle.idle and self.is_used(server):
            self._effects.append(Demand(name))

    def wake_at(self) -> float | None:
        """Return when `tick` is due next."""
        return soonest([server.wake_at for server in self._table.values()])

    def tick(self, now: float) -> None:
        """Do what is due for each server."""
        for server in self._table.values():
            if server.session is not None:
                self._replies.apply(server, server.session, server.session.tick(now), now)
            for method in server.pending_lists.overdue(now):
                self._effects.log(Level.WARNING, "catalogue.stale", server=server.name, list=method)
                self._dispatch.answer_lists(server, method, now)
            self._dispatch.leases.tick(server, now)
            if server.queue.tick(now):
                self._oddities.discard(server, "never.replied")
                self._dispatch.freed(server, now)
            if server.health is not None and server.session is not None:
                self._look_after(server, server.session, server.health, now)
            if server.idle_at is not None and server.idle_at <= now:
                self._end_idle(server, now)

    def _end_idle(self, server: Server, now: float) -> None:
        """End a process that nobody has used for `idle_stop_sec`, or look again after that time."""
        if self.is_used(server) or (server.session is not None and server.session.has_request):
            server.used_at = now
        else:
            self._effects.append(Idle(server.name))

    def is_used(self, server: Server) -> bool:
        """Return whether it has a call, a lease or a subscription, or may still work on a cancelled call."""
        queue = server.queue
        has_calls = queue.running or server.is_wanted
        return bool(has_calls or queue.reserved or queue.lease or self._uris(server))

    def _look_after(self, server: Server, session: McpSession, health: Health, now: float) -> None:
        """Send a health check to a server that has long been silent, and replace one that did not answer."""
        verdict = health.look(now, lambda before: self._dispatch.table.busy_until(server.name, before, now))
        if verdict is HealthVerdict.ASK:
            id, line = session.check()
            health.asked(id)
            self._effects.append(line)
            self._effects.log(
                Level.DEBUG,
                "server.health_check",
                server=server.name,
                silent_s=round(health.silent_s(now), 3),
            )
        elif verdict is HealthVerdict.HUNG:
            reason = f"it answered neither calls nor health checks for {health.silent_s(now):.0f} s"
            self._effects.append(EndProcess(server.name, reason))


def _why(server: Server, reason: str) -> str:
    return availability.REMOVED if server.withdrawn else reason
