"""The heart of the broker: many clients in front, one process of each server behind, no I/O.

Every public method takes what happened and when, and returns what is to be done about it. The rules
of what clients may say are here, those of servers in `servers`; the life of a call is in `calls`.
"""

from __future__ import annotations

import msgspec

from broker.core import jsonrpc, refusals
from broker.core.audience import Audience
from broker.core.calls import Calls, fault
from broker.core.config import Config, LimitsConfig, ServerConfig
from broker.core.effects import Closed, Effect, Effects, Level, Manage
from broker.core.jsonrpc import BodyError, Params
from broker.core.lifecycle import Lifecycle
from broker.core.methods import Route, rule_for
from broker.core.metrics import Counters
from broker.core.refusals import Refusal
from broker.core.server import Server
from broker.core.servers import Servers
from broker.core.sessions import Body, CloseReason, Connection, Peer, Post, Sessions
from broker.core.texts import clip
from client_shim import wire
from client_shim.wire import Code

MAX_MANAGING = 512
"""Management requests that may be under way at once."""

MAX_MANAGING_OF_ONE = 64
"""Those of one connection, so that it cannot keep the others from asking."""


class Multiplexer:
    """Sessions, calls and links of one broker, and the rules between them.

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
        self.closing = False
        self._version = version
        self._limits = limits = config.limits
        self._effects = Effects(least)
        self._managing: dict[tuple[bytes, int], int] = {}
        self.counters = Counters()
        self.sessions = Sessions(
            credit_bytes=limits.credit_bytes, outbox_bytes=limits.outbox_bytes, counters=self.counters
        )
        self.servers = {
            name: Server(config.servers[name], lifecycles[name]) for name in sorted(config.servers)
        }
        self.calls = Calls(limits, self.servers, self.sessions, self.counters, self._effects)
        self.audience = Audience(self.servers, self.sessions, self._effects)
        self._servers = Servers(
            self.servers,
            self.calls,
            self.audience,
            self.counters,
            self._effects,
            max_bytes=limits.max_message_bytes,
            client_info={"name": "mcp-broker", "version": version},
        )

    @property
    def limits(self) -> LimitsConfig:
        """What bounds it."""
        return self._limits

    # -- clients ----------------------------------------------------------------------------------

    def received(self, key: bytes, peer: Peer, header: bytes, body: bytes | None, now: float) -> list[Effect]:
        """A message came in on the connection `key`; `peer` is who the kernel says is at its end."""
        connection = self.sessions.get(key)
        try:
            message = wire.decode(header)
            wire.check_body(message, body)
        except wire.WireError as error:
            self._refuse_frame(key, error.code, str(error), error.channel, error.id)
            return self._done(now)
        if connection is not None:
            self._from_client(connection, message, body, now)
        elif isinstance(message, wire.Hello):
            self._hello(key, peer, message, now)
        elif isinstance(message, (wire.Goodbye, wire.Credit, wire.Cancel)):
            self.counters.add("late.frame")  # of a connection that was closed meanwhile: it asks for nothing
        else:
            kind = type(message).__name__.lower()
            self._refuse_frame(key, Code.HELLO_FIRST, f"{kind} before hello", message.channel, message.id)
        return self._done(now)

    def malformed(self, key: bytes, why: str, now: float) -> list[Effect]:
        """A message came in that is none of the protocol, whatever its header says."""
        self._refuse_frame(key, Code.MALFORMED, why, 0, 0)
        return self._done(now)

    def _hello(self, key: bytes, peer: Peer, hello: wire.Hello, now: float) -> None:
        if wire.VERSION not in hello.versions:
            theirs = ", ".join(str(version) for version in hello.versions if type(version) is int)
            text = f"the client speaks the wire versions {theirs}, the broker {wire.VERSION}"
            self._refuse_frame(key, Code.WIRE_VERSION, clip(text), 0, 0)
        elif self.closing:
            self._refuse(key, 0, 0, refusals.shutting_down())
        elif len(self.sessions) >= self._limits.connections:
            self._refuse(key, 0, 0, refusals.busy("connections", self._limits.connections))
        else:
            name = hello.client.get("name")
            shown = clip(name, 64) if isinstance(name, str) and name else "unnamed"
            connection = self.sessions.open(key, shown, peer, now)
            limits = {
                "max_message_bytes": self._limits.max_message_bytes,
                "credit_bytes": self._limits.credit_bytes,
            }
            self._post(connection, wire.Welcome(0, 0, self.instance, self._version, limits))
            self._effects.note(Level.DEBUG, "client.connected", client=shown, pid=peer.pid, uid=peer.uid)

    def _from_client(
        self, connection: Connection, message: wire.Message, body: bytes | None, now: float
    ) -> None:
        if isinstance(message, wire.Request):
            refusal = self._request(connection, message, body, now)
            if refusal is not None:
                self._refuse(connection.key, message.channel, message.id, refusal)
        elif isinstance(message, wire.Credit):
            self._credit(connection, message)
        elif isinstance(message, wire.Cancel):
            call = self.calls.routing.by_client(connection.key, message.id)
            if call is not None:
                self.calls.cancel(call, now)
            else:
                self.counters.add("late.cancel")
        elif isinstance(message, wire.Goodbye) and message.channel:
            self._release(connection.key, message.channel, now)
        elif isinstance(message, wire.Goodbye):
            self._close(connection, CloseReason.GOODBYE, now)
        else:
            text = f"the broker takes no {type(message).__name__.lower()} from a client"
            self._refuse_frame(connection.key, Code.METHOD_REFUSED, text, message.channel, message.id)

    def _credit(self, connection: Connection, credit: wire.Credit) -> None:
        if 0 <= credit.read_bytes <= connection.unread_bytes:
            self._effects += self.sessions.credit(connection, credit.read_bytes)
            return
        text = f"credit for {credit.read_bytes} bytes, where {connection.unread_bytes} are to be read"
        self._refuse_frame(connection.key, Code.MALFORMED, text, credit.channel, credit.id)

    def _request(
        self, connection: Connection, request: wire.Request, body: bytes | None, now: float
    ) -> Refusal | None:
        """Take a request in, or say why not."""
        key = connection.key
        if request.id == 0 or request.channel == 0:
            return refusals.protocol(Code.MALFORMED, "a request needs a channel and an id from 1 up")
        if self._is_open(key, request.id):
            text = f"request {request.id} is still open on this connection"
            self._refuse_frame(key, Code.DUPLICATE_ID, text, request.channel, request.id)
            return None
        if request.instance != self.instance:
            return refusals.wrong_instance(request.instance, self.instance)
        if self.closing:
            return refusals.shutting_down()
        if body is not None and len(body) > self._limits.max_message_bytes:
            return refusals.too_large(len(body), self._limits.max_message_bytes)
        try:
            params = jsonrpc.check_params(body)
            jsonrpc.check_meta(request.meta)
        except BodyError as error:
            return refusals.invalid_body(error.code, str(error))
        connection.calls += 1
        if request.service == wire.MANAGEMENT and request.method == "listen":
            return self._listen(connection, request, params, now)
        if request.service == wire.MANAGEMENT:
            return self._manage(key, request, params)
        return self._route(connection, request, params, now)

    def _is_open(self, key: bytes, client_id: int) -> bool:
        return self.calls.routing.by_client(key, client_id) is not None or (key, client_id) in self._managing

    def _route(
        self, connection: Connection, request: wire.Request, params: Params, now: float
    ) -> Refusal | None:
        server = self.servers.get(request.service)
        if server is None:
            return refusals.unknown_server(request.service, self.names)
        if server.withdrawn:
            return refusals.removed(server.name)
        if not server.config.enabled:
            return refusals.disabled(server.name)
        rule = rule_for(request.method, server.era, server.config.allow_methods)
        if rule is None:
            return refusals.unknown_method(server.name, request.method)
        if rule.route is Route.NOBODY:
            return refusals.refused_method(server.name, request.method, rule.why)
        if rule.route is Route.CATALOGUE and params.has_cursor:
            return refusals.invalid_params(request.method)
        if rule.route is not Route.CATALOGUE or server.catalogue is None:
            return self.calls.accept(server, connection, request, params, now)
        list_by = self.calls.reread(server, request.method, now)
        if list_by is not None:
            return self.calls.accept(server, connection, request, params, now, list_by)
        body = server.catalogue.answer(request.method, now)
        if body is None:
            return refusals.no_list(server.name, request.method)
        self._post(connection, wire.Result(request.channel, request.id), body)
        return None

    def _listen(
        self, connection: Connection, request: wire.Request, params: Params, now: float
    ) -> Refusal | None:
        lane = (connection.key, request.channel)
        changed = self.audience.listen(lane, params.body)
        if isinstance(changed, Refusal):
            return changed
        heard_of = {"servers": self.audience.heard_of(lane)}
        self._post(connection, wire.Result(request.channel, request.id), msgspec.json.encode(heard_of))
        self._servers.want(changed, now)
        return None

    def _manage(self, key: bytes, request: wire.Request, params: Params) -> Refusal | None:
        if len(self._managing) >= MAX_MANAGING:
            return refusals.management_busy(MAX_MANAGING)
        if sum(held == key for held, _ in self._managing) >= MAX_MANAGING_OF_ONE:
            return refusals.management_busy(MAX_MANAGING_OF_ONE)
        self._managing[key, request.id] = request.channel
        self._effects.append(Manage(key, request.id, request.method, params.body))
        return None

    def managed(self, key: bytes, client_id: int, outcome: bytes | Refusal, now: float) -> list[Effect]:
        """A management request was carried out, or refused."""
        channel = self._managing.pop((key, client_id))
        connection = self.sessions.get(key)
        if connection is None:
            self.counters.add("late.managed")
        elif isinstance(outcome, Refusal):
            self._refuse(key, channel, client_id, outcome)
        else:
            self._post(connection, wire.Result(channel, client_id), outcome)
        return self._done(now)

    def lost(self, key: bytes, now: float) -> list[Effect]:
        """The transport says that this connection is gone."""
        connection = self.sessions.get(key)
        if connection is not None:
            self._close(connection, CloseReason.LOST, now)
        return self._done(now)

    def _close(self, connection: Connection, reason: CloseReason, now: float) -> None:
        """The one way out of a connection."""
        self.sessions.close(connection.key)
        self._release(connection.key, None, now)
        self.counters.add(f"closed.{reason.value}")
        if reason is CloseReason.CREDIT:  # beyond its credit, or it would wait for answers for ever
            text = "the client did not read what it was sent"
            self._effects.append(Post(connection.key, wire.encode(wire.Goodbye(0, 0, text))))
        self._effects.append(Closed(connection.key, reason))
        level = Level.WARNING if reason is CloseReason.CREDIT else Level.DEBUG
        peer, name = connection.peer, connection.name
        self._effects.note(level, "client.closed", client=name, pid=peer.pid, reason=reason.value)

    def _release(self, key: bytes, channel: int | None, now: float) -> None:
        """A channel is gone, or all of a connection: with its calls, and with what it listened to."""
        self.calls.release(self.calls.routing.of_client(key, channel), now)
        self._servers.want(self.audience.subscriptions.drop(key, channel), now)

    def goodbye(self, reason: str, now: float) -> list[Effect]:
        """The broker is ending: every call and every connection ends first."""
        self.closing = True
        for connection in self.sessions.all():
            for call in self.calls.routing.of_client(connection.key):
                self.calls.fail(call, refusals.cut(call), now)
            self._post(connection, wire.Goodbye(0, 0, reason))
            self._close(connection, CloseReason.SHUTDOWN, now)
        return self._done(now)

    # -- the config -------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """What the configured servers are called."""
        return [name for name, server in self.servers.items() if not server.withdrawn]

    def adjust(self, limits: LimitsConfig) -> None:
        """The limits have changed, but for what clients were told of them."""
        self._limits = self.calls.limits = limits

    def add(self, config: ServerConfig, lifecycle: Lifecycle) -> None:
        """A server is configured that was not."""
        self._servers.add(config, lifecycle)

    def retune(self, config: ServerConfig, now: float, *, renewed: bool = False) -> list[Effect]:
        """A server's table has changed; `renewed`: its next process will be of another kind."""
        self._servers.retune(config, now, renewed=renewed)
        return self._done(now)

    def withdraw(self, name: str, now: float) -> list[Effect]:
        """A server is no longer configured: it takes no further calls."""
        self._servers.withdraw(name, now)
        return self._done(now)

    def remove(self, name: str, now: float) -> list[Effect]:
        """The process of a server is gone that is no longer configured."""
        self._servers.remove(name, now)
        return self._done(now)

    # -- servers, and time ------------------------------------------------------------------------

    def spawned(self, name: str, now: float) -> list[Effect]:
        """A new process of this server is there."""
        self._servers.spawned(name, now)
        return self._done(now)

    def heard(self, name: str, now: float) -> None:
        """The server wrote to its stderr."""
        self._servers.heard(name, now)

    def line(self, name: str, line: bytes, now: float) -> list[Effect]:
        """The server wrote this line to its stdout."""
        self._servers.line(name, line, now)
        return self._done(now)

    def congested(self, name: str, congested: bool, now: float) -> list[Effect]:
        """The server has stopped reading its stdin, or has begun again."""
        self._servers.congested(name, congested, now)
        return self._done(now)

    def resume(self, name: str, now: float) -> list[Effect]:
        """The server is not to be stopped after all: it is given calls again."""
        server = self.servers[name]
        server.line.paused = False
        self.calls.pump(server, now)
        return self._done(now)

    def probing(self, name: str) -> bool:
        """Whether an exit of this server now means that it is of the older era."""
        return self._servers.probing(name)

    def gone(self, name: str, reason: str, now: float) -> list[Effect]:
        """The server's process ends, or has ended, for this reason."""
        self._servers.gone(name, reason, now)
        return self._done(now)

    def rests(self, name: str, now: float) -> list[Effect]:
        """The server has no process, and its lifecycle says when it will have one again."""
        self._servers.rests(name, now)
        return self._done(now)

    def wake_at(self) -> float | None:
        """When `tick` is due next; `None` while nothing waits."""
        times = (self.calls.routing.next_deadline(), self._servers.wake_at())
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        self.calls.expire(now)
        self._servers.tick(now)
        return self._done(now)

    # -- doors ------------------------------------------------------------------------------------

    def _post(self, connection: Connection, message: wire.Message, body: Body = None) -> None:
        post = self.sessions.post(connection, message, body)
        if post is not None:
            self._effects.append(post)

    def _refuse(self, key: bytes, channel: int, id: int, refusal: Refusal) -> None:
        """Answer with a fault; a connection that has said no hello has no credit to respect."""
        self.counters.add(f"refused.{refusal.code.value}")
        self._effects.note(Level.DEBUG, "request.refused", code=refusal.code.value)
        connection = self.sessions.get(key)
        if connection is not None:
            self._post(connection, fault(channel, id, refusal))
        else:
            self._effects.append(Post(key, wire.encode(fault(channel, id, refusal))))

    def _refuse_frame(self, key: bytes, code: Code, message: str, channel: int, id: int) -> None:
        connection = self.sessions.get(key)
        client = connection.name if connection is not None else None
        if self._is_open(key, id):
            id = 0  # about the frame only: with its id, it would be an ending of the open request
        self._effects.note(Level.WARNING, "frame.refused", code=code.value, client=client)
        self._refuse(key, channel, id, refusals.protocol(code, message))

    def _done(self, now: float) -> list[Effect]:
        for connection in self.sessions.overflowing():
            if self.sessions.get(connection.key) is connection:
                self._close(connection, CloseReason.CREDIT, now)
        return self._effects.take()
