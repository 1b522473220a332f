"""Server-Sent Events: framing, event ids, and what a legacy client may have replayed. Sans-io.

Sources: the HTML standard, "Server-sent events", 9.2.6 "Interpreting an event stream"; 2025-11-25,
Transports, "Resumability and Redelivery"; 2026-07-28, Streamable HTTP, "Receiving Messages".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from typing import NamedTuple

from broker.gateway.conversation.jsonrpc import MAX_ID_BYTES

COMMENT = b":\r\n\r\n"
"""Keeps proxies from taking a silent stream for a dead one."""

COMMENT_S = 15.0

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_ID = re.compile(rf"([0-9a-f]{{16}})\.([A-Za-z0-9_-]{{0,{-(-MAX_ID_BYTES * 4 // 3)}}})\.([0-9]{{1,15}})")


def event(data: bytes, event_id: str = "") -> bytes:
    """Return one event with a JSON text as its data.

    A `data:` line ends at a raw CR or LF. In JSON they are whitespace between tokens: a space says the same.
    """
    if b"\r" in data or b"\n" in data:
        data = data.translate(_LINE_ENDS)
    head = f"id: {event_id}\n".encode() if event_id else b""
    return b"%sevent: message\ndata: %s\n\n" % (head, data)


def primer(event_id: str) -> bytes:
    """Return the event without data that gives a legacy client an id to come back with."""
    return f"id: {event_id}\ndata: \n\n".encode()


class EventPosition(NamedTuple):
    """A place in a stream, as an event id names it.

    Attributes:
        stream: the stream's own name.
        request: the id of the request that the stream answers, as JSON; empty for a GET stream.
        number: of the last event that the client has.
    """

    stream: str
    request: bytes
    number: int

    def __str__(self) -> str:
        request = base64.urlsafe_b64encode(self.request).rstrip(b"=").decode()
        return f"{self.stream}.{request}.{self.number}"


def place_of(event_id: str) -> EventPosition | None:
    """Return the place that a `Last-Event-ID` names; `None` where the gateway did not make it."""
    match = _ID.fullmatch(event_id)
    if match is None:
        return None
    try:
        request = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
    except binascii.Error:
        return None
    return EventPosition(match[1], request, int(match[3]))


class Replay:
    """The last events of one stream, for a client that comes back.

    Args:
        stream: 16 hexadecimal digits that no other stream has.
        request: the id of the request that it answers, as JSON; empty for a GET stream.
        limit_bytes: what is kept; the oldest events are forgotten first.
    """

    def __init__(self, stream: str, request: bytes, limit_bytes: int) -> None:
        self.stream = stream
        self.request = request
        self.held_bytes = 0
        self.forgotten = 0
        self._limit_bytes = limit_bytes
        self._last = 0
        self._events: deque[tuple[int, bytes]] = deque()

    @property
    def here(self) -> str:
        """The id of the last event."""
        return str(EventPosition(self.stream, self.request, self._last))

    def add(self, message: bytes) -> bytes:
        """Return the event that carries this message, and keep it."""
        self._last += 1
        made = event(message, self.here)
        self._events.append((self._last, made))
        self.held_bytes += len(made)
        while self.held_bytes > self._limit_bytes:
            _, oldest = self._events.popleft()
            self.held_bytes -= len(oldest)
            self.forgotten += 1
        return made

    def clear(self) -> None:
        """Forget all events."""
        self.forgotten += len(self._events)
        self._events.clear()
        self.held_bytes = 0

    def lacks_end(self, number: int) -> bool:
        """Return whether a client whose last event was this would not get the last event."""
        return number < self._last and not self._events

    def after(self, number: int) -> list[bytes]:
        """Return the events that a client has not seen whose last one was this."""
        return [made for at, made in self._events if at > number]
