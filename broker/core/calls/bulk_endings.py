"""Ends many calls at once: their time is up, their client is gone, or their server has died.

There may be as many as `calls` in `[limits]`, so they end in pieces (see `backlog`). Each ends once; anything
that happens to a call between two pieces comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.base.backlog import Backlog, Job, JobKey
from broker.base.metrics import Counters
from broker.core import refusals
from broker.core.calls import retry
from broker.core.calls.dispatch import Dispatch
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import Call
from broker.core.effects import Effects, Level
from broker.core.refusals import Refusal
from broker.core.servers import availability
from broker.core.servers.server import Server


class BulkEndings:
    """Ends many calls at once, in pieces.

    Args:
        dispatch: the open calls.
        servers: each server by its name.
        backlog: does the further pieces in later steps.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        servers: dict[str, Server],
        backlog: Backlog,
        counters: Counters,
        effects: Effects,
    ) -> None:
        self._dispatch = dispatch
        self._servers = servers
        self._backlog = backlog
        self._counters = counters
        self._effects = effects

    # -- their time is up -------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """End the calls whose time is up, then dispatch waiting calls."""
        due = self._dispatch.table.next_deadline()
        if due is not None and due <= now:
            self._backlog.begin(JobKey("expire"), self._expire(now))

    def _expire(self, now: float) -> Job:
        names = set()
        for call in self._dispatch.table.expired(now):
            names.add(call.server)
            self._dispatch.overdue(call, now)
            yield
        self._pump(names, now)

    def _pump(self, names: set[str], now: float) -> None:
        for name in sorted(names & self._servers.keys()):
            self._dispatch.pump(self._servers[name], now)

    # -- their client is gone ---------------------------------------------------------------------

    def release(self, connection: bytes, channel: int | None, now: float) -> None:
        """End the calls and leases of a connection that is gone, or of one of its channels."""
        calls = self._dispatch.table.of_client(connection, channel)
        for call in calls:
            call.abandoned = True
        if calls:
            self._backlog.begin(JobKey("release", detail=calls[0].id), self._release(calls, now))
        self._dispatch.leases.channel_closed(connection, channel, now)

    def _release(self, calls: list[Call], now: float) -> Job:
        names = set()
        for call in self._still_open(calls):
            names.add(call.server)
            self._dispatch.give_up(call, now)
            yield
        self._pump(names, now)

    def _still_open(self, calls: Iterable[Call]) -> Iterator[Call]:
        """Return those of these calls that have not ended when it is their turn."""
        return (call for call in calls if self._dispatch.table.by_id(call.id) is call)

    # -- their server is over ---------------------------------------------------------------------

    def server_died(self, server: Server, reason: str, now: float) -> None:
        """End the calls that a dead process had, or send them again; waiting calls go on waiting."""
        had = [
            call for call in self._dispatch.table.of_server(server.name) if call.sent and not call.orphaned
        ]
        stopping = server.lifecycle.stopping or server.withdrawn
        for call in had:
            call.orphaned, call.deaths, call.death = True, call.deaths + 1, reason
        if had:
            key = JobKey("died", server.name, detail=had[0].id)
            self._backlog.begin(key, self._bury(server, had, stopping, now))

    def _bury(self, server: Server, had: list[Call], stopping: bool, now: float) -> Job:
        lost = again = 0
        gone = server.session
        for call in self._still_open(reversed(had)):  # each that is sent again goes to the front
            why = retry.at_death(call.no_retry, call.deaths, stopping=stopping)
            if why is None:
                again += 1
                self._dispatch.table.mark_lost(call)
                server.queue.rejoin(call)
            else:
                lost += 1
                self._dispatch.fail(call, refusals.died(call, why), now)
            yield
        server.lost += lost
        server.again += again
        self._counters.add("calls.again", again)
        level = Level.WARNING if lost else Level.INFO
        self._effects.log(level, "server.had_calls", server=server.name, lost=lost, again=again)
        if server.session is not gone:  # the next process is there already
            self._dispatch.pump(server, now)
        if again:
            self.server_rests(server, now)

    def refuse(self, server: Server, refusal: Refusal, now: float, *, begun: bool = True) -> None:
        """End the calls that wait for a server; without `begun`, only those that no process ever had."""
        calls = [call for call in self._dispatch.table.of_server(server.name) if not call.sent]

        def job() -> Job:
            for call in self._still_open(calls):
                if not call.sent and (begun or not call.begun):
                    why = refusals.died(call, NoRetry.STOPPED) if call.begun else refusal
                    self._dispatch.fail(call, why, now)
                    yield

        self._backlog.begin(JobKey("refuse", server.name, detail=begun), job())

    def server_rests(self, server: Server, now: float) -> None:
        """End the calls that cannot wait until the server is started again."""
        calls = self._dispatch.table.of_server(server.name)

        def job() -> Job:
            for call in self._still_open(calls):
                if not call.orphaned and availability.is_too_late(server.lifecycle, call.deadline):
                    self._dispatch.fail(call, availability.not_served(call, server, now), now)
                    yield

        self._backlog.begin(JobKey("rests", server.name), job())
