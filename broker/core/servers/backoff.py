"""When to start a failed server again: delays that double, with jitter, and a breaker above them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MAX_DELAY_S = 30.0
"""Delays double up to this, jitter aside; a `restart_sec` above it is kept."""

RETRY_S = 300.0
"""A broken server is tried again after this time, because what it needs may have come up meanwhile."""

DEMAND_S = 30.0
"""A call to a broken server has it tried at once, but not within this time of its last failure, nor within
`start_limit_interval_sec` where that is shorter."""

SETTLED_S = 60.0
"""A server that was ready for this long has put its earlier failures behind it."""


class Backoff:
    """The failures of one server, and what they mean for its next start.

    Once open, the breaker stays so until `settled`: each further try is a single one.

    Args:
        first_delay_s: the delay after the first failure (`restart_sec`).
        burst: so many failures within `interval_s` open the breaker.
        interval_s: what `burst` counts in.
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
        """How long a broken server is left alone though it is called."""
        return min(DEMAND_S, self._interval_s)

    def failed(self, now: float) -> float | None:
        """Count a failure: seconds until the next start, or `None` where the breaker opens."""
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
