"""One server's supervisor: carries out what its lifecycle says, and tells it what happened."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from msgspec import structs

from broker.base.secrets import Mask
from broker.config.schema import ServerConfig
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import TABLE, Action, Ending, Event, Lifecycle, State
from broker.core.servers.server import Server
from broker.hub import Hub
from broker.processes.environment import secrets_of
from broker.processes.process import Launcher, Process
from broker.processes.program import SpawnError
from broker.processes.runners import runner_of
from broker.upstream.containment import HUB, came_through
from broker.upstream.stdio.attachment import Attachment
from broker.upstream.stdio.pipe import Pipe
from broker.upstream.stdio.stderr import StderrLog

logger = logging.getLogger("mcp-broker")

WORRYING = frozenset({State.BACKOFF, State.BROKEN})
"""The states that somebody may want to look into: they are logged as warnings."""

_LAST_LINES = 5

START_HOLD_S = 10.0
"""So long a start counts among `starts_at_once`: one that hangs holds up nobody else."""

_OWN_FAULT = (
    "a fault of the broker's own, not of the server's: see server.crashed_here in the broker's log, "
    "and report what stands there"
)


def lifecycle_of(config: ServerConfig) -> Lifecycle:
    """The automaton that this server's config asks for."""
    return Lifecycle(
        restart=config.restart,
        start_s=config.timeout_start_sec,
        backoff=_backoff_of(config),
        runner=runner_of(config.command, config.args),
    )


def _backoff_of(config: ServerConfig) -> Backoff:
    return Backoff(
        first_delay_s=config.restart_sec,
        burst=config.start_limit_burst,
        interval_s=config.start_limit_interval_sec,
        rng=random.random,
    )


