"""Measures the memory of connections and channels, and the time to start."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, perf_counter

from benchmarks.machine import rss_bytes
from benchmarks.plan import Plan
from benchmarks.processes import ROOT, SERVERS, Broker, listening_broker, script, started
from benchmarks.results import Results
from client_shim import BrokerClient

_LOOK_S, _REST_LIMIT_S = 0.5, 60.0


def measure_connections(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Return the memory with connections that have made one call each and stay open."""
    for count in plan.connections:
        with ExitStack() as stack:
            holder = stack.enter_context(
                started(
                    script("holder.py", broker.endpoint, str(count)),
                    log=folder / "holder.log",
                    stdout=subprocess.PIPE,
                )
            )
            assert holder.stdout is not None
            stack.callback(holder.stdout.close)
            if holder.stdout.readline() != b"ready\n":
                raise RuntimeError(
                    f"no {count} connections came about: {(folder / 'holder.log').read_text()}"
                )
            results.memory.by_connections[count] = rss_bytes(broker.pid)


async def measure_channels(broker: Broker, plan: Plan, results: Results) -> None:
    """Return the memory with client objects of one connection that have made one call each and stay."""
    memory = results.memory
    async with BrokerClient("backend", broker.endpoint) as first:
        await first.list_tools("time")
        memory.channels = plan.channels
        memory.before_channels = await _rss_at_rest(broker.pid, plan.rest_s)
        clients = [BrokerClient("page", broker.endpoint) for _ in range(plan.channels)]
        for client in clients:
            await client.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})
        memory.with_channels = await _rss_at_rest(broker.pid, plan.rest_s)


async def _rss_at_rest(pid: int, rest_s: float) -> int:
    """Return the memory of a process that has not shrunk for so long: what is freed is given back later."""
    least, since, until = rss_bytes(pid), monotonic(), monotonic() + _REST_LIMIT_S
    while monotonic() < min(since + rest_s, until):
        await asyncio.sleep(_LOOK_S)
        if (now := rss_bytes(pid)) < least:
            least, since = now, monotonic()
    return rss_bytes(pid)


def measure_start_up(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Measure in turns: the imports, the time until a client is served, and the command."""
    for _ in range(plan.starts):
        results.start_up.imports.append(
            _took("-c", "import broker.command.cli, broker.daemon, broker.service.logging")
        )
        results.start_up.serving.append(_serving_after(folder))
        results.start_up.status.append(_took("-m", "broker", "status", "--endpoint", broker.endpoint))


def _took(*arguments: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - began


def _serving_after(folder: Path) -> float:
    """Return the seconds from the start of a broker's process until it listens."""
    began = monotonic()
    with listening_broker(folder, "start", {"bare": SERVERS["bare"]}):
        return monotonic() - began
