"""The supervisors of the servers that run, and the steps that `control` decides for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping

import trio

from broker.config.limits import LimitsConfig
from broker.core.servers.budget import MEASURE_S, SOON_S
from broker.hub import Hub
from broker.processes.process import Launcher
from broker.processes.trees import Mark, Tree, trees_of
from broker.upstream.control import Control, Goal, Intent, Step
from broker.upstream.starts import Starts
from broker.upstream.supervisor import Supervisor

logger = logging.getLogger("mcp-broker")


class Supervisors(Mapping[str, Supervisor]):
    """The supervisors by the names of their servers, each in a task of its own.

    Args:
        hub: what their processes say goes there.
        launcher: starts their processes.
        nursery: what their tasks run in.
    """

    def __init__(self, hub: Hub, launcher: Launcher, nursery: trio.Nursery) -> None:
        self._hub = hub
        self._launcher = launcher
        self._nursery = nursery
        self._starts = Starts(hub.engine.config.limits.starts_at_once, trio.current_time())
        self._controlled: dict[str, _Controlled] = {}

    def __getitem__(self, name: str) -> Supervisor:
        return self._controlled[name].supervisor

    def __iter__(self) -> Iterator[str]:
        return iter(self._controlled)

    def __len__(self) -> int:
        return len(self._controlled)

    def adjust(self, limits: LimitsConfig) -> None:
        """Follow limits that have changed."""
        self._starts.adjust(limits.starts_at_once)

    async def trees(self) -> dict[str, Tree]:
        """Return the process trees of the servers that have one, by name. A thread reads /proc.

        A process that is replaced meanwhile is left out: its figures are not those of the next one.
        """
        marks = self._marks()
        found = await trio.to_thread.run_sync(trees_of, list(marks.values()))
        return {name: found[mark.cookie] for name, mark in self._marks().items() if mark.cookie in found}

    def _marks(self) -> dict[str, Mark]:
        return {name: one.process.mark for name, one in self.items() if one.process}

    async def watch_memory(self) -> None:
        """Tell the budget how much memory each server uses, as long as there is a limit. Never returns.

        A server that starts, or one that waits for room, makes a measurement due earlier.
        """
        budget, failed, measured_at = self._hub.engine.budget, False, trio.current_time()
        while True:
            await trio.sleep(SOON_S if budget.measure_s < math.inf else MEASURE_S)
            if (now := trio.current_time()) < measured_at + budget.measure_s:
                continue
            measured_at = now
            try:
                trees = await self.trees()
            except OSError as error:
                if not failed:  # else it is said already
                    logger.warning("server.memory_unknown", extra={"reason": str(error)})
                failed = True
            else:
                failed = False
                self._hub.run(budget.measured, {name: tree.rss_bytes for name, tree in trees.items()})

    def add(self, name: str) -> None:
        """Start a server and keep it running, or have the first call start it."""
        supervisor = Supervisor(
            self._hub.engine.servers[name],
            self._hub,
            launcher=self._launcher,
            starts=self._starts,
            max_message_bytes=self._hub.engine.clients.limits.max_message_bytes,
        )
        self._hub.upstreams[name] = supervisor
        self._controlled[name] = controlled = _Controlled(supervisor, self._hub)
        supervisor.begin()  # before a client is heard that may have waited for it
        self._nursery.start_soon(controlled.run)

    def begin(self, intent: Intent, name: str) -> None:
        """Pass an intent to the arbiter, and do not wait."""
        controlled = self._controlled[name]
        controlled.take(controlled.control.on(intent), self._nursery)

    async def carry_out(self, intent: Intent, name: str) -> None:
        """Pass an intent to the arbiter, and come back once no intent is under way for this server."""
        controlled = self._controlled[name]
        self.begin(intent, name)
        await controlled.settled()

    async def remove(self, name: str) -> None:
        """End a server, and wait until nothing is left of it."""
        await self.carry_out(Intent.REMOVE, name)
        await self._controlled[name].leave()
        del self._controlled[name], self._hub.upstreams[name]

    async def stop(self) -> None:
        """End all servers, and wait until nothing is left of them: the broker ends."""
        async with trio.open_nursery() as nursery:
            for name in self:
                nursery.start_soon(self.carry_out, Intent.SHUTDOWN, name)


class _Controlled:
    """A supervisor, and the steps that are taken with it."""

    def __init__(self, supervisor: Supervisor, hub: Hub) -> None:
        self.supervisor = supervisor
        self.control = Control()
        self._hub = hub
        self._scope, self._left = trio.CancelScope(), trio.Event()
        self._moved = trio.Event()
        self._draining = trio.CancelScope()
        self._drained: object = None
        """The process whose calls are given time, or were."""

    async def run(self) -> None:
        """Supervise, until the server is removed."""
        try:
            with self._scope:
                await self.supervisor.run()
        finally:
            self._left.set()

    async def leave(self) -> None:
        """End the supervisor of a server that has no process any more."""
        self._scope.cancel()
        await self._left.wait()

    async def settled(self) -> None:
        """Wait until no intent is under way."""
        while not self.control.settled:
            await self._moved.wait()

    def take(self, step: Step, nursery: trio.Nursery) -> None:
        """Take a step, or begin it in the nursery."""
        supervisor = self.supervisor
        if step is Step.DRAIN:
            self._draining, self._drained = trio.CancelScope(), supervisor.process
            nursery.start_soon(self._drain, self._draining)
        elif step is Step.END:
            self._draining.cancel()
            nursery.start_soon(self._end)
        elif step is Step.STOP:
            supervisor.stop()
        elif step is Step.RESUME:
            self._draining.cancel()
            self._hub.run(self._hub.engine.registry.resume, supervisor.name)
            self._tell()
        if step in (Step.START, Step.RESUME) or (step is Step.RETRY and supervisor.waits):
            supervisor.start()

    async def _drain(self, scope: trio.CancelScope) -> None:
        """Give its calls the time that there is, then end it. The scope is cancelled if that is overtaken."""
        if not scope.cancel_called:
            with scope:
                await self._hub.drain_server(self.supervisor.name, self._hub.engine.config.limits.drain_sec)
        if not scope.cancel_called:
            self.control.on(Intent.DRAINED)
            await self._end()

    async def _end(self) -> None:
        """End its process by the goal, and wait until nothing is left of it."""
        supervisor = self.supervisor
        if self.control.goal in (Goal.REST, Goal.LEAVE):
            supervisor.stop()
        elif self._hub.engine.clients.closing or supervisor.process not in (None, self._drained):
            self._hub.run(self._hub.engine.registry.resume, supervisor.name)  # the process goes on
        elif not self._rests():
            supervisor.restart()
        await supervisor.ended()
        self.control.on(Intent.ENDED)
        self._tell()

    def _rests(self) -> bool:
        """Whether it is at rest, and nobody but a reload wants another process of it."""
        return self.control.goal is Goal.SAME and self.supervisor.at_rest

    def _tell(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
