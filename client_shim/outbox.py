"""What waits to be sent while the transport takes no more: bounded for requests, in order for all."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

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
    """A queue of messages, some of which are the requests of calls and can be taken back."""

    def __init__(self) -> None:
        self._parcels: deque[_Parcel] = deque()
        self.requests = 0
        self.requests_bytes = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def first(self) -> Frames | None:
        """What is to be sent next; it stays so until `pop`."""
        return self._parcels[0].frames if self._parcels else None

    def pop(self) -> None:
        """Forget the first message: the transport has it."""
        self._discount(self._parcels.popleft())

    def add(self, *frames: bytes) -> None:
        """Queue what is not a request."""
        self._parcels.append(_Parcel(0, frames))

    def add_request(self, id: int, frames: Frames) -> bool:
        """Queue the request of call `id` (from 1), or return false where there is no room."""
        size = sum(map(len, frames))
        if self.requests >= MAX_MESSAGES or (self.requests and self.requests_bytes + size > MAX_BYTES):
            return False
        self.requests += 1
        self.requests_bytes += size
        self._parcels.append(_Parcel(id, frames, size))
        return True

    def take_back(self, ids: set[int]) -> set[int]:
        """Drop the requests of these calls; return the calls whose request was still here."""
        found = [parcel for parcel in self._parcels if parcel.id in ids]
        if found:
            self._parcels = deque(parcel for parcel in self._parcels if parcel.id not in ids)
            for parcel in found:
                self._discount(parcel)
        return {parcel.id for parcel in found}

    def clear(self) -> None:
        """Drop everything."""
        self._parcels.clear()
        self.requests = self.requests_bytes = 0

    def _discount(self, parcel: _Parcel) -> None:
        if parcel.id:
            self.requests -= 1
            self.requests_bytes -= parcel.size
