"""Reloads: reads the config file again and carries out what has changed.

Servers without a change are not affected. A file with a mistake changes nothing. Reloads run one at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio
from msgspec import Struct

from broker.config.diff import ENDS, Adjust, Change, Pending, ReloadPlan, ServerStep, plan
from broker.config.loading import ConfigError, Problem
from broker.config.schema import BrokerConfig, Config, ServerConfig
from broker.core import refusals
from broker.core.refusals import Refusal
from broker.core.servers.lifecycle import State
from broker.hub import Hub
from broker.service.claims import ClaimError
from broker.service.config_file import read
from broker.service.systemd import ServiceManager
from broker.upstream.control import Intent
from broker.upstream.starts import lifecycle_of
from broker.upstream.supervisors import Supervisors

READ_S = 10.0
"""The time limit for reading the file: a file system may hang."""

logger = logging.getLogger("mcp-broker")


class ServerOutcome(Struct, frozen=True):
    """What a reload did to one server: `what` in a word, the keys that changed, and the calls that were cut.

    `problems` are the mistakes in its table. Because of them it is left out, or keeps its earlier table.
    """

    name: str
    what: str
    keys: tuple[str, ...] = ()
    cut: int = 0
    problems: tuple[str, ...] = ()


class ReloadOutcome(Struct, frozen=True):
    """What a reload did. `problems` are the mistakes in the file; with any, it did nothing.

    `revoked` is the number of connections that it cut because their keys do not hold any more, or grant
    something else. `left_out` are the files and the tables of keys without effect, and why.
    """

    by: str
    problems: tuple[str, ...] = ()
    servers: tuple[ServerOutcome, ...] = ()
    adjusted: tuple[str, ...] = ()
    restart_needed: tuple[Pending, ...] = ()
    revoked: int = 0
    left_out: tuple[str, ...] = ()


_PATHS = {
    ("authorized", "names"): "broker.authorized_keys",
    ("authorized", "grants"): "keys",
    ("authorized", "faults"): "",
}
"""Section and field → what is shown of a field that is no key of the config file."""


class Reloader:
    """Carries out reloads, and remembers the outcome of the last one.

    Args:
        hub: its engine holds the current config.
        supervisors: the supervisors of the servers that run.
        path: the config file.
        set_permissions: sets the permissions of the socket; raises `ClaimError`.
        manager: the service manager, which waits for the end of a reload.
    """

    def __init__(
        self,
        hub: Hub,
        supervisors: Supervisors,
        path: Path,
        set_permissions: Callable[[BrokerConfig], None],
        manager: ServiceManager,
    ) -> None:
        self.loaded_at = trio.current_time()
        self.last: tuple[float, ReloadOutcome] | None = None
        self.restart_needed: tuple[Pending, ...] = ()
        self._hub, self._registry = hub, hub.engine.registry
        self._supervisors = supervisors
        self._path = path
        self._set_permissions = set_permissions
        self._manager = manager
        self._turn = trio.Lock()
        self._reading = trio.CapacityLimiter(1)  # at most one thread may hang

    async def reload(self, by: str) -> ReloadOutcome | Refusal:
        """Reload, after a reload that is under way. Return the outcome, or a refusal while the broker
        ends."""
        async with self._turn:
            if self._hub.engine.clients.closing:
                return refusals.shutting_down()
            self._manager.reloading()
            try:
                outcome = await self._reload(by)
            except Exception:
                self._manager.ready()
                raise
            if isinstance(outcome, ReloadOutcome):
                self.last = trio.current_time(), outcome
                _report(outcome)
                self._hub.on_move()
                self._manager.ready()
            return outcome

    @property
    def problems(self) -> tuple[str, ...]:
        """The mistakes in the file when it was last read."""
        return self.last[1].problems if self.last else ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The keys whose new value has no effect before a restart of the broker."""
        return tuple(pending.path for pending in self.restart_needed)

    async def hangup(self) -> None:
        """Reload because of SIGHUP, unless a reload is waiting already."""
        if self._turn.statistics().tasks_waiting:
            return
        try:
            await self.reload("SIGHUP")
        except Exception:  # a reload that fails must not end the broker
            logger.exception("config.failed")

    async def _reload(self, by: str) -> ReloadOutcome | Refusal:
        try:
            new = await self._read()
            if self._hub.engine.clients.closing:
                return refusals.shutting_down()
            made = plan(self._hub.engine.config, new)
            self._open_socket(made)
        except ConfigError as error:
            return ReloadOutcome(by, problems=tuple(map(str, error.problems)))
        except ClaimError as error:
            return ReloadOutcome(by, problems=(str(error),))
        before = self._hub.engine.counters["closed.revoked"]
        self._hub.engine.configure(made.config)
        self._hub.run(self._hub.engine.clients.revoke)
        revoked = self._hub.engine.counters["closed.revoked"] - before
        self._supervisors.adjust(made.config.limits)
        log_faults(made.config)
        self.loaded_at = trio.current_time()
        self.restart_needed = made.pending
        return await self._carry_out(made, by, revoked)

    async def _read(self) -> Config:
        """Read the file.

        Raises:
            ConfigError: it has mistakes, or cannot be read in time.
        """
        with trio.move_on_after(READ_S):
            return await trio.to_thread.run_sync(
                read, self._path, os.environ, abandon_on_cancel=True, limiter=self._reading
            )
        problem = f"it could not be read within {READ_S:g} s"
        raise ConfigError([Problem(str(self._path), problem, "check the file system that it is on")])

    def _open_socket(self, made: ReloadPlan) -> None:
        """Set the permissions of the socket. It comes first because it may fail: then nothing has changed."""
        if any(isinstance(step, Adjust) and step.section == "broker" for step in made.steps):
            self._set_permissions(made.config.broker)

    async def _carry_out(self, made: ReloadPlan, by: str, revoked: int) -> ReloadOutcome:
        done = [_done(made.config.servers[name], "unchanged") for name in made.unchanged]
        adjusted = [step for step in made.steps if isinstance(step, Adjust)]

        async def end(step: ServerStep) -> None:
            done.append(await self._end(step))

        async with trio.open_nursery() as endings:
            for step in made.steps:
                if isinstance(step, ServerStep) and step.change in ENDS:
                    endings.start_soon(end, step)
                elif isinstance(step, ServerStep):
                    done.append(self._begin(step))
        return ReloadOutcome(
            by,
            servers=tuple(sorted(done, key=lambda one: one.name)),
            adjusted=tuple(
                path
                for step in adjusted
                for key in step.keys
                if (path := _PATHS.get((step.section, key), f"{step.section}.{key}"))
            ),
            revoked=revoked,
            left_out=made.config.authorized.faults,
            restart_needed=made.pending,
        )

    # -- one server -------------------------------------------------------------------------------

    def _begin(self, step: ServerStep) -> ServerOutcome:
        """Take a step that ends no process. All of them are taken before anything else can run."""
        server, change = step.server, step.change
        what = change.value
        if change is Change.KEEP:
            self._hub.run(self._registry.retune, server.name)
        elif change is Change.RETUNE:
            self._retune(server.name)
            if server.name in self._supervisors:
                self._supervisors.begin(Intent.RETRY, server.name)
            what = change.value if step.keys else "unchanged"
        else:
            if change is Change.ENABLE:
                self._remove(server.name)
            self._add(server)
        return _done(server, what, step.keys)

    async def _end(self, step: ServerStep) -> ServerOutcome:
        """Take a step that ends a process; its calls have time to end."""
        name, what = step.server.name, step.change.value
        server = self._hub.engine.servers[name]
        lost = server.lost
        if step.change is Change.REPLACE:  # a process that is started from now on follows the new table
            self._retune(name, renewed=True)
            await self._supervisors.carry_out(Intent.REPLACE, name)
            what = "changed" if server.lifecycle.state in (State.STOPPED, State.IDLE) else what
        elif step.change is Change.REMOVE:
            self._hub.run(self._registry.withdraw, name)
            await self._let_go(name)
        else:
            self._hub.run(self._registry.retune, name)
            await self._let_go(name)
            self._add(step.server)
        return ServerOutcome(name, what, step.keys, server.lost - lost)

    async def _let_go(self, name: str) -> None:
        """End the process of a server, and forget the server."""
        if name in self._supervisors:
            await self._supervisors.remove(name)
        await self._hub.caught_up(name)
        self._remove(name)

    def _remove(self, name: str) -> None:
        self._hub.run(self._registry.remove, name)
        self._hub.on_move()

    def _add(self, server: ServerConfig) -> None:
        self._registry.add(server, lifecycle_of(server))
        if server.runs:
            self._supervisors.add(server.name)

    def _retune(self, name: str, *, renewed: bool = False) -> None:
        self._hub.run(self._registry.renew if renewed else self._registry.retune, name)
        if name in self._supervisors:
            self._supervisors[name].retune()


