"""Measures `mcp-broker connect` as hosts start it: by the hundred, each for one server of one session."""

from __future__ import annotations

import json
import select
import subprocess
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from benchmarks import doors
from benchmarks.http_ways import INITIALIZE
from benchmarks.machine import pss_bytes
from benchmarks.plan import Plan
from benchmarks.processes import READY_S, Broker, piped
from benchmarks.results import Results

_HELLO = (
    json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}).encode() + b"\n"
)


async def measure(broker: Broker, server: str, plan: Plan, folder: Path, results: Results) -> None:
    """Start the relays one after the other, and look at the memory of the first alone and of all together."""
    bridges = results.bridges
    async with AsyncExitStack() as outer:
        gateway = await doors.open_gateway(outer, broker, [server], folder)
        command = doors.connect_command(gateway, server)
        with ExitStack() as stack:
            held = []
            for number in range(plan.bridges):
                began = time.perf_counter()
                process = stack.enter_context(piped(command))
                _say_hello(process)
                bridges.first_bytes.append(time.perf_counter() - began)
                held.append(process.pid)
                if number == 0:
                    bridges.alone = pss_bytes(process.pid)
            bridges.together = [pss_bytes(pid) for pid in held]


def _say_hello(process: subprocess.Popen[bytes]) -> None:
    """Send `initialize`, and wait for the first byte of its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_HELLO)
    if not select.select([process.stdout], [], [], READY_S)[0] or not process.stdout.read(1):
        raise RuntimeError("`mcp-broker connect` did not answer `initialize`")
