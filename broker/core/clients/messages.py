"""Handles the messages of clients: hello, request, cancel, credit and goodbye; and the end of connections."""

from __future__ import annotations

from collections import deque

from broker.base.backlog import Backlog, HeavyJob, JobKey
from broker.base.metrics import Counters
from broker.base.text import clip
from broker.config.keys import AuthorizedKeys
from broker.config.limits import LimitsConfig
from broker.core import refusals
from broker.core.calls.bulk_endings import BulkEndings
from broker.core.calls.dispatch import Dispatch
from broker.core.clients import key_rights
from broker.core.clients.connections import CloseReason, Connection, Connections, Peer, Send
from broker.core.clients.flow_control import MAX_UNGREETED_BYTES, FlowControl
from broker.core.clients.notifications import Notifications
from broker.core.clients.requests import Requests
from broker.core.clients.responder import Responder
from broker.core.effects import Closed, Effects, Level, Manage
from broker.core.mcp import jsonrpc
from broker.core.mcp.jsonrpc import BodyError
from broker.core.mcp.pieces import LONG_BYTES
from broker.core.refusals import Refusal
from broker.core.servers.registry import Registry
from broker.core.servers.server import Server
from client_shim import wire
from client_shim.wire import Code


class Clients:
    """The connections, as their messages and the transport tell of them.

    Args:
        limits: the `[limits]` of the config.
        authorized: the clients that may connect with a key, and what they may do.
        table: each server by its name.
        registry: is told which resources clients subscribe to.
        instance: the id of this broker process.
        version: the broker's version, which clients are told.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        authorized: AuthorizedKeys,
        table: dict[str, Server],
        registry: Registry,
        bulk_endings: BulkEndings,
        connections: Connections,
        dispatch: Dispatch,
        notifications: Notifications,
        counters: Counters,
        effects: Effects,
        backlog: Backlog,
        *,
        instance: str,
        version: str,
    ) -> None:
        self.limits = limits
        self.authorized = authorized
        self.closing = False
        self._registry = registry
        self._bulk_endings = bulk_endings
        self._connections = connections
        self._dispatch = dispatch
        self._notifications = notifications
        self._counters = counters
        self._effects = effects
        self._instance = instance
        self._version = version
        self._backlog = backlog
        self._behind: dict[bytes, deque[tuple[bytes, bytes | None, float]]] = {}
        """The messages of a connection that came behind a long request, and when they came."""
        self.flow = FlowControl(connections, counters, effects)
        self._responder = Responder(connections, self.flow, counters, effects)
        self.requests = Requests(
            table, registry, self._responder, dispatch, notifications, self.flow, effects
        )

    def received(self, key: bytes, peer: Peer, header: bytes, body: bytes | None, now: float) -> None:
        """Handle a message of the connection `key`. `peer` is its client, as the kernel or the key says."""
        connection = self._connections.get(key)
        if connection is not None and key in self._behind:
            if self.flow.keeps_behind(connection, header, body):
                self._behind[key].append((header, body, now))
            else:
                self._exceeded(key, connection, now)
        elif not self.flow.takes(connection, header, body):
            self._exceeded(key, connection, now)
        elif (check := self._take(key, peer, connection, header, body, now)) is not None:
            assert connection is not None
            self._behind[key] = deque()
            self._backlog.begin(JobKey("requests", connection=key), self._in_order(connection, check))

    def _in_order(self, connection: Connection, check: HeavyJob) -> HeavyJob:
        """Check a long request, then handle the messages that came behind it."""
        key = connection.key
        behind = self._behind[key]
        yield from check
        while behind and self._connections.get(key) is connection:
            header, body, now = behind.popleft()
            self.flow.size = wire.cost(header, body)
            yield from self._take(key, connection.peer, connection, header, body, now) or ()
            yield 1
        if self._behind.pop(key, None) is not None:
            self.flow.caught_up(connection)

    def _take(
        self,
        key: bytes,
        peer: Peer,
        connection: Connection | None,
        header: bytes,
        body: bytes | None,
        now: float,
    ) -> HeavyJob | None:
        """Handle a message. Return the check of a long request, which is done in pieces."""
        try:
            message = wire.decode(header)
            wire.check_body(message, body)
        except wire.WireError as error:
            self._refuse_frame(key, error.code, str(error), error.channel, error.id, now)
            return None
        if connection is None:
            self._from_stranger(key, peer, message, now)
        elif isinstance(message, wire.Request):
            outcome = self._request(connection, message, body, now)
            if not isinstance(outcome, Refusal):
                return outcome
            self._responder.refuse(key, message.channel, message.id, outcome, now)
        else:
            self._from_client(connection, message, body, now)
        return None

    def _exceeded(self, key: bytes, connection: Connection | None, now: float) -> None:
        """Refuse a message that is larger than its connection may send now."""
        if connection is not None:
            self._close(connection, CloseReason.OVERDRAWN, now, "the client sent more than its credit")
            return
        size = self.flow.size
        text = f"the client sent {size} bytes before its hello, and may send {MAX_UNGREETED_BYTES}"
        self._refuse_frame(key, Code.TOO_LARGE, text, 0, 0, now)
        self._closed(key, CloseReason.UNGREETED)

    def malformed(self, key: bytes, why: str, now: float) -> None:
        """Refuse a message that is not one of the protocol, whatever its header says."""
        self.flow.size = 0
        self._refuse_frame(key, Code.MALFORMED, why, 0, 0, now)

    def _from_stranger(self, key: bytes, peer: Peer, message: wire.Message, now: float) -> None:
        if isinstance(message, wire.Hello):
            self._hello(key, peer, message, now)
        elif isinstance(message, (wire.Goodbye, wire.Credit, wire.Cancel)):
            self.flow.count_useless("late.frame", key, now)  # its connection was closed: it needs no answer
        else:  # when the broker ends it is no mistake: the message crossed the goodbye
            text = f"{type(message).__name__.lower()} before hello"
            self._refuse_frame(
                key, Code.HELLO_FIRST, text, message.channel, message.id, now, is_late=self.closing
            )

    def _hello(self, key: bytes, peer: Peer, hello: wire.Hello, now: float) -> None:
        if wire.VERSION not in hello.versions:
            theirs = ", ".join(str(version) for version in hello.versions if type(version) is int)
            text = f"the client speaks the wire versions {theirs}, the broker {wire.VERSION}"
            self._refuse_frame(key, Code.WIRE_VERSION, clip(text), 0, 0, now)
        elif self.closing:
            self._responder.refuse(key, 0, 0, refusals.shutting_down(), now)
        elif len(self._connections) >= self.limits.connections:
            self._responder.refuse(key, 0, 0, refusals.too_many_connections(self.limits.connections), now)
        else:
            self._welcome(key, peer, hello, now)

    def _welcome(self, key: bytes, peer: Peer, hello: wire.Hello, now: float) -> None:
        """Open the connection of a client; close it if its key was revoked after the handshake."""
        name = hello.client.get("name")
        shown = clip(name, 64) if isinstance(name, str) and name else "unnamed"
        grant = self.authorized.grant_of(peer.public)
        connection = self._connections.open(key, shown, peer, now, grant)
        if key_rights.ended(self.authorized, peer, grant):
            self._close(connection, CloseReason.REVOKED, now)
            return
        limits = {
            "max_message_bytes": self.limits.max_message_bytes,
            "credit_bytes": self.limits.credit_bytes,
            "request_credit_bytes": self.limits.credit_bytes,
        }
        self._responder.post(connection, wire.Welcome(0, 0, self._instance, self._version, limits))
        self._effects.log(Level.DEBUG, "client.connected", client=connection.label, **_facts(peer))

    def _from_client(
        self, connection: Connection, message: wire.Message, body: bytes | None, now: float
    ) -> None:
        if isinstance(message, wire.Credit):
            if wrong := self.flow.credit(connection, message.read_bytes, now):
                key, channel = connection.key, message.channel
                self._refuse_frame(key, Code.MALFORMED, wrong, channel, message.id, now)
        elif isinstance(message, wire.Cancel):
            call = self._dispatch.table.by_client(connection.key, message.id)
            if call is not None:
                self._dispatch.cancel(call, now)
            else:
                self.flow.count_useless("late.cancel", connection.key, now)
        elif isinstance(message, wire.Answer):
            unfit = self._dispatch.questions.answer(connection.key, message, body or b"", now)
            if unfit is not None:
                self.flow.count_useless(unfit, connection.key, now)
        elif isinstance(message, wire.Goodbye) and message.channel:
            self._release(connection.key, message.channel, now)
            self.flow.part(connection, now)
        elif isinstance(message, wire.Goodbye):
            self._close(connection, CloseReason.GOODBYE, now)
        else:
            text = f"the broker takes no {type(message).__name__.lower()} from a client"
            self._refuse_frame(connection.key, Code.METHOD_REFUSED, text, message.channel, message.id, now)

    def _request(
        self, connection: Connection, request: wire.Request, body: bytes | None, now: float
    ) -> Refusal | HeavyJob | None:
        """Admit a request, or return why not. Return the check of a long one."""
        key = connection.key
        if request.id == 0 or request.channel == 0:
            return refusals.protocol(Code.MALFORMED, "a request needs a channel and an id from 1 up")
        if request.id <= connection.last_id and self.requests.is_open(key, request.id):
            text = f"request {request.id} is still open on this connection"
            self._refuse_frame(key, Code.DUPLICATE_ID, text, request.channel, request.id, now)
            return None
        if request.instance != self._instance:
            return refusals.wrong_instance(request.instance, self._instance)
        if self.closing:
            return refusals.shutting_down()
        if body is not None and len(body) > self.limits.max_message_bytes:
            return refusals.too_large(len(body), self.limits.max_message_bytes)
        if body is not None and len(body) > LONG_BYTES:
            return self._check_long(connection, request, body, now)
        try:
            params = jsonrpc.check_params(body)
            if request.meta is not None:
                jsonrpc.check_meta(request.meta)
        except BodyError as error:
            return refusals.invalid_body(error.code, str(error))
        return self.requests.admit(connection, request, params, now)

    def _check_long(self, connection: Connection, request: wire.Request, body: bytes, now: float) -> HeavyJob:
        """Check the params of a long request in pieces, then admit it."""
        size = self.flow.size
        try:
            params = yield from jsonrpc.check_long_params(body)
            if request.meta is not None:
                jsonrpc.check_meta(request.meta)
            if self.closing:
                refusal: Refusal | None = refusals.shutting_down()
            else:
                refusal = self.requests.admit(connection, request, params, now)
        except BodyError as error:
            refusal = refusals.invalid_body(error.code, str(error))
        if refusal is not None:
            self.flow.size = size
            self._responder.refuse(connection.key, request.channel, request.id, refusal, now)

    def managed(self, request: Manage, outcome: bytes | Refusal, now: float) -> None:
        """Send the outcome of a management request."""
        key, client_id = request.connection, request.client_id
        channel = self.requests.managing.pop((key, client_id))
        connection = self._connections.get(key)
        if connection is None:
            self._counters.add("late.managed")
        elif isinstance(outcome, Refusal):
            self._responder.refuse(key, channel, client_id, outcome, now)
        else:
            self._responder.post(connection, wire.Result(channel, client_id), outcome)

    def lost(self, key: bytes, now: float) -> None:
        """Close a connection that the transport has lost."""
        self.flow.forget(key)
        connection = self._connections.get(key)
        if connection is not None:
            self._close(connection, CloseReason.LOST, now)

    def _close(self, connection: Connection, reason: CloseReason, now: float, farewell: str = "") -> None:
        """Close a connection. Its client is told the reason `farewell`, if there is one."""
        self._connections.close(connection.key)
        self._behind.pop(connection.key, None)
        self._backlog.drop(JobKey("requests", connection=connection.key))
        self._release(connection.key, None, now)
        if farewell:  # beyond its credit, as messages that wait for credit are gone with the connection
            goodbye = wire.encode(wire.Goodbye(0, 0, farewell, connection.last_id))
            self._effects.append(Send(connection.key, goodbye))
        self._closed(connection.key, reason)
        level = Level.WARNING if reason in (CloseReason.CREDIT, CloseReason.OVERDRAWN) else Level.DEBUG
        if reason is CloseReason.REVOKED:
            level = Level.INFO
        facts = _facts(connection.peer)
        self._effects.log(level, "client.closed", client=connection.label, reason=reason.value, **facts)

    def _closed(self, key: bytes, reason: CloseReason) -> None:
        """Count the end of a connection, whether or not its client has said hello, and have it closed."""
        self.flow.forget(key)
        self._counters.add(f"closed.{reason.value}")
        self._effects.append(Closed(key, reason))

    def _release(self, key: bytes, channel: int | None, now: float) -> None:
        """End the calls and subscriptions of a channel, or of a whole connection."""
        self._bulk_endings.release(key, channel, now)
        self._registry.want(self._notifications.subscriptions.drop(key, channel), now)

    def goodbye(self, reason: str, now: float) -> None:
        """End every call and every connection, because the broker ends."""
        self.closing = True
        for connection in self._connections.all():
            for call in self._dispatch.table.of_client(connection.key):
                self._dispatch.fail(call, refusals.cut(call), now)
            for (key, id), channel in self.requests.managing.items():
                if key == connection.key:
                    self._responder.refuse(key, channel, id, refusals.cut_command(), now)
            self._close(connection, CloseReason.SHUTDOWN, now, reason)

    def revoke(self, now: float) -> None:
        """Close the connections of clients whose keys do not hold any more, or that may do something else."""
        for name in self.requests.by_key.keys() - set(self.authorized.names.values()):
            del self.requests.by_key[name]
        for connection in self._connections.all():
            if why := key_rights.ended(self.authorized, connection.peer, connection.grant):
                self._close(connection, CloseReason.REVOKED, now, why)

    def close_overflowing(self, now: float) -> None:
        """Close the clients that do not read what they are sent."""
        overflowing, self._connections.overflowing = self._connections.overflowing, []
        for connection in overflowing:
            if self._connections.get(connection.key) is connection:
                self._close(connection, CloseReason.CREDIT, now, "the client did not read what it was sent")

    def _refuse_frame(
        self, key: bytes, code: Code, text: str, channel: int, id: int, now: float, *, is_late: bool = False
    ) -> None:
        connection = self._connections.get(key)
        client = connection.label if connection is not None else None
        if self.requests.is_open(key, id):
            id = 0  # about the frame only: with the id it would end the open request
        if is_late:
            self._counters.add("late.frame")
        else:
            self._effects.log(Level.WARNING, "frame.refused", code=code.value, client=client)
        self._responder.refuse(key, channel, id, refusals.protocol(code, text), now)


def _facts(peer: Peer) -> dict[str, str | int]:
    """Return what the log tells of a client: its process, or its key and its machine."""
    return {"key": peer.key, "address": peer.address} if peer.public else {"pid": peer.pid, "uid": peer.uid}
