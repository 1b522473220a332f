"""The connections of this process: one for each event loop, address and name.

This is the only state of the shim that is global to a process: clients that do not know each other find the
same connection here. A forked child starts with an empty pool. It keeps a reference to the inherited one: to
collect a socket of the parent's would close it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import Any, NamedTuple

from client_shim.asyncio.connection import BrokerConnection
from client_shim.transport.address import BrokerAddress


class _Key(NamedTuple):
    loop: asyncio.AbstractEventLoop
    address: BrokerAddress
    name: str


class ConnectionPool:
    """The connections of one process. Its methods may be called from any thread."""

    def __init__(self, inherited: ConnectionPool | None = None) -> None:
        self.pid = os.getpid()
        self._inherited = inherited
        self._lock = threading.Lock()
        self._connections: dict[_Key, BrokerConnection] = {}

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
        name: str = "",
    ) -> BrokerConnection:
        """Return the connection of this loop, which must be the running one, to this address.

        Args:
            name: clients that give different names have different connections.
        """
        key = _Key(loop, address, name)
        with self._lock:
            self._clear_up()
            connection = self._connections.get(key)
            if connection is None:
                connection = BrokerConnection(loop, address, who, hello_timeout_s, partial(self._forget, key))
                self._connections[key] = connection
            return connection

    def _forget(self, key: _Key, _: BrokerConnection) -> None:
        with self._lock:
            self._connections.pop(key, None)

    def _clear_up(self) -> None:
        """Abandon the connections of closed loops: nothing else can be using their sockets."""
        for key in [key for key in self._connections if key.loop.is_closed()]:
            self._connections.pop(key).abandon()


class _Process:
    pool = ConnectionPool()


def connection_pool() -> ConnectionPool:
    """Return the pool of this process."""
    if _Process.pool.pid != os.getpid():
        _Process.pool = ConnectionPool(_Process.pool)
    return _Process.pool