class Supervisor:
    """Keeps at most one process of a server.

    Args:
        server: what the broker knows of it: its config, and its lifecycle, which nobody else feeds.
        hub: what the process's lines go to.
        launcher: starts the process.
        starts: limits how many servers are being started at the same time.
        max_message_bytes: the largest result of the server.
    """

    def __init__(
        self,
        server: Server,
        hub: Hub,
        *,
        launcher: Launcher,
        starts: trio.CapacityLimiter,
        max_message_bytes: int,
    ) -> None:
        self.name = server.name
        self.lifecycle = server.lifecycle
        self.process: Process | None = None
        self.log = StderrLog(server.name)
        self._server = server
        self._hub, self._registry = hub, hub.engine.registry
        self._launcher = launcher
        self._starts = starts
        self._max_message_bytes = max_message_bytes
        self._pipe: Pipe | None = None
        self._ended = trio.Event()
        self._spawn = trio.Event()
        self._moved = trio.Event()
        self._alarm = trio.CancelScope()
        self._has_slot = False
        self.last_lines: list[str] = []
        """The last lines of the process that ended last, where it ended by itself."""

    # -- what the hub says ------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """Write a line to the process."""
        if self._pipe is not None:
            with self._boundary():
                self._pipe.write(line)

    def opened(self) -> None:
        """The conversation is open."""
        self._feed(Event.OPENED)

    def end_process(self, reason: str) -> None:
        """The conversation cannot be opened."""
        self._feed(Event.FAILED, Ending(reason))

    def respawn(self, reason: str) -> None:
        """The era probe hung the process: the next one is asked in the older way only."""
        self._feed(Event.LEGACY, Ending(reason))

    def demand(self) -> None:
        """It is broken, and somebody calls it: one try, now."""
        self._feed(Event.DEMAND)

    def newest_lines(self) -> list[str]:
        """The last lines of the process that is being started, or else of the one that ended last."""
        return self.last_lines if self.lifecycle.start is None else self.log.tail(_LAST_LINES)

    def log_output(self, text: bytes) -> None:
        """The process wrote this for people."""
        with self._boundary():
            self.log.keep(text, "stdout")

    # -- its life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Supervise until cancelled. Call `stop` first: a cancelled supervisor kills its process."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            self._feed(Event.START)
            while True:
                await self._spawn.wait()
                self._spawn = trio.Event()
                await self._live()

    @property
    def at_rest(self) -> bool:
        """Whether it has no process, and none will be started."""
        return self.lifecycle.state is State.STOPPED

    @property
    def waits(self) -> bool:
        """Whether it waits for its next start after a failure."""
        return self.lifecycle.state in (State.BACKOFF, State.BROKEN)

    def start(self) -> None:
        """Start it at once, whatever made it rest."""
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
        """The server's table has changed: its next process follows it."""
        config = self._server.config
        self.lifecycle.retune(
            restart=config.restart,
            start_s=config.timeout_start_sec,
            backoff=_backoff_of(config),
            runner=runner_of(config.command, config.args),
        )

    def _feed(self, event: Event, ending: Ending | None = None) -> Action:
        before = self.lifecycle.state
        if ending is not None:  # words of the server's own may be in it
            ending = structs.replace(ending, reason=self.log.mask(ending.reason))
        action = self.lifecycle.on(event, trio.current_time(), ending)
        if self.lifecycle.state is not before:
            self._report(ending)
            self._hub.on_move()
            self._moved.set()
            self._moved = trio.Event()
        self._alarm.deadline = math.inf if self.lifecycle.wake_at is None else self.lifecycle.wake_at
        if self.lifecycle.state not in (State.STARTING, State.HANDSHAKE):
            self._give_slot_back()
        if action is Action.SPAWN:
            self._spawn.set()
        elif action is Action.END:
            self._ended.set()
        elif action is Action.REST:
            self._hub.run(self._registry.rests, self.name)
        return action

    def _report(self, ending: Ending | None) -> None:
        state = self.lifecycle.state
        level = logging.WARNING if state in WORRYING else logging.INFO
        facts: dict[str, object] = {"server": self.name}
        if self.process is not None:
            facts["pid"] = self.process.pid
        if state in WORRYING and self.lifecycle.wake_at is not None:
            facts["again_in_s"] = round(self.lifecycle.wake_at - trio.current_time(), 1)
        if ending is not None or level == logging.WARNING:
            facts["reason"] = ending.reason if ending else self.lifecycle.last_error
        logger.log(level, f"server.{state.value}", extra=facts)

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
        self._give_slot_back()  # a download holds up nobody else's start
        facts: dict[str, object] = {"server": self.name, "runner": start.runner}
        facts |= {"started_s": round(now - start.began, 1), "at_most_s": round(start.latest - start.began, 1)}
        logger.info("server.more_time", extra=facts)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        """A fault within ends this server's process, and nothing of the others'."""
        try:
            yield
        except Exception as fault:
            self._crashed(fault)

    def _crashed(self, fault: Exception) -> None:
        """A fault of the broker's own, in what belongs to this server: it alone is ended, and tried again.

        One that came through the hub is raised again: the tables of all may be half changed, and only another
        broker has whole ones.
        """
        if came_through(fault, HUB):
            raise fault
        logger.error("server.crashed_here", exc_info=fault, extra={"server": self.name})
        self._hub.engine.counters.add("crashed-here")
        if Event.FAILED in TABLE[self.lifecycle.state]:
            self._feed(Event.FAILED, Ending(_OWN_FAULT))

    async def _live(self) -> None:
        """One process, from its start until nothing is left of it."""
        process = await self._started()
        if process is None:
            return
        try:
            left = await self._attend(process)
        except BaseException as fault:  # cancelled, or a fault of the broker's own: no process stays behind
            self._pipe = None  # its descriptors are closed now, and their numbers may be others' soon
            if contained := isinstance(fault, Exception) and not came_through(fault, HUB):
                self._crashed(fault)
                self._hub.run(self._registry.gone, self.name, self.lifecycle.reason)
            with trio.CancelScope(shield=True):
                left = await process.end(0)  # where this fails, only the next broker can know what is left
            if not contained:
                raise
        finally:
            process.close()
            self.process = None
            self._tell_container_left(process)
        if not self.lifecycle.stopping:
            self.last_lines = self.log.tail(_LAST_LINES)
        for pid in left:
            logger.error("server.cannot_be_killed", extra={"server": self.name, "pid": pid})
            self._hub.engine.counters.add("left-behind.process")
        self._feed(Event.GONE)

    async def _started(self) -> Process | None:
        """A new process, once it is its turn; `None` where there is none to come, for now or for good."""
        try:
            await self._its_turn()
            if self.lifecycle.state is not State.STARTING:
                self._give_slot_back()  # it was stopped while it waited for its turn
                return None
            self._ended = trio.Event()
            self._learn_secrets()  # the config may be another by now
            self.process = self._launcher.spawn(self._server.config)
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
        """Wait for one of the places to start in, and until nothing is left of an earlier container.

        Who is stopped meanwhile gives the place back, and needs another one if it is started again.
        """
        while not self._has_slot:
            await self._starts.acquire_on_behalf_of(self)
            self._has_slot = True
            self._learn_secrets()
            await self._launcher.end_owed(self._server.config)
            if self.lifecycle.state is not State.STARTING:
                return

    def _learn_secrets(self) -> None:
        """From now on what its process is given is masked, in its words and in all that the broker says."""
        secrets = secrets_of(self._server.config, self._launcher.environ)
        self.log.mask = Mask(secrets)
        self._hub.engine.mask.put(self.name, secrets)

    def _tell_container_left(self, process: Process) -> None:
        if process.container_left is not None:
            facts = {"server": self.name, "reason": process.container_left}
            logger.error("server.container_left", extra=facts)
            self._hub.engine.counters.add("left-behind.container")

    async def _attend(self, process: Process) -> list[int]:
        """Serve until the process is to end, and end it; the pids of what cannot be ended."""
        attachment = Attachment(
            self.name, process, self.lifecycle, self.log, self._hub, self._feed, self._max_message_bytes
        )
        async with trio.open_nursery() as nursery:
            attachment.begin(nursery, self._server.config.watchdog_sec)
            self._pipe = attachment.pipe
            self._feed(Event.SPAWNED)
            self._hub.run(self._registry.spawned, self.name)
            nursery.start_soon(self._let_others_start, attachment)
            await self._ended.wait()
            self._pipe = None
            attachment.pipe.close()
            self._hub.run(self._registry.gone, self.name, self.lifecycle.reason)
            left = await process.end(self._server.config.timeout_stop_sec)
            nursery.cancel_scope.cancel()
        return left

    async def _let_others_start(self, attachment: Attachment) -> None:
        """Give the place back once the process reads its stdin: then it runs, and to wait is no load."""
        with trio.move_on_after(START_HOLD_S):
            await attachment.read.wait()
        self._give_slot_back()

    def _give_slot_back(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._starts.release_on_behalf_of(self)
