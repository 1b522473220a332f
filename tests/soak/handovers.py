"""The broker is replaced under calls, in order or by a SIGKILL: what was not begun goes to the next one."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from client_shim import BrokerClient
from client_shim.errors import BrokerError, BrokerLost
from tests.e2e.harness import RunningBroker, running, script
from tests.soak.ground import Line, Progress

CALLERS = 8
BETWEEN_S = 3.0
"""From one end of the broker to the next: ten of them are half a minute."""

TIMEOUT_S = 60.0
NAME = "counting"


class Call(NamedTuple):
    """A call, and how it ended; times are those of `time.monotonic`."""

    name: str
    began: float
    error: BrokerError | None


class Calls:
    """What the callers did, and what the server has of it.

    Args:
        record: the file into which the server writes each call that it begins.
    """

    def __init__(self, record: Path) -> None:
        self.made: list[Call] = []
        self._record = record

    async def make(self, client: BrokerClient, caller: int, over: asyncio.Event) -> None:
        """Call until it is over: a third of the calls take a while."""
        number = 0
        while not over.is_set():
            number += 1
            name, began = f"{caller}.{number}", time.monotonic()
            said = {"call": name, "seconds": 0.0 if number % 3 else 0.2}
            try:
                result = await client.call_tool(NAME, "count", said)
                error = None
                assert result.content[0].text == name, "an answer of another call"
            except BrokerError as failure:
                error = failure
            self.made.append(Call(name, began, error))
            await asyncio.sleep(0.005)

    @property
    def failed(self) -> list[Call]:
        """The calls that ended in an error."""
        return [call for call in self.made if call.error is not None]

    def wrongly_failed(self, ended_at: list[float]) -> list[Call]:
        """The failed calls that were not under way when a broker ended, or do not say that they were."""
        return [
            call
            for call in self.failed
            if not (isinstance(call.error, BrokerLost) and call.error.outcome_unknown)
            or not any(call.began <= ended for ended in ended_at)
        ]

    def runs(self) -> Counter[str]:
        """How often the server has begun each call."""
        return Counter(self._record.read_text(encoding="utf-8").splitlines())

    def not_run_once(self) -> list[str]:
        """The calls that the server has begun twice, and those that were answered and never begun."""
        runs = self.runs()
        twice = {name for name, often in runs.items() if often > 1}
        return sorted(twice | {call.name for call in self.made if call.error is None and not runs[call.name]})


@contextmanager
def counting(
    drain_sec: float = 5.0, *, log_level: str = "warning", **keys: Any
) -> Iterator[tuple[RunningBroker, Calls]]:
    """A broker with the server that writes down the calls which it begins; `keys` are of its table."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        record = Path(name) / "calls"
        record.touch()
        table = script("tests/servers/counting.py", str(record), timeout_stop_sec=1.0, **keys)
        arguments = ("--log-level", log_level)
        with running({NAME: table}, arguments=arguments, limits={"drain_sec": drain_sec}) as broker:
            yield broker, Calls(record)


async def replace(
    broker: RunningBroker, calls: Calls, by: signal.Signals, count: int, progress: Progress
) -> list[float]:
    """Replace the broker so often under eight callers; when it was found to have ended each time."""
    over, ended_at = asyncio.Event(), list[float]()
    clients = [
        BrokerClient(f"caller {n}", broker.endpoint, timeout=TIMEOUT_S, reconnect_s=TIMEOUT_S)
        for n in range(CALLERS)
    ]
    for client in clients:
        await client.connect()
    began = time.monotonic()
    callers = [asyncio.create_task(calls.make(client, n, over)) for n, client in enumerate(clients)]
    for number in range(count):
        answered = len(calls.made)
        while len(calls.made) < answered + CALLERS and not any(caller.done() for caller in callers):
            await asyncio.sleep(0.01)  # the new broker answers
        await asyncio.to_thread(broker.stop, by)
        ended_at.append(time.monotonic())
        broker.start()
        if number % 2:  # each other one is ended as soon as it has answered
            await asyncio.sleep(max(0.0, began + (number + 1) * BETWEEN_S - time.monotonic()))
        progress(number + 1)
    over.set()
    await asyncio.gather(*callers)
    for client in clients:
        await client.aclose()
    return ended_at


def in_order(count: int, progress: Progress) -> list[Line]:
    """`count` restarts in order: no call fails, and none is run twice."""
    with counting() as (broker, calls):
        began = time.monotonic()
        asyncio.run(replace(broker, calls, signal.SIGTERM, count, progress))
        seconds = round(time.monotonic() - began, 1)
        broker.wait_ready()
        return [
            Line("calls", len(calls.made)),
            Line("handovers.seconds", seconds, unit="s", timed=True),
            Line("handovers.failed", len(calls.failed), 0),
            Line("handovers.not-run-once", len(calls.not_run_once()), 0),
        ]


def killed(count: int, progress: Progress) -> list[Line]:
    """`count` SIGKILLs: only the calls under way fail, and none is run twice."""
    with counting() as (broker, calls):
        ended_at = asyncio.run(replace(broker, calls, signal.SIGKILL, count, progress))
        broker.wait_ready()
        return [
            Line("calls", len(calls.made)),
            Line("handovers.under-way", len(calls.failed), CALLERS * count),
            Line("handovers.failed-wrongly", len(calls.wrongly_failed(ended_at)), 0),
            Line("handovers.not-run-once", len(calls.not_run_once()), 0),
        ]
