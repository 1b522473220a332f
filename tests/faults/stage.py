"""One broker with a server for each cell of the matrix, all at once, and a healthy one beside them."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from client_shim import BrokerClient
from client_shim.errors import BrokerError, DeadlineExceeded, ServerDied
from tests.e2e.harness import PATIENCE_S, RunningBroker, is_alive, rogue, running
from tests.faults.counted import tasks_in
from tests.faults.neighbour import Answered, Neighbour, neighbour
from tests.faults.props import FLOOD_LINES, mend, spoil, table_of
from tests.faults.table import Call, Cell, End, Means, Moment, Seen
from tests.servers.faulty import MARK

HEALTHY = "healthy"
LIMITS = {"starts_at_once": 8, "drain_sec": 0.5}
OVERDUE_S = 4.0
"""The deadline of a call that will not be answered; it must be at the server before the fault is."""

COMMANDS = 6
"""At once: each has all of /proc read."""

LOOK_S = 0.25
"""Between two looks at the status, for all cells: each look reads all of /proc."""

SETTLE_S = 5.0
"""How long descriptors of clients that are gone may take to be given back."""

CALM_S = 1.0
"""Nothing has been given back for so long: that was the last of it."""


class Residue(NamedTuple):
    """What the broker itself has, with every server stopped."""

    descriptors: int
    tasks: int


class Played(NamedTuple):
    """A whole matrix: what was seen in each cell, and around it."""

    seen: dict[str, Seen]
    answers: list[Answered]
    before: Residue
    after: Residue
    counters: dict[str, int]
    """What the broker has counted."""

    def meanwhile(self, name: str) -> list[Answered]:
        """The neighbour's calls while this cell was not as it should be."""
        begin, seconds = self.seen[name].begun, self.seen[name].seconds
        return [one for one in self.answers if one.at > begin and one.at - one.took_s < begin + seconds]


def play(cells: Iterable[Cell], flood_lines: int = FLOOD_LINES) -> Played:
    """Play all cells at the same time; what floods writes so many lines.

    Raises:
        AssertionError: what was expected did not come, in the words of the first cells that say so.
    """
    cells = list(cells)
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        servers = {cell.name: table_of(cell, folder / cell.name, flood_lines) for cell in cells}
        nothing = {name: {"command": "/no/such", "restart": "never"} for name in [*servers, HEALTHY]}
        with observed(nothing, folder) as broker:
            before = residue(broker, folder)
        with observed({**servers, HEALTHY: rogue()}, folder) as broker:
            broker.wait_state(HEALTHY, "ready")
            with neighbour(broker.endpoint, HEALTHY) as beside:
                seen, answers = asyncio.run(perform(cells, folder, broker.endpoint, beside))
            counters = broker.status()["broker"]["counters"]
            after = residue(broker, folder, before)
        return Played(seen, answers, before, after, counters)


def observed(servers: Mapping[str, Any], folder: Path) -> AbstractContextManager[RunningBroker]:
    """A broker whose tasks are counted."""
    counted = str(Path(__file__).with_name("counted.py"))
    return running(servers, ready=False, program=(counted, str(folder / "tasks")), limits=LIMITS)


def residue(broker: RunningBroker, folder: Path, expected: Residue | None = None) -> Residue:
    """What the broker has with every server stopped; once it is what was expected, if that ever comes."""
    broker.wait(lambda status: all(server["state"] == "stopped" for server in status["servers"]))
    patience_s, last, since = SETTLE_S if expected else CALM_S, None, time.monotonic()
    while True:
        seen = Residue(len(os.listdir(f"/proc/{broker.pid}/fd")), tasks_in(folder / "tasks"))
        if seen != last:
            last, since = seen, time.monotonic()
        if seen == expected or time.monotonic() - since > patience_s:
            return seen
        time.sleep(0.05)


