"""The fair queue in front of one server: a lane per channel, served round robin, and a limit on calls at
once.

A server with `lease_sec` is given the calls of one channel only, as long as that channel has the lease. The
lanes of the others keep their order meanwhile. When a lease has ended, the next one is granted after the last
of the calls that run: so the server never has calls of two channels.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from broker.base.rate_limit import soonest
from broker.core.calls.table import Call

ChannelKey = tuple[bytes, int]


class Lease(Struct, eq=False):
    """The lease of a server. `holder` is the channel that has it, `client` and `pid` are those of its
    connection. `used_at` is the time when the lease began, or when the last call of the holder ended."""

    holder: ChannelKey
    client: str
    pid: int
    since: float
    used_at: float


class FairQueue:
    """Calls that wait for one server. It decides which one is next; it sends nothing.

    Lanes are served in rounds, one call of each. A lane that is new while a round is served is the first of
    the next round: so a single call waits for the running ones, and for at most one call of each other lane.

    If the server may have one call at once, or the calls of one channel, a cancelled call keeps its place:
    the server may still work on it, and another call would be a second one.

    Calls that the broker answers from memory need neither a place nor the lease.

    Args:
        concurrency: the number of calls that the server may have at once.
        lease_s: the lease ends when its holder has made no call for so long; `None`: calls need no lease.
    """

    def __init__(self, concurrency: int, lease_s: float | None = None) -> None:
        self.concurrency = concurrency
        self.lease_s = lease_s
        self.lease: Lease | None = None
        """The lease that a channel has. `calls.leases` grants and ends it."""
        self._from_memory: OrderedDict[int, Call] = OrderedDict()
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
    def keeps_places(self) -> bool:
        """Whether cancelled calls keep their place."""
        return self.concurrency == 1 or self.lease_s is not None

    @property
    def reserved(self) -> int:
        """The number of cancelled calls that keep their place."""
        return len(self._reserved)

    @property
    def _takes(self) -> bool:
        """Whether the server may be given a further call."""
        full = self.running + len(self._reserved) >= self.concurrency
        return not (full or self.held or self.paused)

    def _admits(self, channel_key: ChannelKey) -> bool:
        """Return whether the lease lets the server be given a call of this channel."""
        if self.lease is not None:
            return self.lease.holder == channel_key
        return self._is_free

    @property
    def _is_free(self) -> bool:
        """Whether the server may be given a call of any channel: nobody has it, or it needs no lease."""
        return self.lease_s is None or not (self.lease or self.running or self._reserved)

    def enter(self, call: Call) -> bool:
        """Return whether a call can run at once: no call waits and there is room. It then counts as
        running."""
        waits = self.waiting or not self._takes
        if self.lease_s is not None or self.lease is not None:
            waits = waits or not self._admits(call.channel_key)
        if waits and not call.from_memory:
            return False
        self.running += 1
        return True

    def join(self, call: Call) -> None:
        """Put a call at the end of its channel's lane."""
        self.waiting += 1
        if call.from_memory:
            self._from_memory[call.id] = call
            return
        lane = self._lanes.get(call.channel_key)
        if lane is None:
            lane = self._lanes[call.channel_key] = OrderedDict()
            self._new[call.channel_key] = None
        lane[call.id] = call

    def rejoin(self, call: Call) -> None:
        """Put a running call in front of all others: it is sent again, under its new id."""
        self.running -= 1
        if call.from_memory:
            self.join(call)
            return
        lane = self._lanes.setdefault(call.channel_key, OrderedDict())
        lane[call.id] = call
        lane.move_to_end(call.id, last=False)
        self._drop_turn(call.channel_key)
        self._round[call.channel_key] = None
        self._round.move_to_end(call.channel_key, last=False)
        self.waiting += 1

    def next(self) -> Call | None:
        """Return the call whose turn it is, which then counts as running; `None` if no call may run."""
        if self._from_memory:
            _, call = self._from_memory.popitem(last=False)
        elif self._lanes and self._takes and (key := self._next_lane()) is not None:
            lane = self._lanes[key]
            _, call = lane.popitem(last=False)
            if lane:
                self._served[key] = None
            else:
                del self._lanes[key]
        else:
            return None
        self.waiting -= 1
        self.running += 1
        return call

    def _next_lane(self) -> ChannelKey | None:
        """Take the lane whose turn it is out of its round; `None` if the lease admits no lane."""
        if self.lease is not None:
            holder = self.lease.holder
            self._drop_turn(holder)
            return holder if holder in self._lanes else None
        if not self._is_free:
            return None
        if not self._round:
            self._round = OrderedDict.fromkeys([*self._new, *self._served])
            self._new.clear()
            self._served.clear()
        return self._round.popitem(last=False)[0]

    def _drop_turn(self, key: ChannelKey) -> None:
        for order in (self._round, self._new, self._served):
            order.pop(key, None)

    def leave(self, call: Call) -> None:
        """Remove a call that has ended, whether it was waiting or running."""
        if call.sent:
            self.running -= 1
            return
        self.waiting -= 1
        if call.from_memory:
            del self._from_memory[call.id]
            return
        lane = self._lanes[call.channel_key]
        del lane[call.id]
        if not lane:
            del self._lanes[call.channel_key]
            self._drop_turn(call.channel_key)

    def stand_aside(self) -> None:
        """Give back the place of a call that waits for a list instead of the server."""
        self.running -= 1

    # -- the lease ----------------------------------------------------------------------------------

    @property
    def lease_ends_at(self) -> float | None:
        """The time when the lease ends unless its holder calls; `None` while a call of the holder is open."""
        lease = self.lease
        if lease is None or self.lease_s is None or self.running or lease.holder in self._lanes:
            return None
        return lease.used_at + self.lease_s

    def lease_left_s(self, now: float) -> float:
        """Return in how many seconds the lease ends at the earliest: its holder may call again."""
        ends_at = self.lease_ends_at
        return (self.lease_s or 0.0) if ends_at is None else max(0.0, ends_at - now)

    def waits_for_lease(self, call: Call) -> bool:
        """Return whether a call waits because another channel has the lease."""
        is_held = self.lease is not None and self.lease.holder != call.channel_key
        return is_held and not (call.sent or call.from_memory)

    @property
    def waiting_for_lease(self) -> int:
        """The number of calls of other channels that wait until the lease ends."""
        if self.lease is None:
            return 0
        return self.waiting - len(self._from_memory) - len(self._lanes.get(self.lease.holder, ()))

    def use_lease(self, call: Call, now: float) -> None:
        """Count the time of the lease from the end of this call, if it is one of the holder."""
        if self.lease is not None and self.lease.holder == call.channel_key and not call.from_memory:
            self.lease.used_at = now

    def end_lease(self) -> Lease | None:
        """End the lease and return it. Calls of its holder that still wait come after those of the others."""
        lease, self.lease = self.lease, None
        if lease is not None and lease.holder in self._lanes:
            self._drop_turn(lease.holder)
            self._served[lease.holder] = None
        return lease

    # -- cancelled calls --------------------------------------------------------------------------

    def reserve(self, id: int, until: float) -> None:
        """Keep the place of a cancelled call until this time."""
        if self.keeps_places:
            self._reserved[id] = until

    def release(self, id: object) -> bool:
        """Free the place of a cancelled call whose late reply has come. Return whether it had one."""
        return type(id) is int and self._reserved.pop(id, None) is not None

    def release_all(self) -> None:
        """Free all kept places: the process is gone."""
        self._reserved.clear()

    @property
    def wake_at(self) -> float | None:
        """The time when a kept place becomes free without a late reply, or when the lease ends."""
        kept = min(self._reserved.values()) if self._reserved else None
        return soonest((kept, self.lease_ends_at))

    def tick(self, now: float) -> bool:
        """Free the places whose time is over. Return whether there were any."""
        over = [id for id, until in self._reserved.items() if until <= now]
        for id in over:
            del self._reserved[id]
        return bool(over)
