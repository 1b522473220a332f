"""The connection of an asyncio loop to a broker: shared by the channels of the loop, made anew when lost.

It is built of callbacks and holds no task. Nothing in it awaits, so the end of a loop leaves nothing half
done, and any task may close it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

import zmq

from client_shim import log
from client_shim.asyncio.call import LOG, PROGRESS, PendingCall, WaitingCalls
from client_shim.asyncio.channel import Channel, ListenCall, ListenSet, Receiver
from client_shim.asyncio.loop_dealer import LoopDealer
from client_shim.asyncio.loop_end import LoopEnd
from client_shim.asyncio.questions import QuestionTasks
from client_shim.asyncio.reconnect import Reconnect
from client_shim.errors import CallError, Unavailable
from client_shim.protocol import events, reasons
from client_shim.protocol.backoff import ReconnectBackoff
from client_shim.protocol.calls import GRACE_S
from client_shim.protocol.payload import PreparedRequest
from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.questions import OnRawQuestion
from client_shim.transport.address import BrokerAddress, FoundBroker
from client_shim.transport.dealer import FAREWELL_MS
from client_shim.transport.endpoint import may_block, probe

_ORDINARY = ("late", "cancelled")
"""The counters of messages about calls that this side has given up: no reason for a warning."""


class BrokerConnection:
    """The connection of one event loop to one broker, lost and made anew, with its channels and calls.

    Args:
        who: name, version and pid, for the broker's `status`.
        hello_timeout_s: how long a broker may take to answer the hello.
        on_close: called once, when the connection will not be used again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: BrokerAddress,
        who: dict[str, Any],
        hello_timeout_s: float,
        on_close: Callable[[BrokerConnection], None],
    ) -> None:
        self.loop = loop
        self.address, self.endpoint = address, address.endpoint
        self.pid = os.getpid()
        self.closed_by: str | None = None
        """Why it was closed; `None` while it is in use."""
        self.counts: dict[str, int] = {}
        self._who, self._hello_timeout_s = who, hello_timeout_s
        self._on_close = on_close
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._calls: dict[int, PendingCall | ListenCall] = {}
        self._dealer: LoopDealer | None = None
        self._told_lost = False
        """Whether the channels were told of a loss, and not yet of a return."""
        self._context = Context()
        self._waiting = WaitingCalls(loop, self._context)
        self._reconnect = Reconnect(loop, address, hello_timeout_s, self._on_searched, self._context)
        self._loop_end = LoopEnd(partial(self.close, "its event loop ended"))

    def __repr__(self) -> str:
        phase = "down" if self._dealer is None else self._dealer.state.phase.value
        shown = f"{self.endpoint} {phase if self.closed_by is None else 'closed'}"
        return f"<BrokerConnection {shown} channels={len(self._channels)} calls={len(self._calls)}>"

    @property
    def is_open(self) -> bool:
        """Whether calls can be sent now."""
        return self._dealer is not None and self._dealer.state.phase is ConnectionPhase.OPEN

    @property
    def is_ours(self) -> bool:
        """Whether it can be used at all: false once it is closed, and for the copy in a forked child."""
        return self.closed_by is None and self.pid == os.getpid()

    @property
    def backoff(self) -> ReconnectBackoff:
        """When the broker was there, and how long calls wait for it."""
        return self._reconnect.backoff

    @property
    def _error(self) -> Unavailable | None:
        """The error of the last attempt, unless it has succeeded or another one is under way."""
        is_under_way = self._dealer is not None or self._reconnect.is_searching
        return None if is_under_way else self._reconnect.copy_of_failure()

    # --- channels ------------------------------------------------------------------------------------

    def open_channel(self, listener: Callable[[], Receiver | None], listen_set: ListenSet) -> Channel:
        """Return a new channel, which listens before it does anything else."""
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
        repeat_after = partial(self._listen_later, channel, self._dealer)
        self._calls[id] = ListenCall(channel, self._deliver, repeat_after)
        self._dealer.settle()

    def _listen_later(self, channel: Channel, dealer: LoopDealer, delay_s: float) -> None:
        self.loop.call_later(delay_s, self._listen_again, channel, dealer, context=self._context)

    def _listen_again(self, channel: Channel, dealer: LoopDealer) -> None:
        """Repeat the `listen` of a channel if the channel and the connection of the first one still exist."""
        if self._dealer is dealer and self._channels.get(channel.number) is channel:
            self._listen(channel)

    def close_channel(self, channel: Channel, reason: str) -> None:
        """Close a channel and end its calls; the last one closes the connection. Closing twice is fine."""
        if not self.is_ours or self._channels.pop(channel.number, None) is None:
            return
        self._waiting.wake(channel)
        if not self._channels:
            self.close(reason)
        elif self._dealer is not None:
            self._react(self._dealer.state.close_channel(channel.number, reason))
            self._dealer.settle()

    def close_channel_soon(self, channel: Channel, reason: str) -> None:
        """The same from anywhere: another thread, or a finalizer that runs between any two instructions."""
        with suppress(RuntimeError):  # the loop is closed: the next client abandons the connection
            if self.is_ours:
                self.loop.call_soon_threadsafe(self.close_channel, channel, reason)

    # --- calls ---------------------------------------------------------------------------------------

    async def wait(
        self, channel: Channel, until: float, request: PreparedRequest | None = None
    ) -> Unavailable | None:
        """Try to reach the broker, and wait for a change, at most until then (by the loop's clock).

        Returns:
            The error of the last attempt, unless it has succeeded or another one is under way.

        Raises:
            Busy: too many calls wait already.
        """
        if self._dealer is None and self.is_ours:
            self._reconnect.hurry()
        await self._waiting.wait(channel, until, request)
        return self._error

    def call(
        self, channel: Channel, request: PreparedRequest, on_question: OnRawQuestion | None = None
    ) -> PendingCall:
        """Send a request. The connection must be open, and `drop` must be called afterwards in any case.

        Raises:
            TooLarge, InvalidRequest, Busy: nothing was sent.
        """
        if self._dealer is None:
            raise RuntimeError("no call can be made without a connection")
        now = self.loop.time()
        id = self._dealer.state.request(channel.number, request, now)
        tasks = on_question and QuestionTasks(self.loop, request.subject, on_question, self._dealer.answer)
        self._calls[id] = call = PendingCall(id, request.subject, tasks)
        self._dealer.settle()
        if request.timeout_s is not None:
            self._dealer.wake_by(now + request.timeout_s + GRACE_S)
        return call

    def drop(self, call: PendingCall, reason: str) -> None:
        """Forget a call whose caller has left; cancel it if it has not ended."""
        call.close_questions()
        if self._calls.get(call.id) is call and self._dealer is not None and self.is_ours:
            del self._calls[call.id]
            self._dealer.state.cancel(call.id, reason)
            self._dealer.settle()

    # --- attempts, and the end -----------------------------------------------------------------------

    def _on_searched(self, outcome: FoundBroker | Unavailable) -> None:
        if isinstance(outcome, Unavailable):
            self._failed(outcome)
            return
        state = ClientState(self._who, self.loop.time(), hello_timeout_s=self._hello_timeout_s)
        try:
            self._dealer = LoopDealer(self.loop, outcome, state, self._on_event, self._context)
        except Unavailable as error:
            self._failed(error)
        except (OSError, RuntimeError, zmq.ZMQError) as error:  # out of descriptors or threads, say
            self._failed(reasons.no_connection(self.endpoint, error))

    def _failed(self, error: Unavailable, *, announced: bool = False) -> None:
        """Handle a failed attempt or a loss; `announced`: the broker said that it ends."""
        now, was_there = self.loop.time(), self.backoff.came_through
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            dealer.close()
        if self._reconnect.is_doubtful(error):
            self._reconnect.attempt_at(now)
            return
        self._reconnect.failure = reasons.at(self.endpoint, error)
        self.backoff.failed(now, announced=announced)
        if was_there:
            self._tell_connected(False)
        if self.backoff.was_reached or self._waiting:
            self._reconnect.attempt_at(self.backoff.after(now, hasty=bool(self._waiting)))
        self._waiting.wake()

    def why_not(self) -> Unavailable:
        """Return why no call can be sent now."""
        if self._dealer is not None and self._dealer.state.phase is ConnectionPhase.DRAINING:
            return reasons.at(self.endpoint, reasons.draining())
        tried_s = round(self.loop.time() - self.backoff.tried_at, 3)
        if may_block(self.endpoint) and self._dealer is None:
            return self._reconnect.copy_of_failure() or reasons.not_connected(self.endpoint, tried_s)
        try:
            self.look()
        except Unavailable as error:
            return error
        return self._error or reasons.at(self.endpoint, reasons.silent(tried_s))

    def look(self) -> None:
        """Raise `Unavailable` if there is no broker, as far as that can be seen without waiting."""
        if not may_block(self.endpoint):
            probe(self.endpoint)

    def close(self, reason: str) -> None:
        """Say goodbye and end everything. A second time does nothing."""
        if not self.is_ours:
            return
        self.closed_by = reason
        self._on_close(self)
        self._channels.clear()
        self._reconnect.stop()
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._react(dealer.state.close(reason))
            dealer.settle()
            dealer.close(FAREWELL_MS)
        self._waiting.wake()
        self._loop_end.ignore()

    def abandon(self) -> None:
        """Close the sockets of a loop that was closed without notice: nothing can be run in it any more."""
        self.closed_by = "its event loop was closed"
        self._loop_end.forget()
        self._reconnect.stop()
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            dealer.close()

    # --- events --------------------------------------------------------------------------------------

    def _react(self, happened: list[events.Event]) -> None:
        for event in happened:
            self._on_event(event)

    def _on_event(self, event: events.Event) -> None:
        _REACTIONS[type(event)](self, event)

    def _on_welcomed(self, _: events.Welcomed) -> None:
        for channel in list(self._channels.values()):  # before any call: what it hears is never older
            self._listen(channel)
        self.backoff.welcomed(self.loop.time())
        self._waiting.wake()
        if self._told_lost:
            self._tell_connected(True)

    def _on_ended(self, event: events.Ended) -> None:
        if (call := self._calls.pop(event.id, None)) is not None:
            call.end(event.outcome)

    def _on_said(self, event: events.Progressed | events.Logged) -> None:
        kind = PROGRESS if isinstance(event, events.Progressed) else LOG
        if (call := self._calls.get(event.id)) and not call.add(kind, event.body):
            self.count(f"{kind} dropped")

    def _on_notified(self, event: events.Notified) -> None:
        named = [self._channels[event.channel]] if event.channel in self._channels else []
        for channel in list(self._channels.values()) if event.channel == 0 else named:
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

    def _on_questioned(self, event: events.Questioned) -> None:
        call = self._calls.get(event.request_id)
        if call is not None and call.questions is not None:
            call.questions.ask(event)
        elif self._dealer is not None:
            self._dealer.state.questions.refuse(event, self.loop.time())

    def _on_withdrawn(self, event: events.Withdrawn) -> None:
        call = self._calls.get(event.request_id)
        if call is not None and call.questions is not None:
            call.questions.withdraw(event.id)
        if self._dealer is not None:
            self._dealer.wake_by(self._dealer.state.next_deadline())

    def _on_dropped(self, event: events.Dropped) -> None:
        if self.count(event.why) == 1 and event.why not in _ORDINARY:
            log.warn(f"{self.endpoint}: {event.what} (further ones of this kind are only counted)")

    def _on_lost(self, event: events.Lost) -> None:
        self._failed(event.error, announced=event.announced)

    def count(self, what: str) -> int:
        """Count something that its callers are not told; return the number of times so far."""
        self.counts[what] = self.counts.get(what, 0) + 1
        return self.counts[what]


_REACTIONS: dict[type[Any], Callable[[BrokerConnection, Any], None]] = {
    events.Welcomed: BrokerConnection._on_welcomed,
    events.Ended: BrokerConnection._on_ended,
    events.Progressed: BrokerConnection._on_said,
    events.Logged: BrokerConnection._on_said,
    events.Notified: BrokerConnection._on_notified,
    events.Questioned: BrokerConnection._on_questioned,
    events.Withdrawn: BrokerConnection._on_withdrawn,
    events.Dropped: BrokerConnection._on_dropped,
    events.Lost: BrokerConnection._on_lost,
}
