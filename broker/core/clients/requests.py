"""Decides about a request: answer it from memory, open a call, have the management do it, or refuse it."""

from __future__ import annotations

from broker.config import names
from broker.core import refusals
from broker.core.calls.dispatch import Dispatch
from broker.core.clients import key_rights
from broker.core.clients.connections import Connection
from broker.core.clients.flow_control import FlowControl
from broker.core.clients.notifications import Notifications
from broker.core.clients.responder import Responder
from broker.core.effects import Effects, Manage
from broker.core.mcp.jsonrpc import Params
from broker.core.mcp.methods import NO_TASKS, Era, Route, rule_for
from broker.core.refusals import Refusal
from broker.core.servers.availability import never
from broker.core.servers.catalogue import Catalogue
from broker.core.servers.registry import Registry
from broker.core.servers.server import Server
from client_shim import wire

MAX_MANAGING = 512
"""The number of management requests that may be under way at once."""

BYTES_A_TIME, URIS_A_TIME = 4096, 256
"""A `listen` costs as much as a refusal for so many bytes of its params, and for so many subscribed uris."""

COSTS = {"status": 16, "reload": 16}
"""Management requests that cost as much as so many refusals."""

MAX_MANAGING_OF_ONE = 64
"""The same for one connection, so that it cannot keep the others from asking."""


class Requests:
    """The requests of clients whose params are checked.

    Args:
        table: each server by its name.
        registry: is told which resources clients subscribe to.
        flow: counts what a request costs.
    """

    def __init__(
        self,
        table: dict[str, Server],
        registry: Registry,
        responder: Responder,
        dispatch: Dispatch,
        notifications: Notifications,
        flow: FlowControl,
        effects: Effects,
    ) -> None:
        self._table = table
        self._registry = registry
        self._responder = responder
        self._dispatch = dispatch
        self._notifications = notifications
        self._flow = flow
        self._effects = effects
        self.by_key: dict[str, int] = {}
        """The number of requests of each client with a key, by its name."""
        self.managing: dict[tuple[bytes, int], int] = {}
        """The management requests that are under way: connection and client id → channel."""

    def admit(
        self, connection: Connection, request: wire.Request, params: Params, now: float
    ) -> Refusal | None:
        """Admit a request, or return why not."""
        key = connection.key
        connection.calls += 1
        if name := connection.peer.key:
            self.by_key[name] = self.by_key.get(name, 0) + 1
        if request.id > connection.last_id:
            connection.last_id = request.id
        if request.service == wire.MANAGEMENT and request.method == "listen":
            return self._listen(connection, request, params, now)
        if request.service == wire.MANAGEMENT:
            self._flow.cost(key, now, COSTS.get(request.method, 0))
            if not key_rights.may_ask(connection.grant, request.method):
                return key_rights.manages_nothing(connection.peer.key, request.method)
            return self._manage(connection, request, params)
        return self._route(connection, request, params, now)

    def is_open(self, key: bytes, client_id: int) -> bool:
        """Return whether a request with this id is open on the connection."""
        return self._dispatch.table.by_client(key, client_id) is not None or (key, client_id) in self.managing

    def _route(
        self, connection: Connection, request: wire.Request, params: Params, now: float
    ) -> Refusal | None:
        server = self._table.get(request.service) or self._table.get(names.normal(request.service))
        if connection.grant is not None and not connection.may_use(names.normal(request.service)):
            return key_rights.not_granted(connection.peer.key, request.service)
        if server is None:
            return key_rights.unknown_server(connection.grant, request.service, self._registry.names)
        if (refusal := never(server)) is not None:
            return refusal
        era = server.era
        rule = rule_for(request.method, era, server.config.allow_methods)
        if rule is None:
            return refusals.unknown_method(server.name, request.method)
        if rule.route is Route.NOBODY:
            return refusals.refused_method(server.name, request.method, rule.why)
        if params.is_task and request.method == "tools/call" and era is Era.LEGACY:
            return refusals.refused_method(server.name, "tools/call", NO_TASKS)
        if rule.route is Route.CATALOGUE and params.has_cursor:
            return refusals.invalid_params(request.method)
        if rule.route is Route.BROKER and server.lifecycle.idle:  # a ping starts nothing
            self._responder.result(connection, request, b"{}")
            return None
        catalogue = server.catalogue
        from_memory = rule.route is Route.CATALOGUE
        if catalogue is None or not from_memory or not _answers(server, catalogue, request.method):
            return self._dispatch.accept(server, connection, request, params, now)
        list_by = self._dispatch.reread(server, request.method, now)
        if list_by is not None:
            return self._dispatch.accept(server, connection, request, params, now, list_by)
        body = catalogue.answer(request.method, now)
        if body is None:
            return refusals.no_list(server.name, request.method)
        self._responder.result(connection, request, body)
        return None

    def _listen(
        self, connection: Connection, request: wire.Request, params: Params, now: float
    ) -> Refusal | None:
        channel_key = (connection.key, request.channel)
        accepted = self._notifications.listen(channel_key, params.body, connection)
        if isinstance(accepted, Refusal):
            return accepted
        self._responder.result(connection, request, accepted.body())
        self._notifications.tell_refused(channel_key, accepted)
        subscribed = self._notifications.subscriptions.count
        self._flow.cost(connection.key, now, len(params.body) // BYTES_A_TIME + subscribed // URIS_A_TIME)
        self._registry.want(accepted.changed, now)
        return None

    def _manage(self, connection: Connection, request: wire.Request, params: Params) -> Refusal | None:
        key = connection.key
        if len(self.managing) >= MAX_MANAGING:
            return refusals.management_busy(MAX_MANAGING)
        if sum(held == key for held, _ in self.managing) >= MAX_MANAGING_OF_ONE:
            return refusals.management_busy(MAX_MANAGING_OF_ONE)
        self.managing[key, request.id] = request.channel
        self._effects.append(
            Manage(key, request.id, request.method, params.body, connection.peer.key, connection.grant)
        )
        return None


def _answers(server: Server, catalogue: Catalogue, method: str) -> bool:
    """Return whether the catalogue answers this method. Without a process the next one may have to."""
    if server.opened:
        return True
    return catalogue.is_known(method) and not (server.lifecycle.idle and catalogue.is_doubted(method))
