"""The supervisor of one server: it feeds the lifecycle with events and carries out its actions."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from msgspec import structs

from broker.base.secrets import Mask
from broker.core.servers.lifecycle import TABLE, Action, Ending, Event, State
from broker.core.servers.server import Server
from broker.hub import Hub
from broker.processes.environment import secrets_of
from broker.processes.process import Launcher, Process
from broker.processes.program import SpawnError
from broker.upstream import life_log
from broker.upstream.containment import HUB, came_through
from broker.upstream.starts import Slot, Starts, retune
from broker.upstream.stdio.attachment import ProcessAttachment
from broker.upstream.stdio.pipe import Pipe
from broker.upstream.stdio.stderr import StderrLog

logger = logging.getLogger("mcp-broker")

_LAST_LINES = 5

START_HOLD_S = 10.0
"""The longest time that a start counts among `starts_at_once`: a start that hangs delays no other server."""

_OWN_FAULT = (
    "a fault of the broker's own, not of the server's: see server.crashed_here in the broker's log, "
    "and report what stands there"
)


class Supervisor:
    """Keeps at most one process of a server.

    Args:
        server: the core's row of the server, with its config and its lifecycle. Only this feeds the
            lifecycle.
        hub: receives the lines of the process.
        launcher: starts the process.
        starts: limits the number of servers that start at the same time.
        max_message_bytes: the largest result of the server.
    """

    def __init__(
        self,
        server: Server,
        hub: Hub,
        *,
        launcher: Launcher,
        starts: Starts,
        max_message_bytes: int,
    ) -> None:
        self.name = server.name
        self.lifecycle = server.lifecycle
        self.process: Process | None = None
        self.log = StderrLog(server.name)
        self._server = server
        self._hub, self._registry, self._budget = hub, hub.engine.registry, hub.engine.budget
        self._launcher = launcher
        self._slot = Slot(starts, lambda: server.is_wanted, lambda: self._lacks_room)
        self._max_message_bytes = max_message_bytes
        self._pipe: Pipe | None = None
        self._ended = trio.Event()
        self._spawn = trio.Event()
        self._moved = trio.Event()
        self._alarm = trio.CancelScope()
        self.last_lines: list[str] = []
        """The last lines of the process that ended last, if it ended by itself."""

    # -- for the hub ------------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """Write one line or several to the process."""
        if self._pipe is not None:
            with self._boundary():
                self._pipe.write(line)

    def opened(self) -> None:
        """Note that the session is open."""
        self._feed(Event.OPENED)

    def end_process(self, reason: str) -> None:
        """End the process as failed."""
        self._feed(Event.FAILED, Ending(reason))

    def respawn(self, reason: str) -> None:
        """Start another process without the era probe, which hung this one."""
        self._feed(Event.LEGACY, Ending(reason))

    def demand(self) -> None:
        """Start the broken or idle server, because a client calls it."""
        if Event.DEMAND in TABLE[self.lifecycle.state]:  # else another call was first
            self._feed(Event.DEMAND)

    def idle(self) -> None:
        """End the process, which nobody uses, or do not start one."""
        if self.lifecycle.state in (State.STARTING, State.READY):  # else it has failed, or somebody stops it
            self._feed(Event.IDLE)

    def admitted(self) -> None:
        """Go on with the start: there is room in the budget."""
        self._slot.look()

    @property
    def _lacks_room(self) -> bool:
        """Whether its start waits for room in the budget."""
        return self._server.room is not None and self.lifecycle.state is State.STARTING

    def newest_lines(self) -> list[str]:
        """Return the last lines of the process that is being started, else of the one that ended last."""
        return self.last_lines if self.lifecycle.start is None else self.log.tail(_LAST_LINES)

    def log_output(self, text: bytes) -> None:
        """Add this text of the process to the log."""
        with self._boundary():
            self.log.keep(text, "stdout")

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until cancelled. A cancelled supervisor kills its process, so stop it first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            if self.lifecycle.state is State.STOPPED:
                self.begin()
            while True:
                await self._spawn.wait()
                self._spawn = trio.Event()
                await self._live()

    @property
    def at_rest(self) -> bool:
        """Whether it has no process, and none will be started."""
        return self.lifecycle.state in (State.STOPPED, State.IDLE)

    @property
    def waits(self) -> bool:
        """Whether it waits for its next start after a failure, or for a call though the config starts it."""
        idle = self.lifecycle.state is State.IDLE and self._server.config.start == "boot"
        return idle or self.lifecycle.state in (State.BACKOFF, State.BROKEN)

    def begin(self) -> None:
        """Start the server, or wait for a call, as the config says."""
        self._feed(Event.IDLE if self._server.config.start == "demand" else Event.START)

    def start(self) -> None:
        """Start the server now, whatever state it is in."""
        self._feed(Event.START)

    def stop(self) -> None:
        """Begin to end its process, and start no other."""
        self._feed(Event.STOP)

    def restart(self) -> None:
        """Begin to end its process; another one follows. What waits for the server goes on waiting."""
        if self.lifecycle.state in (State.HANDSHAKE, State.READY):
            self._feed(Event.STOP)
        self._feed(Event.START)

    async def ended(self) -> None:
        """Wait until nothing is left of a process that is being ended."""
        while self.lifecycle.state is State.DRAINING:
            await self._moved.wait()

    def retune(self) -> None:
        """Follow the changed table of the server."""
        retune(self.lifecycle, self._server.config)

    def _feed(self, event: Event, ending: Ending | None = None) -> Action:
        before = self.lifecycle.state
        if ending is not None:  # it may quote the server
            ending = structs.replace(ending, reason=self.log.mask(ending.reason))
        action = self.lifecycle.on(event, trio.current_time(), ending)
        if self.lifecycle.state is not before:
            life_log.moved(self.name, self.lifecycle, self.process, ending, trio.current_time())
            self._hub.on_move()
            self._moved.set()
            self._moved = trio.Event()
        self._alarm.deadline = math.inf if self.lifecycle.wake_at is None else self.lifecycle.wake_at
        if self.lifecycle.state not in (State.STARTING, State.HANDSHAKE):
            self._slot.release()
        self._slot.look()
        if action is Action.SPAWN:
            self._spawn.set()
            self._hub.run(self._budget.ask, self.name)
        elif action is Action.END:
            self._ended.set()
        elif action is Action.REST:
            self._hub.run(self._registry.rests, self.name)
        self._hub.run(self._budget.changed)  # in the same state too: what follows may have changed
        return action

    async def _watch_clock(self) -> None:
        while True:
            wake_at = self.lifecycle.wake_at
            with trio.CancelScope(deadline=math.inf if wake_at is None else wake_at) as self._alarm:
                await trio.sleep_forever()
            if self.lifecycle.wake_at is not None and self.lifecycle.wake_at <= trio.current_time():
                with self._boundary():
                    self._timeout()

    def _timeout(self) -> None:
        start, now = self.lifecycle.start, trio.current_time()
        if start is None or not start.has_more_time(now):
            ending = None
            if start is not None:
                ending = self.lifecycle.overdue(now)
                hint = self._hub.engine.servers[self.name].hint
                ending = structs.replace(
                    ending, reason=ending.reason + (f"; {hint}" if hint else "") + self.log.why()
                )
            self._feed(Event.TIMEOUT, ending)
            return
        self._feed(Event.TIMEOUT)
        self._slot.release()  # a download delays no other start
        life_log.more_time(self.name, start, now)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        """Contain a fault: it ends this server's process and no other."""
        try:
            yield
        except Exception as fault:
            self._crashed(fault)

    def _crashed(self, fault: Exception) -> None:
        """End this server's process because of a fault of the broker itself.

        A fault that came through the hub is raised again: the tables of all servers may be half changed, and
        only a new broker has consistent ones.
        """
        if came_through(fault, HUB):
            raise fault
        logger.error("server.crashed_here", exc_info=fault, extra={"server": self.name})
        self._hub.engine.counters.add("crashed-here")
        if Event.FAILED in TABLE[self.lifecycle.state]:
            self._feed(Event.FAILED, Ending(_OWN_FAULT))

    async def _live(self) -> None:
        """Run one process, from its start until nothing is left of it."""
        process = await self._started()
        if process is None:
            return
        try:
            left = await self._attend(process)
        except BaseException as fault:  # cancelled, or a fault of the broker: no process stays
            self._pipe = None  # its descriptors are closed now, and others may get their numbers
            if contained := isinstance(fault, Exception) and not came_through(fault, HUB):
                self._crashed(fault)
                self._hub.run(self._registry.gone, self.name, self.lifecycle.reason)
            with trio.CancelScope(shield=True):
                left = await process.end(0)  # if this fails, only the next broker finds what is left
            if not contained:
                raise
        finally:
            process.close()
            self.process = None
            life_log.container_left(self.name, process, self._hub.engine.counters)
        if not self.lifecycle.stopping:
            self.last_lines = self.log.tail(_LAST_LINES)
        life_log.left_behind(self.name, left, self._hub.engine.counters)
        self._feed(Event.GONE)

    async def _started(self) -> Process | None:
        """Start a process, once it is its turn. Return `None` if it was stopped meanwhile or could not
        start."""
        try:
            await self._its_turn()
            if self.lifecycle.state is not State.STARTING:
                self._slot.release()  # it was stopped while it waited
                return None
            self._ended = trio.Event()
            self._learn_secrets()  # the config may have changed
            self.process = self._launcher.spawn(self._server.config)
            self._slot.started()
        except SpawnError as error:
            if self.lifecycle.state is State.STARTING:
                self._feed(Event.FAILED, Ending(str(error), cause=error.cause))
        except Exception as fault:
            self._crashed(fault)
        else:
            return self.process
        if self.lifecycle.state is State.DRAINING:
            self.last_lines = []
            self._feed(Event.GONE)
        return None

    async def _its_turn(self) -> None:
        """Wait for room, for a slot among `starts_at_once`, and until no earlier container is left.

        A server that is stopped or rests meanwhile takes no slot, or gives it back. If it is started again it
        waits for another one.
        """
        while self.lifecycle.state is State.STARTING and not self._slot.held:
            if await self._slot.acquire():
                self._learn_secrets()
                await self._launcher.end_owed(self._server.config)
            if self._lacks_room:  # it was stopped and is started again: its place is another's now
                self._slot.release()

    def _learn_secrets(self) -> None:
        """Mask the secrets of the next process, in its output and in all that the broker says."""
        secrets = secrets_of(self._server.config, self._launcher.environ)
        self.log.mask = Mask(secrets)
        self._hub.engine.mask.put(self.name, secrets)

    async def _attend(self, process: Process) -> list[int]:
        """Serve until the process must end, and end it. Return the pids that cannot be killed."""
        attachment = ProcessAttachment(
            self.name, process, self.lifecycle, self.log, self._hub, self._feed, self._max_message_bytes
        )
        async with trio.open_nursery() as nursery:
            attachment.begin(nursery, self._server.config.watchdog_sec)
            self._pipe = attachment.pipe
            self._feed(Event.SPAWNED)
            self._hub.run(self._registry.spawned, self.name)
            nursery.start_soon(self._release_start, attachment)
            await self._ended.wait()
            self._pipe = None
            attachment.pipe.close()
            self._hub.run(self._registry.gone, self.name, self.lifecycle.reason)
            left = await process.end(self._server.config.timeout_stop_sec)
            nursery.cancel_scope.cancel()
        return left

    async def _release_start(self, attachment: ProcessAttachment) -> None:
        """Give the slot back once the process reads its stdin: then it has started."""
        with trio.move_on_after(START_HOLD_S):
            await attachment.read.wait()
        self._slot.release()
