"""Clients come, list, call and go, half of them without a word: nothing of them stays.

    python tests/soak/churn.py ENDPOINT COUNT

The clients are in a process of their own, as a backend is. It says how many cycles are done, a line each.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from client_shim import BrokerClient
from client_shim.blocking import BlockingClient
from tests.e2e.harness import PATIENCE_S, RunningBroker
from tests.soak.ground import Halfway, Line, Progress, beside, counted, faulty, starts, vitals

SERVERS = ("one", "two", "three", "four", "five")
AT_ONCE = 4


def run(count: int, progress: Progress) -> list[Line]:
    """`count` cycles of open, list, call, drop: every other one a connection, the rest channels of one."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        servers = {server: faulty(folder / server) for server in SERVERS}
        with counted(servers, folder) as broker:
            with cycles(broker, max(20, count // 20)):
                pass
            before, pids = vitals(broker, folder), broker.pids()
            halfway = Halfway(broker, count, progress)
            with cycles(broker, count) as done:
                for line in done:
                    halfway(int(line))
            status = broker.wait(lambda status: status["broker"]["clients"] == 1)
            after = vitals(broker, folder, like=before)
            changed = sum(broker.pids()[server] != pids[server] for server in SERVERS)
        return [
            Line("churn.pids-changed", changed, 0),
            Line("churn.starts", sum(len(starts(folder / server)) - 1 for server in SERVERS), 0),
            Line("churn.clients-left", status["broker"]["clients"] - 1, 0),
            Line("two-at-once", sum(beside(folder / server) for server in SERVERS), 0),
            *after.more_than(before),
            halfway.since(after),
        ]


@contextmanager
def cycles(broker: RunningBroker, count: int) -> Iterator[Iterator[bytes]]:
    """So many in a child: the lines that it writes. At the end it must have ended well."""
    command = [sys.executable, __file__, broker.endpoint, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield iter(child.stdout)
        child.stdout.read()
        assert child.wait(PATIENCE_S) == 0


async def main(endpoint: str, count: int) -> None:
    """A few at a time."""
    todo, done = iter(range(count)), itertools.count(1)

    async def worker() -> None:
        for number in todo:
            if number % 2:
                await asyncio.to_thread(connection, endpoint, number)
            else:
                await channel(endpoint, number)
            print(next(done), flush=True)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


def connection(endpoint: str, number: int) -> None:
    """A client in a connection of its own; every other one is forgotten without being closed."""
    server, said = SERVERS[number % 5], f'{{"number":{number}}}'
    client = BlockingClient(endpoint, timeout_s=PATIENCE_S)
    client.connect()
    assert client.request(server, "tools/list")["tools"]
    result = client.request(server, "tools/call", {"name": "echo", "arguments": {"number": number}})
    assert result["content"][0]["text"] == said
    if number % 4 == 1:
        client.close()


async def channel(endpoint: str, number: int) -> None:
    """A client among others of this loop; every other one is forgotten without being closed."""
    client = BrokerClient("page", endpoint, timeout=PATIENCE_S)
    assert await client.list_tools(SERVERS[number % 5])
    result = await client.call_tool(SERVERS[number % 5], "echo", {"number": number})
    assert result.content[0].text == f'{{"number":{number}}}'
    if number % 4 == 0:
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
