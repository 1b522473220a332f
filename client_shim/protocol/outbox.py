"""What waits to be sent while the transport takes no more: bounded for requests, in order for all."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from client_shim import wire

MAX_MESSAGES = 4096
MAX_BYTES = 128 * 1024 * 1024
"""A request beyond either limit is refused. They are those of the broker (`calls_per_connection`,
`queue_bytes`): while it has credit to give, requests wait here that would else wait there. What answers the
broker (credit, cancel, goodbye) always finds room: there is no more of it than of what it answers."""

Frames = tuple[bytes, ...]


class Outbox:
    """Two queues of messages: the requests of calls, which can be taken back and wait until the broker reads,
    and what answers the broker, which overtakes them.

    Only so much may be under way to the broker before it has read some of it. One message may stand above
    that, as in the other direction.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Frames] = OrderedDict()
        """By the id of the call: thousands may be taken back one by one."""
        self._others: deque[Frames] = deque()
        self._is_request = False
        self._under_way = 0
        self._window_bytes = math.inf
        self.requests_bytes = 0

    def __len__(self) -> int:
        return len(self._requests) + len(self._others)

    @property
    def requests(self) -> int:
        """How many requests wait."""
        return len(self._requests)

    def first(self) -> Frames | None:
        """What is to be sent next, if it may be now."""
        self._is_request = not self._others and self._under_way < self._window_bytes
        if self._is_request:
            return next(iter(self._requests.values()), None)
        return self._others[0] if self._others else None

    def pop(self) -> None:
        """Forget what `first` gave: the transport has it."""
        frames = self._requests.popitem(last=False)[1] if self._is_request else self._others.popleft()
        size = sum(map(len, frames))
        self._under_way += size + wire.MESSAGE_OVERHEAD_BYTES
        if self._is_request:
            self.requests_bytes -= size

    def open(self, window_bytes: float) -> None:
        """The broker has greeted: from now on it is counted what is under way to it."""
        self._window_bytes, self._under_way = window_bytes, 0

    def refill(self, read_bytes: int) -> None:
        """The broker has read so much."""
        self._under_way -= min(max(0, read_bytes), self._under_way)

    def add(self, *frames: bytes) -> None:
        """Queue what is not a request."""
        self._others.append(frames)

    def add_request(self, id: int, frames: Frames) -> bool:
        """Queue the request of call `id` (from 1), or return false where there is no room."""
        size = sum(map(len, frames))
        if self.requests >= MAX_MESSAGES or (self.requests and self.requests_bytes + size > MAX_BYTES):
            return False
        self.requests_bytes += size
        self._requests[id] = frames
        return True

    def take_back(self, ids: set[int]) -> set[int]:
        """Drop the requests of these calls; return the calls whose request was still here."""
        found = {id for id in ids if id in self._requests}
        for id in found:
            self.requests_bytes -= sum(map(len, self._requests.pop(id)))
        return found

    def clear(self) -> None:
        """Drop everything."""
        self._requests.clear()
        self._others.clear()
        self.requests_bytes = 0
