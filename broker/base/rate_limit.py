"""A rate limit for work that others may request without end."""

from __future__ import annotations

from collections.abc import Iterable


class RateLimit:
    """Allows a burst, and one more after each interval.

    Args:
        burst: the number of times at once.
        every_s: the interval.
    """

    def __init__(self, burst: int, every_s: float) -> None:
        self._ahead_s = (burst - 1) * every_s
        self._every_s = every_s
        self._due = float("-inf")

    def at(self) -> float:
        """Return when it is allowed next."""
        return self._due - self._ahead_s

    def take(self, now: float) -> bool:
        """Use it once, if it is allowed now; return whether it was."""
        if now < self.at():
            return False
        self._due = max(self._due, now) + self._every_s
        return True


class LogLimit:
    """Limits the lines of one kind in the log as `RateLimit` does, and counts those that are left out.

    It is for lines whose number others decide, such as programs that connect without a key.
    """

    def __init__(self, burst: int = 10, every_s: float = 1.0) -> None:
        self._rate = RateLimit(burst, every_s)
        self._count = 0

    def take(self, now: float) -> int:
        """Count one event. Return how many there were since the last line; 0 if no line may be logged now."""
        self._count += 1
        if not self._rate.take(now):
            return 0
        count, self._count = self._count, 0
        return count


def soonest(times: Iterable[float | None]) -> float | None:
    """Return the first of these times; `None` is never."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
