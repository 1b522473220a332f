"""The order in which libzmq takes the messages of all connections. No I/O: the Router counts them here."""

from __future__ import annotations

from broker.core.clients.throttle import REMEMBERED


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
