"""Handles the lines of servers: replies, notifications, requests, and lines that are no message.

A reply belongs to a call or to a request of the session. Nothing is guessed: a reply that names no open call
of the same server is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.base.backlog import PIECES, Backlog, HeavyJob, JobKey
from broker.base.metrics import Counters
from broker.base.text import clip
from broker.base.tolerances import Oddity, Tolerated
from broker.core import refusals
from broker.core.calls.dispatch import Dispatch
from broker.core.calls.questions import Unanswered
from broker.core.calls.table import Call
from broker.core.clients.notifications import NOT_SUBSCRIBED, UPDATED, Notifications
from broker.core.effects import Effects, EndProcess, Level, LogOutput, Opened, Write
from broker.core.mcp import jsonrpc, lines
from broker.core.mcp.jsonrpc import Id, Message, Noise, ServerNotification, ServerReply, ServerRequest
from broker.core.mcp.methods import Era
from broker.core.mcp.notifications import progress_body, read_progress, read_request_id, read_uri
from broker.core.mcp.pieces import LONG_BYTES
from broker.core.servers.budget import Budget
from broker.core.servers.catalogue import LISTS
from broker.core.servers.lists import Read, Sift
from broker.core.servers.oddities import Oddities
from broker.core.servers.server import Server
from broker.core.servers.session import Did, McpSession
from broker.core.servers.subscription import Missed, NotSubscribed

MAX_TOLD_BYTES = 1024 * 1024
"""The largest params of a notification: they are decoded, and may go to many clients."""

MAX_ID_CHARS = 256
"""The longest id of a server's own request that is answered: the answer repeats it."""


