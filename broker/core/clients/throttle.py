"""Who has to wait: a connection whose messages lead to nothing, time and again.

To refuse costs the broker about as much as to call does. Without an end to it, who is refused would take the
processor from all the others (law 5). So refusals are free for a while, and then have a pace: `Throttle` says
whose next messages can wait, and `Rounds` tells the transport when there are no other messages than those.
"""

from __future__ import annotations

from msgspec import Struct

AT_ONCE = 256
"""So many messages of a connection may lead to nothing at once: a burst beyond a limit is told so at once."""

EVERY_S = 2**-10
"""And one more in so many seconds (a power of two adds up exactly). A refusal takes a tenth of that."""

TOGETHER = 1
"""So many more are let come together after a wait. With four a wait was longer, and so was that of others
whose message it did not notice: their p99 was 2.3 times as long, with one 1.8 times."""

UNIT_BYTES = 256 * 1024
"""Each such part of a message counts as a message more: to refuse a large one takes longer."""

REMEMBERED = 4096
"""Of so many connections it is known at most; of the others, those that were refused first are forgiven."""


class Verdict(Struct, frozen=True):
    """The next messages of a connection can wait `until` then; `is_new` where it had none to wait for."""

    until: float
    is_new: bool


class _Lane(Struct):
    paid_at: float
    waits: bool = False


class Throttle:
    """What each connection has sent for nothing lately.

    Each such message costs its interval, also one that came while its connection was to wait; what is owed
    beyond the burst is waited for.
    """

    def __init__(self) -> None:
        self._lanes: dict[bytes, _Lane] = {}

    def tried(self, key: bytes, now: float, times: int = 1) -> Verdict | None:
        """A message of this connection led to nothing, or took as long as several; can the next ones wait?"""
        lane = self._lanes.get(key)
        if lane is None or lane.paid_at <= now:
            lane = self._lanes[key] = _Lane(now)
            if len(self._lanes) > REMEMBERED:
                del self._lanes[next(iter(self._lanes))]
        free_at = now + AT_ONCE * EVERY_S
        lane.paid_at = min(lane.paid_at, free_at + TOGETHER * EVERY_S) + times * EVERY_S
        if lane.paid_at <= free_at:
            return None
        is_new, lane.waits = not lane.waits, True
        return Verdict(now + (lane.paid_at - free_at) + TOGETHER * EVERY_S, is_new)

    def forget(self, key: bytes) -> None:
        """This connection is gone."""
        self._lanes.pop(key, None)


class Refills:
    """Who has used up its credit, and is given more once it is seen that it has sent no more than that.

    What a connection has sent beyond it is there already, as it was not told of new credit. A ROUTER gives
    each connection its turn: when as many messages have come as there are connections, none of it was left.
    """

    def __init__(self) -> None:
        self.turns: dict[bytes, int] = {}
        """Connections that wait for credit, each with the number of messages after which it is given."""

    def wait(self, key: bytes, connections: int) -> None:
        """This connection has used up its credit."""
        self.turns[key] = connections + 1

    def forget(self, key: bytes) -> None:
        """This connection is gone."""
        self.turns.pop(key, None)

    def turn(self) -> list[bytes]:
        """Another message has come in: who may be given credit."""
        for key in self.turns:
            self.turns[key] -= 1
        return self._done([key for key, turns in self.turns.items() if turns <= 0])

    def quiet(self) -> list[bytes]:
        """Nothing is left to be read: who may be given credit."""
        return self._done(list(self.turns))

    def _done(self, keys: list[bytes]) -> list[bytes]:
        for key in keys:
            del self.turns[key]
        return keys


class Rounds:
    """Whether only those are left that can wait, told by the order in which messages come.

    A ROUTER gives each connection that has sent something its turn (zmq_socket(7)). When one that can wait
    has a second turn, and all between were of such, then nobody else has sent anything.
    """

    def __init__(self) -> None:
        self.until: dict[bytes, float] = {}
        """Connections that are held, each with the time until when."""
        self._seen: set[bytes] = set()

    def begin(self, now: float) -> bool:
        """Whether a round begins: somebody can wait still, and nobody has had a turn of it yet."""
        for key in [key for key, until in self.until.items() if until <= now]:
            self.forget(key)
        return bool(self.until) and not self._seen

    def hold(self, key: bytes, until: float) -> None:
        """What this connection says next can wait until then."""
        self.until[key] = until
        if len(self.until) > REMEMBERED:
            self.forget(next(iter(self.until)))

    def forget(self, key: bytes) -> None:
        """This connection is gone."""
        self.until.pop(key, None)
        self._seen.discard(key)

    def rest(self, key: bytes, now: float) -> float:
        """A message came from this connection: until when all that may be there can wait; 0 is not at all."""
        if self.until.get(key, now) <= now:
            self._seen.clear()
            return 0.0
        if key not in self._seen:
            self._seen.add(key)
            return 0.0
        soonest = min(self.until[seen] for seen in self._seen)
        self._seen.clear()
        return soonest
