"""The connection of an asyncio loop to a broker: shared by the channels of the loop, made anew when lost.

It is built of callbacks and holds no task. Nothing of it needs awaiting, so nothing can be left half done
when a loop ends in the middle, and whoever closes it may do so from any task.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any

import zmq

from client_shim import log
from client_shim.asyncio.backoff import ReconnectBackoff
from client_shim.asyncio.call import LOG, PROGRESS, PendingCall
from client_shim.asyncio.channel import Channel, ListenCall, Listener, ListenSet
from client_shim.asyncio.loop_dealer import LoopDealer
from client_shim.asyncio.waiters import Waiters
from client_shim.errors import CallError, ClientClosed, Unavailable
from client_shim.protocol import reasons
from client_shim.protocol.events import (
    Dropped,
    Ended,
    Event,
    Logged,
    Lost,
    Notified,
    Progressed,
    Questioned,
    Welcomed,
)
from client_shim.protocol.payload import PreparedRequest
from client_shim.protocol.state import GRACE_S, ClientState, Phase
from client_shim.transport.dealer import FAREWELL_MS
from client_shim.transport.endpoint import probe

NOTHING, _NEVER = ListenSet(), float("inf")

_ORDINARY = ("late", "cancelled")
"""What a broker says about calls that this side has given up. It is counted and no cause for worry."""


class BrokerConnection:
    """At most one link at a time, and those who use it.

    Args:
        who: name, version and pid, for the broker's `status`.
        hello_timeout_s: how long a broker may take to greet.
        on_close: called once, when the connection will not be used again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        who: dict[str, Any],
        hello_timeout_s: float,
        on_close: Callable[[BrokerConnection], None],
    ) -> None:
        self.loop = loop
        self.endpoint = endpoint
        self.pid = os.getpid()
        self.closed = self.came_up = False
        self.lost_at = _NEVER  # also while it is there
        self.counts: dict[str, int] = {}
        self._who, self._hello_timeout_s = who, hello_timeout_s
        self._on_close = on_close
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._calls: dict[int, PendingCall | ListenCall] = {}
        self._dealer: LoopDealer | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_at = float("inf")
        self._error: Unavailable | None = None
        self._announced = False  # by the broker that was there last: that it ends
        self._told_lost = False  # whether the channels were told of a loss, and not yet of a return
        self._backoff = ReconnectBackoff(random.random)
        self._context = Context()
        self._waiters = Waiters(loop, self._context)
        self._guard: AsyncGenerator[None, None] | None = self._until_the_loop_ends()
        _step(self._guard.__anext__())

    def __repr__(self) -> str:
        phase = "down" if self._dealer is None else self._dealer.state.phase.value
        shown = f"{self.endpoint} {'closed' if self.closed else phase}"
        return f"<BrokerConnection {shown} channels={len(self._channels)} calls={len(self._calls)}>"

    @property
    def is_open(self) -> bool:
        """Whether calls can be made now."""
        return self._dealer is not None and self._dealer.state.phase is Phase.OPEN

    @property
    def is_ours(self) -> bool:
        """Whether it can be used at all: a closed one cannot, nor the copy that a forked child has of it."""
        return not self.closed and self.pid == os.getpid()

    # --- channels and calls ------------------------------------------------------------------------

    def join(self, listener: Callable[[], Listener | None], listen_set: ListenSet = NOTHING) -> Channel:
        """A new channel, which listens before it does anything else."""
        self._last_channel += 1
        channel = Channel(self._last_channel, listener, listen_set)
        self._channels[self._last_channel] = channel
        self._listen(channel)
        return channel

    def _listen(self, channel: Channel) -> None:
        if self._dealer is None or not self.is_open or channel.listen_set.is_empty:
            return
        try:
            id = self._dealer.state.request(channel.number, channel.listen_set.request(), self.loop.time())
        except CallError as error:
            log.warn(f"the broker is not asked to tell of changes: {error}")
            return
        self._calls[id] = ListenCall(
            channel, self._deliver, partial(self._listen_later, channel, self._dealer)
        )
        self._dealer.settle()

    def _listen_later(self, channel: Channel, dealer: LoopDealer, delay_s: float) -> None:
        self.loop.call_later(delay_s, self._listen_again, channel, dealer, context=self._context)

    def _listen_again(self, channel: Channel, dealer: LoopDealer) -> None:
        """Say once more what a channel wants to hear, if both are still there."""
        if self._dealer is dealer and self._channels.get(channel.number) is channel:
            self._listen(channel)

    def leave(self, channel: Channel, reason: str) -> None:
        """The end of a channel and its calls; the last one closes the connection. Leaving twice is fine."""
        if not self.is_ours or self._channels.pop(channel.number, None) is None:
            return
        self._waiters.fail(_closed(reason), channel)
        if not self._channels:
            self.close(reason)
        elif self._dealer is not None:
            self._react(self._dealer.state.close_channel(channel.number, reason))
            self._dealer.settle()

    def leave_soon(self, channel: Channel, reason: str) -> None:
        """The same from anywhere: another thread, a finalizer in the middle of something."""
        try:
            if self.is_ours:
                self.loop.call_soon_threadsafe(self.leave, channel, reason)
        except RuntimeError:
            return  # the loop is closed: the next client of this process clears up after it

    async def ready(
        self,
        channel: Channel,
        patience_s: float,
        expires: float | None = None,
        request: PreparedRequest | None = None,
    ) -> None:
        """Wait until `request` can be sent, or until `expires` (by the loop's clock).

        Where the broker was lost without a word, or nothing expires, the next one is waited for `patience_s`.

        Raises:
            Unavailable: no call can be made; at once, where no broker has answered here yet.
            Busy: too many calls wait already.
        """
        since = self.loop.time()
        while not self.is_open:
            until = self._until(since, patience_s, expires)
            if until is not None and until <= self.loop.time():
                raise self._why_not()
            self._hurry()
            await self._waiters.wait(channel, until, request)

    def _until(self, since: float, patience_s: float, expires: float | None) -> float | None:
        """Return until when to wait, as things are; a `wake` tells of a change."""
        if (self.came_up and self.lost_at == _NEVER) or (self._announced and expires is not None):
            return expires  # it drains, or it said that it ends
        gone_since = max(since, self.lost_at) if self.came_up else since
        return gone_since + patience_s if expires is None else min(gone_since + patience_s, expires)

    def call(self, channel: Channel, request: PreparedRequest) -> PendingCall:
        """Send a request. `drop` must be called afterwards, whatever happens.

        There must be an open dealer: `ready`, and no awaiting in between.

        Raises:
            TooLarge, InvalidRequest, Busy: nothing was sent.
        """
        if self._dealer is None:
            raise RuntimeError("no call can be made while there is no link")
        now = self.loop.time()
        id = self._dealer.state.request(channel.number, request, now)
        self._calls[id] = call = PendingCall(id, request.subject)
        self._dealer.settle()
        if request.timeout_s is not None:
            self._dealer.wake_by(now + request.timeout_s + GRACE_S)
        return call

    def drop(self, call: PendingCall, reason: str) -> None:
        """The caller has turned away. A call that has not ended is cancelled."""
        if self._calls.get(call.id) is call and self._dealer is not None and self.is_ours:
            del self._calls[call.id]
            self._dealer.state.cancel(call.id, reason)
            self._dealer.settle()

    # --- coming up, going down -----------------------------------------------------------------------

    def _hurry(self) -> None:
        """Somebody waits: try now, or soon where the last attempt was only just."""
        if self._dealer is not None or self.closed:
            return
        due = self._backoff.soonest(self.loop.time())
        if self._retry is None or self._retry_at > due:
            self._try_at(due)

    def _try_at(self, when: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry, self._retry_at = self.loop.call_at(when, self._try, context=self._context), when

    def _try(self) -> None:
        self._retry, now = None, self.loop.time()
        self._backoff.tried(now)
        try:
            probe(self.endpoint)
            state = ClientState(self._who, now, hello_timeout_s=self._hello_timeout_s)
            self._dealer = LoopDealer(self.loop, self.endpoint, state, self._on_event, self._context)
        except Unavailable as error:
            self._fell(error)
        except (OSError, zmq.ZMQError) as error:  # this process is out of descriptors, say
            self._fell(Unavailable(f"no connection to {self.endpoint} can be made: {error}"))

    def _rose(self) -> None:
        self.came_up, self.lost_at, self._announced, self._error = True, _NEVER, False, None
        self._backoff.welcomed(self.loop.time())
        self._waiters.wake()
        if self._told_lost:
            self._tell_connected(True)

    def _fell(self, error: Unavailable, *, announced: bool = False) -> None:
        """An attempt has failed, or the link was lost; `announced`: its broker said that it ends."""
        dealer, self._dealer, self._error = self._dealer, None, error
        if self._backoff.came_through or announced:  # a broker was there, if only to refuse the hello
            self.came_up, self.lost_at, self._announced = True, self.loop.time(), announced
            self._waiters.wake()  # to wait on, for as long as it may take now
        if dealer is not None:
            dealer.close()
        if self._backoff.came_through:
            self._tell_connected(False)
        if not self.came_up or isinstance(error, reasons.HOPELESS):
            self._waiters.fail(error)
        if self.came_up:
            self._try_at(self._backoff.after(self.loop.time(), hasty=bool(self._waiters)))

    def _why_not(self) -> Unavailable:
        if self._dealer is not None and self._dealer.state.phase is Phase.DRAINING:
            return reasons.draining()
        try:
            probe(self.endpoint)
        except Unavailable as error:
            return error
        return self._error or reasons.silent(round(self.loop.time() - self._backoff.tried_at, 3))

    def close(self, reason: str) -> None:
        """Say goodbye and end everything. Closing twice is fine."""
        if not self.is_ours:
            return
        self.closed = True
        self._on_close(self)
        self._channels.clear()
        if self._retry is not None:
            self._retry.cancel()
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._react(dealer.state.close(reason))
            dealer.settle()
            dealer.close(FAREWELL_MS)
        self._waiters.fail(_closed(reason))
        guard, self._guard = self._guard, None
        if guard is not None:
            _step(guard.aclose())

    def abandon(self) -> None:
        """Let go of the sockets, for a loop that was closed and told nobody: it can be woken no more."""
        self.closed = True
        dealer, self._dealer, self._guard = self._dealer, None, None
        if dealer is not None:
            dealer.close()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """`asyncio.run` and its like close the asynchronous generators last: this one hears of it so."""
        try:
            yield
        finally:
            self._guard = None
            self.close("its event loop ended")

    # --- what happens on the link ------------------------------------------------------------------------

    def _react(self, events: list[Event]) -> None:
        for event in events:
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        _REACTIONS[type(event)](self, event)

    def _on_welcomed(self, _: Welcomed) -> None:
        for channel in list(self._channels.values()):  # before any call: what it hears is never older
            self._listen(channel)
        self._rose()

    def _on_ended(self, event: Ended) -> None:
        if (call := self._calls.pop(event.id, None)) is not None:
            call.end(event.outcome)

    def _on_progressed(self, event: Progressed) -> None:
        if (call := self._calls.get(event.id)) and not call.add(PROGRESS, event.body):
            self.count("progress dropped")

    def _on_logged(self, event: Logged) -> None:
        if (call := self._calls.get(event.id)) and not call.add(LOG, event.body):
            self.count("log message dropped")

    def _on_notified(self, event: Notified) -> None:
        for channel in list(self._channels.values()):
            if event.channel in (0, channel.number):
                self._deliver(channel, event.service, event.method, event.body)

    def _deliver(self, channel: Channel, service: str, method: str, body: bytes) -> None:
        """Call the listener a little later: what it does must not come in between two events."""
        listener = channel.listener()
        if listener is not None:
            self.loop.call_soon(listener.notified, service, method, body, context=self._context)

    def _tell_connected(self, connected: bool) -> None:
        """Tell every channel that the broker was lost, or is back after a loss."""
        self._told_lost = not connected
        for channel in list(self._channels.values()):
            if (listener := channel.listener()) is not None:
                self.loop.call_soon(listener.connection_changed, connected, context=self._context)

    def _on_questioned(self, event: Questioned) -> None:
        if self._dealer is not None:
            self._dealer.state.refuse(event)

    def _on_dropped(self, event: Dropped) -> None:
        if self.count(event.why) == 1 and event.why not in _ORDINARY:
            log.warn(f"{self.endpoint}: {event.what} (further ones of this kind are only counted)")

    def _on_lost(self, event: Lost) -> None:
        self._fell(event.error, announced=event.announced)

    def count(self, what: str) -> int:
        """Count something that its callers are not told; the number of times so far."""
        self.counts[what] = self.counts.get(what, 0) + 1
        return self.counts[what]


_REACTIONS: dict[type[Any], Callable[[BrokerConnection, Any], None]] = {
    Welcomed: BrokerConnection._on_welcomed,
    Ended: BrokerConnection._on_ended,
    Progressed: BrokerConnection._on_progressed,
    Logged: BrokerConnection._on_logged,
    Notified: BrokerConnection._on_notified,
    Questioned: BrokerConnection._on_questioned,
    Dropped: BrokerConnection._on_dropped,
    Lost: BrokerConnection._on_lost,
}


def _closed(reason: str) -> ClientClosed:
    return ClientClosed(f"this client was closed ({reason})", hint="make another one")


def _step(step: Awaitable[None]) -> None:
    """Run something asynchronous that does not really await."""
    try:
        step.__await__().__next__()
    except (StopIteration, StopAsyncIteration):
        return
