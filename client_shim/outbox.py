"""What waits to be sent while the transport takes no more: bounded for requests, in order for all."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from client_shim import wire

MAX_MESSAGES = 1024
MAX_BYTES = 64 * 1024 * 1024
"""A request beyond either limit is refused. What answers the broker (credit, cancel, goodbye) always finds
room: there is no more of it than of what it answers."""

Frames = tuple[bytes, ...]


class _Parcel(NamedTuple):
    """`id` and `size` are of a request; both are 0 for other messages."""

    id: int
    frames: Frames
    size: int = 0


class Outbox:
    """Two queues of messages: the requests of calls, which can be taken back and wait until the broker reads,
    and what answers the broker, which overtakes them.

    Only so much may be under way to the broker before it has read some of it. One message may stand above
    that, as in the other direction.
    """

    def __init__(self) -> None:
        self._requests: deque[_Parcel] = deque()
        self._others: deque[_Parcel] = deque()
        self._next = self._others
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
        may = self._under_way < self._window_bytes
        self._next = self._others if self._others or not may else self._requests
        return self._next[0].frames if self._next else None

    def pop(self) -> None:
        """Forget what `first` gave: the transport has it."""
        parcel = self._next.popleft()
        self._under_way += sum(map(len, parcel.frames)) + wire.MESSAGE_OVERHEAD_BYTES
        self._discount(parcel)

    def open(self, window_bytes: float) -> None:
        """The broker has greeted: from now on it is counted what is under way to it."""
        self._window_bytes, self._under_way = window_bytes, 0

    def refill(self, read_bytes: int) -> None:
        """The broker has read so much."""
        self._under_way -= min(max(0, read_bytes), self._under_way)

    def add(self, *frames: bytes) -> None:
        """Queue what is not a request."""
        self._others.append(_Parcel(0, frames))

    def add_request(self, id: int, frames: Frames) -> bool:
        """Queue the request of call `id` (from 1), or return false where there is no room."""
        size = sum(map(len, frames))
        if self.requests >= MAX_MESSAGES or (self.requests and self.requests_bytes + size > MAX_BYTES):
            return False
        self.requests_bytes += size
        self._requests.append(_Parcel(id, frames, size))
        return True

    def take_back(self, ids: set[int]) -> set[int]:
        """Drop the requests of these calls; return the calls whose request was still here."""
        found = [parcel for parcel in self._requests if parcel.id in ids]
        if found:
            left = [parcel for parcel in self._requests if parcel.id not in ids]
            self._requests.clear()
            self._requests.extend(left)
            for parcel in found:
                self._discount(parcel)
        return {parcel.id for parcel in found}

    def clear(self) -> None:
        """Drop everything."""
        self._requests.clear()
        self._others.clear()
        self.requests_bytes = 0

    def _discount(self, parcel: _Parcel) -> None:
        self.requests_bytes -= parcel.size
