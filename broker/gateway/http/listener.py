"""The sockets that HTTP comes in by, and their connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from broker.base.rate_limit import RateLimit
from broker.gateway.addresses import BACKLOG
from broker.gateway.http.connection import HttpConnection, Receive, Scope, Send
from broker.gateway.http.connection_limit import ConnectionLimit
from broker.gateway.http.refusals import Refused
from broker.gateway.settings import GatewayLimits

logger = logging.getLogger("mcp-broker")

App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE_S = 75
SAID_EVERY_S = 10.0
"""How often the log says that there are too many connections."""


class _State(ServerState):
    """What uvicorn's connections share. Unlike uvicorn's own, it needs no timer for the date."""

    def __init__(self) -> None:
        self._date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        now = int(time.time())
        if now != self._date[0]:
            self._date = now, [(b"date", formatdate(now, usegmt=True).encode())]
        return self._date[1]

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        pass


class Listener:
    """The sockets that HTTP comes in by, and their connections.

    Args:
        app: serves an exchange.
        limits: the bounds of a connection.
        on_refused: takes each refusal of a connection for which there is no exchange.
    """

    def __init__(self, app: App, limits: GatewayLimits, on_refused: Callable[[Refused], None]) -> None:
        self._on_refused = on_refused
        self._limits = limits
        self._state = _State()
        self._room = ConnectionLimit(limits.connections, self._full)
        self._said = RateLimit(1, SAID_EVERY_S)
        self._unsaid: Counter[str] = Counter()
        self._servers: list[asyncio.Server] = []
        self._config = Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who calls is told by the token, and not by a header
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()

    async def open(self, plug: socket.socket, state: Mapping[str, Any]) -> None:
        """Serve at a listening socket.

        Args:
            state: what the scope's state of each exchange begins with.
        """

        def make() -> HttpConnection:
            return HttpConnection(
                self._config,
                self._state,
                dict(state),
                limits=self._limits,
                room=self._room,
                on_refused=self._on_refused,
            )

        self._servers.append(await asyncio.get_running_loop().create_server(make, sock=plug, backlog=BACKLOG))

    def _full(self, kind: str) -> None:
        """Count the connections that had to go or were refused, and log them from time to time."""
        self._unsaid[kind] += 1
        if self._said.take(time.monotonic()):
            gone = {name: self._unsaid[name] for name in ("unknown", "idle", "refused")}
            logger.warning("gateway.connections_full", extra={"limit": self._limits.connections, **gone})
            self._unsaid.clear()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._state.connections)

    def cut_stalled(self, now: float) -> int:
        """Cut the clients that take nothing. Return how many were cut."""
        connections = [one for one in self._state.connections if isinstance(one, HttpConnection)]
        return sum(one.cut_if_stalled(now) for one in connections)

    def stop_listening(self) -> None:
        """Take no further connections, and no further request on those that there are."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def finished(self, within_s: float) -> None:
        """Wait until the exchanges have ended, but no longer than this."""
        if tasks := set(self._state.tasks):
            await asyncio.wait(tasks, timeout=within_s)

    async def aclose(self, within_s: float) -> None:
        """Wait until the last words are read, and cut those who do not read them."""
        await self.finished(within_s)
        for connection in list(self._state.connections):
            connection.transport.close()
        await asyncio.sleep(0)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in self._state.tasks:
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=1.0)
