"""The calls of a connection that have not ended, and their deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from client_shim import wire
from client_shim.protocol.payload import PreparedRequest

GRACE_S = 2.0
"""How much later than the broker the client enforces a deadline. The broker's error says more."""

MAX_EXTENDED_S = 86_400.0
"""Questions defer the deadline of a call by at most so many seconds after its begin, as at the broker."""


class ClientCall(NamedTuple):
    """A call that has not ended. `moved`: progress that extends its time has come since `expires` was set.

    `paused_at`: since when its time stands still, because a question is open.
    """

    channel: int
    subject: str
    timeout_s: float | None
    begun_at: float
    expires: float | None
    extends: bool
    only_reads: bool
    moved: bool = False
    paused_at: float | None = None

    @property
    def due(self) -> float | None:
        """The time when the client ends the call by itself."""
        return self.expires if self.paused_at is None else self.latest

    @property
    def latest(self) -> float | None:
        """The latest time to which questions can defer the deadline."""
        if self.expires is None:
            return None
        return max(self.expires, self.begun_at + MAX_EXTENDED_S + GRACE_S)


class ClientCalls:
    """The table of open calls. Their ids rise by one, so a lower id that is not in it has ended."""

    def __init__(self) -> None:
        self.last_id = 0
        self._calls: dict[int, ClientCall] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[int]:
        return iter(self._calls)

    def __getitem__(self, id: int) -> ClientCall:
        return self._calls[id]

    def add(self, id: int, channel: int, request: PreparedRequest, now: float) -> None:
        """Add a call that begins now. Its id must be the next one."""
        self.last_id = id
        timeout_s = request.timeout_s
        expires = None if timeout_s is None else now + timeout_s + GRACE_S
        extends = bool(request.flags & wire.PROGRESS_EXTENDS)
        self._calls[id] = ClientCall(
            channel, request.subject, timeout_s, now, expires, extends, request.only_reads
        )

    def find(self, channel: int, id: int) -> ClientCall | None:
        """Return the call of this id if it is of this channel."""
        call = self._calls.get(id)
        return call if call is not None and call.channel == channel else None

    def of_channel(self, channel: int) -> list[int]:
        """Return the ids of the calls of a channel."""
        return [id for id, call in self._calls.items() if call.channel == channel]

    def has_ended(self, id: int) -> bool:
        """Return whether this is the id of a call that has ended."""
        return 0 < id <= self.last_id and id not in self._calls

    def pop(self, id: int) -> ClientCall | None:
        """Remove a call and return it; `None` if it has ended."""
        return self._calls.pop(id, None)

    # --- time ------------------------------------------------------------------------------------

    def progressed(self, id: int) -> None:
        """Note that a call has made progress."""
        if self._calls[id].extends:
            self._calls[id] = self._calls[id]._replace(moved=True)

    def next_deadline(self) -> float | None:
        """Return the time when the next call is overdue."""
        return min((due for call in self._calls.values() if (due := call.due) is not None), default=None)

    def overdue(self, now: float) -> list[int]:
        """Return the calls whose time is over; progress since the last look begins it anew."""
        due = [id for id, call in self._calls.items() if call.due is not None and now >= call.due]
        return [id for id in due if not self._begins_anew(id, now)]

    def _begins_anew(self, id: int, now: float) -> bool:
        call = self._calls[id]
        if not call.moved or call.timeout_s is None:
            return False
        self._calls[id] = call._replace(moved=False, expires=now + call.timeout_s + GRACE_S)
        return True

    def pause(self, id: int, now: float) -> None:
        """Let the time of a call stand still from now on, if it does not yet."""
        if self._calls[id].paused_at is None:
            self._calls[id] = self._calls[id]._replace(paused_at=now)

    def resume(self, id: int, now: float) -> None:
        """Let the time of a call go on: the pause has deferred its deadline."""
        call = self._calls[id]
        expires = call.expires
        if expires is not None and call.latest is not None and call.paused_at is not None:
            expires = min(expires + now - call.paused_at, call.latest)
        self._calls[id] = call._replace(expires=expires, paused_at=None)
