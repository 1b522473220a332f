"""The life of a call: admitted, waiting in the queue, at its server, ended.

A call has a row in `CallTable` from `accept` on, waits in the `FairQueue` of its server, and leaves by
`_end`, whatever its ending is.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.base.backlog import PIECES, Backlog, Job, JobKey
from broker.base.metrics import Counters
from broker.base.text import clip
from broker.config.limits import LimitsConfig
from broker.core import refusals
from broker.core.calls import questions, retry
from broker.core.calls.leases import Leases
from broker.core.calls.pending_lists import LONGEST_WAIT_S
from broker.core.calls.questions import Questions
from broker.core.calls.table import Call, CallTable
from broker.core.clients.connections import Body, Connection, Connections, Slot
from broker.core.effects import Demand, Effects, Level, Write
from broker.core.mcp import jsonrpc
from broker.core.mcp.jsonrpc import Params, ServerReply
from broker.core.mcp.meta import LOG_LEVEL, client_meta
from broker.core.mcp.methods import FROM_MEMORY, Era
from broker.core.refusals import Blame, Refusal
from broker.core.servers import availability
from broker.core.servers.availability import When
from broker.core.servers.budget import Budget
from broker.core.servers.catalogue import LISTS
from broker.core.servers.server import Server
from client_shim import wire
from client_shim.wire import Code

MAX_LOG_WAITING = 256
"""The number of log messages of one call that may wait for its client. Beyond it the oldest is dropped."""

PUMPED_BYTES = 1024 * 1024
"""The bytes of params that a server is given in one step. The next one knows whether it reads them."""


class Dispatch:
    """The open calls: admits them, sends them to servers, and ends them."""

    def __init__(
        self,
        limits: LimitsConfig,
        servers: dict[str, Server],
        connections: Connections,
        counters: Counters,
        effects: Effects,
        backlog: Backlog,
        budget: Budget,
    ) -> None:
        self.limits = limits
        self._servers = servers
        self._connections = connections
        self._counters = counters
        self._effects = effects
        self._backlog = backlog
        self._budget = budget
        self.table = CallTable()
        self.questions = Questions(servers, self.table, connections, counters, effects)
        self.leases = Leases(servers, connections, counters, effects, self.freed)

    def accept(
        self,
        server: Server,
        connection: Connection,
        request: wire.Request,
        params: Params,
        now: float,
        list_by: float | None = None,
    ) -> Refusal | None:
        """Open a call, or return why not. `list_by`: until when it waits for a list that is being made."""
        given_ms = request.timeout_ms
        timeout_s = server.config.timeout if given_ms is None else max(0, given_ms) / 1000
        served = server.opened or list_by is not None
        available = When.NOW if served else availability.when(server, now + timeout_s, now)
        if available is When.TOO_LATE:
            return availability.not_ready(server.name, server.lifecycle, now)
        channel_key = (connection.key, request.channel)
        limit = self.table.exceeded(self.limits, channel_key, len(params.body))
        if limit is not None:
            return refusals.busy(limit, getattr(self.limits, limit))
        if available is When.ON_DEMAND:
            self._effects.append(Demand(server.name))
        token = request.meta.get("progressToken") if request.meta else None
        call = Call(
            id=self.table.new_id(),
            channel_key=channel_key,
            connection=connection.key,
            client_pid=connection.peer.pid,
            channel=request.channel,
            client_id=request.id,
            server=server.name,
            method=request.method,
            name=params.name,
            body=params.body,
            meta=request.meta,
            wants_progress=bool(request.flags & wire.WANTS_PROGRESS) or token is not None,
            extends=bool(request.flags & wire.PROGRESS_EXTENDS),
            token=token if isinstance(token, (int, str)) else request.id,
            timeout_s=timeout_s,
            deadline=now + timeout_s,
            since=now,
            answers=params.answers,
            wants_log=LOG_LEVEL in (request.meta or ()),
            takes=questions.answered_methods(request),
            unclear=params.unclear,
            from_memory=request.method in FROM_MEMORY,
        )
        self.table.add(call)
        if list_by is not None:
            server.pending_lists.join(call, list_by)
        elif available is When.NOW and server.queue.enter(call):
            self._serve(server, call, now)
        else:
            server.queue.join(call)
            self.pump(server, now)
        return None

    def reread(self, server: Server, method: str, now: float) -> float | None:
        """Read a stale list again; return until when a call should wait for it, `None` to take the old one.

        One reading is for all calls, and no call waits for a reading that takes too long.
        """
        if server.is_veiled:
            return now + LONGEST_WAIT_S
        if not server.is_stale(method, now):
            return None
        assert server.session is not None
        effects, until = server.session.reread(method, now)
        self._effects += effects
        return until if until is not None and until > now else None

    def answer_lists(self, server: Server, method: str | None, now: float) -> None:
        """Answer the calls that wait for a list, which was read or will not be read."""
        for one in server.pending_lists.methods if method is None else (method,):
            if not server.is_veiled:  # else they are answered when it no longer is
                job = self._answer_askers(server, one, now)
                self._backlog.begin(JobKey("list", server.name, detail=one), job)

    def _answer_askers(self, server: Server, method: str, now: float) -> Job:
        listing = server.catalogue.answer(method, now) if server.catalogue else None
        for call in server.pending_lists.of(method):
            if call in server.pending_lists:
                self._list(call, listing, now)
                yield

    def pump(self, server: Server, now: float) -> None:
        """Give the server its next calls. What is too much for one step follows in the next."""
        pieces, size = 0, 0
        while server.queue.waiting and server.opened:
            if pieces >= PIECES or size > PUMPED_BYTES:
                self._backlog.leave(JobKey("pump", server.name), self._pump_later(server, now))
                return
            call = server.queue.next()
            if call is None:
                return
            pieces, size = pieces + 1, size + len(call.body)
            if call.deadline <= now or call.abandoned:
                server.queue.rejoin(call)
                self._pass_over(call, now)
            else:
                self._serve(server, call, now)

    def freed(self, server: Server, now: float) -> None:
        """Give the server its next calls after a place or a lease has become free; it may be idle by now."""
        self.pump(server, now)
        self._budget.use_ended(server)

    def _pump_later(self, server: Server, now: float) -> Job:
        self.pump(server, now)
        yield

    def _pass_over(self, call: Call, now: float) -> None:
        """End a call whose time is up or whose client is gone, before the job that ends it gets there."""
        if call.deadline <= now:
            self.overdue(call, now)
        else:
            self.give_up(call, now)

    def _serve(self, server: Server, call: Call, now: float) -> None:
        assert server.session is not None
        assert server.catalogue is not None
        if call.method in LISTS and (until := self.reread(server, call.method, now)) is not None:
            server.queue.stand_aside()
            server.pending_lists.join(call, until)
            return
        body, meta = call.body, call.meta
        call.no_retry = retry.no_retry(
            call.method,
            repeatable_tool=server.catalogue.may_repeat_tool(call.name),
            answers=call.answers,
            stateful=server.config.keeps_state,
        )
        self.table.mark_sent(call, now)
        if call.method in LISTS or call.method == "server/discover":
            self._list(call, server.catalogue.answer(call.method, now), now)
        elif call.method == "ping":
            self._end(call, wire.Result(call.channel, call.client_id), b"{}", now)
        elif server.visible is not None and (
            hidden := server.visible.refusal(call, body, server.catalogue.names("tools/list"))
        ):
            self.fail(call, hidden, now)
        elif call.method == "tools/call" and not server.catalogue.may_have_tool(call.name):
            names = server.catalogue.names("tools/list")
            self.fail(call, refusals.unknown_tool(call.server, call.name or "", names), now)
            self._effects += server.session.refresh("tools/list", now)  # it may have changed unannounced
        else:
            if server.queue.lease_s is not None:
                self.leases.grant(server, call, now)
            server.calls += not call.deaths
            token = call.id if call.wants_progress else None
            era = server.catalogue.agreed.era
            meta = client_meta(meta, token, era, server.session.client_info)
            if server.asks_within_calls if era is Era.LEGACY else call.wants_log:
                server.attribution.begin(call)
            self._effects.append(Write(call.server, jsonrpc.request_line(call.id, call.method, body, meta)))

    def reply(self, call: Call, reply: ServerReply, now: float) -> None:
        """End a call with the reply of the server, whose bytes pass as they are."""
        server = self._servers[call.server]
        server.latency.add(now - call.since)
        if reply.result is not None:
            self._end(call, wire.Result(call.channel, call.client_id), reply.result, now)
        else:
            server.errors += 1
            self._end(call, wire.Error(call.channel, call.client_id), reply.error, now)
        if server.queue.waiting:
            self.pump(server, now)

    def progress(self, call: Call, body: bytes, now: float) -> None:
        """Send progress to the client of a call."""
        if call.extends:
            self.table.extend(call, now)
        message = wire.Notification(call.channel, call.client_id, call.server, "notifications/progress")
        self._post(call, message, body, slot=("progress", call.id))

    def log_message(self, call: Call, body: bytes) -> None:
        """Send a log message of the server to the client of a call."""
        call.logged += 1
        message = wire.Notification(call.channel, call.client_id, call.server, "notifications/message")
        slot = ("log", call.id, call.logged)
        oldest = ("log", call.id, call.logged - MAX_LOG_WAITING)
        self._post(call, message, body, slot=slot, instead_of=oldest)

    def _post(self, call: Call, message: wire.Message, body: Body, **slots: Slot) -> None:
        """Send a message about a call to its client, unless the client is gone."""
        connection = self._connections.get(call.connection)
        if connection is not None:
            post = self._connections.post(connection, message, body, **slots)
            if post is not None:
                self._effects.append(post)

    def _list(self, call: Call, listing: bytes | None, now: float) -> None:
        if listing is None:
            self.fail(call, refusals.no_list(call.server, call.method), now)
        else:
            self._end(call, wire.Result(call.channel, call.client_id), listing, now)

    def fail(self, call: Call, refusal: Refusal, now: float) -> None:
        """End a call with a refusal by the broker."""
        self._servers[call.server].errors += refusal.code is not Code.CANCELLED
        self._counters.add(f"refused.{refusal.code.value}")
        self._end(call, fault(call.channel, call.client_id, refusal, self._effects.mask), None, now)

    def _end(self, call: Call, ending: wire.Message | None, body: Body, now: float) -> None:
        """End a call. `ending` goes to its client, unless the client is gone."""
        server = self._servers[call.server]
        server.leave(call)
        self._budget.use_ended(server)
        if server.queue.lease is not None:
            server.queue.use_lease(call, now)
        server.used_at = server.used_at if call.from_memory else now
        if call.sent:
            server.ended.append(call.id)
            self.questions.call_ends(call, now, is_told=ending is not None)
        self.table.end(call)
        if ending is not None:
            self._post(call, ending, body)
        outcome = _outcome(ending)
        server.outcomes.add(outcome)
        if self._effects.is_logged(Level.DEBUG):
            self._effects.log(
                Level.DEBUG,
                "call.ended",
                server=call.server,
                method=clip(call.method),
                tool=call.name and clip(call.name),
                outcome=outcome,
                ms=round((now - call.since) * 1000, 3),
                client_pid=call.client_pid,
            )

    def cancel(self, call: Call, now: float) -> None:
        """End a call that its client has cancelled."""
        self.cancel_upstream(call, "the client cancelled it", now)
        self.fail(call, refusals.cancelled(), now)
        self.pump(self._servers[call.server], now)

    def give_up(self, call: Call, now: float) -> None:
        """End a call whose client is gone."""
        self.cancel_upstream(call, "the client is gone", now)
        self._end(call, None, None, now)

    def cancel_upstream(self, call: Call, reason: str, now: float) -> None:
        """Tell the server that the answer is no longer wanted, if it has the call."""
        server = self._servers[call.server]
        if call.sent and not call.orphaned and server.opened:
            server.give_up(call, now)
            params = {"requestId": call.id, "reason": reason}
            line = jsonrpc.notification_line("notifications/cancelled", params)
            self._effects.append(Write(call.server, line))
            self._effects += server.ping_behind(call)

    def overdue(self, call: Call, now: float) -> None:
        """End a call whose time is up."""
        server = self._servers[call.server]
        if call in server.pending_lists:  # it gets the old list
            self._list(call, server.catalogue.answer(call.method, now) if server.catalogue else None, now)
            return
        refusal = availability.not_in_time(call, server, now)
        if call.sent and server.health is not None:
            server.health.missed()
        self.cancel_upstream(call, "its time was up", now)
        self.fail(call, refusal, now)


def _outcome(ending: wire.Message | None) -> str:
    """Return `result`, `error` of the server, `dropped` if the client is gone, or the code of the refusal."""
    return ending.code if isinstance(ending, wire.Fault) else _OUTCOMES[type(ending)]


_OUTCOMES = {wire.Result: "result", wire.Error: "error", type(None): "dropped"}


def fault(channel: int, id: int, refusal: Refusal, mask: Callable[[str], str]) -> wire.Fault:
    """Return a refusal as it travels.

    It may quote the server, so secrets are masked. A refusal for the caller's own mistake quotes only the
    caller, and a flood of those must cost little.
    """
    if refusal.blame is Blame.CALLER:
        return wire.Fault(channel, id, refusal.code.value, refusal.message, refusal.data())
    data = {name: mask(value) if isinstance(value, str) else value for name, value in refusal.data().items()}
    return wire.Fault(channel, id, refusal.code.value, mask(refusal.message), data)
