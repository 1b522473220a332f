"""Tells the engine every event, and runs the effects of it. Nobody else in the shell does.

The caller names the part of the engine that an event is about: `hub.run(engine.registry.spawned, name)`.
The hub adds the time, calls that part and runs the effects. Nothing here waits: the task that reads a reply
from a server also hands it to the socket of the client. What is done once for several events is in `settle`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from broker.core.clients.connections import CloseReason, Send
from broker.core.effects import (
    Admit,
    Closed,
    CreditExhausted,
    Demand,
    Effect,
    EndProcess,
    Hold,
    Idle,
    Log,
    LogOutput,
    Manage,
    Opened,
    Respawn,
    Write,
)
from broker.core.engine import Engine

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")

LATE_S = 0.01
"""The largest delay of a server's own deadlines while messages pass; deadlines of calls are exact.

To look for the first deadline of all servers after every message would cost a fifth of the message's time.
"""

logger = logging.getLogger("mcp-broker")


class Transport(Protocol):
    """The frontend, as the hub uses it: see `frontend.zmq.router`."""

    def send(self, post: Send) -> bool:
        """Send a message. Return False if its connection is gone."""

    def settle(self) -> None:
        """Note that no further message follows for now."""

    def credit_exhausted(self, connection: bytes) -> None:
        """Have `FlowControl.refill` called when nothing of this connection is left to be read."""

    def hold(self, connection: bytes, until: float) -> None:
        """Read the next messages of this connection later: at this time of the hub's clock."""

    def forget(self, connection: bytes) -> None:
        """Forget this connection: its client has been told of the end."""

    def cut(self, connection: bytes) -> None:
        """Forget this connection, and break it so that its client learns of the end."""


class Upstream(Protocol):
    """One server, as the hub uses it: see `upstream.supervisor`."""

    def write(self, line: bytes) -> None:
        """Write one line or several to the stdin of the process."""

    def opened(self) -> None:
        """Note that the session with the server is open."""

    def end_process(self, reason: str) -> None:
        """End the process as failed: its handshake failed, or it hangs."""

    def respawn(self, reason: str) -> None:
        """Start the process again without the era probe, which hung it."""

    def demand(self) -> None:
        """Start the broken or idle server, because a client calls it."""

    def idle(self) -> None:
        """End the process, which nobody uses, or do not start one."""

    def admitted(self) -> None:
        """Go on with the start: there is room in the budget."""

    def log_output(self, text: bytes) -> None:
        """Add this text to the log of what the server wrote for people."""


