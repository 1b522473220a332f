"""What servers say, and what becomes of it.

A line that a server wrote is the reply to a call, or to a request of the broker's own; news about a
call or about the server's lists; a question; or nothing that can be used. Nothing is guessed: what
names no open call of that very server goes nowhere, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.core import jsonrpc, refusals
from broker.core.calls import Calls
from broker.core.effects import Effect, Effects, Keep, Level, Opened, Unfit, Write
from broker.core.jsonrpc import Asked, Broken, Id, Reply, Told
from broker.core.link import Link
from broker.core.methods import Era
from broker.core.metrics import Counters
from broker.core.routing import Call
from broker.core.server import Server
from broker.core.texts import clip


class Servers:
    """The configured servers, as their supervisors and their lines tell of them.

    Args:
        table: each server by its name.
        calls: the open calls.
        max_bytes: the largest list that is kept of a server.
        client_info: what the broker calls itself towards servers.
    """

    def __init__(
        self,
        table: Mapping[str, Server],
        calls: Calls,
        counters: Counters,
        effects: Effects,
        *,
        max_bytes: int,
        client_info: dict[str, str],
    ) -> None:
        self._table = table
        self._calls = calls
        self._counters = counters
        self._effects = effects
        self._max_bytes = max_bytes
        self._client_info = client_info

    def spawned(self, name: str, now: float) -> None:
        """A new process is there: its conversation begins."""
        server = self._table[name]
        server.line.paused = False
        new_id = self._calls.routing.new_id
        server.link = Link(server.config, server.remembered, new_id, self._max_bytes, self._client_info)
        self._effects += server.link.greet(now)

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
        server.link = None
        server.line.held = False
        server.line.release_all()
        self._calls.server_died(server, reason, now)

    def rests(self, name: str, now: float) -> None:
        """It has no process, and its lifecycle says when it will have one again."""
        self._calls.server_rests(self._table[name], now)

    def wake_at(self) -> float | None:
        """When `tick` is due for one of them."""
        times = [server.link.wake_at for server in self._table.values() if server.link]
        times += [server.line.wake_at for server in self._table.values()]
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        for server in self._table.values():
            if server.link is not None:
                self._link_did(server, server.link, server.link.tick(now), now)
            if server.line.tick(now):
                self._drop(server, "never.replied")
                self._calls.pump(server, now)

    def line(self, name: str, line: bytes, now: float) -> None:
        """It wrote this line to its stdout."""
        server = self._table[name]
        link = server.link
        if link is None:
            self._counters.add("dropped.late.line")
            return
        link.heard(now)
        message = jsonrpc.read(line)
        if isinstance(message, Reply):
            self._replied(server, link, message, now)
        elif isinstance(message, Told):
            self._told(server, link, message, now)
        elif isinstance(message, Asked):
            self._asked(server, message)
        elif isinstance(message, Broken):
            self._broken(server, link, message, now)
        else:
            self._drop(server, "noise", bytes=len(line))
            self._effects.append(Keep(name, line))

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
        if effects is None:
            self._drop(server, "late.reply", id=_shown(reply.id))
            self._release(server, reply.id, now)
        else:
            self._link_did(server, link, effects, now)

    def _release(self, server: Server, id: Id | None, now: float) -> None:
        """Nobody waits for this reply any more, but perhaps for the place in line of its call."""
        if server.line.release(id):
            self._calls.pump(server, now)

    def _broken(self, server: Server, link: Link, broken: Broken, now: float) -> None:
        call = self._open_call(server, broken.id)
        if call is not None:
            self._drop(server, "broken.reply", method=call.method, reason=clip(broken.reason))
            self._calls.fail(call, refusals.invalid_reply(call, broken.reason), now)
            self._calls.pump(server, now)
            return
        effects = link.broken(broken.id, broken.reason)
        if effects is None:
            self._drop(server, "broken.line", reason=clip(broken.reason))
            self._release(server, broken.id, now)
        else:
            self._link_did(server, link, effects, now)

    def _told(self, server: Server, link: Link, told: Told, now: float) -> None:
        if told.method == "notifications/progress":
            self._progress(server, told, now)
        elif told.method == "notifications/message":
            self._drop(server, "message")
            self._effects.append(Keep(server.name, bytes(told.params or b"")))
        elif told.method != "notifications/subscriptions/acknowledged":
            effects = link.changed(told.method, now)
            if effects is None:
                self._drop(server, "notification", method=clip(told.method))
            else:
                self._link_did(server, link, effects, now)

    def _progress(self, server: Server, told: Told, now: float) -> None:
        seen = jsonrpc.read_progress(told.params)
        call = self._open_call(server, seen.token)
        if call is None or not call.wants_progress:
            self._drop(server, "late.progress")
        else:
            self._calls.progress(call, jsonrpc.progress_body(seen, call.token), now)

    def _asked(self, server: Server, asked: Asked) -> None:
        if asked.method == "ping":
            self._effects.append(Write(server.name, jsonrpc.result_line(asked.id, {})))
            return
        # Behind one process there are many clients: whom the question is meant for cannot be known.
        self._drop(server, "question", method=clip(asked.method))
        text = "this client is shared by many; it cannot answer for one of them"
        line = jsonrpc.error_line(asked.id, jsonrpc.METHOD_NOT_FOUND, text)
        self._effects.append(Write(server.name, line))

    def _link_did(self, server: Server, link: Link, effects: list[Effect], now: float) -> None:
        for effect in effects:
            self._effects.append(effect)
            if isinstance(effect, Opened):
                server.catalogue = link.catalogue
                server.remembered = link.era
                self._effects += link.catch_up(now)
                self._calls.pump(server, now)
            elif isinstance(effect, Unfit):
                server.remembered = None

    def _drop(self, server: Server, what: str, **facts: str | int) -> None:
        """Something of a server's that goes nowhere: counted, and said."""
        self._counters.add(f"dropped.{what}")
        self._effects.note(Level.DEBUG, f"server.{what}", server=server.name, **facts)


def _shown(id: Id) -> str:
    return clip(str(id), 40)
