"""Reloads in a world without I/O: what `Reloader` and `Supervisors` do with the steps of a plan."""

from __future__ import annotations

from collections.abc import Mapping

from broker.config.diff import ENDS, Adjust, Change, ServerStep, applied, plan
from broker.config.loading import load
from broker.config.schema import ServerConfig
from broker.core.servers.lifecycle import Event, State
from tests.core.fake_server import Json, Process, Script
from tests.core.world import World, backoff_of


class Reloads:
    """Carries out one reload at a time. What ends a process takes a while: until `go_on` says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.under_way: dict[str, ServerStep] = {}
        self._process: dict[str, Process | None] = {}
        self._ending: set[str] = set()

    def runs(self, name: str) -> bool:
        """Whether the server has a supervisor."""
        server = self.world.config.servers.get(name)
        return server is not None and server.enabled and name in self.world.lifecycles

    def reload(
        self, tables: Mapping[str, Json], budget: Mapping[str, int] | None = None, /, **limits: int
    ) -> None:
        """The file says this now."""
        assert not self.under_way
        world = self.world
        named = {name: {"command": "x", **table} for name, table in tables.items()}
        world.budget = world.budget if budget is None else dict(budget)
        document = {"servers": named, "limits": limits, "broker": world.budget}
        made = plan(world.config, load(document, {}, leave_out=True))
        world.engine.configure(made.config)
        world.run(world.engine.clients.revoke)
        for step in made.steps:
            if isinstance(step, Adjust):
                world.config = applied(world.config, step)
            elif step.change in ENDS:
                self._begin_to_end(step)
            else:
                self._begin(step)

    def _begin(self, step: ServerStep) -> None:
        world, server = self.world, step.server
        stays = step.change in (Change.RETUNE, Change.KEEP)
        if stays:
            self._retune(server)
        elif step.change is Change.ENABLE:
            world.run(world.engine.registry.remove, server.name)
        world.config = applied(world.config, step)
        if not stays:
            self._add(server)

    def _add(self, server: ServerConfig) -> None:
        world, name = self.world, server.name
        world.scripts.setdefault(name, Script())
        world.spawned.setdefault(name, 0)
        world.lifecycles[name] = world.lifecycle_of(server)
        world.engine.registry.add(server, world.lifecycles[name])
        if server.runs:
            world.feed(name, Event.START)

    def _retune(self, server: ServerConfig, *, renewed: bool = False) -> None:
        world, lifecycle = self.world, self.world.lifecycles[server.name]
        registry = world.engine.registry
        world.run(registry.renew if renewed else registry.retune, server.name)
        start_s = server.timeout_start_sec
        lifecycle.retune(restart=server.restart, start_s=start_s, backoff=backoff_of(server))
        if server.enabled and lifecycle.state in (State.BACKOFF, State.BROKEN):
            world.feed(server.name, Event.START)

    def _begin_to_end(self, step: ServerStep) -> None:
        world = self.world
        name = step.server.name
        self.under_way[name] = step
        self._process[name] = world.processes.get(name)
        if step.change is Change.REMOVE:
            world.run(world.engine.registry.withdraw, name)
        elif step.change is Change.DISABLE:
            world.run(world.engine.registry.retune, step.server.name)
        else:
            self._retune(step.server, renewed=True)
            world.config = applied(world.config, step)
        if self._process[name] is not None:
            world.engine.servers[name].queue.paused = True

    def go_on(self, name: str) -> None:
        """Its calls have had their time."""
        step = self.under_way[name]
        if step.change is Change.REPLACE:
            self._replace(name)
        else:
            self._ending.add(name)
            if self.runs(name):
                self.world.feed(name, Event.STOP)
            self.finish()

    def finish(self) -> None:
        """Go on where a process had to be waited for, unless that has to go on."""
        for name in sorted(self._ending):
            if not self.world.lifecycles[name].stopping:
                self._let_go(name, self.under_way[name])

    def _let_go(self, name: str, step: ServerStep) -> None:
        """Its supervisor is cancelled. A process that somebody has started meanwhile is killed by that."""
        world = self.world
        world.processes.pop(name, None)
        world.slow_to_end.discard(name)
        world.run(world.engine.registry.remove, name)
        self._ending.discard(name)
        del world.lifecycles[name], self.under_way[name]
        world.config = applied(world.config, step)
        if step.change is Change.DISABLE:
            self._add(step.server)

    def _replace(self, name: str) -> None:
        world, lifecycle = self.world, self.world.lifecycles[name]
        del self.under_way[name]
        same = world.processes.get(name) is self._process[name]
        at_rest = lifecycle.state in (State.STOPPED, State.IDLE)
        if same and not at_rest and not lifecycle.stopping:
            if lifecycle.state in (State.HANDSHAKE, State.READY):
                world.restart(name)
            else:
                world.feed(name, Event.START)
