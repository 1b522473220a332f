"""Whose is a log message? Servers of 2026-07-28 send one for the request that asked, and do not name it."""

from __future__ import annotations

from broker.core.calls.table import Call

MAX_GIVEN_UP = 256
"""Calls that are remembered one by one after they were given up."""

_OTHERS = 0
"""Stands for all calls beyond that; no call has this id."""


class LogRouting:
    """The calls of one server that asked for its log messages.

    One that was given up counts for a while longer: the server may still be at it, and what it says of that
    is for nobody, not for the one that is left.
    """

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._given_up: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._given_up)

    def begin(self, call: Call) -> None:
        """A call that asked for them is at the server."""
        self._open[call.id] = call

    def end(self, call: Call) -> bool:
        """A call has ended; whether it was one of them."""
        return self._open.pop(call.id, None) is not None

    def give_up(self, call: Call, until: float) -> None:
        """A call is given up while the server may be at it, until then at the longest."""
        if call.id in self._open:
            self._given_up[call.id if len(self._given_up) < MAX_GIVEN_UP else _OTHERS] = until

    def release(self, id: object) -> None:
        """The late reply to a call has come."""
        if type(id) is int and id != _OTHERS:
            self._given_up.pop(id, None)

    def release_all(self) -> None:
        """The process that was at them is gone."""
        self._open.clear()
        self._given_up.clear()

    def only(self, now: float) -> Call | None:
        """The one that a message is for, where there is exactly one that it can be for."""
        self.tick(now)
        if len(self._open) != 1 or self._given_up:
            return None
        return next(iter(self._open.values()))

    @property
    def wake_at(self) -> float | None:
        """When one that was given up cannot be meant any more."""
        return min(self._given_up.values()) if self._given_up else None

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self._given_up:
            self._given_up = {id: until for id, until in self._given_up.items() if until > now}
