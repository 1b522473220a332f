"""What the start of a server takes: its lifecycle by the config, and a slot among `starts_at_once`."""

from __future__ import annotations

import random
from typing import Any

import trio

from broker.config.schema import ServerConfig
from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Lifecycle
from broker.processes.runners import runner_of


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


class Slot:
    """The slot of one server among those that start at the same time.

    Args:
        starts: all slots.
    """

    def __init__(self, starts: trio.CapacityLimiter) -> None:
        self._starts = starts
        self.held = False

    async def acquire(self) -> None:
        """Wait for a slot."""
        await self._starts.acquire_on_behalf_of(self)
        self.held = True

    def release(self) -> None:
        """Give the slot back, if it is held."""
        if self.held:
            self.held = False
            self._starts.release_on_behalf_of(self)
