"""The line in front of one server: a lane per channel, served round robin, a limit on calls at once."""

from __future__ import annotations

from collections import OrderedDict

from broker.core.calls.table import Call

ChannelKey = tuple[bytes, int]


class FairQueue:
    """Calls that wait for one server. It decides who is next; it sends nothing.

    Lanes are served in rounds, one call of each. Who comes while a round is served is the first of the next:
    so a single call waits for those that run, and for one of each other lane at most.

    Where the server may have one call at once, a call that was given up keeps its place there: the server
    may still be at it, and another one would then be a second.

    Args:
        concurrency: how many calls the server may have at once.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._lanes: dict[ChannelKey, OrderedDict[int, Call]] = {}
        self._round: OrderedDict[ChannelKey, None] = OrderedDict()
        self._new: OrderedDict[ChannelKey, None] = OrderedDict()
        self._served: OrderedDict[ChannelKey, None] = OrderedDict()
        self._reserved: dict[int, float] = {}
        self.waiting = 0
        self.running = 0
        self.held = False
        """Whether nobody is to be next for now, because the server does not read."""
        self.paused = False
        """The same, because the server is about to be stopped on purpose."""

    def __repr__(self) -> str:
        return f"<FairQueue waiting={self.waiting} running={self.running}/{self.concurrency}>"

    @property
    def reserved(self) -> int:
        """How many calls were given up and keep their place."""
        return len(self._reserved)

    @property
    def _takes(self) -> bool:
        """Whether the server is to be given a further call."""
        full = self.running + len(self._reserved) >= self.concurrency
        return not (full or self.held or self.paused)

    def enter(self) -> bool:
        """Whether a call need not `join`: nobody waits and there is room. It then counts as running."""
        if self.waiting or not self._takes:
            return False
        self.running += 1
        return True

    def join(self, call: Call) -> None:
        """Put a call at the end of its channel's lane."""
        lane = self._lanes.get(call.channel_key)
        if lane is None:
            lane = self._lanes[call.channel_key] = OrderedDict()
            self._new[call.channel_key] = None
        lane[call.id] = call
        self.waiting += 1

    def rejoin(self, call: Call) -> None:
        """A call that ran is to be sent again, under its new id: its turn is before all others'."""
        lane = self._lanes.setdefault(call.channel_key, OrderedDict())
        lane[call.id] = call
        lane.move_to_end(call.id, last=False)
        self._new.pop(call.channel_key, None)
        self._served.pop(call.channel_key, None)
        self._round[call.channel_key] = None
        self._round.move_to_end(call.channel_key, last=False)
        self.running -= 1
        self.waiting += 1

    def next(self) -> Call | None:
        """The call whose turn it is, now counted as running; `None` if all wait or nobody does."""
        if not self.waiting or not self._takes:
            return None
        if not self._round:
            self._round = OrderedDict.fromkeys([*self._new, *self._served])
            self._new.clear()
            self._served.clear()
        key, _ = self._round.popitem(last=False)
        lane = self._lanes[key]
        _, call = lane.popitem(last=False)
        if lane:
            self._served[key] = None
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
        lane = self._lanes[call.channel_key]
        del lane[call.id]
        self.waiting -= 1
        if not lane:
            del self._lanes[call.channel_key]
            for order in (self._round, self._new, self._served):
                order.pop(call.channel_key, None)

    def stand_aside(self) -> None:
        """A call that had its turn waits for something else than the server."""
        self.running -= 1

    # -- calls that were given up -----------------------------------------------------------------

    def reserve(self, id: int, until: float) -> None:
        """A running call is given up while its server may still be at it."""
        if self.concurrency == 1:
            self._reserved[id] = until

    def release(self, id: object) -> bool:
        """The late reply to a call has come; whether it had kept its place."""
        return type(id) is int and self._reserved.pop(id, None) is not None

    def release_all(self) -> None:
        """The process that was at them is gone."""
        self._reserved.clear()

    @property
    def wake_at(self) -> float | None:
        """When a place is free again even without a late reply."""
        return min(self._reserved.values()) if self._reserved else None

    def tick(self, now: float) -> bool:
        """Time has passed; whether a place has become free."""
        over = [id for id, until in self._reserved.items() if until <= now]
        for id in over:
            del self._reserved[id]
        return bool(over)
