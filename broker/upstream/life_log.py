"""What the broker's log says of the life of a server: its states, longer starts, and what cannot be ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from broker.base.metrics import Counters
from broker.core.servers.lifecycle import Ending, Lifecycle, State
from broker.core.servers.start import Start
from broker.processes.process import Process

logger = logging.getLogger("mcp-broker")

WORRYING = frozenset({State.BACKOFF, State.BROKEN})
"""States that are logged as warnings."""


def moved(name: str, life: Lifecycle, process: Process | None, ending: Ending | None, now: float) -> None:
    """Log the new state of a server, with the reason for it."""
    state = life.state
    level = logging.WARNING if state in WORRYING else logging.INFO
    facts: dict[str, object] = {"server": name}
    if process is not None:
        facts["pid"] = process.pid
    if state in WORRYING and life.wake_at is not None:
        facts["again_in_s"] = round(life.wake_at - now, 1)
    if ending is not None or level == logging.WARNING:
        facts["reason"] = ending.reason if ending else life.last_error
    logger.log(level, f"server.{state.value}", extra=facts)


def more_time(name: str, start: Start, now: float) -> None:
    """Log that a start is given more time, because the process is active."""
    facts: dict[str, object] = {"server": name, "runner": start.runner}
    facts |= {"started_s": round(now - start.began, 1), "at_most_s": round(start.latest - start.began, 1)}
    logger.info("server.more_time", extra=facts)


def left_behind(name: str, pids: Iterable[int], counters: Counters) -> None:
    """Log and count the processes of a server that cannot be killed."""
    for pid in pids:
        logger.error("server.cannot_be_killed", extra={"server": name, "pid": pid})
        counters.add("left-behind.process")


def container_left(name: str, process: Process, counters: Counters) -> None:
    """Log and count the container of a process if it could not be removed."""
    if process.container_left is not None:
        logger.error("server.container_left", extra={"server": name, "reason": process.container_left})
        counters.add("left-behind.container")
