"""What the start of a server takes: its lifecycle by the config, room, and a slot among `starts_at_once`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import trio

from broker.config.schema import ServerConfig
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Lifecycle
from broker.processes.runners import runner_of

DISTANCE_S = 0.05
"""The time before each start for which nobody waits, counted from the last one, or from the broker's."""


def lifecycle_of(config: ServerConfig) -> Lifecycle:
    """Return a lifecycle for this config."""
    return Lifecycle(**_policy(config))


def retune(lifecycle: Lifecycle, config: ServerConfig) -> None:
    """Have a lifecycle follow a changed config."""
    lifecycle.retune(**_policy(config))


def _policy(config: ServerConfig) -> dict[str, Any]:
    backoff = Backoff(
        first_delay_s=config.restart_sec,
        burst=config.start_limit_burst,
        interval_s=config.start_limit_interval_sec,
        rng=random.random,
    )
    runner = runner_of(config.command, config.args)
    return {
        "restart": config.restart,
        "start_s": config.timeout_start_sec,
        "backoff": backoff,
        "runner": runner,
    }


class Starts:
    """The slots of the servers that start at the same time; a server for which somebody waits comes first.

    To start a process holds the loop up for some milliseconds. So starts for which nobody waits keep a
    distance from the last one, in which clients are answered.

    Args:
        limit: the number of slots (`starts_at_once`).
        since: the time of the broker's start.
    """

    def __init__(self, limit: int, since: float = -math.inf) -> None:
        self._limit = limit
        self._held: set[Slot] = set()
        self._waiting: dict[Slot, trio.Event] = {}
        self._last_at = since

    @property
    def held(self) -> int:
        """The number of slots that are held."""
        return len(self._held)

    def adjust(self, limit: int) -> None:
        """Follow a changed limit. Servers that start go on."""
        self._limit = limit
        self._fill()

    async def acquire(self, slot: Slot) -> None:
        """Wait for a slot."""
        self._waiting[slot] = held = trio.Event()
        try:
            self._fill()
            await held.wait()
            while not slot.is_wanted() and trio.current_time() < self._last_at + DISTANCE_S:
                await trio.sleep_until(self._last_at + DISTANCE_S)
            self.started()
        except BaseException:
            self._waiting.pop(slot, None)
            self.release(slot)
            raise

    def started(self) -> None:
        """Note that a process was started just now."""
        self._last_at = trio.current_time()

    def release(self, slot: Slot) -> None:
        """Give a slot back, if it is held."""
        self._held.discard(slot)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._held) < self._limit:
            slot = next((one for one in self._waiting if one.is_wanted()), next(iter(self._waiting)))
            self._held.add(slot)
            self._waiting.pop(slot).set()


class Slot:
    """The slot of one server among those that start at the same time.

    Args:
        starts: all slots.
        is_wanted: returns whether somebody waits for the server.
        lacks_room: returns whether the server waits for room in the budget.
    """

    def __init__(
        self,
        starts: Starts,
        is_wanted: Callable[[], bool] = lambda: False,
        lacks_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._starts = starts
        self.is_wanted = is_wanted
        self._lacks_room = lacks_room
        self._looking = trio.Event()
        self._waiting = trio.CancelScope()
        self.held = False

    def look(self) -> None:
        """Note that there may be room by now."""
        self._looking.set()

    async def acquire(self) -> bool:
        """Wait for room in the budget, then for a slot. Return False if `release` has ended the wait."""
        with trio.CancelScope() as self._waiting:
            while self._lacks_room():
                self._looking = trio.Event()
                await self._looking.wait()
            await self._starts.acquire(self)
            self.held = True
        return self.held

    def started(self) -> None:
        """Note that the process was started: the next start keeps its distance from now on."""
        self._starts.started()

    def release(self) -> None:
        """Give the slot back, or wait for it no longer."""
        self._waiting.cancel()
        if self.held:
            self.held = False
            self._starts.release(self)
