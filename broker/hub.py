"""The shell around the engine: brings it what happens, and does what it wants done.

Nothing here waits: a reply is on its way to the client in the task that read it from the server. What is done
once for all that is there, and not for each message, `settle` does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol

import trio

from broker.config.schema import Config, ServerConfig
from broker.core.clients.connections import CloseReason, Peer, Send
from broker.core.effects import (
    Closed,
    CreditExhausted,
    Demand,
    Effect,
    EndProcess,
    Hold,
    Log,
    LogOutput,
    Manage,
    Opened,
    Respawn,
    Write,
)
from broker.core.engine import Engine
from broker.core.refusals import Refusal

LATE_S = 0.01
"""How much later than due a server's own deadlines may be seen while messages pass; those of calls are exact.

To look for the first of all of them after every message would cost a fifth of what the message does.
"""

logger = logging.getLogger("mcp-broker")


class Transport(Protocol):
    """The way to the clients, as `frontend.zmq.router` has it."""

    def send(self, post: Send) -> bool:
        """Send a message; False where its connection is gone."""

    def settle(self) -> None:
        """Nothing more is sent for now."""

    def credit_exhausted(self, connection: bytes) -> None:
        """This connection has used up its credit: `Hub.refill` once nothing of it is left to be read."""

    def hold(self, connection: bytes, until: float) -> None:
        """What this connection says next can wait until then, by the hub's clock."""

    def forget(self, connection: bytes) -> None:
        """Nothing more comes from or goes to this connection."""

    def cut(self, connection: bytes) -> None:
        """The same, and its client is to learn it."""


class Backend(Protocol):
    """One server, as its `supervisor` has it."""

    def write(self, line: bytes) -> None:
        """Write a line to its process, or several."""

    def opened(self) -> None:
        """Its conversation is open."""

    def end_process(self, reason: str) -> None:
        """Its conversation cannot be opened."""

    def respawn(self, reason: str) -> None:
        """The era probe hung it."""

    def demand(self) -> None:
        """It is broken, and wanted all the same."""

    def log_output(self, text: bytes) -> None:
        """It wrote this for people."""


