"""The fair queue in front of one server: a lane per channel, served round robin, and a limit on calls at
once."""

from __future__ import annotations

from collections import OrderedDict

from broker.core.calls.table import Call

ChannelKey = tuple[bytes, int]


class FairQueue:
    """Calls that wait for one server. It decides which one is next; it sends nothing.

    Lanes are served in rounds, one call of each. A lane that is new while a round is served is the first of
    the next round: so a single call waits for the running ones, and for at most one call of each other lane.

    If the server may have one call at once, a cancelled call keeps its place: the server may still work on
    it, and another call would be a second one.

    Args:
        concurrency: the number of calls that the server may have at once.
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
        """Whether dispatch is suspended because the server does not read its stdin."""
        self.paused = False
        """Whether dispatch is suspended because the server is about to be stopped on purpose."""

    def __repr__(self) -> str:
        return f"<FairQueue waiting={self.waiting} running={self.running}/{self.concurrency}>"

    @property
    def reserved(self) -> int:
        """The number of cancelled calls that keep their place."""
        return len(self._reserved)

    @property
    def _takes(self) -> bool:
        """Whether the server may be given a further call."""
        full = self.running + len(self._reserved) >= self.concurrency
        return not (full or self.held or self.paused)

    def enter(self) -> bool:
        """Return whether a call can run at once: no call waits and there is room. It then counts as
        running."""
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
        """Put a running call in front of all others: it is sent again, under its new id."""
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
        """Return the call whose turn it is, which then counts as running; `None` if no call may run."""
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
        """Remove a call that has ended, whether it was waiting or running."""
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
        """Give back the place of a call that waits for a list instead of the server."""
        self.running -= 1

    # -- cancelled calls --------------------------------------------------------------------------

    def reserve(self, id: int, until: float) -> None:
        """Keep the place of a cancelled call until this time."""
        if self.concurrency == 1:
            self._reserved[id] = until

    def release(self, id: object) -> bool:
        """Free the place of a cancelled call whose late reply has come. Return whether it had one."""
        return type(id) is int and self._reserved.pop(id, None) is not None

    def release_all(self) -> None:
        """Free all kept places: the process is gone."""
        self._reserved.clear()

    @property
    def wake_at(self) -> float | None:
        """The time when a kept place becomes free without a late reply."""
        return min(self._reserved.values()) if self._reserved else None

    def tick(self, now: float) -> bool:
        """Free the places whose time is over. Return whether there were any."""
        over = [id for id, until in self._reserved.items() if until <= now]
        for id in over:
            del self._reserved[id]
        return bool(over)
