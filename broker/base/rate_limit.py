"""How often something may be done that others can ask for without an end."""

from __future__ import annotations

from collections.abc import Iterable


class Pace:
    """So many times at once, and one more with every further interval.

    Args:
        burst: how often at once.
        every_s: the interval.
    """

    def __init__(self, burst: int, every_s: float) -> None:
        self._ahead_s = (burst - 1) * every_s
        self._every_s = every_s
        self._due = float("-inf")

    def at(self) -> float:
        """When it may be done next."""
        return self._due - self._ahead_s

    def take(self, now: float) -> bool:
        """Do it now, if it may be done."""
        if now < self.at():
            return False
        self._due = max(self._due, now) + self._every_s
        return True


def soonest(times: Iterable[float | None]) -> float | None:
    """The first of these times; `None` is never."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
