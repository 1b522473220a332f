"""Sends the broker's own answers to clients: results and faults."""

from __future__ import annotations

from broker.base.metrics import Counters
from broker.core.calls.dispatch import fault
from broker.core.clients.connections import Body, Connection, Connections, Send
from broker.core.clients.flow_control import FlowControl
from broker.core.effects import Effects, Level
from broker.core.refusals import Refusal
from client_shim import wire


class Responder:
    """Sends answers within the credit of a connection, and counts what is refused.

    Args:
        flow: throttles clients whose messages are refused.
    """

    def __init__(
        self, connections: Connections, flow: FlowControl, counters: Counters, effects: Effects
    ) -> None:
        self._connections = connections
        self._flow = flow
        self._counters = counters
        self._effects = effects

    def post(self, connection: Connection, message: wire.Message, body: Body = None) -> None:
        """Send a message, now or when the client has given credit."""
        post = self._connections.post(connection, message, body)
        if post is not None:
            self._effects.append(post)

    def result(self, connection: Connection, request: wire.Request, body: bytes) -> None:
        """Answer a request with a result."""
        self.post(connection, wire.Result(request.channel, request.id), body)

    def refuse(self, key: bytes, channel: int, id: int, refusal: Refusal, now: float) -> None:
        """Answer with a fault. A connection without a hello has no credit to respect."""
        self._counters.add(f"refused.{refusal.code.value}")
        self._effects.log(Level.DEBUG, "request.refused", code=refusal.code.value)
        connection = self._connections.get(key)
        message = fault(channel, id, refusal, self._effects.mask)
        if connection is not None:
            self.post(connection, message)
        else:
            self._effects.append(Send(key, wire.encode(message)))
        self._flow.cost(key, now)
