"""Which connections this process has: one for each event loop and endpoint.

The one place of the shim with state of the whole process: two clients that know nothing of each other find
the same connection here. A forked child starts with an empty pool; what it inherited is kept as it is,
for even to collect a socket of the parent's would be to touch it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from client_shim.asyncio.connection import BrokerConnection


class ConnectionPool:
    """The connections of one process. Its methods may be called from any thread."""

    def __init__(self, inherited: ConnectionPool | None = None) -> None:
        self.pid = os.getpid()
        self._inherited = inherited
        self._lock = threading.Lock()
        self._connections: dict[tuple[asyncio.AbstractEventLoop, str], BrokerConnection] = {}

    @property
    def connections(self) -> tuple[BrokerConnection, ...]:
        """Those that are in use, or were when their loop was closed."""
        with self._lock:
            return tuple(self._connections.values())

    def connection(
        self, loop: asyncio.AbstractEventLoop, endpoint: str, who: dict[str, Any], hello_timeout_s: float
    ) -> BrokerConnection:
        """The connection of this loop, which must be the running one, to this endpoint."""
        with self._lock:
            self._clear_up()
            connection = self._connections.get((loop, endpoint))
            if connection is None:
                connection = BrokerConnection(loop, endpoint, who, hello_timeout_s, self._forget)
                self._connections[loop, endpoint] = connection
            return connection

    def _forget(self, connection: BrokerConnection) -> None:
        with self._lock:
            self._connections.pop((connection.loop, connection.endpoint), None)

    def _clear_up(self) -> None:
        """Loops that were closed without a word leave sockets behind; nobody else can be using them."""
        for key in [key for key in self._connections if key[0].is_closed()]:
            self._connections.pop(key).abandon()


class _Process:
    pool = ConnectionPool()


def connection_pool() -> ConnectionPool:
    """The pool of this process."""
    if _Process.pool.pid != os.getpid():
        _Process.pool = ConnectionPool(_Process.pool)
    return _Process.pool
