"""The messages that wait until the transport takes them: in order, and bounded for requests."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from client_shim import wire

MAX_MESSAGES = 4096
MAX_BYTES = 128 * 1024 * 1024
"""A request above either limit is refused. The limits are those of the broker (`calls_per_connection`,
`queue_bytes`), where the same requests would wait otherwise. The other messages (credit, cancel, answer,
goodbye) are not limited: there are no more of them than of the messages that they follow."""

Frames = tuple[bytes, ...]


class Outbox:
    """Two queues: requests, which wait for credit and can be taken back, and all others, which overtake them.

    The broker gives a window of bytes that may be under way to it. One message may exceed the window, as in
    the other direction.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Frames] = OrderedDict()
        """By the id of the call: any of thousands may be taken back."""
        self._others: deque[Frames] = deque()
        self._is_request = False
        self._under_way = 0
        self._window_bytes = math.inf
        self.requests_bytes = 0

    def __len__(self) -> int:
        return len(self._requests) + len(self._others)

    @property
    def requests(self) -> int:
        """The number of requests that wait."""
        return len(self._requests)

    def first(self) -> Frames | None:
        """Return the message to send next, or `None` if none waits or there is no credit."""
        self._is_request = not self._others and self._under_way < self._window_bytes
        if self._is_request:
            return next(iter(self._requests.values())) if self._requests else None
        return self._others[0] if self._others else None

    def pop(self) -> None:
        """Remove the message that `first` returned: the transport has it."""
        frames = self._requests.popitem(last=False)[1] if self._is_request else self._others.popleft()
        size = sum(map(len, frames))
        self._under_way += size + wire.MESSAGE_OVERHEAD_BYTES
        if self._is_request:
            self.requests_bytes -= size

    def open(self, window_bytes: float) -> None:
        """Begin to count the bytes under way: the broker has answered the hello."""
        self._window_bytes, self._under_way = window_bytes, 0

    def refill(self, read_bytes: int) -> None:
        """Give the window back so many bytes: the broker has read them."""
        self._under_way -= min(max(0, read_bytes), self._under_way)

    def add(self, *frames: bytes) -> None:
        """Queue a message that is not a request."""
        self._others.append(frames)

    def add_request(self, id: int, frames: Frames) -> bool:
        """Queue the request of call `id` (from 1); return false if there is no room."""
        size, waiting = sum(map(len, frames)), len(self._requests)
        if waiting >= MAX_MESSAGES or (waiting and self.requests_bytes + size > MAX_BYTES):
            return False
        self.requests_bytes += size
        self._requests[id] = frames
        return True

    def take_back(self, ids: set[int]) -> set[int]:
        """Drop the requests of these calls; return the calls whose request was not sent yet."""
        found = {id for id in ids if id in self._requests}
        for id in found:
            self.requests_bytes -= sum(map(len, self._requests.pop(id)))
        return found

    def clear(self) -> None:
        """Drop all messages."""
        self._requests.clear()
        self._others.clear()
        self.requests_bytes = 0
