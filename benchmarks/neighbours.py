"""How much slower one client is while another one floods: through the broker, without it, by the gateway.

A client that floods keeps its own process and its server busy, and a call beside that waits for a processor
first. So a client of the broker is compared with a client that has a server of its own, beside the same flood
of another server. The holder of a token is compared beside the flood of another token, and beside the same
flood made at the broker, in which the gateway has no part. The flood comes from a process of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from benchmarks import doors
from benchmarks.calls import ECHO, one_by_one
from benchmarks.http_client import Http
from benchmarks.http_ways import Modern
from benchmarks.plan import Plan
from benchmarks.processes import SERVERS, Broker, started
from benchmarks.results import Results
from benchmarks.ways import Caller, Shim, open_sdk
from client_shim import BrokerClient

IN_FLIGHT = 64

ALONE, OTHER, SAME = "nobody floods", "another server is flooded", "the same server is flooded"
DIRECT_ALONE, DIRECT_OTHER = "no broker: nobody floods", "no broker: another server is flooded"
DOOR_ALONE, DOOR_BROKER = "gateway: nobody floods", "gateway: another server is flooded at the broker"
DOOR_OTHER = "gateway: another token floods another server"

_NO_BROKER = "-"
_TOKEN = "flood"


async def measure(broker: Broker, plan: Plan, folder: Path, results: Results) -> None:
    """Measure in turns: each client alone, and beside floods."""
    async with AsyncExitStack() as clients:
        client = await clients.enter_async_context(BrokerClient("quiet", broker.endpoint))
        direct = await open_sdk(clients, SERVERS["bare"], folder / "quiet.log")
        quiet, alone = Shim(client, "bare"), direct.callers[0]
        gateway = await doors.open_gateway(clients, broker, ["bare"], folder, [_TOKEN])
        http = Http(gateway.port)
        clients.callback(http.close)
        holder = Modern(http, *doors.address_of("bare", gateway.token))
        floods = {
            ALONE: (quiet, None),
            OTHER: (quiet, (broker.endpoint, "bare2")),
            SAME: (quiet, (broker.endpoint, "bare")),
            DIRECT_ALONE: (alone, None),
            DIRECT_OTHER: (alone, (_NO_BROKER, "bare")),
            DOOR_ALONE: (holder, None),
            DOOR_BROKER: (holder, (broker.endpoint, "bare2")),
            DOOR_OTHER: (holder, (f"http:{gateway.port}", "bare2")),
        }
        for _ in range(plan.rounds):
            for label, (caller, flood) in floods.items():
                await _measure(label, caller, flood, plan, folder, results)


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
        caller: Caller
        if endpoint == _NO_BROKER:
            caller = (await open_sdk(stack, SERVERS[server], log)).callers[0]
        elif endpoint.startswith("http:"):
            http = Http(int(endpoint.removeprefix("http:")))
            stack.callback(http.close)
            caller = Modern(http, *doors.address_of(server, _TOKEN))
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