async def perform(
    cells: list[Cell], folder: Path, endpoint: str, beside: Neighbour
) -> tuple[dict[str, Seen], list[Answered]]:
    """Every cell at once; in the end every server is stopped."""
    async with BrokerClient("matrix", endpoint) as client, BrokerClient("watch", endpoint) as watch:
        stage = Stage(folder, client)
        watching = asyncio.create_task(stage.watch(watch))
        ends = await asyncio.gather(*(Act(stage, cell).play() for cell in cells), return_exceptions=True)
        watching.cancel()
        failed = [str(end) for end in ends if isinstance(end, BaseException)]
        assert not failed, "\n".join(failed)
        answers = beside.finish()
        await asyncio.gather(
            *(stage.tell("stop", name) for name in [*(cell.name for cell in cells), HEALTHY])
        )
    seen = {cell.name: end for cell, end in zip(cells, ends, strict=True) if isinstance(end, Seen)}
    return seen, answers


class Stage:
    """The broker, and what the cells are told of it."""

    def __init__(self, folder: Path, client: BrokerClient) -> None:
        self.folder = folder
        self.client = client
        self.rows: dict[str, dict[str, Any]] = {}
        self._seen = asyncio.Event()
        self._commands = asyncio.Semaphore(COMMANDS)

    async def watch(self, client: BrokerClient) -> None:
        """Ask for the status again and again, once for all cells."""
        while True:
            status = await client.status(timeout=PATIENCE_S)
            self.rows = {row["name"]: row for row in status["servers"]}
            self._seen.set()
            self._seen = asyncio.Event()
            await asyncio.sleep(LOOK_S)

    async def until(self, name: str, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The row of this server, once it is so."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            await asyncio.wait_for(self._seen.wait(), PATIENCE_S)
            if what(self.rows[name]):
                return self.rows[name]
        raise AssertionError(f"it never came to this; last seen: {self.rows[name]}")

    async def ready(self, name: str) -> int:
        """The pid of the server, once it is ready."""
        row = await self.until(name, lambda row: row["state"] == "ready" and row["pid"])
        return int(row["pid"])

    async def tell(self, command: str, name: str) -> None:
        """A command about a server."""
        async with self._commands:
            await self.client.request("$broker", command, {"server": name}, timeout=PATIENCE_S)

    async def call(self, name: str, tool: str, timeout: float) -> tuple[Call, int]:
        """How a call of that tool ends, and the pid that it is answered by."""
        try:
            result = await self.client.call_tool(name, tool, timeout=timeout)
        except ServerDied:
            return Call.UNKNOWN, 0
        except DeadlineExceeded:
            return Call.OVERDUE, 0
        return Call.ANSWERED, int(result.content[0].text)


class Act:
    """One cell on the stage."""

    def __init__(self, stage: Stage, cell: Cell) -> None:
        self.stage = stage
        self.cell = cell
        self.name = cell.name
        self.folder = stage.folder / cell.name
        self.struck_at = time.monotonic()

    async def play(self) -> Seen:
        """Cause the fault, and watch the server."""
        scene = {
            Moment.IDLE: self._idle,
            Moment.CALLS: self._calls,
            Moment.START: self._start,
            Moment.RESTART: self._restart,
        }
        try:
            return await scene[self.cell.moment]()
        except (AssertionError, BrokerError, asyncio.TimeoutError) as error:
            raise AssertionError(f"{self.name}: {error!r}") from error

    async def _idle(self) -> Seen:
        before = await self.stage.ready(self.name)
        await self._strike(before)
        return await self._outcome(before, None, None)

    async def _calls(self) -> Seen:
        before = await self.stage.ready(self.name)
        timeout = OVERDUE_S if self.cell.expected.call is Call.OVERDUE else PATIENCE_S
        tools = ("until_fault", "until_fault_safe")
        calls = [asyncio.create_task(self.stage.call(self.name, tool, timeout)) for tool in tools]
        await self.stage.until(self.name, lambda row: row["in_flight"] == 2)
        await self._strike(before)
        (call, _), (safe_call, _) = await asyncio.gather(*calls)
        return await self._outcome(before, call, safe_call)

    async def _start(self) -> Seen:
        call = asyncio.create_task(self.stage.call(self.name, "until_fault", PATIENCE_S))
        before = 0
        if self.cell.fault.means in (Means.LEADER, Means.STOP):
            await self._started(1)
            before = int((await self.stage.until(self.name, lambda row: bool(row["pid"])))["pid"])
            await self._strike(before)
        return await self._outcome(before, call, None)

    async def _restart(self) -> Seen:
        before = await self.stage.ready(self.name)
        if self.cell.fault.means is Means.DISK:
            self._spoil()
        self.struck_at = time.monotonic()
        restart = asyncio.create_task(self.stage.tell("restart", self.name))
        await self.stage.until(self.name, lambda row: row["pid"] != before)
        call = asyncio.create_task(self.stage.call(self.name, "until_fault", PATIENCE_S))
        if self.cell.fault.means is Means.LEADER:
            await self._started(2)
            row = await self.stage.until(self.name, lambda row: bool(row["pid"]))
            os.kill(row["pid"], signal.SIGKILL)
        await restart
        return await self._outcome(before, call, None)

    async def _strike(self, pid: int) -> None:
        """The fault, in a server whose leader is `pid`."""
        self.struck_at = time.monotonic()
        means = self.cell.fault.means
        if means is Means.SIGNAL:
            os.kill(pid, signal.SIGUSR1)
        elif means in (Means.DEATH, Means.LEADER):
            os.kill(pid, signal.SIGKILL)
        elif means is Means.STOP:
            await self.stage.tell("stop", self.name)
        else:
            self._spoil()
            os.kill(pid, signal.SIGUSR1)  # for the calls that wait for it

    async def _outcome(
        self, before: int, call: asyncio.Task[tuple[Call, int]] | Call | None, safe_call: Call | None
    ) -> Seen:
        """Wait for what is expected, mend what keeps the server away, and look around."""
        end, cause = self.cell.expected.end, None
        if end is End.REPLACED and not before:
            await self.stage.until(self.name, lambda row: row["restarts"] or row["state"] == "ready")
        if end in (End.NONE, End.STOPPED):
            resting = ("stopped",) if end is End.STOPPED else ("backoff", "broken")
            cause = (await self.stage.until(self.name, lambda row: row["state"] in resting))["last_error"]
            assert end is not End.STOPPED or not self._processes(), "it was stopped, and is there"
            self._mend()
            await self.stage.tell("start", self.name)
        if isinstance(call, asyncio.Task):
            call, _ = await call
        row = await self.stage.until(self.name, self._is_over(before))
        seconds = time.monotonic() - self.struck_at
        how, pid = await self.stage.call(self.name, "until_fault_safe", PATIENCE_S)
        assert how is Call.ANSWERED
        row = await self.stage.until(self.name, lambda row: row["processes"] in self.cell.fault.whole)
        processes = self._processes()
        assert {pid, row["pid"]} <= set(processes)
        return Seen(
            end=end,
            call=call,
            safe_call=safe_call,
            cause=cause or row["last_error"],
            processes=len(processes),
            beside=self._beside(),
            begun=self.struck_at,
            seconds=seconds,
        )

    def _is_over(self, before: int) -> Callable[[dict[str, Any]], bool]:
        if self.cell.expected.end is End.STAYS:
            return lambda row: row["state"] == "ready" and row["pid"] and before in (0, row["pid"])
        return lambda row: row["state"] == "ready" and row["pid"] not in (0, before)

    # -- what it is started from ------------------------------------------------------------------

    def _spoil(self) -> None:
        spoil(self.cell, self.folder)

    def _mend(self) -> None:
        if self.cell.fault.means is Means.DISK:
            mend(self.cell, self.folder)

    # -- what the machine knows of it -------------------------------------------------------------

    async def _started(self, times: int) -> None:
        """Until it has been started so often."""
        while len(self._record()) < times:
            await asyncio.sleep(0.02)

    def _record(self) -> list[list[str]]:
        record = self.folder / "starts"
        return [line.split() for line in record.read_text().splitlines()] if record.exists() else []

    def _beside(self) -> list[str]:
        return [" ".join(line) for line in self._record() if len(line) > 2]

    def _processes(self) -> list[int]:
        return marked(str(self.folder))


def marked(mark: str) -> list[int]:
    """The living processes that carry this mark."""
    found, wanted = [], f"{MARK}={mark}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                environ = Path("/proc", entry, "environ").read_bytes()
            except OSError:
                continue
            if wanted in environ.split(b"\0") and is_alive(int(entry)):
                found.append(int(entry))
    return found
