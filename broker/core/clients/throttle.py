"""The throttle: connections that keep sending refused messages are read more slowly.

A refusal costs the broker about as much as a call. Without a limit, a client that keeps sending refused
messages would take the processor from all others (law 5). So a burst of refusals is free, and further ones
have a rate: `Throttle` says until when a connection is held. libzmq cannot pause one connection, so `Turns`
of the Router finds out when only messages of held connections are left, and the Router then waits.
"""

from __future__ import annotations

from msgspec import Struct

AT_ONCE = 256
"""The burst: so many refused messages are free, because a client may run into a limit with many calls at
once."""

EVERY_S = 2**-10
"""The interval of further refused messages, in seconds: a power of two adds up exactly. A refusal takes a
tenth of it."""

TOGETHER = 1
"""The number of further messages that are read together after a wait. With four of them, the p99 of other
clients was 2.3 times as long; with one, 1.8 times.
"""

UNIT_BYTES = 256 * 1024
"""Each part of this size counts as a further message: to refuse a large message takes longer."""

REMEMBERED = 4096
"""The number of connections that are remembered. Beyond it the oldest ones are forgotten."""


class Pause(Struct, frozen=True):
    """The connection is held `until` then; `is_new` if it was not held before."""

    until: float
    is_new: bool


class _Debt(Struct):
    paid_at: float
    waits: bool = False


class Throttle:
    """A token bucket for each connection that has sent refused messages.

    A message costs its interval even if it came while the connection was held. The connection is held until
    the debt beyond the burst is paid.
    """

    def __init__(self) -> None:
        self._debts: dict[bytes, _Debt] = {}

    def tried(self, key: bytes, now: float, times: int = 1) -> Pause | None:
        """Count refused messages. Return until when the connection is held, or `None` if it is not."""
        debt = self._debts.get(key)
        if debt is None or debt.paid_at <= now:
            debt = self._debts[key] = _Debt(now)
            if len(self._debts) > REMEMBERED:
                del self._debts[next(iter(self._debts))]
        free_at = now + AT_ONCE * EVERY_S
        debt.paid_at = min(debt.paid_at, free_at + TOGETHER * EVERY_S) + times * EVERY_S
        if debt.paid_at <= free_at:
            return None
        is_new, debt.waits = not debt.waits, True
        return Pause(now + (debt.paid_at - free_at) + TOGETHER * EVERY_S, is_new)

    def forget(self, key: bytes) -> None:
        """Forget a connection that has ended."""
        self._debts.pop(key, None)
