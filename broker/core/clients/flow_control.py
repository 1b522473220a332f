"""How much a connection may send: credit in bytes, and a throttle for refused and costly messages."""

from __future__ import annotations

from broker.base.metrics import Counters
from broker.core.clients.connections import Connection, Connections
from broker.core.clients.throttle import UNIT_BYTES, Throttle
from broker.core.effects import CreditExhausted, Effects, Hold, Level
from client_shim import wire

MAX_UNGREETED_BYTES = 4096
"""The largest message before a hello, and the largest hello. A larger one ends the connection."""


class FlowControl:
    """Counts the messages of clients by size and cost."""

    def __init__(self, connections: Connections, counters: Counters, effects: Effects) -> None:
        self._connections = connections
        self._counters = counters
        self._effects = effects
        self._throttle = Throttle()
        self.size = 0
        """The size of the message that is being handled."""

    def takes(self, connection: Connection | None, header: bytes, body: bytes | None) -> bool:
        """Count a message. Return whether it is within the credit, or within the limit before a hello."""
        self.size = size = len(header) + (0 if body is None else len(body)) + wire.MESSAGE_OVERHEAD_BYTES
        if connection is None:
            return size <= MAX_UNGREETED_BYTES
        if not connection.exhausted and connection.taken_bytes + size < self._connections.step_bytes:
            connection.taken_bytes += size  # the usual case, for each message of every client
            return True
        if connection.exhausted and size > wire.MAX_HEADER_BYTES:  # small messages may overtake requests
            return False
        post = self._connections.take(connection, size)
        if post is not None:
            self._effects.append(post)
        elif connection.exhausted:
            self._effects.append(CreditExhausted(connection.key))
        return True

    def keeps_behind(self, connection: Connection, header: bytes, body: bytes | None) -> bool:
        """Count a message that waits behind a long request. Return whether it is within the credit."""
        return self._connections.keep_behind(connection, wire.cost(header, body))

    def caught_up(self, connection: Connection) -> None:
        """Give the credit for messages that came behind a long request and are taken in now."""
        post = self._connections.take(connection, 0)
        if post is not None:
            self._effects.append(post)
        elif connection.exhausted:
            self._effects.append(CreditExhausted(connection.key))

    def refill(self, key: bytes, _: float) -> None:
        """Give new credit to a connection that had used up its credit and has no message left to be read."""
        connection = self._connections.get(key)
        post = self._connections.refill(connection) if connection is not None else None
        if post is not None:
            self._effects.append(post)

    def credit(self, connection: Connection, read_bytes: int, now: float) -> str:
        """Take the credit that a client gives, and send what waited for it. Return what is wrong with it."""
        if not 0 <= read_bytes <= connection.unread_bytes:
            return f"credit for {read_bytes} bytes, where {connection.unread_bytes} are to be read"
        self._effects += self._connections.credit(connection, read_bytes)
        if read_bytes < wire.MESSAGE_OVERHEAD_BYTES:  # less than any message costs
            self.count_useless("empty.credit", connection.key, now)
        return ""

    def part(self, connection: Connection, now: float) -> None:
        """Count the goodbye of a channel. A channel begins with a request: more goodbyes than these cost."""
        if connection.partings < connection.calls:
            connection.partings += 1
        else:
            self.count_useless("empty.goodbye", connection.key, now)

    def count_useless(self, what: str, key: bytes, now: float) -> None:
        """Count a message that was late or empty."""
        self._counters.add(what)
        self.cost(key, now)

    def cost(self, key: bytes, now: float, times: int = 1) -> None:
        """Throttle a connection whose messages are refused, or take as long as `times` refusals (law 5)."""
        verdict = self._throttle.tried(key, now, times + self.size // UNIT_BYTES) if times else None
        if verdict is None:
            return
        self._effects.append(Hold(key, verdict.until))
        if verdict.is_new:
            connection = self._connections.get(key)
            name, pid = (connection.label, connection.peer.pid) if connection is not None else (None, None)
            self._counters.add("slowed")
            self._effects.log(Level.WARNING, "client.slowed", client=name, pid=pid)

    def forget(self, key: bytes) -> None:
        """Forget a connection that has ended."""
        self._throttle.forget(key)
