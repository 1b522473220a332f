"""What servers say, and what becomes of it.

A line that a server wrote is the reply to a call, or to a request of the broker's own; news about a
call or about the server's lists; a question; or nothing that can be used. Nothing is guessed: what
names no open call of that very server goes nowhere, and is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from broker.core import jsonrpc, refusals
from broker.core.audience import UPDATED, Audience
from broker.core.calls import Calls
from broker.core.catalog import LISTS
from broker.core.config import ServerConfig
from broker.core.effects import Effects, Keep, Level, Opened, Unfit, Write
from broker.core.health import Health, Verdict
from broker.core.jsonrpc import Asked, Id, Message, Noise, Reply, Told
from broker.core.lifecycle import Lifecycle
from broker.core.link import Did, Link, Read
from broker.core.listening import Missed, Unheard
from broker.core.methods import Era
from broker.core.metrics import Counters
from broker.core.pace import soonest
from broker.core.routing import Call
from broker.core.server import Server
from broker.core.texts import clip


class Servers:
    """The configured servers, as their supervisors and their lines tell of them.

    Args:
        table: each server by its name; it is changed here and nowhere else.
        calls: the open calls.
        audience: who listens.
        max_bytes: the largest list that is kept of a server.
        client_info: what the broker calls itself towards servers.
    """

    def __init__(
        self,
        table: dict[str, Server],
        calls: Calls,
        audience: Audience,
        counters: Counters,
        effects: Effects,
        *,
        max_bytes: int,
        client_info: dict[str, str],
    ) -> None:
        self._table = table
        self._calls = calls
        self._audience = audience
        self._counters = counters
        self._effects = effects
        self._max_bytes = max_bytes
        self._client_info = client_info

    @property
    def names(self) -> list[str]:
        """What the configured servers are called."""
        return [name for name, server in self._table.items() if not server.withdrawn]

    # -- what the config says ---------------------------------------------------------------------

    def add(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        """A server is configured that was not."""
        rows = sorted({**self._table, config.name: Server(config, lifecycle)}.items())
        self._table.clear()
        self._table.update(rows)

    def retune(self, config: ServerConfig, now: float, *, renewed: bool) -> None:
        """Its table has changed; `renewed`: so much that its next process is of another kind."""
        server = self._table[config.name]
        server.retune(config)
        server.outdated |= renewed
        if server.outdated and server.link is None:
            server.forget()
        if not config.enabled:
            self._calls.refuse_waiting(server, refusals.disabled(server.name), now)
        self._calls.pump(server, now)

    def withdraw(self, name: str, now: float) -> None:
        """It is no longer configured: what waits for it ends now, what it has may go on."""
        server = self._table[name]
        server.withdrawn = True
        self._calls.refuse_waiting(server, refusals.removed(name), now)

    def remove(self, name: str, now: float) -> None:
        """Its process is gone, and so is all that was known of it."""
        server = self._table[name]
        self._calls.server_died(server, _why(server, "it was stopped"), now)
        self._calls.refuse_waiting(server, refusals.removed(name), now)
        del self._table[name]
        if server.known is not None:
            for notification in server.known.changes_since(None):
                self._audience.list_changed(name, notification)

    # -- what happens to it -----------------------------------------------------------------------

    def spawned(self, name: str, now: float) -> None:
        """A new process is there: its conversation begins."""
        server = self._table[name]
        server.line.paused = False
        server.link = Link(
            server.config,
            server.remembered,
            self._calls.routing.new_id,
            self._max_bytes,
            self._client_info,
            uris=self._audience.subscriptions.uris(name),
            again=server.known is not None,
        )
        self._link_did(server, server.link, server.link.greet(now), now)

    def want(self, names: Collection[str], now: float) -> None:
        """Clients have subscribed to other resources of these servers than before."""
        for name in sorted(names):
            server = self._table.get(name)  # it may have been removed since they subscribed
            if server is not None and server.link is not None:
                did = server.link.want(self._audience.subscriptions.uris(name), now)
                self._link_did(server, server.link, did, now)

    def heard(self, name: str, now: float) -> None:
        """It wrote to its stderr."""
        link = self._table[name].link
        if link is not None:
            link.heard(now)

    def congested(self, name: str, congested: bool, now: float) -> None:
        """It has stopped reading its stdin, or has begun again."""
        server = self._table[name]
        server.line.held = congested
        self._calls.pump(server, now)

    def probing(self, name: str) -> bool:
        """Whether its exit now means that it is of the older era."""
        link = self._table[name].link
        return link is not None and link.probing

    def gone(self, name: str, reason: str, now: float) -> None:
        """Its process ends, or has ended, for this reason."""
        server = self._table[name]
        if server.link is not None and not server.link.opened:
            server.remembered = Era.LEGACY if server.lifecycle.respawning else None
        server.forget_process()
        self._calls.server_died(server, _why(server, reason), now)
        self._calls.answer_askers(server, None, now)
        if server.outdated:
            server.forget()

    def rests(self, name: str, now: float) -> None:
        """It has no process, and its lifecycle says when it will have one again."""
        self._calls.server_rests(self._table[name], now)

    def wake_at(self) -> float | None:
        """When `tick` is due for one of them."""
        return soonest([server.wake_at for server in self._table.values()])

    def tick(self, now: float) -> None:
        """Time has passed."""
        for server in self._table.values():
            if server.link is not None:
                self._link_did(server, server.link, server.link.tick(now), now)
            for method in server.askers.overdue(now):
                self._effects.note(Level.WARNING, "catalogue.stale", server=server.name, list=method)
                self._calls.answer_askers(server, method, now)
            server.log_takers.tick(now)
            if server.line.tick(now):
                self._drop(server, "never.replied")
                self._calls.pump(server, now)
            if server.health is not None and server.link is not None:
                self._look_after(server, server.link, server.health, now)

    def _look_after(self, server: Server, link: Link, health: Health, now: float) -> None:
        """One that has been silent for long is asked whether it lives, and replaced if it does not say so."""
        verdict = health.look(now, lambda before: self._calls.busy_until(server, before, now))
        if verdict is Verdict.ASK:
            id, line = link.ask("server/discover" if link.era is Era.MODERN else "ping", b"{}")
            health.asked(id)
            self._effects.append(line)
            self._effects.note(
                Level.DEBUG, "server.asked", server=server.name, silent_s=round(health.silent_s(now), 3)
            )
        elif verdict is Verdict.HUNG:
            reason = f"it answered neither calls nor health checks for {health.silent_s(now):.0f} s"
            self._effects.append(Unfit(server.name, reason))

    def line(self, name: str, line: bytes, now: float) -> None:
        """It wrote this line to its stdout."""
        server = self._table[name]
        link = server.link
        if link is None:
            self._counters.add("dropped.late.line")
            return
        link.heard(now)
        if server.health is not None:
            server.health.heard(now)
        message = jsonrpc.read(line)
        if not isinstance(message, Noise):
            self._message(server, link, message, now)
        elif (batch := jsonrpc.read_batch(line)) and link.era is not Era.MODERN:
            for message in batch:
                self._message(server, link, message, now)
        else:
            self._drop(server, "noise", bytes=len(line))
            self._effects.append(Keep(name, line))

    def _message(self, server: Server, link: Link, message: Message, now: float) -> None:
        if isinstance(message, Reply):
            self._replied(server, link, message, now)
        elif isinstance(message, Told):
            self._told(server, link, message, now)
        elif isinstance(message, Asked):
            self._asked(server, link, message)
        else:
            self._broken(server, link, message, now)

    def _open_call(self, server: Server, id: Id | None) -> Call | None:
        """The call that this id of the broker's names, if that server has it."""
        call = self._calls.routing.by_id(id)
        return call if call is not None and call.sent and call.server == server.name else None

    def _replied(self, server: Server, link: Link, reply: Reply, now: float) -> None:
        call = self._open_call(server, reply.id)
        if call is not None:
            self._calls.reply(call, reply, now)
            return
        effects = link.reply(reply.id, reply, now)
        if effects is None and server.health is not None and server.health.answered(reply.id):
            return  # that it came is all that it says
        if effects is None:
            self._drop(server, "late.reply", id=_shown(reply.id))
            self._release(server, reply.id, now)
        else:
            self._link_did(server, link, effects, now)

    def _release(self, server: Server, id: Id | None, now: float) -> None:
        """Nobody waits for this reply any more, but perhaps for the place in line of its call."""
        if server.release(id):
            self._calls.pump(server, now)

    def _broken(self, server: Server, link: Link, broken: jsonrpc.Broken, now: float) -> None:
        call = self._open_call(server, broken.id)
        if call is not None:
            self._drop(server, "broken.reply", method=call.method, reason=clip(broken.reason))
            self._calls.fail(call, refusals.invalid_reply(call, broken.reason), now)
            self._calls.pump(server, now)
            return
        effects = link.broken(broken.id, broken.reason, now)
        if effects is None:
            self._drop(server, "broken.line", reason=clip(broken.reason))
            self._release(server, broken.id, now)
        else:
            self._link_did(server, link, effects, now)

    def _told(self, server: Server, link: Link, told: Told, now: float) -> None:
        if told.method == "notifications/progress":
            self._progress(server, told, now)
        elif told.method == "notifications/message":
            self._log_message(server, told, now)
        elif told.method == UPDATED:
            self._updated(server, told)
        else:
            did = link.told(told, now)
            if did is None:
                self._drop(server, "notification", method=clip(told.method))
            else:
                self._link_did(server, link, did, now)

    def _updated(self, server: Server, told: Told) -> None:
        uri = jsonrpc.read_uri(told.params)
        if uri is None or not self._audience.resource_updated(server.name, uri, bytes(told.params or b"")):
            self._drop(server, "resource.updated")

    def _log_message(self, server: Server, told: Told, now: float) -> None:
        """It is for the call that asked for it, where it can be only one; else for who reads the logs."""
        call = server.log_takers.only(now) if server.era is Era.MODERN else None
        if call is not None:
            self._calls.log_message(call, bytes(told.params or b"{}"))
            return
        self._drop(server, "message")
        self._effects.append(Keep(server.name, bytes(told.params or b"")))

    def _progress(self, server: Server, told: Told, now: float) -> None:
        seen = jsonrpc.read_progress(told.params)
        call = self._open_call(server, seen.token)
        if call is None or not call.wants_progress:
            self._drop(server, "late.progress")
        else:
            self._calls.progress(call, jsonrpc.progress_body(seen, call.token), now)

    def _asked(self, server: Server, link: Link, asked: Asked) -> None:
        """Answer it, or refuse it. Servers of 2026-07-28 may not ask, and are written no responses."""
        if link.era is Era.MODERN:
            self._was_asked(server, link, asked)
        elif asked.method == "ping":
            self._effects.append(Write(server.name, jsonrpc.result_line(asked.id, {})))
        elif asked.method == "roots/list" and server.config.roots:
            roots = [{"uri": uri} for uri in server.config.roots]
            self._effects.append(Write(server.name, jsonrpc.result_line(asked.id, {"roots": roots})))
        else:
            self._was_asked(server, link, asked)
            line = jsonrpc.error_line(asked.id, jsonrpc.METHOD_NOT_FOUND, no_answer(asked.method))
            self._effects.append(Write(server.name, line))

    def _was_asked(self, server: Server, link: Link, asked: Asked) -> None:
        """Behind one process there are many clients: whom the question is meant for cannot be known."""
        server.questions += 1
        server.dropped.add("question")
        self._counters.add("dropped.question")
        level, link.was_refused = Level.DEBUG if link.was_refused else Level.WARNING, True
        method = clip(asked.method)
        self._effects.note(level, "server.question", server=server.name, method=method)

    def _link_did(self, server: Server, link: Link, did: Iterable[Did], now: float) -> None:
        for one in did:
            if isinstance(one, Read):
                self._was_read(server, one, now)
            elif isinstance(one, Missed):
                for uri in one.uris:
                    self._audience.resource_updated(server.name, uri, msgspec.json.encode({"uri": uri}))
            elif isinstance(one, Unheard):
                self._audience.unheard(server.name, one.uris, one.reason)
            else:
                self._effects.append(one)
            if isinstance(one, Opened):
                self._opened(server, link, now)
            elif isinstance(one, Unfit):
                server.remembered = None

    def _opened(self, server: Server, link: Link, now: float) -> None:
        assert link.catalogue is not None
        before, server.catalogue = server.known, link.catalogue
        server.remembered = link.era
        server.watch(now)
        for notification in link.catalogue.changes_since(before):
            self._audience.list_changed(server.name, notification)
        self._effects += link.catch_up(now)
        self._calls.pump(server, now)

    def _was_read(self, server: Server, read: Read, now: float) -> None:
        if read.differs:
            self._audience.list_changed(server.name, LISTS[read.method].changed)
        if server.link is None or not server.link.is_reading(read.method):  # it may have changed meanwhile
            self._calls.answer_askers(server, read.method, now)

    def _drop(self, server: Server, what: str, **facts: str | int) -> None:
        """Something of a server's that goes nowhere: counted, and said."""
        server.dropped.add(what)
        self._counters.add(f"dropped.{what}")
        self._effects.note(Level.DEBUG, f"server.{what}", server=server.name, **facts)


def _why(server: Server, reason: str) -> str:
    return refusals.REMOVED if server.withdrawn else reason


def _shown(id: Id) -> str:
    return clip(str(id), 40)


def no_answer(method: str) -> str:
    """What a server is told that asks something of a client."""
    if method == "roots/list":
        return "this client has no roots; the operator may set `roots` for this server in broker.toml"
    return (
        "this client is mcp-broker: many clients share this process, so for which of them the question is "
        "cannot be known. Ask in the result of a call (`input_required` of MCP 2026-07-28), or take what you "
        "need as an argument of the tool"
    )
