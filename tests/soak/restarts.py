"""One server is restarted again and again, under calls: nothing of it stays in the broker."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

from client_shim import BrokerClient
from client_shim.blocking import BlockingClient
from client_shim.errors import CallError, ServerDied
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, wait_until
from tests.faults.neighbour import neighbour
from tests.soak.ground import Halfway, Line, Progress, beside, counted, faulty, rows, starts, vitals

CALLERS = 4
NAME = "restarted"


def run(count: int, progress: Progress) -> list[Line]:
    """`count` restarts: every other one by a SIGKILL, the rest by the command."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        record = folder / "starts"
        servers = {NAME: faulty(record, restart_sec=0.01, start_limit_burst=100), "healthy": rogue()}
        with counted(servers, folder, limits={"drain_sec": 0.2}) as broker:
            restart(broker, record, max(4, count // 20))  # for what Python and malloc keep anyway
            before, first = vitals(broker, folder), len(starts(record))
            halfway = Halfway(broker, count, progress)
            with neighbour(broker.endpoint, "healthy") as other:
                endings = asyncio.run(under_calls(broker, record, count, halfway))
                other.finish()
            after = vitals(broker, folder, like=before)
            restarts = len(starts(record)) - first
        return [
            Line("calls", sum(endings.values())),
            Line("restarts.calls-without-an-ending", endings["lost"], 0),
            Line("restarts.calls-wrongly-ended", endings["wrong"], 0),
            Line("restarts.others", abs(count - restarts), 0),
            Line("two-at-once", beside(record), 0),
            *after.more_than(before),
            halfway.since(after),
        ]


async def under_calls(broker: RunningBroker, record: Path, count: int, progress: Progress) -> Counter[str]:
    """Restart while calls are made; how those ended."""
    endings: Counter[str] = Counter()
    async with BrokerClient("callers", broker.endpoint, timeout=PATIENCE_S) as client:
        callers = [asyncio.create_task(call(client, number, endings)) for number in range(CALLERS)]
        await asyncio.to_thread(restart, broker, record, count, progress)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return endings


async def call(client: BrokerClient, caller: int, endings: Counter[str]) -> None:
    """Call for ever, and count how each call ends."""
    number = 0
    while True:
        number += 1
        said = {"caller": caller, "number": number}
        try:
            result = await client.call_tool(NAME, "echo", said)
        except ServerDied:
            endings["unknown"] += 1
        except CallError as error:
            endings["lost" if error.code == "deadline-exceeded" else "wrong"] += 1
        else:
            endings["answered" if f'"number":{number}}}' in result.content[0].text else "wrong"] += 1


def restart(broker: RunningBroker, record: Path, count: int, progress: Progress = lambda _: None) -> None:
    """Restart so often, and wait each time until the server is ready again."""
    with broker.client() as client:
        for number in range(count):
            before = len(starts(record))
            if number % 2:
                client.request(MANAGEMENT, "restart", {"server": NAME})
            else:
                os.kill(int(starts(record)[-1][0]), signal.SIGKILL)
                wait_until(lambda: until_started(client, record, before))  # noqa: B023 - it is called here
            wait_until(lambda: len(starts(record)) > before and rows(client)[NAME]["state"] == "ready")  # noqa: B023
            progress(number + 1)


def until_started(client: BlockingClient, record: Path, before: int) -> bool:
    """Whether it was started again; a rest between two starts is cut short, for it doubles each time."""
    if rows(client)[NAME]["state"] == "backoff":
        client.request(MANAGEMENT, "start", {"server": NAME})
    return len(starts(record)) > before
