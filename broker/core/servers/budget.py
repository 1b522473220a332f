"""The budget: how many servers may run at once (`max_running`), and with how much memory (`memory_high`).

A server in STARTING needs a place; it has it until its process is gone. Without a place, a server that
somebody uses waits, first come, first served; one that nobody uses rests until its first call. For those that
wait, and if the limits are exceeded, idle servers are stopped, the one unused for longest first. Servers that
are used are never stopped, so a call may wait for room until its deadline.

The memory counts for the processes that there are: a server that has none yet is not kept out by the figure
of its last one. So a server that alone uses more than `memory_high` runs if no other does, and it stays until
another one needs the room: to stop it would not help anybody, and its next call would start it again.

The budget looks at the end of a step of the engine (`finish`), and only if something has changed that may
free a place or need one: the lifecycle of a server, a limit, the figures, or the use of a server that could
be stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from broker.base.metrics import Counters
from broker.config.schema import Config
from broker.core.effects import Admit, Effects, Idle, Level
from broker.core.servers.lifecycle import State
from broker.core.servers.server import NoRoom, Server

MEASURE_S, SOON_S = 10.0, 1.0
"""The seconds between two measurements of the memory, and if a server waits or has not been measured.

`SOON_S` is also how often the shell looks whether one is due."""


class Budget:
    """The places of the servers.

    Args:
        config: the current config; a reload replaces it.
        servers: each server by its name.
        is_used: returns whether a server has a call, a subscription or a lease.
        counters: counts how often room was missing and was made.
    """

    def __init__(
        self,
        config: Config,
        servers: Mapping[str, Server],
        is_used: Callable[[Server], bool],
        counters: Counters,
        effects: Effects,
    ) -> None:
        self.config = config
        self._servers = servers
        self._is_used = is_used
        self._counters = counters
        self._effects = effects
        self._waiting: dict[str, Server] = {}
        self._leaving: set[Server] = set()
        """The servers that are told to rest, and have not moved yet."""
        self._bytes: dict[str, int] = {}
        self._is_exceeded = False
        self.is_due = False
        """Whether something has changed since the last look."""

    def __repr__(self) -> str:
        return f"<Budget running={self._running(self._placed())} waiting={len(self._waiting)}>"

    @property
    def is_short(self) -> bool:
        """Whether a server waits for room, or servers are to be stopped as soon as they are idle."""
        return bool(self._waiting) or self._is_exceeded

    @property
    def measure_s(self) -> float:
        """The seconds between two measurements of the memory."""
        if self.config.broker.memory_high is None:
            return math.inf
        ready = (name for name, one in self._servers.items() if one.opened)
        return SOON_S if self._waiting or any(name not in self._bytes for name in ready) else MEASURE_S

    # -- what changes -----------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Follow a changed config."""
        self.config = config
        self.is_due = True

    def changed(self, now: float) -> None:
        """Note that the lifecycle of a server has taken an event, or that a server was removed."""
        self.is_due = True

    def measured(self, used: Mapping[str, int], now: float) -> None:
        """The servers with a process use so many bytes."""
        self._bytes = dict(used)
        self.is_due = True

    def use_ended(self, server: Server) -> None:
        """Note that a use of a server has ended: if it is idle by now, it may make room for another."""
        if self.is_short and not self._is_used(server):
            self.is_due |= server.name in self._waiting or self._may_be_stopped(server)

    def ask(self, name: str, now: float) -> None:
        """Give a place to a server that must start, or note in its row that there is no room.

        `changed` must follow.
        """
        server = self._servers[name]
        self._waiting.pop(name, None)
        self._bytes.pop(name, None)  # the process that it was of has ended
        placed = self._placed()
        others = len(placed) - 1  # those that wait come first
        server.room = None if server.lifecycle.keeps_place else self._lack(placed, others)
        if server.room is not None:
            self._waiting[name] = server
            self._counters.add("no-room")
            self._effects.log(
                Level.INFO,
                "server.no_room",
                server=name,
                limit=server.room.key,
                value=server.room.limit,
                used=server.room.used,
            )

    # -- the look ---------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Give places to servers that wait, and make room for the others. Only the end of a step calls it."""
        self.is_due = False
        self._leaving = {one for one in self._leaving if self._is_to_rest(one)}
        placed = self._placed()
        running = self._running(placed)
        for name, server in list(self._waiting.items()):
            if self._servers.get(name) is not server or server.lifecycle.state is not State.STARTING:
                del self._waiting[name]  # it was stopped
            elif not self._is_used(server):
                self._rest(server)
            else:
                server.room = self._lack(placed, running)
                if server.room is None:
                    running += 1
                    del self._waiting[name]
                    self._effects.append(Admit(name))
        self._make_room(placed, now)

    def _is_to_rest(self, server: Server) -> bool:
        """Return whether a server that was told to rest has not moved since."""
        return server.lifecycle.state in _MAY_REST and self._servers.get(server.name) is server

    def _rest(self, server: Server) -> None:
        """Tell a server to rest, once: other steps may come before it does."""
        if server not in self._leaving:
            self._leaving.add(server)
            self._effects.append(Idle(server.name))

    def lack(self, server: Server) -> NoRoom | None:
        """Return why a server is not started, unless there is room for it by now."""
        waits = server.room is not None and server.lifecycle.state in (State.STARTING, State.IDLE)
        placed = self._placed()
        return self._lack(placed, self._running(placed)) if waits else None

    def _placed(self) -> list[Server]:
        """Return the servers that have a place or wait for one."""
        return [one for one in self._servers.values() if one.lifecycle.state in _PLACED]

    def _running(self, placed: list[Server]) -> int:
        """Return the number of those that have a place."""
        return sum(one.name not in self._waiting for one in placed)

    def _lack(self, placed: list[Server], running: int) -> NoRoom | None:
        """Return the limit that keeps a server from being started beside so many others."""
        limits = self.config.broker
        if limits.max_running is not None and running >= limits.max_running:
            return NoRoom("max_running", limits.max_running, running)
        if limits.memory_high is not None and (used := self._used(placed)) > limits.memory_high:
            return NoRoom("memory_high", limits.memory_high, used)
        return None

    def _used(self, servers: Iterable[Server]) -> int:
        """Return the bytes that the processes of these servers use, by the last measurement."""
        return sum(self._bytes.get(one.name, 0) for one in servers if _has_process(one))

    def _make_room(self, placed: list[Server], now: float) -> None:
        """Stop idle servers, those unused for longest first, until the others are within the limits."""
        staying = [one for one in placed if not self._leaves(one)]
        places, size = self._excess(staying)
        spare = sum(map(_has_process, staying))
        if not any(one.name in self._waiting for one in staying):
            spare -= 1  # the last one stays, whatever it uses
        self._is_exceeded = places > 0 or (size > 0 and spare > 0)
        idle = filter(self._may_be_stopped, staying) if self._is_exceeded else ()
        for server in sorted(idle, key=lambda one: one.used_at):
            its = self._bytes.get(server.name, 0)
            if places > 0 or (size > 0 and spare > 0 and its):
                places, size, spare = places - 1, size - its, spare - 1
                self._counters.add("made-room")
                self._effects.log(
                    Level.INFO, "server.made_room", server=server.name, idle_s=round(now - server.used_at, 1)
                )
                self._rest(server)

    def _excess(self, staying: list[Server]) -> tuple[int, int]:
        """Return how many places and bytes are missing for these servers, of which some may wait."""
        limits = self.config.broker
        places = 0 if limits.max_running is None else len(staying) - limits.max_running
        size = 0 if limits.memory_high is None else self._used(staying) - limits.memory_high
        return places, size

    def _leaves(self, server: Server) -> bool:
        """Return whether the place of a server becomes free: it is told to rest, or its process ends."""
        ends = server.lifecycle.state is State.DRAINING and not server.lifecycle.keeps_place
        return ends or server in self._leaving

    def _may_be_stopped(self, server: Server) -> bool:
        """Return whether the server is idle: nobody uses it, and its process keeps nothing that is needed."""
        session, config = server.session, server.config
        if session is None or session.has_request or not server.opened or server.queue.paused:
            return False
        ready = server.lifecycle.state is State.READY
        return ready and not (config.keeps_state and not config.idle_stop_sec) and not self._is_used(server)


_PLACED = frozenset({State.STARTING, State.HANDSHAKE, State.READY, State.DRAINING})

_MAY_REST = frozenset({State.STARTING, State.READY})


def _has_process(server: Server) -> bool:
    """Return whether a server with a place has a process."""
    return server.lifecycle.state is not State.STARTING
