"""Measures calls on one server, by every way to it, in turns: a drift of the machine affects all alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import doors, gateways
from benchmarks.machine import cpu_s
from benchmarks.plan import Plan
from benchmarks.processes import SERVERS, Broker
from benchmarks.results import OnServer, Results
from benchmarks.ways import CLIENTS, Caller, Way, open_floor, open_pipe, open_sdk, open_shim

IN_FLIGHT = (8, 64)
ECHO: dict[str, Any] = {"text": "Hakata, 12:34"}

_PEER_SHARE = 5
"""A gateway makes a fifth of the calls, because it takes longer for them than all other ways together."""


async def measure(server: str, broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Return everything measured about calls on this server."""
    async with _ways(server, broker, plan, folder, results) as ways:
        seen = results.servers[server] = OnServer()
        for way in ways:
            await one_by_one(way.callers[0], 3)  # what is made at the first call is made
            await _warm_up(way, plan.warm_up_s)
        until = perf_counter() + plan.patience_s
        for number in range(plan.rounds):
            if number and perf_counter() > until:
                break
            for way in ways:
                await round_of(way, plan, seen, _PEER_SHARE if way.name in results.peers else 1)
        if server == "bare":
            await _cpu(next(way for way in ways if way.name == "mcp-broker"), broker.pid, plan, results)


async def round_of(way: Way, plan: Plan, seen: OnServer, share: int = 1) -> None:
    """Measure one round of calls by one way, with the plan's counts divided by `share`."""
    await _latency(way, max(1, plan.calls // share), seen)
    if way.many:
        await _rates(way, max(CLIENTS, plan.burst_calls // share), seen)
    await _bodies(way, {size: max(1, count // share) for size, count in plan.bodies.items()}, seen)


@asynccontextmanager
async def _ways(
    server: str, broker: Broker, plan: Plan, folder: Path, results: Results
) -> AsyncIterator[list[Way]]:
    command = SERVERS[server]
    async with AsyncExitStack() as stack:
        ways = []
        if server == "bare":
            ways.append(open_pipe(stack, command))
            for loop in ("poll", "trio"):
                ways += open_floor(stack, folder, loop, command)
        ways.append(await open_sdk(stack, command, folder / "sdk.log"))
        ways.append(await open_shim(stack, broker, server))
        gateway = await doors.open_gateway(stack, broker, [server], folder)
        ways += await doors.open_http(stack, gateway, server)
        ways.append(doors.open_connect(stack, gateway, server))
        if plan.peers:
            ways += await gateways.open_all(stack, server, folder, results)
        yield ways


async def one_by_one(caller: Caller, count: int) -> list[float]:
    samples = []
    for _ in range(count):
        began = perf_counter()
        await caller.call("echo", ECHO)
        samples.append(perf_counter() - began)
    return samples


async def _warm_up(way: Way, least_s: float) -> None:
    """Call until so many seconds are over. A gateway on Node is up to twice as fast afterwards."""
    until = perf_counter() + least_s
    while perf_counter() < until:
        await _burst(way, IN_FLIGHT[-1] if way.many else 1, 100)


async def _latency(way: Way, count: int, seen: OnServer) -> None:
    seen.latency.setdefault(way.name, []).append(await one_by_one(way.callers[0], count))


async def _rates(way: Way, count: int, seen: OnServer) -> None:
    for in_flight in IN_FLIGHT:
        rate = count / await _burst(way, in_flight, count)
        seen.rates.setdefault(way.name, {}).setdefault(in_flight, []).append(rate)


async def _burst(way: Way, in_flight: int, count: int) -> float:
    """Return the seconds that this many calls take, `in_flight` at a time."""
    left = iter(range(count))

    async def work(caller: Caller) -> None:
        for _ in left:
            await caller.call("echo", ECHO)

    began = perf_counter()
    await asyncio.gather(*(work(way.callers[number % CLIENTS]) for number in range(in_flight)))
    return perf_counter() - began


async def _bodies(way: Way, counts: dict[int, int], seen: OnServer) -> None:
    for size, count in counts.items():
        samples = []
        for _ in range(count):
            began = perf_counter()
            text = await way.callers[0].call("blob", {"size": size})
            samples.append(perf_counter() - began)
            if len(text) != size:
                raise RuntimeError(f"{way.name}: {len(text)} bytes came of {size}")
        seen.bodies.setdefault(way.name, {}).setdefault(size, []).append(samples)


async def _cpu(shim: Way, pid: int, plan: Plan, results: Results) -> None:
    """Return the CPU seconds of the broker for 1,000 calls."""
    for _ in range(plan.rounds):
        for label, in_flight in (("one at a time", 1), ("64 in flight", 64)):
            before = cpu_s(pid)
            await _burst(shim, in_flight, plan.burst_calls)
            spent = (cpu_s(pid) - before) * 1000 / plan.burst_calls
            results.cpu_per_1000.setdefault(label, []).append(spent)
