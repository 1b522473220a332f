"""The supervisors: one for each server that is enabled, each in a task of its own, for as long as it is."""

from __future__ import annotations

import trio

from broker.config.schema import ServerConfig
from broker.hub import Hub
from broker.processes.process import Launcher
from broker.upstream.supervisor import Supervisor


class Supervisors:
    """Takes servers on and lets them go.

    Args:
        hub: what their processes say goes there.
        launcher: starts their processes.
        nursery: what their tasks run in.
    """

    def __init__(self, hub: Hub, launcher: Launcher, nursery: trio.Nursery) -> None:
        self.supervisors: dict[str, Supervisor] = {}
        self.starts = trio.CapacityLimiter(hub.config.limits.starts_at_once)
        self._hub = hub
        self._launcher = launcher
        self._nursery = nursery
        self._tasks: dict[str, tuple[trio.CancelScope, trio.Event]] = {}
        self._max_message_bytes = hub.config.limits.max_message_bytes

    def add(self, config: ServerConfig) -> None:
        """Start a server, and keep it running."""
        supervisor = Supervisor(
            config,
            self._hub.engine.servers[config.name].lifecycle,
            self._hub,
            launcher=self._launcher,
            starts=self.starts,
            max_message_bytes=self._max_message_bytes,
        )
        self.supervisors[config.name] = self._hub.backends[config.name] = supervisor
        self._tasks[config.name] = scope, ended = trio.CancelScope(), trio.Event()
        supervisor.start()  # before a client is heard that may have waited for it
        self._nursery.start_soon(_run, supervisor, scope, ended)

    async def remove(self, name: str) -> None:
        """End a server for good, and wait until nothing is left of it."""
        scope, ended = self._tasks[name]
        await self.supervisors[name].stop()
        scope.cancel()
        await ended.wait()
        del self.supervisors[name], self._hub.backends[name], self._tasks[name]

    async def stop(self) -> None:
        """End all servers, and wait until nothing is left of them."""
        async with trio.open_nursery() as ending:
            for supervisor in self.supervisors.values():
                ending.start_soon(supervisor.stop)


async def _run(supervisor: Supervisor, scope: trio.CancelScope, ended: trio.Event) -> None:
    try:
        with scope:
            await supervisor.run()
    finally:
        ended.set()