class Hub:
    """Calls the parts of one engine and runs their effects.

    Args:
        engine: the core. Whoever changes it without an event (its config, its counters, the rows of its
            servers) owns that change, and needs no effect of it.
        clock: seconds that only go forward.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = trio.current_time) -> None:
        self.engine = engine
        self.upstreams: dict[str, Upstream] = {}
        self.on_move: Callable[[], None] = lambda: None
        """Called when the state of a server has changed."""
        self._clock = clock
        self._transport: Transport | None = None
        self._manage: Callable[[Manage], None] | None = None
        self._alarm = trio.CancelScope()
        self._now = -math.inf
        """The time of the last step."""
        self._look_at = -math.inf
        self._unwritten: dict[str, list[bytes]] = {}
        self._watching = trio.lowlevel.ParkingLot()
        self._pulsing = trio.lowlevel.ParkingLot()

    def attach(self, transport: Transport, manage: Callable[[Manage], None]) -> None:
        """Use this transport for messages to clients, and this function for management requests."""
        self._transport = transport
        self._manage = manage

    # -- events and effects -----------------------------------------------------------------------

    def run(self, event: Callable[[Unpack[Arguments], float], object], *arguments: Unpack[Arguments]) -> None:
        """Tell a part of the engine of an event, run the effects, and settle."""
        self.step(event, *arguments)
        self.settle()

    def step(
        self, event: Callable[[Unpack[Arguments], float], object], *arguments: Unpack[Arguments]
    ) -> None:
        """Tell a part of the engine of one event of several, and run the effects. `settle` must follow."""
        self._now = now = self._clock()
        event(*arguments, now)
        broken = []
        for effect in self.engine.finish(now):
            if isinstance(effect, Send):
                if self._transport is not None and not self._transport.send(effect):
                    broken.append(effect.connection)
            elif isinstance(effect, Write):
                self._unwritten.setdefault(effect.server, []).append(effect.line)
            elif isinstance(effect, Log):
                if logger.isEnabledFor(effect.level):
                    logger.log(effect.level, effect.event, extra=effect.facts)
            else:
                self._run_rare(effect)
        for key in broken:  # not before: the cancel of a call must not overtake the call
            self.run(self.engine.clients.lost, key)

    def _run_rare(self, effect: Effect) -> None:
        if isinstance(effect, Manage):
            if self._manage is not None:
                self._manage(effect)
        elif isinstance(effect, Closed):
            if self._transport is not None:
                told = effect.reason in (CloseReason.GOODBYE, CloseReason.SHUTDOWN)
                (self._transport.forget if told else self._transport.cut)(effect.connection)
        elif isinstance(effect, Hold):
            if self._transport is not None:
                self._transport.hold(effect.connection, effect.until)
        elif isinstance(effect, CreditExhausted):
            if self._transport is not None:
                self._transport.credit_exhausted(effect.connection)
        elif isinstance(effect, Opened):
            self.upstreams[effect.server].opened()
        elif isinstance(effect, EndProcess):
            self.upstreams[effect.server].end_process(effect.reason)
        elif isinstance(effect, Respawn):
            self.upstreams[effect.server].respawn(effect.reason)
        elif isinstance(effect, Demand):
            self.upstreams[effect.server].demand()
        elif isinstance(effect, Idle):
            self.upstreams[effect.server].idle()
        elif isinstance(effect, Admit):
            self.upstreams[effect.server].admitted()
        elif isinstance(effect, LogOutput):
            self.upstreams[effect.server].log_output(effect.text)

    def settle(self) -> None:
        """Write the lines that have come together for each server, and set the alarm."""
        while self._unwritten:
            name, lines = self._unwritten.popitem()
            self.upstreams[name].write(lines[0] if len(lines) == 1 else b"".join(lines))
        if self._transport is not None:
            self._transport.settle()
        self._set_alarm()

    # -- time -------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """Set the alarm. While messages pass it is put off: to be woken by it costs as much as a call."""
        if self._now >= self._look_at and not self._pulsing:
            self._alarm.deadline = self._look(self._now)
        else:
            due = self.engine.dispatch.table.next_deadline()
            latest = self._look_at + LATE_S / 2
            due = latest if due is None or due > latest else due
            if due < self._alarm.deadline:
                self._alarm.deadline = due
        if self.engine.backlog:
            self._alarm.deadline = -math.inf
        if self._watching:
            self._watching.unpark_all()

    def _look(self, now: float) -> float:
        """Return when the engine has something due."""
        self._look_at = now + LATE_S / 2
        due = self.engine.wake_at()
        return math.inf if due is None else due

    async def tick(self) -> None:
        """Tell the engine the time whenever something is due. Never returns."""
        while True:
            due = -math.inf if self._pulsing else self._look(self._clock())
            with trio.CancelScope(deadline=due) as self._alarm:
                await trio.sleep_forever()
            self.run(self.engine.tick)
            self._pulsing.unpark_all()

    async def pulse(self) -> None:
        """Return after the next tick of the engine, which shows that it and the clock run."""
        self._alarm.deadline = -math.inf
        await self._pulsing.park()

    async def drain(self, patience_s: float) -> int:
        """Refuse new requests, wait this long for those under way, and return how many have not ended."""
        self.run(self.engine.refuse_new)
        with trio.move_on_after(patience_s):
            while not self.engine.is_drained:
                await self._watching.park()
        return self.engine.under_way

    async def drain_server(self, name: str, patience_s: float) -> int:
        """Suspend a server, wait this long for its calls, and return how many have not ended.

        Its next process is given calls again; so is this one after `resume` of the registry.
        """
        queue = self.engine.servers[name].queue
        self.run(self.engine.registry.suspend, name)
        with trio.move_on_after(patience_s):
            while queue.running and queue.paused:
                await self._watching.park()
        return queue.running

    async def caught_up(self, name: str) -> None:
        """Return when the backlog has no job about this server."""
        while self.engine.backlog.is_busy(name):
            await self._watching.park()
