"""The line in front of one server: a lane per channel, served round robin, a limit on calls at once."""

from __future__ import annotations

from collections import OrderedDict

from broker.core.routing import Call

Lane = tuple[bytes, int]


class Line:
    """Calls that wait for one server. It decides who is next; it sends nothing.

    Args:
        concurrency: how many calls the server may have at once.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes: OrderedDict[Lane, OrderedDict[int, Call]] = OrderedDict()
        self.waiting = 0
        self.running = 0
        self.held = False
        """Whether nobody is to be next for now, because the server does not read."""
        self.paused = False
        """The same, because the server is about to be stopped on purpose."""

    def __repr__(self) -> str:
        return f"<Line waiting={self.waiting} running={self.running}/{self._concurrency}>"

    def join(self, call: Call) -> None:
        """Put a call at the end of its channel's lane."""
        lane = self._lanes.get(call.lane)
        if lane is None:
            lane = self._lanes[call.lane] = OrderedDict()
        lane[call.id] = call
        self.waiting += 1

    def next(self) -> Call | None:
        """The call whose turn it is, now counted as running; `None` if all wait or nobody does."""
        if self.held or self.paused or self.running >= self._concurrency or not self._lanes:
            return None
        key, lane = next(iter(self._lanes.items()))
        _, call = lane.popitem(last=False)
        if lane:
            self._lanes.move_to_end(key)
        else:
            del self._lanes[key]
        self.waiting -= 1
        self.running += 1
        return call

    def leave(self, call: Call) -> None:
        """A call has ended, whether it was waiting or running."""
        if call.sent:
            self.running -= 1
            return
        lane = self._lanes[call.lane]
        del lane[call.id]
        self.waiting -= 1
        if not lane:
            del self._lanes[call.lane]