class Hub:
    """Runs the effects of one engine.

    Args:
        config: what the broker runs on; a reload replaces it as a whole.
        engine: the engine; nobody else calls it.
        clock: seconds that only go forward.
    """

    def __init__(
        self, config: Config, engine: Engine, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.config = config
        self.engine = engine
        self.mask = engine.mask
        """What takes secrets out of all that the broker says itself."""
        self.backends: dict[str, Backend] = {}
        self._clock = clock
        self._transport: Transport | None = None
        self._manage: Callable[[Manage], None] | None = None
        self._alarm = trio.CancelScope()
        self._look_at = -math.inf
        self._unwritten: dict[str, list[bytes]] = {}
        self._watching = trio.lowlevel.ParkingLot()
        self._pulsing = trio.lowlevel.ParkingLot()
        self.on_move: Callable[[], None] = lambda: None

    def attach(self, transport: Transport, manage: Callable[[Manage], None]) -> None:
        """From now on messages go out by `transport`, and management requests are `manage`'s to answer."""
        self._transport = transport
        self._manage = manage

    # -- what happens -----------------------------------------------------------------------------

    def received(self, key: bytes, peer: Peer, header: bytes, body: bytes | None = None) -> None:
        """A message came in from a client. `settle` must follow, when others that are there are taken in."""
        self._do(self.engine.received(key, peer, header, body, self._clock()))

    def refill(self, key: bytes) -> None:
        """Nothing is left to be read of a connection that had used up its credit. `settle` must follow."""
        self._do(self.engine.refill(key, self._clock()))

    def malformed(self, key: bytes, why: str) -> None:
        """A message came in that is none of the protocol."""
        self._run(self.engine.malformed(key, why, self._clock()))

    def late(self) -> None:
        """A message came in of a connection that had broken before."""
        self.engine.counters.add("late.frame")

    def turned_away(self, most: int) -> None:
        """A connection was broken at once, because there are so many."""
        self.engine.counters.add("turned-away")
        logger.warning("connection.turned_away", extra={"most": most})

    def lost(self, key: bytes) -> None:
        """A connection broke."""
        self._run(self.engine.lost(key, self._clock()))

    def managed(self, request: Manage, outcome: bytes | Refusal) -> None:
        """A management request was carried out, or refused."""
        self._run(self.engine.managed(request.connection, request.client_id, outcome, self._clock()))

    def spawned(self, name: str) -> None:
        """A server has a new process."""
        self._run(self.engine.spawned(name, self._clock()))

    def line(self, name: str, line: bytes) -> bool:
        """A server wrote a line; whether its next one should wait until the server is `caught_up` with.

        `settle` must follow, when others that are there are taken in.
        """
        self._do(self.engine.line(name, line, self._clock()))
        return bool(self.engine.backlog) and self.engine.backlog.is_busy(name)

    def heard(self, name: str) -> None:
        """A server wrote to its stderr."""
        self.engine.heard(name, self._clock())
        self.settle()

    def taken(self, name: str) -> None:
        """A server has read all that was written to its stdin."""
        self.engine.taken(name, self._clock())
        self.settle()

    def hint(self, name: str) -> str:
        """What may explain that a server is not ready yet; empty if there is nothing to say."""
        return self.engine.hint(name)

    def congested(self, name: str, congested: bool) -> None:
        """A server stopped or began to read."""
        self._run(self.engine.congested(name, congested, self._clock()))

    def probing(self, name: str) -> bool:
        """Whether a server that exits now is one of the older era."""
        return self.engine.probing(name)

    def gone(self, name: str, reason: str) -> None:
        """A server's process ended."""
        self._run(self.engine.gone(name, reason, self._clock()))

    def rests(self, name: str) -> None:
        """A server waits for its next start, or for nothing."""
        self._run(self.engine.rests(name, self._clock()))

    def left_behind(self, what: str) -> None:
        """Something of a server's could not be ended."""
        self.engine.counters.add(f"left-behind.{what}")

    def overfull(self, name: str) -> None:
        """So much waits for a server's stdin that it is ended."""
        self.engine.counters.add("ended.not-reading")

    def crashed(self) -> None:
        """A fault of the broker's own has ended a server's process."""
        self.engine.counters.add("crashed-here")

    def moved(self) -> None:
        """A server is in another state."""
        self.on_move()

    def retune(self, server: ServerConfig, *, renewed: bool = False) -> None:
        """A server's table in the config has changed."""
        self._run(self.engine.retune(server, self._clock(), renewed=renewed))

    def withdraw(self, name: str) -> None:
        """A server is no longer configured."""
        self._run(self.engine.withdraw(name, self._clock()))

    def remove(self, name: str) -> None:
        """The process of a server is gone that is no longer configured."""
        self._run(self.engine.remove(name, self._clock()))
        self.moved()

    def goodbye(self, reason: str) -> None:
        """The broker ends: all calls and connections do first."""
        self._run(self.engine.goodbye(reason, self._clock()))

    # -- what is to be done -----------------------------------------------------------------------

    def _run(self, effects: list[Effect]) -> None:
        self._do(effects)
        self.settle()

    def settle(self) -> None:
        """Write to each server what has come together for it, and see to the alarm."""
        while self._unwritten:
            name, lines = self._unwritten.popitem()
            self.backends[name].write(lines[0] if len(lines) == 1 else b"".join(lines))
        if self._transport is not None:
            self._transport.settle()
        self._set_alarm()

    def _do(self, effects: list[Effect]) -> None:
        broken = []
        for effect in effects:
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
        for key in broken:  # not before: what cancels a call must not overtake the call itself
            self.lost(key)

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
            self.backends[effect.server].opened()
        elif isinstance(effect, EndProcess):
            self.backends[effect.server].end_process(effect.reason)
        elif isinstance(effect, Respawn):
            self.backends[effect.server].respawn(effect.reason)
        elif isinstance(effect, Demand):
            self.backends[effect.server].demand()
        elif isinstance(effect, LogOutput):
            self.backends[effect.server].log_output(effect.text)

    # -- time -------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """While messages pass it is put off time and again: to be woken by it costs as much as a call."""
        now = self._clock()
        if now >= self._look_at and not self._pulsing:
            self._alarm.deadline = self._look(now)
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
        """When the engine wants to know the time."""
        self._look_at = now + LATE_S / 2
        due = self.engine.wake_at()
        return math.inf if due is None else due

    async def tick(self) -> None:
        """Tell the engine the time whenever something is due."""
        while True:
            due = -math.inf if self._pulsing else self._look(self._clock())
            with trio.CancelScope(deadline=due) as self._alarm:
                await trio.sleep_forever()
            self._run(self.engine.tick(self._clock()))
            self._pulsing.unpark_all()

    async def pulse(self) -> None:
        """Come back once the engine has been told the time: it and the clock live."""
        self._alarm.deadline = -math.inf
        await self._pulsing.park()

    async def drain(self, patience_s: float) -> int:
        """Take no new requests, and give those that were begun this long to end; how many did not."""
        self._run(self.engine.refuse_new(self._clock()))
        with trio.move_on_after(patience_s):
            while not self.engine.is_drained:
                await self._watching.park()
        return self.engine.under_way

    async def drain_server(self, name: str, patience_s: float) -> int:
        """Give a server no further calls, and those that it has this long to end. Return how many did not.

        Its next process is given calls again; so is this one after `resume`.
        """
        queue = self.engine.servers[name].queue
        queue.paused = True
        with trio.move_on_after(patience_s):
            while queue.running and queue.paused:
                await self._watching.park()
        return queue.running

    async def caught_up(self, name: str) -> None:
        """Come back once nothing is left to do about a server."""
        while self.engine.backlog.is_busy(name):
            await self._watching.park()

    def resume(self, name: str) -> None:
        """Give a server calls again that is not to be stopped after all."""
        self._run(self.engine.resume(name, self._clock()))
