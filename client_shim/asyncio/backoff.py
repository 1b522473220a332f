"""When to try for a broker again: soon at first, then less often, and at once where a call waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MAX_DELAY_S = 30.0

SETTLED_S = 10.0
"""A connection that held this long was a good one: after its loss the delays start short again."""

HASTE_S = 0.1
"""How soon after a failed attempt the next one is made while a call waits for it."""


class ReconnectBackoff:
    """The attempts of one connection to reach its broker. All times are seconds of one clock.

    Args:
        random: 0 to 1, to spread the clients of a broker that restarts.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.tried_at = self._welcomed_at = float("-inf")
        self._random = random
        self._delays = _delays(random)

    def tried(self, now: float) -> None:
        """The next attempt is made."""
        self.tried_at = now

    def welcomed(self, now: float) -> None:
        """The last attempt has led to a broker."""
        self._welcomed_at = now

    @property
    def came_through(self) -> bool:
        """Whether the last attempt has led to a broker."""
        return self._welcomed_at >= self.tried_at

    def soonest(self, now: float) -> float:
        """When somebody who waits may have the next one: now, or soon where the last was only just."""
        return max(now, self.tried_at + HASTE_S)

    def after(self, now: float, *, hasty: bool) -> float:
        """When the next one is due, after a failure or a loss; `hasty`: a call waits for it."""
        if self.came_through and now - self._welcomed_at > SETTLED_S:
            self._delays = _delays(self._random)
        delay = next(self._delays)
        return now + (min(delay, HASTE_S) if hasty else delay)


def _delays(random: Callable[[], float]) -> Iterator[float]:
    """How long to wait before each further attempt to reach a broker that was lost, in seconds, for ever.

    It doubles up to `MAX_DELAY_S`. `random` (0 to 1) spreads the clients of a broker that restarts, so that
    they do not all come back in the same millisecond.
    """
    delay = 0.05
    while True:
        yield delay * (0.5 + random())
        delay = min(delay * 2, MAX_DELAY_S)