class Replies:
    """The lines of the configured servers.

    Args:
        table: the servers by name.
        dispatch: the open calls.
        notifications: tells the channels that subscribed.
        oddities: counts and logs what servers send that is odd or dropped.
        backlog: the unfinished jobs.
    """

    def __init__(
        self,
        table: dict[str, Server],
        dispatch: Dispatch,
        notifications: Notifications,
        oddities: Oddities,
        counters: Counters,
        effects: Effects,
        backlog: Backlog,
        budget: Budget,
    ) -> None:
        self._table = table
        self._dispatch = dispatch
        self._notifications = notifications
        self._oddities = oddities
        self._counters = counters
        self._effects = effects
        self._backlog = backlog
        self._budget = budget
        notifications.unwanted = self._unwanted

    def line(self, name: str, line: bytes, now: float) -> None:
        """Take in a line of a server's stdout. The next one waits while a long one is read in pieces."""
        server = self._table[name]
        session = server.session
        if session is None:
            self._counters.add("dropped.late.line")
            return
        if not session.opened:
            session.heard(now)
        if server.health is not None:
            server.health.heard(now)
        if len(line) > LONG_BYTES:
            if (key := JobKey("line", name)) in self._backlog:
                self._backlog.finish(name)
            self._backlog.begin(key, self._long_line(server, session, line, now))
        elif isinstance(message := lines.read(line), Noise):
            self._no_message(server, session, message, line, now)
        else:
            self._message(server, session, message, now)

    def _long_line(self, server: Server, session: McpSession, line: bytes, now: float) -> HeavyJob:
        message = yield from lines.read_long(line)
        if isinstance(message, Noise):
            self._no_message(server, session, message, line, now)
        else:
            self._message(server, session, message, now)

    def process_gone(self, name: str) -> None:
        """Forget the line of a process that was not read to its end."""
        if self._backlog.drop(JobKey("line", name)):
            self._counters.add("dropped.late.line")
        for method in LISTS:
            self._backlog.drop(JobKey("sift", name, detail=method))

    def _no_message(self, server: Server, session: McpSession, noise: Noise, line: bytes, now: float) -> None:
        """Handle a batch, which only the older era has, or a line for people."""
        batch = lines.read_batch(line) if session.era is not Era.MODERN else []
        for message in batch:
            self._message(server, session, message, now)
        if not batch:
            self._noise(server, session, noise, line, now)

    def _noise(self, server: Server, session: McpSession, noise: Noise, line: bytes, now: float) -> None:
        """Keep a line for people. In the handshake, an answer may follow a prompt on the same line."""
        behind = lines.read_behind(line) if session.era is None else noise
        if isinstance(behind, ServerReply) and session.is_own_request(behind.id):
            self._message(server, session, behind, now)
            return
        self._oddities.note(server, noise.odd)
        self._oddities.discard(server, "noise", bytes=len(line))
        self._effects.append(LogOutput(server.name, line))
        session.noise(line, now)

    def _message(self, server: Server, session: McpSession, message: Message, now: float) -> None:
        if message.odd:
            self._oddities.note(server, message.odd)
        if isinstance(message, ServerReply):
            self._replied(server, session, message, now)
        elif isinstance(message, ServerNotification):
            self._told(server, session, message, now)
        elif isinstance(message, ServerRequest):
            self._asked(server, session, message, now)
        else:
            self._broken(server, session, message, now)

    def _open_call(self, server: Server, id: Id | None) -> Call | None:
        """Return the call with this id, if this server has it."""
        call = self._dispatch.table.by_id(id)
        is_there = call is not None and call.sent and not call.orphaned and call.server == server.name
        return call if is_there else None

    def _replied(self, server: Server, session: McpSession, reply: ServerReply, now: float) -> None:
        call = self._open_call(server, reply.id)
        if call is not None:
            self._dispatch.reply(call, reply, now)
            return
        effects = session.reply(reply, now)
        if effects is not None:
            self.apply(server, session, effects, now)
        elif not self._answers_check(server, reply.id, now):
            self._answers_nothing(server, session, reply.id, now)

    def _answers_check(self, server: Server, id: Id | None, now: float) -> bool:
        """Return whether a reply answers a health check or a ping behind a cancellation: it tells no more."""
        if server.has_read_cancel(id, now):
            self._dispatch.freed(server, now)
            return True
        return server.health is not None and server.health.answered(id)

    def _answers_nothing(self, server: Server, session: McpSession, id: Id | None, now: float) -> None:
        """Drop a reply without an open call; it may free the place of a call that was given up."""
        shown = _shown(id)
        if server.release(id):
            self._oddities.discard(server, "late.reply", id=shown)
            self._dispatch.freed(server, now)
        elif session.is_late(id) or id in server.ended:
            self._oddities.discard(server, "late.reply", id=shown)
        elif server.queue.running or session.waits:  # it may be the answer to one of these
            self._oddities.discard(server, "unmatched.reply", id=shown)
            self._oddities.tolerate(server, Tolerated(Oddity.UNMATCHED, {"id": shown}))
            session.noise(b"a reply with the id " + shown.encode(), now)
        else:
            self._oddities.discard(server, "late.reply", id=shown)

    def _broken(self, server: Server, session: McpSession, broken: jsonrpc.Broken, now: float) -> None:
        call = self._open_call(server, broken.id)
        if broken.id is not None:
            self._oddities.tolerate(server, Tolerated(Oddity.BROKEN, {"reason": clip(broken.reason)}))
        if call is not None:
            self._oddities.discard(server, "broken.reply", method=call.method, reason=clip(broken.reason))
            self._dispatch.fail(call, refusals.invalid_reply(call, broken.reason), now)
            self._dispatch.pump(server, now)
            return
        effects = session.reply(broken, now)
        if effects is not None:
            self.apply(server, session, effects, now)
        elif not self._answers_check(server, broken.id, now):
            self._oddities.discard(server, "broken.line", reason=clip(broken.reason))
            self._answers_nothing(server, session, broken.id, now)

    def _told(self, server: Server, session: McpSession, told: ServerNotification, now: float) -> None:
        if told.params is not None and len(told.params) > MAX_TOLD_BYTES:
            self._oddities.discard(
                server, "large.notification", method=clip(told.method), bytes=len(told.params)
            )
            return
        if told.method == "notifications/progress":
            self._progress(server, told, now)
        elif told.method == "notifications/message":
            self._log_message(server, told, now)
        elif told.method == UPDATED:
            self._updated(server, told)
        elif told.method == "notifications/cancelled" and self._dispatch.questions.taken_back(
            server, read_request_id(told.params), now
        ):
            return
        else:
            did = session.told(told, now)
            if did is None:
                self._oddities.discard(server, "notification", method=clip(told.method))
            else:
                self.apply(server, session, did, now)

    def _updated(self, server: Server, told: ServerNotification) -> None:
        uri = read_uri(told.params)
        if uri is None:
            dropped = "it names no uri"
        elif server.visible is not None and not server.visible.allows_uri(uri):
            dropped = "the config hides the resource"
        else:
            dropped = self._notifications.resource_updated(server.name, uri, bytes(told.params or b""))
        if dropped:
            self._oddities.discard(server, "resource.updated", reason=dropped)

    def _unwanted(self, name: str) -> None:
        server = self._table.get(name)
        if server is not None:
            self._oddities.discard(server, "resource.updated", reason=NOT_SUBSCRIBED)

    def _log_message(self, server: Server, told: ServerNotification, now: float) -> None:
        """Send a log message to the call that it is about, if that asked for it; else keep it for the log."""
        call = server.call_under_way
        if call is not None and call.wants_log:
            self._dispatch.log_message(call, bytes(told.params or b"{}"))
            return
        self._oddities.discard(server, "message")
        self._effects.append(LogOutput(server.name, bytes(told.params or b"")))

    def _progress(self, server: Server, told: ServerNotification, now: float) -> None:
        seen = read_progress(told.params)
        call = self._open_call(server, seen.token)
        if call is None or not call.wants_progress:
            self._oddities.discard(server, "late.progress")
        else:
            self._dispatch.progress(call, progress_body(seen, call.token), now)

    def _asked(self, server: Server, session: McpSession, asked: ServerRequest, now: float) -> None:
        """Answer, pass on or refuse a request of a server. A server of 2026-07-28 may not send any."""
        if len(str(asked.id)) > MAX_ID_CHARS:
            self._oddities.discard(server, "long.id", method=clip(asked.method))
            return
        if session.era is Era.MODERN:
            self._was_asked(server, session, asked)
        elif asked.method == "ping":
            self._effects.append(Write(server.name, jsonrpc.result_line(asked.id, {})))
        elif asked.method == "roots/list" and server.config.roots:
            roots = [{"uri": uri} for uri in server.config.roots]
            self._effects.append(Write(server.name, jsonrpc.result_line(asked.id, {"roots": roots})))
        elif (why := self._dispatch.questions.ask(server, asked, now)) is not None:
            self._was_asked(server, session, asked, why)
            line = jsonrpc.error_line(asked.id, jsonrpc.METHOD_NOT_FOUND, why.words)
            self._effects.append(Write(server.name, line))

    def _was_asked(
        self,
        server: Server,
        session: McpSession,
        asked: ServerRequest,
        why: Unanswered = Unanswered.NOT_DECLARED,
    ) -> None:
        """Count a request that cannot be answered: many clients share the process, and it names none."""
        server.questions += 1
        server.asked.add(f"refused.{why.value}")
        server.dropped.add("question")
        self._counters.add("dropped.question")
        level, session.was_refused = Level.DEBUG if session.was_refused else Level.WARNING, True
        method = clip(asked.method)
        self._effects.log(level, "server.question", server=server.name, method=method, reason=why.value)

    # -- what sessions did --------------------------------------------------------------------------

    def apply(self, server: Server, session: McpSession, did: Iterable[Did], now: float) -> None:
        """Apply what a session has done."""
        did = list(did)
        for one in did:
            if isinstance(one, Tolerated):
                self._oddities.tolerate(server, one)
            elif isinstance(one, Read):
                server.reread(one.method, {odd.oddity for odd in did if isinstance(odd, Tolerated)})
                self._was_read(server, one, now)
                self._oddities.note_patterns(server)
            elif isinstance(one, Sift):
                key = JobKey("sift", server.name, detail=one.method)
                is_short = len(one.listing.items) <= PIECES  # else the page that was read is enough of a step
                begin = self._backlog.begin if is_short else self._backlog.leave
                begin(key, self._sift(server, session, one, now))
            elif isinstance(one, Missed):
                self._notifications.missed(server.name, one.uris)
            elif isinstance(one, NotSubscribed):
                self._notifications.unheard(server.name, one.uris, one.reason)
            else:
                self._effects.append(one)
            if isinstance(one, Opened):
                self._opened(server, session, now)
            elif isinstance(one, EndProcess):
                server.remembered = None
        self._budget.use_ended(server)  # a request of the session's own may have ended

    def _sift(self, server: Server, session: McpSession, read: Sift, now: float) -> HeavyJob:
        """Compare a list with the filters of its server; again, if a reload changes them meanwhile."""
        visible, sifted, is_done = server.visible, None, False
        while not is_done:
            visible = server.visible
            sifted = (yield from visible.sift(read.method, read.listing.items)) if visible else None
            is_done = server.visible is visible
        if server.session is session:
            self.apply(server, session, session.sifted(read, sifted, now), now)

    def _opened(self, server: Server, session: McpSession, now: float) -> None:
        assert session.catalogue is not None
        before, server.catalogue = server.known, session.catalogue
        server.remembered = session.era
        server.used_at = now
        server.watch(now)
        self._oddities.note_patterns(server)
        for notification in session.catalogue.changes_since(before):
            self._notifications.list_changed(server.name, notification)
        self._effects += session.catch_up(now)
        self._dispatch.pump(server, now)

    def _was_read(self, server: Server, read: Read, now: float) -> None:
        if read.differs:
            self._notifications.list_changed(server.name, LISTS[read.method].changed)
        if server.session is None or not server.session.is_reading(
            read.method
        ):  # the list may have changed meanwhile
            self._dispatch.answer_lists(server, read.method, now)


def _shown(id: Id | None) -> str:
    """Return an id as JSON."""
    return clip(msgspec.json.encode(id).decode(), 40)
