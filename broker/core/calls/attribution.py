"""Attributes messages that name no call: log messages, and questions of legacy servers.

A message is attributed to a call only if it can be about no other one.
"""

from __future__ import annotations

from broker.core.calls.table import Call

MAX_GIVEN_UP = 256
"""The number of cancelled calls that are remembered one by one."""

_OTHERS = 0
"""The id that stands for all further cancelled calls; no call has it."""


class Attribution:
    """The calls of one server that a message may be about: every call of a server that asks within calls;
    of a server of 2026-07-28 the calls that asked for log messages.

    A cancelled call counts for a while longer: the server may still work on it, and a message about it must
    not go to the call that is left.
    """

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._given_up: dict[int, float] = {}
        self.unsure = False
        """Whether a cancelled call of this process was forgotten without a late reply."""

    def __len__(self) -> int:
        return len(self._open) + len(self._given_up)

    def begin(self, call: Call) -> None:
        """Add a call that is at the server."""
        self._open[call.id] = call

    def end(self, call: Call) -> bool:
        """Remove a call that has ended. Return whether it was here."""
        return self._open.pop(call.id, None) is not None

    def give_up(self, call: Call, until: float) -> None:
        """Keep a cancelled call until this time: the server may still work on it."""
        if call.id in self._open:
            self._given_up[call.id if len(self._given_up) < MAX_GIVEN_UP else _OTHERS] = until

    def release(self, id: object) -> None:
        """Forget a cancelled call whose late reply has come."""
        if type(id) is int and id != _OTHERS:
            self._given_up.pop(id, None)

    def release_all(self) -> None:
        """Forget all calls: the process is gone."""
        self._open.clear()
        self._given_up.clear()
        self.unsure = False

    @property
    def given_up(self) -> bool:
        """Whether the server may still work on a cancelled call."""
        return bool(self._given_up)

    @property
    def is_idle(self) -> bool:
        """Whether the server works on no call, cancelled or not."""
        return not self._open and not self._given_up and not self.unsure

    def only(self, now: float) -> Call | None:
        """Return the call that a message is for, if it can be for only one."""
        self.tick(now)
        if len(self._open) != 1 or self._given_up:
            return None
        return next(iter(self._open.values()))

    @property
    def wake_at(self) -> float | None:
        """The time when the next cancelled call is forgotten."""
        return min(self._given_up.values()) if self._given_up else None

    def tick(self, now: float) -> None:
        """Forget the cancelled calls whose time is over."""
        if self._given_up:
            kept = {id: until for id, until in self._given_up.items() if until > now}
            self.unsure |= len(kept) < len(self._given_up)
            self._given_up = kept
