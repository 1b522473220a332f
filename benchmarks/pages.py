"""From "a page opens" to "the tools of five servers are known": the new way, right after a restart of the
broker, and the old way; and ten thousand clients that are opened, used once, and dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter

from benchmarks.calls import ECHO
from benchmarks.plan import Plan
from benchmarks.processes import (
    PAGE_SERVERS,
    ROOT,
    SERVERS,
    Broker,
    Command,
    listening_broker,
    running_broker,
)
from benchmarks.results import Results
from client_shim import BrokerClient


async def measure_pages(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Measure pages of a backend with an open connection, and pages that start every server."""
    async with BrokerClient("backend", broker.endpoint):
        for _ in range(plan.pages * plan.rounds):
            began = perf_counter()
            await _new_page(broker.endpoint)
            results.pages.append(perf_counter() - began)
    for _ in range(plan.old_pages):
        results.old_pages.append(await _old_page(folder / "old.log"))


async def measure_restarts(plan: Plan, folder: Path, results: Results) -> None:
    """Measure the first page after each start of a broker that has the lists of the one before.

    The page opens when the broker listens, while the processes of the five servers are being started.
    """
    with running_broker(folder, "restarts", PAGE_SERVERS):
        pass  # it keeps the lists at its end
    for _ in range(plan.restarts):
        with listening_broker(folder, "restarts", PAGE_SERVERS) as broker:
            began = perf_counter()
            await _new_page(broker.endpoint)
            results.after_restart.append(perf_counter() - began)


async def measure_on_demand(plan: Plan, folder: Path, results: Results) -> None:
    """Measure from the start of a broker to the lists of all servers, none of which has a process."""
    servers = {f"s{number}": SERVERS["bare"] for number in range(plan.on_demand)}
    results.on_demand_servers = plan.on_demand
    with listening_broker(folder, "demand", servers, start="demand") as broker:
        await _new_page(broker.endpoint, servers)  # a list that nobody knows starts its server
    for _ in range(plan.restarts):
        began = perf_counter()
        with listening_broker(folder, "demand", servers, start="demand") as broker:
            await _new_page(broker.endpoint, servers)
            results.on_demand.append(perf_counter() - began)


async def _new_page(endpoint: str, servers: Iterable[str] = PAGE_SERVERS) -> None:
    async with BrokerClient("page", endpoint) as client:
        await asyncio.gather(*map(client.list_tools, servers))


async def _old_page(log: Path) -> float:
    """Start all five at once, which is faster than backends do it; their end is not counted."""
    from mcp import Client, StdioServerParameters, stdio_client

    async def open_one(command: Command) -> None:
        parameters = StdioServerParameters(command=command[0], args=command[1:], cwd=ROOT)
        async with Client(stdio_client(parameters, errlog=errors)) as client:
            await client.list_tools()
            known.release()
            await over.wait()

    with log.open("a", encoding="utf-8") as errors:
        known, over = asyncio.Semaphore(0), asyncio.Event()
        began = perf_counter()
        pages = [asyncio.create_task(open_one(command)) for command in PAGE_SERVERS.values()]
        for _ in pages:
            await known.acquire()
        took = perf_counter() - began
        over.set()
        await asyncio.gather(*pages)
    return took


async def measure_cycles(broker: Broker, plan: Plan, results: Results) -> None:
    """Open, call, drop: never closed, as the backends do it that leak.

    In turns with them calls of a client that stays, which tell how fast the machine is at that moment.
    """
    async with BrokerClient("backend", broker.endpoint) as stays:
        for _ in range(plan.cycles):
            began = perf_counter()
            client = BrokerClient("page", broker.endpoint)
            await client.call_tool("bare", "echo", ECHO)
            del client
            results.cycles.append(perf_counter() - began)
            began = perf_counter()
            await stays.call_tool("bare", "echo", ECHO)
            results.beside_cycles.append(perf_counter() - began)