def _done(server: ServerConfig, what: str, keys: tuple[str, ...] = ()) -> ServerOutcome:
    """Return the outcome for a server, or that its table has mistakes."""
    if server.enabled and server.faults:
        what, keys = "kept" if server.kept else "left_out", ()
    return ServerOutcome(server.name, what, keys, problems=server.faults)


def log_faults(config: Config) -> None:
    """Log each server whose table has mistakes, and each file and table of keys without effect."""
    for fault in config.authorized.faults:
        logger.warning("key.left_out", extra={"reason": fault})
    for server in config.servers.values():
        if server.faults:
            what = "kept" if server.runs else "left-out"
            facts = {"server": server.name, "what": what, "reason": "; ".join(server.faults)}
            logger.warning("server.misconfigured", extra=facts)


def _report(outcome: ReloadOutcome) -> None:
    """Log what was done in one line, and each thing that needs the operator in another."""
    for problem in outcome.problems:
        logger.error("config.problem", extra={"problem": problem})
    if outcome.problems:
        logger.error("config.refused", extra={"by": outcome.by, "problems": len(outcome.problems)})
        return
    for pending in outcome.restart_needed:
        logger.warning("config.restart_needed", extra={"key": pending.path, "why": pending.why})
    changed: dict[str, str] = {}
    for one in outcome.servers:
        if one.what != "unchanged":
            changed[one.what] = f"{changed[one.what]},{one.name}" if one.what in changed else one.name
    unchanged = sum(one.what == "unchanged" for one in outcome.servers)
    cut = sum(one.cut for one in outcome.servers)
    facts = {"by": outcome.by, **changed, "unchanged": unchanged, "calls_cut": cut}
    if outcome.revoked:
        facts["revoked"] = outcome.revoked
    logger.info("config.reloaded", extra=facts)
