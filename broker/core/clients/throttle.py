"""The throttle: connections that keep sending refused messages are read more slowly.

A refusal costs the broker about as much as a call. Without a limit, a client that keeps sending refused
messages would take the processor from all others (law 5). So a burst of refusals is free, and further ones
have a rate: `Throttle` says until when a connection is held. libzmq cannot pause one connection, so `Turns`
finds out when only messages of held connections are left, and the router then waits.
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


class Turns:
    """Finds out from the order of messages what is left to be read of a connection.

    A ROUTER takes messages of all connections in turns (zmq_socket(7)). When a held connection has a second
    turn, and all turns between were those of held connections, then no other connection has sent anything.

    A connection that has used up its credit gets more when it is seen to have kept to it. What it sent beyond
    the credit is already here, as it was not told of new credit: after as many messages as there are
    connections, nothing of it is left.
    """

    def __init__(self) -> None:
        self.held: dict[bytes, float] = {}
        """The held connections, each with the time until when."""
        self.exhausted: dict[bytes, int] = {}
        """The connections that wait for credit, each with the number of messages after which it is given."""
        self._seen: set[bytes] = set()

    def forget(self, key: bytes) -> None:
        """Forget a connection that has ended."""
        self.exhausted.pop(key, None)
        self._release(key)

    def _release(self, key: bytes) -> None:
        self.held.pop(key, None)
        self._seen.discard(key)

    # -- held connections -------------------------------------------------------------------------

    def hold(self, key: bytes, until: float) -> None:
        """Hold a connection until this time."""
        self.held[key] = until
        if len(self.held) > REMEMBERED:
            self._release(next(iter(self.held)))

    def begin(self, now: float) -> bool:
        """Return whether a round begins: a connection is held, and none of the held ones has had a turn."""
        for key in [key for key, until in self.held.items() if until <= now]:
            self._release(key)
        return bool(self.held) and not self._seen

    def rest(self, key: bytes, now: float) -> float:
        """Count a message. Return until when all messages that may be left can wait, or 0 if they cannot."""
        if self.held.get(key, now) <= now:
            self._seen.clear()
            return 0.0
        if key not in self._seen:
            self._seen.add(key)
            return 0.0
        soonest = min(self.held[seen] for seen in self._seen)
        self._seen.clear()
        return soonest

    # -- connections that wait for credit ---------------------------------------------------------

    def wait(self, key: bytes, connections: int) -> None:
        """Add a connection that has used up its credit."""
        self.exhausted[key] = connections + 1

    def turn(self) -> list[bytes]:
        """Count a further message. Return the connections that may be given credit."""
        for key in self.exhausted:
            self.exhausted[key] -= 1
        return self._done([key for key, turns in self.exhausted.items() if turns <= 0])

    def quiet(self) -> list[bytes]:
        """Return the connections that may be given credit, as nothing is left to be read."""
        return self._done(list(self.exhausted))

    def _done(self, keys: list[bytes]) -> list[bytes]:
        for key in keys:
            del self.exhausted[key]
        return keys
