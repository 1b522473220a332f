"""One HTTP connection: uvicorn's protocol with the bounds that it lacks.

uvicorn parses and frames; it sets no bound to the headers of a request, to the time they take, or to how long
a client may not read. Here are those bounds. An exchange is handed to the door (`http`) as ASGI has it, with
the connection itself in the scope's state, by which the door cuts it or hears that it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from broker.gateway.http.connection_limit import ConnectionLimit
from broker.gateway.http.refusals import JSON, Refused
from broker.gateway.settings import GatewayLimits

logging.getLogger("uvicorn.error").disabled = True  # what it would say, the door says in the log's own form

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LINGER_S = 1.0
"""How long a client may go on sending after a refusal that came before the end of its request."""

FIRST_REQUEST_S = 10.0
"""How long a connection may take until the headers of a request on it have shown a token."""

MAX_PIPELINED = 16
"""How many requests of a connection may wait for the one under way. Hardly any client sends two."""

STALLED_S = 60.0
"""After so long a client that takes nothing of what is sent to it is cut off."""

_JSON = JSON.encode()
_DEAD_AFTER_MS = 60_000


class HttpConnection(HttpToolsProtocol):
    """One connection of a client, with bounds.

    Args:
        limits: the bounds.
        room: how many connections there may be.
        on_refused: takes each refusal for which there is no exchange.

    Attributes:
        on_lost: called once when the connection is lost while an exchange is under way.
        client_name: what the client of its last request of 2026-07-28 is called.
    """

    def __init__(
        self,
        *args: Any,
        limits: GatewayLimits,
        room: ConnectionLimit,
        on_refused: Callable[[Refused], None],
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self._on_refused = on_refused
        self.on_lost: Callable[[], None] | None = None
        self.client_name = ""
        self.is_late = False
        """Whether the request under way takes longer than it may."""
        self._limits = limits
        self._room = room
        self._is_known = False
        self._running: RequestResponseCycle | None = None
        self._head_bytes = 0
        """The bytes that have come since a request may have begun, up to the end of its headers."""
        self._header_bytes = 0
        """The bytes of its headers, and then of its trailers."""
        self._in_head = True
        self._is_refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: tuple[int, float] | None = None

    # -- uvicorn's callbacks ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _find_dead_peers(transport)
        self._await_request()
        if not self._room.opened(self):
            self._refuse(Refused(503, "The gateway has no room for another connection; try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.closed(self)
        self._request_there()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._in_head:
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if (self._head_bytes or not self._in_head) and not self._is_over:  # and no end of it yet
            self._await_request()
            if self._head_bytes > self._limits.header_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self.scope["state"]["connection"] = self

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._limits.header_bytes and not self._in_head:  # trailers
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._header_bytes > self._limits.header_bytes:
            self._refuse_head()
        self._header_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self.cut()
        if not self._is_over:
            self._room.began(self)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._request_there()
        if not self._is_over:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._room.rests(self)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refused(400, f"{msg} Send HTTP/1.1 as RFC 9112 has it"))

    # -- what the door calls ------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self._is_refused or self.transport.is_closing()

    def known(self) -> None:
        """A request on it was let in: it has the time for a body, and nobody's connection goes before it."""
        if self._is_known:
            return
        self._is_known = True
        self._room.known(self)
        if self._timer is not None:
            late_at = self._timer.when() + max(0.0, self._limits.body_sec - FIRST_REQUEST_S)
            self._timer.cancel()
            self._timer = self.loop.call_at(late_at, self._late)

    def cut(self) -> None:
        """End the connection at once; what was not sent is dropped."""
        self._drop_answers()
        self.transport.abort()

    def _drop_answers(self) -> None:
        """Write nothing any more for the requests that came in, also before the loss is told."""
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True

    def answer(self, status: int, body: bytes) -> bool:
        """Write the whole response to the request under way: JSON, and no header that depends on the request.

        Return false where it is written in another way: uvicorn's, which takes a response in parts and looks
        at each header for characters that no header may have.
        """
        cycle = self._running
        if cycle is None or cycle.response_started or not self._may_answer_at_once(cycle):
            return False
        cycle.response_started = cycle.response_complete = True
        date = b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)
        head = b"%b%bcontent-length: %d\r\ncontent-type: %b\r\n\r\n" % (
            STATUS_LINE[status],
            date,
            len(body),
            _JSON,
        )
        self.transport.writelines((head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _may_answer_at_once(self, cycle: RequestResponseCycle) -> bool:
        is_there = not (cycle.disconnected or self.flow.write_paused)
        return is_there and cycle.keep_alive and cycle.scope["method"] == "POST"

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
            self._timer = self.loop.call_later(self._seconds, self._late)

    @property
    def _seconds(self) -> float:
        """How long headers and body of a request may take."""
        return self._limits.body_sec if self._is_known else min(self._limits.body_sec, FIRST_REQUEST_S)

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
            self._refuse(Refused(408, f"The headers took longer than {self._seconds:g} s; send them at once"))
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
        self._on_refused(refused)
        self._drop_answers()
        body = refused.body()
        head = STATUS_LINE[refused.status] + b"content-type: %s\r\ncontent-length: %d\r\n" % (
            _JSON,
            len(body),
        )
        self.transport.write(head + b"connection: close\r\n\r\n" + body)
        self.end_soon()


_UPGRADE = re.compile(rb"(?i)\nupgrade(?=[ \t]*:)")  # what begins with a line end is found quickly


def _without_upgrade(data: bytes) -> bytes:
    """Return the beginning of a request whose offer of another protocol the parser does not see.

    A server may ignore the offer (RFC 9110, 7.8). The parser takes it for accepted and leaves the
    body of the request unread. HTTP clients of Java offer HTTP/2 with every request.
    """
    if _UPGRADE.search(data) is None:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\nignored", head) + end + rest


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
