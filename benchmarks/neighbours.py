"""How much slower one client is while another one floods, through the broker and without it.

A client that floods keeps its own process and its server busy, and a call beside that waits for a processor
first. So a client of the broker is compared with a client that has a server of its own, beside the same flood
of another server. The flood comes from a process of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from benchmarks.calls import ECHO, one_by_one
from benchmarks.plan import Plan
from benchmarks.processes import SERVERS, Broker, started
from benchmarks.results import Results
from benchmarks.ways import Caller, Shim, open_sdk
from client_shim import BrokerClient

IN_FLIGHT = 64

ALONE, OTHER, SAME = "nobody floods", "another server is flooded", "the same server is flooded"
DIRECT_ALONE, DIRECT_OTHER = "no broker: nobody floods", "no broker: another server is flooded"

_NO_BROKER = "-"
_FLOODED = {ALONE: None, OTHER: "bare2", SAME: "bare"}
"""label → the server that the other client floods while this one calls `bare` through the broker."""


async def measure(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Measure in turns: each client alone, and beside a flood made in the same way."""
    async with AsyncExitStack() as clients:
        client = await clients.enter_async_context(BrokerClient("quiet", broker.endpoint))
        direct = await open_sdk(clients, SERVERS["bare"], folder / "quiet.log")
        quiet, alone = Shim(client, "bare"), direct.callers[0]
        for _ in range(plan.rounds):
            for label, server in _FLOODED.items():
                flood = None if server is None else (broker.endpoint, server)
                await _measure(label, quiet, flood, plan, folder, results)
            await _measure(DIRECT_ALONE, alone, None, plan, folder, results)
            await _measure(DIRECT_OTHER, alone, (_NO_BROKER, "bare"), plan, folder, results)


async def _measure(
    label: str, caller: Caller, flood: tuple[str, str] | None, plan: Plan, folder: Path, results: Results
) -> None:
    with ExitStack() as stack:
        if flood is not None:
            _start_flood(stack, *flood, folder)
        samples = await one_by_one(caller, plan.calls)
    results.neighbour.setdefault(label, []).append(samples)


def _start_flood(stack: ExitStack, endpoint: str, server: str, folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.neighbours", endpoint, server, str(folder / "flood.log")]
    flooder = stack.enter_context(started(command, log=folder / "flood.log", stdout=subprocess.PIPE))
    assert flooder.stdout is not None
    stack.callback(flooder.stdout.close)
    if flooder.stdout.readline() != b"ready\n":
        raise RuntimeError(f"there was no flood: {(folder / 'flood.log').read_text()}")


async def flood(endpoint: str, server: str, log: Path) -> None:
    """Call as fast as possible until the process is ended."""
    async with AsyncExitStack() as stack:
        if endpoint == _NO_BROKER:
            caller = (await open_sdk(stack, SERVERS[server], log)).callers[0]
        else:
            client = await stack.enter_async_context(BrokerClient("flood", endpoint))
            caller = Shim(client, server)

        async def work() -> None:
            while True:
                await caller.call("echo", ECHO)

        print("ready", flush=True)
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
