"""The one HTTP client of all gateways: as little as HTTP and MCP ask for, so that gateways are compared.

The client of an SDK takes longer for a call than most gateways do, and would make them all look alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

import httptools

ANSWER_S = 60.0
"""How long a gateway may take for an answer."""

MAX_IDLE_S = 2.0
"""How long a connection may have been idle. Many gateways close one after 5 s, perhaps just now."""

OnMessage = Callable[[bytes], None]


class HttpFailed(Exception):
    """A gateway refused a request, or cut the connection."""


class Events:
    """Splits a body of server-sent events into their data."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._looked_at = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that are complete now."""
        self._unread += piece
        events = []
        while (end := self._end()) is not None:
            lines = bytes(self._unread[:end]).replace(b"\r\n", b"\n").split(b"\n")
            del self._unread[:end]
            data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
            if data:
                events.append(data)
        return events

    def _end(self) -> int | None:
        """Return the end of the first event; what was looked at is not looked at again."""
        start = max(0, self._looked_at - 3)
        found = [
            at + len(gap) for gap in (b"\n\n", b"\r\n\r\n") if (at := self._unread.find(gap, start)) >= 0
        ]
        self._looked_at = 0 if found else len(self._unread)
        return min(found, default=None)


class Connection(asyncio.Protocol):
    """One connection, with one exchange at a time; it is free again once the response is complete.

    Attributes:
        headers: of the last response, names in lower case.
    """

    def __init__(self, freed: Callable[[Connection], None]) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.is_lost = False
        self.idle_since = 0.0
        self._freed = freed
        self._events: Events | None = None
        self._body: list[bytes] = []
        self._on_failed: Callable[[str], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, on_message: OnMessage, on_failed: Callable[[str], None]) -> None:
        """Send a request. `on_message` takes each message of the response, or `b""` where it has none."""
        self._parser = httptools.HttpResponseParser(self)
        self._on_message, self._on_failed = on_message, on_failed
        self._events, self._body, self.headers = None, [], {}
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._on_failed(f"it closed the connection ({error})")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from httptools."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Take the end of the headers from httptools."""
        if self.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            self._events = Events()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body from httptools."""
        if self._events is None:
            self._body.append(body)
            return
        for data in self._events.feed(body):
            self._on_message(data)

    def on_message_complete(self) -> None:
        """Take the end of the response from httptools."""
        status = self._parser.get_status_code()
        if status >= 300:
            self._on_failed(f"HTTP {status}: {b''.join(self._body)[:200]!r}")
        elif self._events is None:
            self._on_message(b"".join(self._body))
        self.idle_since = monotonic()
        self._freed(self)

    def close(self) -> None:
        """Close it at once."""
        self._transport.abort()


class Http:
    """Keep-alive connections to one gateway: as many as there are exchanges at once.

    Args:
        port: of the loopback address that it listens at.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []
        self._all: list[Connection] = []

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the head of a request up to the value of its last header, the length of the body."""
        told = {"host": f"127.0.0.1:{self._port}", **headers, "content-length": ""}
        return "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in told.items())]).encode()

    async def exchange(self, head: bytes, body: bytes = b"") -> tuple[bytes, Connection]:
        """Return the message that answers a request, and the connection that it came by."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        timer = loop.call_later(ANSWER_S, fail, answered, "it did not answer")
        connection = await self.free_connection()
        connection.send(
            b"%b%d\r\n\r\n%b" % (head, len(body), body),
            lambda data: answer(answered, data),
            lambda why: fail(answered, why),
        )
        try:
            return await answered, connection
        finally:
            timer.cancel()

    async def free_connection(self) -> Connection:
        """Return a connection that no exchange uses."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_lost and monotonic() - connection.idle_since < MAX_IDLE_S:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Connection(self._idle.append), "127.0.0.1", self._port)
        self._all.append(made)
        return made

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()


def answer(answered: asyncio.Future[bytes], message: bytes) -> None:
    """End the wait for an answer, unless the message is a notification."""
    if not answered.done() and b'"method"' not in message[:200]:
        answered.set_result(message)


def fail(answered: asyncio.Future[bytes], why: str) -> None:
    """End the wait for an answer that does not come."""
    if not answered.done():
        answered.set_exception(HttpFailed(why))
