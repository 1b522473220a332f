"""Kills the process tree of a server, and removes its container.

Nothing here returns before it is known whether something is left.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from broker.processes import containers
from broker.processes.cgroup import is_removed
from broker.processes.containers import Removal
from broker.processes.program import MENDS
from broker.processes.trees import Mark, ProcessStat, TreeKiller

_KILL_ROUNDS = 100
_KILL_PAUSE_S = 0.02
_BLIND_PAUSE_S = 0.25
_REMOVE_ROUNDS = 20
"""The kernel may take a moment longer to take a process out of its cgroup than out of /proc."""

T = TypeVar("T")

logger = logging.getLogger("mcp-broker")


async def remove_container(removal: Removal) -> str | None:
    """Remove a container, in a thread of its own. Return why something of it may be left, or `None`."""
    alone = trio.CapacityLimiter(1)  # an engine that hangs delays no other thread
    try:
        return await trio.to_thread.run_sync(containers.end, *removal, limiter=alone)
    except RuntimeError as error:  # a server has used up all threads
        return str(error)


async def kill_tree(
    leader: int, mark: Mark, server: str, exited: Callable[[], Awaitable[None]], left: list[ProcessStat]
) -> None:
    """Send SIGKILL to a process tree until nothing is left, even if it forks meanwhile.

    While /proc cannot be read, nobody knows whether a process is left. This waits then, because no other
    process of the server may be started beside it (law 1).

    Args:
        leader: the pid of the first process, which is not reaped yet.
        mark: identifies the processes of the tree.
        server: its name, for the log.
        exited: waits for the end of the leader.
        left: receives the processes that are left, also if this is cancelled.
    """
    nothing, killer = 0, TreeKiller([mark])
    for _ in range(_KILL_ROUNDS):
        if mark.cgroup:
            mark.cgroup.kill()
        signal_group(leader, signal.SIGKILL)
        with trio.move_on_after(_KILL_PAUSE_S):
            await exited()
        left[:] = [seen for _, seen in await _looked(killer, server)]
        nothing = 0 if left else nothing + 1
        if nothing >= 2 and (is_removed(mark.cgroup) or nothing == _REMOVE_ROUNDS):
            break
        await trio.sleep(_KILL_PAUSE_S)


async def _looked(killer: TreeKiller, server: str) -> list[tuple[Mark, ProcessStat]]:
    """Go one round, once /proc can be read."""
    told = False
    while True:
        try:
            return await in_thread(killer.round)
        except OSError as error:
            if not told:
                _tell_blind(error, server)
            told = True
            await trio.sleep(_BLIND_PAUSE_S)


def _tell_blind(error: OSError, server: str) -> None:
    mend = MENDS.get(error.errno or 0, "").removeprefix("; ")
    logger.error("server.cannot_be_seen", extra={"server": server, "reason": error.strerror, "mend": mend})


async def in_thread(read: Callable[[], T]) -> T:
    """Read all of /proc in a thread, or here if a server has used up all threads."""
    try:
        return await trio.to_thread.run_sync(read)
    except RuntimeError:
        return read()


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a process group."""
    with suppress(ProcessLookupError, PermissionError):  # the group is empty, or another user's
        os.killpg(leader, number)
