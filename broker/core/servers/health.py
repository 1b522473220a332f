"""Health checks: finds out whether a silent process is alive. A server with calls is busy, not dead.

A server that was silent for `watchdog_sec` is sent a check, and a second one after as long again. Any line
that it writes is a sign of life. It is hung when it has answered neither check, and no call that it had
before the silence was noticed has time left. Later calls are no excuse, since the check was sent first: else
a hung server with constant calls would never be found.

Some servers do not know the check and stay silent, or even exit. So a server that never answered one is only
hung when a call has run out of time as well, and a server that exited at one is not checked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

QUESTIONS = 2
"""The checks in a row that must stay unanswered."""

GRACE_S = 1.0
"""The last delay: an answer may be in the pipe, if the broker itself did not run meanwhile."""

LOOKS = 2
"""The looks in a row that must find a process stopped (SIGSTOP)."""


class HealthVerdict(Enum):
    """The result of a look at a server."""

    WAIT = "wait"
    ASK = "ask"
    HUNG = "hung"


class Health:
    """The signs of life of one process that is ready.

    Args:
        patience_s: `watchdog_sec`; 0 disables the checks.
        answers: whether the server is known to answer checks.
        now: the time when it became ready.
    """

    def __init__(self, patience_s: float, *, answers: bool, now: float) -> None:
        self._patience_s = patience_s
        self.answers = answers
        self.hung = False
        self._heard_at = now
        self._doubt_at: float | None = None
        self._asked = 0
        self._missed = False
        self._open: deque[int] = deque(maxlen=QUESTIONS)
        self.wake_at = now + patience_s if patience_s else None

    def __repr__(self) -> str:
        return f"<Health asked={self._asked} wake_at={self.wake_at}>"

    def heard(self, now: float) -> None:
        """Note a line of the server."""
        self._heard_at = now
        self._doubt_at = None
        self._asked = 0
        self._missed = False

    def missed(self) -> None:
        """Note that a call of the server ran out of time; the checks begin again."""
        if not self._missed:
            self._missed, self._asked = True, 0

    def silent_s(self, now: float) -> float:
        """Return how long the server has been silent."""
        return now - self._heard_at

    def asked(self, id: int) -> None:
        """Note the id of a check that was sent."""
        self._open.append(id)

    def answered(self, id: object) -> bool:
        """Return whether this is the id of an open check, which is answered now."""
        if id not in self._open or type(id) is not int:
            return False
        self._open.remove(id)
        self.answers = True
        return True

    @property
    def ended_at_it(self) -> bool:
        """Whether a process that exits now may have done so because of a check."""
        return self._asked > 0 and not self.answers and not self.hung

    def look(self, now: float, busy_until: Callable[[float], float | None]) -> HealthVerdict:
        """Return what to do now.

        Args:
            busy_until: returns the last deadline of the open calls that were sent before a time, or `None`.
        """
        if self.wake_at is None or now < self.wake_at:
            return HealthVerdict.WAIT
        self.wake_at = self._heard_at + self._patience_s
        if now < self.wake_at:
            return HealthVerdict.WAIT
        if self._doubt_at is None:
            self._doubt_at = now
        until = busy_until(self._doubt_at)
        if until is not None:
            self.wake_at = min(until, now + self._patience_s)
            return HealthVerdict.WAIT
        return self._doubt(now)

    def _doubt(self, now: float) -> HealthVerdict:
        """Return what to do about a silent server without a running call."""
        self.wake_at = now + self._patience_s
        if self._asked < QUESTIONS:
            self._asked += 1
            return HealthVerdict.ASK
        if not self.answers and not self._missed:
            return HealthVerdict.WAIT  # it may not know the check
        if self._asked == QUESTIONS:
            self._asked += 1
            self.wake_at = now + GRACE_S
            return HealthVerdict.WAIT
        self.wake_at, self.hung = None, True
        return HealthVerdict.HUNG


class Looks(Struct):
    """Counts looks at a process that found it stopped: it does not go on by itself, busy or not."""

    stopped: int = 0

    def saw(self, *, stopped: bool) -> bool:
        """Note a look; return whether the process must be replaced."""
        self.stopped = self.stopped + 1 if stopped else 0
        return self.stopped >= LOOKS
