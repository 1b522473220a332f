"""A `Dealer` on an asyncio event loop, which calls it when there is something to read, and at deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from client_shim import log
from client_shim.asyncio.waiting_thread import WaitingThread
from client_shim.protocol.events import Event
from client_shim.protocol.state import ClientState
from client_shim.transport.address import FoundBroker
from client_shim.transport.dealer import Dealer

MAX_PUT_OFF = 16
"""How often messages that have arrived may delay a deadline: a flood must not delay it without end."""


class LoopDealer:
    """Reads, sends and keeps deadlines; passes the events to `on_event`, one at a time and in order.

    Args:
        context: the context of the callbacks. They serve all clients, so it must not be that of the first.

    Raises:
        InvalidEndpoint: libzmq does not accept the endpoint.
        OSError, RuntimeError: the loop cannot watch sockets, and no thread can be made for it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        found: FoundBroker,
        state: ClientState,
        on_event: Callable[[Event], None],
        context: Context,
    ) -> None:
        self.state = state
        self.loop = loop
        self._on_event = on_event
        self._context = context
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")  # uvloop's handles do not always say
        self._dealer: Dealer | None = Dealer(found.endpoint, state, found.keys)
        self._filenos = self._dealer.filenos
        self._thread: WaitingThread | None = None
        try:
            self._watch_filenos()
        except (OSError, RuntimeError):
            self._dealer.close()
            raise
        self.wake_by(state.next_deadline())
        self.settle()

    def _watch_filenos(self) -> None:
        try:
            for fileno in self._filenos:
                self.loop.add_reader(fileno, self._work)
        except NotImplementedError:
            self._thread = WaitingThread(self.loop, self._filenos, self._work, self._context)

    def settle(self) -> None:
        """Send what waits, and read soon if that has consumed the edge of the socket's descriptor.

        Call it after every method of `state`.
        """
        if self._dealer is None:
            return
        self._dealer.flush()
        if not self._again and self._dealer.swallowed():
            self._again = True
            self.loop.call_soon(self._work, context=self._context)

    def wake_by(self, when: float | None, *, put_off: int = 0) -> None:
        """Check the deadlines at this time of the loop's clock, or earlier; `None` is never."""
        if when is None or (self._timer is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._tick, put_off, context=self._context)
        self._timer_at = when

    def answer(self, question: int, ok: bool, body: bytes) -> None:
        """Answer a question if it is open; the time of its call goes on. A lost connection has none.

        Raises:
            TooLarge: the broker would not accept the body. The question stays open.
        """
        if self._dealer is not None and self.state.questions.answer(question, ok, body, self.loop.time()):
            self.settle()
            self.wake_by(self.state.next_deadline())

    def close(self, linger_ms: int = 0) -> None:
        """Close the sockets, and remove everything from the loop. No event follows."""
        dealer, self._dealer = self._dealer, None
        if dealer is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.close()
        elif not self.loop.is_closed():
            for fileno in self._filenos:
                self.loop.remove_reader(fileno)
        dealer.close(linger_ms)

    def _work(self) -> None:
        self._again = False
        if self._dealer is not None:
            self._tell(self._dealer.receive(self.loop.time()))
            self.settle()

    def _tell(self, events: list[Event]) -> None:
        """Pass the events on. A fault in handling one must not keep the others from their callers."""
        for event in events:
            try:
                self._on_event(event)
            except Exception as fault:
                log.warn(f"an event of the connection could not be handled: {fault!r}; report this", fault)

    def _tick(self, put_off: int) -> None:
        """Handle a deadline, after the messages that arrived before it while this process was busy."""
        self._timer = None
        if self._dealer is None:
            return
        if self._dealer.has_work() and put_off < MAX_PUT_OFF:
            self.wake_by(self.loop.time(), put_off=put_off + 1)
            self._work()
            return
        self._tell(self.state.expire(self.loop.time()))
        self.wake_by(self.state.next_deadline())
        self.settle()
