"""The connections of this process: one for each event loop and address.

This is the only state of the shim that is global to a process: clients that do not know each other find the
same connection here. A forked child starts with an empty pool. It keeps a reference to the inherited one: to
collect a socket of the parent's would close it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from client_shim.asyncio.connection import BrokerConnection
from client_shim.transport.address import BrokerAddress


class ConnectionPool:
    """The connections of one process. Its methods may be called from any thread."""

    def __init__(self, inherited: ConnectionPool | None = None) -> None:
        self.pid = os.getpid()
        self._inherited = inherited
        self._lock = threading.Lock()
        self._connections: dict[tuple[asyncio.AbstractEventLoop, BrokerAddress], BrokerConnection] = {}

    @property
    def connections(self) -> tuple[BrokerConnection, ...]:
        """The connections that are in use, or were in use when their loop was closed."""
        with self._lock:
            return tuple(self._connections.values())

    def connection(
        self,
        loop: asyncio.AbstractEventLoop,
        address: BrokerAddress,
        who: dict[str, Any],
        hello_timeout_s: float,
    ) -> BrokerConnection:
        """Return the connection of this loop, which must be the running one, to this address."""
        with self._lock:
            self._clear_up()
            connection = self._connections.get((loop, address))
            if connection is None:
                connection = BrokerConnection(loop, address, who, hello_timeout_s, self._forget)
                self._connections[loop, address] = connection
            return connection

    def _forget(self, connection: BrokerConnection) -> None:
        with self._lock:
            self._connections.pop((connection.loop, connection.address), None)

    def _clear_up(self) -> None:
        """Abandon the connections of closed loops: nothing else can be using their sockets."""
        for key in [key for key in self._connections if key[0].is_closed()]:
            self._connections.pop(key).abandon()


class _Process:
    pool = ConnectionPool()


def connection_pool() -> ConnectionPool:
    """Return the pool of this process."""
    if _Process.pool.pid != os.getpid():
        _Process.pool = ConnectionPool(_Process.pool)
    return _Process.pool
