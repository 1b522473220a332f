"""Whether a process that says nothing is alive. A server that has calls is busy, not dead.

A server that was silent for `watchdog_sec` is asked, and once more after as long again. Whatever line it
writes is a sign of life, an error too. It is hung when it has answered neither, and no call that it had
before the doubt arose has time left: one that is at work for long, on a call that has the time, is left
alone. Calls that it was given later are no excuse: the question came to it first. Else a hung server that
is called all the time would never be found.

Some servers do not know the question and say nothing, or even end at it. So one that was never heard to
answer it is only hung when a call has run out of time as well; and one that ended at it is not asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

QUESTIONS = 2
"""So many questions in a row must stay unanswered."""

GRACE_S = 1.0
"""What a late answer has left in the end: it may be in the pipe, if the broker did not run meanwhile."""

LOOKS = 2
"""At so many looks in a row a process must be found stopped (SIGSTOP)."""


class Verdict(Enum):
    """What is to be done about a server."""

    WAIT = "wait"
    ASK = "ask"
    HUNG = "hung"


class Health:
    """The signs of life of one process that is ready.

    Args:
        patience_s: `watchdog_sec`; 0 asks for nothing and finds nothing.
        answers: whether the server is known to answer the question.
        now: when it became ready.
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
        """It wrote a line."""
        self._heard_at = now
        self._doubt_at = None
        self._asked = 0
        self._missed = False

    def missed(self) -> None:
        """A call that it had ran out of time. What it was asked before that, it is asked again."""
        if not self._missed:
            self._missed, self._asked = True, 0

    def silent_s(self, now: float) -> float:
        """For how long it has written nothing."""
        return now - self._heard_at

    def asked(self, id: int) -> None:
        """It was asked, by a request of this id."""
        self._open.append(id)

    def answered(self, id: object) -> bool:
        """Whether a reply with this id is to such a request."""
        if id not in self._open or type(id) is not int:
            return False
        self._open.remove(id)
        self.answers = True
        return True

    @property
    def ended_at_it(self) -> bool:
        """Whether a process that ends by itself now may have done so because it was asked."""
        return self._asked > 0 and not self.answers and not self.hung

    def look(self, now: float, busy_until: Callable[[float], float | None]) -> Verdict:
        """`wake_at` may have come: what is to be done?

        Args:
            busy_until: until when a call has time that it was given before a moment; `None` if none has any.
        """
        if self.wake_at is None or now < self.wake_at:
            return Verdict.WAIT
        self.wake_at = self._heard_at + self._patience_s
        if now < self.wake_at:
            return Verdict.WAIT
        if self._doubt_at is None:
            self._doubt_at = now
        until = busy_until(self._doubt_at)
        if until is not None:
            self.wake_at = min(until, now + self._patience_s)
            return Verdict.WAIT
        return self._doubt(now)

    def _doubt(self, now: float) -> Verdict:
        """It is silent and has no excuse."""
        self.wake_at = now + self._patience_s
        if self._asked < QUESTIONS:
            self._asked += 1
            return Verdict.ASK
        if not self.answers and not self._missed:
            return Verdict.WAIT  # it may not know the question
        if self._asked == QUESTIONS:
            self._asked += 1
            self.wake_at = now + GRACE_S
            return Verdict.WAIT
        self.wake_at, self.hung = None, True
        return Verdict.HUNG


class Looks(Struct):
    """Looks at one process, now and then. A stopped one does not go on by itself, busy or not."""

    stopped: int = 0

    def saw(self, *, stopped: bool) -> bool:
        """It was looked at; whether it is to be replaced."""
        self.stopped = self.stopped + 1 if stopped else 0
        return self.stopped >= LOOKS
