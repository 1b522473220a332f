"""When to start a failed server again: delays that double, with jitter, and a circuit breaker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MAX_DELAY_S = 30.0
"""The longest delay, without jitter; a longer `restart_sec` is kept."""

RETRY_S = 300.0
"""The time after which a broken server is tried again: its cause may be gone."""

DEMAND_S = 30.0
"""A call to a broken server starts it at once, but not within this time after its last failure, or within
`start_limit_interval_sec` if that is shorter."""

SETTLED_S = 60.0
"""The time after which a ready server's earlier failures are forgotten."""


class Backoff:
    """The failures of one server, and the delay of its next start.

    Once open, the breaker stays open until `settled`: each further try is a single one.

    Args:
        first_delay_s: the delay after the first failure (`restart_sec`).
        burst: the failures within `interval_s` that open the breaker.
        interval_s: the interval of `burst`.
        rng: uniform random numbers in [0, 1), for the jitter.
    """

    def __init__(
        self, *, first_delay_s: float, burst: int, interval_s: float, rng: Callable[[], float]
    ) -> None:
        self._first_delay_s = first_delay_s
        self._burst = burst
        self._interval_s = interval_s
        self._rng = rng
        self._failures: deque[float] = deque(maxlen=burst)
        self._row = 0
        self._open = False

    @property
    def demand_s(self) -> float:
        """The time after a failure in which a call does not start a broken server."""
        return min(DEMAND_S, self._interval_s)

    def failed(self, now: float) -> float | None:
        """Count a failure; return the seconds until the next start, or `None` if the breaker opens."""
        self._failures.append(now)
        self._row += 1
        burst = len(self._failures) == self._burst and now - self._failures[0] <= self._interval_s
        self._open = self._open or burst
        if self._open:
            return None
        longest_s = max(MAX_DELAY_S, self._first_delay_s)
        delay_s = min(longest_s, self._first_delay_s * 2.0 ** min(self._row - 1, 16))
        return delay_s * (0.75 + 0.5 * self._rng())

    def settled(self) -> None:
        """Forget the failures: the server ran well, or a person asked for a fresh start."""
        self._failures.clear()
        self._row = 0
        self._open = False
