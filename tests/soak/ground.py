"""What the parts of the soak have in common: what a part finds, and how much a broker takes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import SERVERS, RunningBroker, Table, running
from tests.faults.counted import tasks_in

MIB = 1024 * 1024
MEMORY_MIB = 16.0
"""What malloc may keep back after much coming and going, whatever the count."""

FLAT_MIB = 3.0
"""What the second half of a run may add. What malloc keeps back comes early; a leak comes all the time."""

CALM_S = 0.5
"""Nothing has come for so long: it is at rest."""

REST_S = 15.0
"""So long a broker has to come to rest."""

COUNTED = str(Path(__file__).resolve().parents[1] / "faults" / "counted.py")

Progress = Callable[[int], object]
"""Told how much of the count is done."""


class Line(NamedTuple):
    """One thing that must hold: the figure that was measured, and the one it may be at most.

    `what` names its text in `docs/texts.toml`. Without a bound it is told for what it is. `timed`: the figure
    depends on the machine and its load.
    """

    what: str
    measured: float
    bound: float | None = None
    unit: str = ""
    timed: bool = False

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.bound is None or self.measured <= self.bound


class Vitals(NamedTuple):
    """What a broker takes at a moment."""

    descriptors: int
    threads: int
    tasks: int
    memory_mib: float

    def is_within(self, other: Vitals) -> bool:
        """Whether it has no more descriptors, threads and tasks."""
        return all(mine <= theirs for mine, theirs in zip(self[:3], other[:3], strict=True))

    def left_since(self, before: Vitals) -> list[Line]:
        """What is still there that was not there before."""
        return [
            Line("descriptors", self.descriptors - before.descriptors, 0),
            Line("threads", self.threads - before.threads, 0),
            Line("tasks", self.tasks - before.tasks, 0),
        ]

    def more_than(self, before: Vitals) -> list[Line]:
        """The same, and the memory."""
        grown = round(self.memory_mib - before.memory_mib, 1)
        return [*self.left_since(before), Line("memory", grown, MEMORY_MIB, "MiB")]


def vitals(broker: RunningBroker, folder: Path, *, like: Vitals | None = None) -> Vitals:
    """What the broker takes once it has come to rest; with `like`, once it is no more than that.

    That a client has gone is noticed a moment later, and a worker thread ends after ten idle seconds.
    """
    since, seen = time.monotonic(), _now(broker.pid, folder / "tasks")
    give_up = since + REST_S
    while time.monotonic() < give_up:
        if like is not None and seen.is_within(like):
            break
        if like is None and time.monotonic() - since > CALM_S:
            break
        time.sleep(0.05)
        before, seen = seen, _now(broker.pid, folder / "tasks")
        if not seen.is_within(before):
            since = time.monotonic()
    return seen


class Halfway:
    """Passes progress on, and weighs the broker when half of the count is done.

    Args:
        rest_s: for how long nothing is asked of the broker then.
    """

    def __init__(self, broker: RunningBroker, count: int, progress: Progress, *, rest_s: float = 0.0) -> None:
        self._pid = broker.pid
        self._rest_s = rest_s
        self._half = count // 2
        self._progress = progress
        self.memory_mib = 0.0

    def __call__(self, done: int) -> None:
        """So much is done."""
        if done >= self._half and not self.memory_mib:
            self.memory_mib = least_mib(self._pid, self._rest_s)
        self._progress(done)

    def since(self, after: Vitals) -> Line:
        """How much the second half added."""
        grown = round(after.memory_mib - self.memory_mib, 1)
        return Line("memory-second-half", grown, FLAT_MIB, "MiB")


def least_mib(pid: int, rest_s: float) -> float:
    """The least memory within so long: the broker returns what was freed every two seconds."""
    end, least = time.monotonic() + rest_s, _memory_mib(pid)
    while time.monotonic() < end:
        time.sleep(0.1)
        least = min(least, _memory_mib(pid))
    return least


def _memory_mib(pid: int) -> float:
    status = Path("/proc", str(pid), "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _now(pid: int, tasks: Path) -> Vitals:
    proc = Path("/proc", str(pid))
    status = (proc / "status").read_text()
    threads = int(status.partition("Threads:")[2].split()[0])
    return Vitals(len(list((proc / "fd").iterdir())), threads, tasks_in(tasks), _memory_mib(pid))


def faulty(record: Path, **keys: Any) -> dict[str, Any]:
    """The server that records its starts, without a fault."""
    script = str(SERVERS / "faulty.py")
    return {"command": sys.executable, "args": ["-I", "-S", script, str(record), "none", "0"], **keys}


def starts(record: Path) -> list[list[str]]:
    """A line for each start: pid, start time, and the pids of earlier ones that were still there."""
    return [line.split() for line in record.read_text().splitlines()] if record.exists() else []


def beside(record: Path) -> int:
    """How many starts found an earlier process of the same server alive."""
    return sum(len(line) > 2 for line in starts(record))


@contextmanager
def counted(
    servers: Mapping[str, Table], folder: Path, limits: Table | None = None
) -> Iterator[RunningBroker]:
    """A broker that counts its tasks, and logs what went wrong only."""
    program = (COUNTED, str(folder / "tasks"))
    quiet = ("--log-level", "warning")
    with running(servers, program=program, arguments=quiet, limits=limits or {}) as broker:
        yield broker


@contextmanager
def favoured(wanted: bool) -> Iterator[bool]:
    """What is started meanwhile runs in the real-time class, where that is allowed; whether it does.

    A client that disturbs is started in the ordinary class, like all the other work of the machine. So what
    is measured is the broker's part, and not whose turn it is at the processor. Source: sched(7).
    """
    try:
        if wanted:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        wanted = False
    try:
        yield wanted
    finally:
        if wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def rows(client: BlockingClient) -> dict[str, dict[str, Any]]:
    """Every server's state, without a look at the machine."""
    servers = client.request(MANAGEMENT, "servers")["servers"]
    return {row["name"]: row for row in servers}
