"""When to try to reach the broker again, and how long a call waits for that: decisions without I/O.

Retries come soon at first, then less often, and every `HASTE_S` while a call waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

NEVER = float("inf")

MAX_DELAY_S = 30.0

SETTLED_S = 10.0
"""After the loss of a connection that held this long, the delays start short again."""

HASTE_S = 0.1
"""The delay between two attempts while a call waits for the broker."""

MIN_HOLD_S = 0.2


class ReconnectBackoff:
    """The attempts of one connection to reach its broker. All times are seconds of one clock.

    Args:
        random: returns 0 to 1, to spread the clients of a broker that restarts.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.was_reached = False
        """Whether a broker has answered here, if only to refuse the hello because it ends."""
        self.gone_at = NEVER
        """When the broker was lost, or when the first attempt began; `NEVER` while it is there."""
        self.tried_at = self._welcomed_at = -NEVER
        self._is_announced = False
        self._random = random
        self._delays = _delays(random)

    def tried(self, now: float) -> None:
        """Note that an attempt begins."""
        self.tried_at = now
        if not self.was_reached:
            self.gone_at = min(self.gone_at, now)

    def welcomed(self, now: float) -> None:
        """Note that the last attempt has led to a broker."""
        self._welcomed_at = now
        self.was_reached, self.gone_at, self._is_announced = True, NEVER, False

    def failed(self, now: float, *, announced: bool) -> None:
        """Note that the last attempt has failed, or its connection was lost.

        Args:
            announced: the broker said that it ends, so that the next one is likely to come soon.
        """
        if self.came_through or announced:
            self.was_reached, self.gone_at, self._is_announced = True, now, announced

    @property
    def came_through(self) -> bool:
        """Whether the last attempt has led to a broker."""
        return self._welcomed_at >= self.tried_at

    def soonest(self, now: float) -> float:
        """Return when the next attempt may be made for a call that waits."""
        return max(now, self.tried_at + HASTE_S)

    def hold_s(self, now: float) -> float:
        """Return how long a broker must keep a silent connection, after a handshake has failed now.

        A broker that has too many connections ends the silent one as early as it has ended the handshake.
        """
        return max(2 * (now - self.tried_at), MIN_HOLD_S)

    def after(self, now: float, *, hasty: bool) -> float:
        """Return when the next attempt is due after a failure or a loss; `hasty`: a call waits for it."""
        if self.came_through and now - self._welcomed_at > SETTLED_S:
            self._delays = _delays(self._random)
        delay = next(self._delays)
        return now + (min(delay, HASTE_S) if hasty else delay)

    def wait_until(self, began: float, reconnect_s: float, expires: float) -> float:
        """Return until when a call that began then waits for the broker.

        Args:
            reconnect_s: how long it waits for one that is gone and has not said that it ends.
            expires: the deadline of the call; `NEVER` if it has none.
        """
        if self._is_announced and expires < NEVER:
            return expires
        return min(max(began, self.gone_at) + reconnect_s, expires)


def _delays(random: Callable[[], float]) -> Iterator[float]:
    """Yield the delay before each further attempt, in seconds; it doubles up to `MAX_DELAY_S`."""
    delay = 0.05
    while True:
        yield delay * (0.5 + random())
        delay = min(delay * 2, MAX_DELAY_S)
