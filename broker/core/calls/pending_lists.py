"""Calls that wait until a list is read again."""

from __future__ import annotations

from broker.core.calls.table import Call

LONGEST_WAIT_S = 2.0
"""The longest wait for a list, in seconds. After it every call gets the old list."""


class PendingLists:
    """The calls that wait for the lists of one server, and until when, by list method."""

    def __init__(self) -> None:
        self._calls: dict[str, dict[int, Call]] = {}
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._calls.values()))

    def __contains__(self, call: Call) -> bool:
        return call.id in self._calls.get(call.method, {})

    def join(self, call: Call, until: float) -> None:
        """Add a call that waits for the list that it asks for."""
        self._calls.setdefault(call.method, {})[call.id] = call
        self._until.setdefault(call.method, until)  # no call waits longer because others came

    def leave(self, call: Call) -> bool:
        """Remove a call that has ended. Return whether it was waiting here."""
        waiting = self._calls.get(call.method, {})
        if waiting.pop(call.id, None) is None:
            return False
        if not waiting:
            del self._calls[call.method]
            self._until.pop(call.method, None)
        return True

    @property
    def methods(self) -> list[str]:
        """The lists that calls wait for."""
        return list(self._calls)

    def of(self, method: str) -> list[Call]:
        """Return the calls that wait for this list."""
        return list(self._calls.get(method, {}).values())

    @property
    def wake_at(self) -> float | None:
        """The time when the next list has been waited for long enough."""
        return min(self._until.values()) if self._until else None

    def overdue(self, now: float) -> list[str]:
        """Return the lists that have been waited for long enough, each once."""
        over = [method for method, until in self._until.items() if until <= now]
        for method in over:
            del self._until[method]
        return over
