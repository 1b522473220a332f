"""The HTTP of the gateway: uvicorn's protocol with the bounds that it lacks.

uvicorn parses and frames; it sets no bound to the headers of a request, to the time they take, or to how long
a client may not read. Here are those bounds. An exchange is handed to the door (`http`) as ASGI has it, with
the connection itself in the scope's state, by which the door cuts it or hears that it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from broker.gateway.refusals import JSON, Refused
from broker.gateway.settings import GatewayLimits

logger = logging.getLogger("mcp-broker")
logging.getLogger("uvicorn.error").disabled = True  # what it would say, the door says in the log's own form

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE_S = 75
LINGER_S = 1.0
"""How long a client may go on sending after a refusal that came before the end of its request."""

STALLED_S = 60.0
"""After so long a client that takes nothing of what is sent to it is cut off."""

_DEAD_AFTER_MS = 60_000
_BACKLOG = 1024


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


class HttpConnection(HttpToolsProtocol):
    """One connection of a client, with bounds.

    Attributes:
        on_lost: called once when the connection is lost while an exchange is under way.
    """

    def __init__(self, *args: Any, limits: GatewayLimits, **named: Any) -> None:
        super().__init__(*args, **named)
        self.on_lost: Callable[[], None] | None = None
        self.is_late = False
        """Whether the request under way takes longer than it may."""
        self._limits = limits
        self._head_bytes = 0
        self._in_head = True
        self._is_refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: tuple[int, float] | None = None

    # -- uvicorn's callbacks ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _find_dead_peers(transport)
        self._await_request()
        if len(self.connections) > self._limits.connections:
            logger.warning("gateway.connections_full", extra={"limit": self._limits.connections})
            self._refuse(Refused(503, "The gateway has no room for another connection; try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_there()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._in_head:
            self._await_request()
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self._limits.header_bytes:  # and no end of it yet
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if not self._in_head:  # a trailer
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > self._limits.header_bytes:
                self._refuse_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.header_bytes:
            self._refuse_head()
        if not self._is_over:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._request_there()
        if not self._is_over:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refused(400, f"{msg} Send HTTP/1.1 as RFC 9112 has it"))

    # -- what the door calls ------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self._is_refused or self.transport.is_closing()

    def cut(self) -> None:
        """End the connection at once; what was not sent is dropped."""
        self.transport.abort()

    def end_soon(self) -> None:
        """End the connection after a refusal. What the client still sends is read, and dropped, for a while:
        a connection that is closed with unread bytes takes the refusal with it."""
        with suppress(OSError, RuntimeError, NotImplementedError):
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def hear(self) -> None:
        """Go on reading, so that the end of the connection is noticed while an exchange is under way."""
        self.flow.resume_reading()

    def cut_if_stalled(self, now: float) -> bool:
        """Cut a client that has taken nothing for a while. Return whether it was cut."""
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or self.transport.is_closing():
            self._stalled = None
        elif self._stalled is None or self._stalled[0] != waiting:
            self._stalled = waiting, now
        elif now - self._stalled[1] >= STALLED_S:
            self.cut()
            return True
        return False

    # -- the time and size of a request -------------------------------------------------------------------

    def _await_request(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._limits.body_sec, self._late)

    def _request_there(self) -> None:
        self.is_late = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._in_head and self.cycle is not None:
            self.is_late = True
            self.cycle.message_event.set()
        elif self._head_bytes:
            seconds = self._limits.body_sec
            self._refuse(Refused(408, f"The headers took longer than {seconds:g} s; send them at once"))
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        limit = self._limits.header_bytes
        self._refuse(Refused(431, f"The headers have more than {limit} bytes; send fewer or shorter ones"))

    def _refuse(self, refused: Refused) -> None:
        """Answer without an exchange, and end the connection."""
        if self._is_over:
            return
        self._is_refused = True
        body = refused.body()
        head = STATUS_LINE[refused.status] + b"content-type: %s\r\ncontent-length: %d\r\n" % (
            JSON.encode(),
            len(body),
        )
        self.transport.write(head + b"connection: close\r\n\r\n" + body)
        self.end_soon()


_UPGRADE = re.compile(rb"(?i)(?<=\n)upgrade(?=[ \t]*:)")


def _without_upgrade(data: bytes) -> bytes:
    """Return the beginning of a request whose offer of another protocol the parser does not see.

    A server may ignore the offer (RFC 9110, 7.8). The parser takes it for accepted and leaves the
    body of the request unread. HTTP clients of Java offer HTTP/2 with every request.
    """
    if _UPGRADE.search(data) is None:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"ignored", head) + end + rest


def _find_dead_peers(transport: asyncio.Transport) -> None:
    """Have the kernel find out when the other machine is gone: a silent GET stream shows nothing of it."""
    plug = transport.get_extra_info("socket")
    if plug is None or plug.family == socket.AF_UNIX:
        return
    with suppress(OSError):
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)


class Listener:
    """The sockets that HTTP comes in by, and their connections.

    Args:
        app: serves an exchange.
        limits: the bounds of a connection.
    """

    def __init__(self, app: App, limits: GatewayLimits) -> None:
        self._limits = limits
        self._state = _State()
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
            return HttpConnection(self._config, self._state, dict(state), limits=self._limits)

        self._servers.append(
            await asyncio.get_running_loop().create_server(make, sock=plug, backlog=_BACKLOG)
        )

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
