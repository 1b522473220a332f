"""What one client notices of another that floods, from a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.calls import ECHO, one_by_one
from benchmarks.plan import Plan
from benchmarks.processes import Broker, started
from benchmarks.results import Results
from benchmarks.ways import Shim
from client_shim import BrokerClient

IN_FLIGHT = 64

FLOODED = {"nobody floods": None, "another server is flooded": "bare2", "the same server is flooded": "bare"}
"""label → the server that the other client floods while this one calls `bare`."""


async def measure(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """In turns: alone, and beside a flood."""
    async with BrokerClient("quiet", broker.endpoint) as client:
        quiet = Shim(client, "bare")
        for _ in range(plan.rounds):
            for label, server in FLOODED.items():
                with ExitStack() as stack:
                    if server is not None:
                        _flood(stack, broker, server, folder)
                    samples = await one_by_one(quiet, plan.calls)
                results.neighbour.setdefault(label, []).append(samples)


def _flood(stack: ExitStack, broker: Broker, server: str, folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.neighbours", broker.endpoint, server]
    flooder = stack.enter_context(started(command, log=folder / "flood.log", stdout=subprocess.PIPE))
    assert flooder.stdout is not None
    stack.callback(flooder.stdout.close)
    if flooder.stdout.readline() != b"ready\n":
        raise RuntimeError(f"there was no flood: {(folder / 'flood.log').read_text()}")


async def flood(endpoint: str, server: str) -> None:
    """Call as fast as it goes, until ended."""
    async with BrokerClient("flood", endpoint) as client:

        async def work() -> None:
            while True:
                await client.call_tool(server, "echo", ECHO)

        print("ready", flush=True)
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], sys.argv[2]))
