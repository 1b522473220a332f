"""A backend that loads everything first and then forks its workers, as gunicorn does with `--preload`.

At the moment of the fork a loop of the parent runs in a thread, with an open connection and a client that
the workers inherit. Each process says how it went; the workers end as any program does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import warnings

from client_shim import BrokerClient, MCPClient
from tests.client_shim.backend.kit import having, text_of

WORKERS = 2
CLIENT = MCPClient(having("rogue", "other"))


async def use(client: MCPClient) -> int:
    """Ten calls, of this client and one of its own; how many were answered rightly."""
    right = 0
    async with MCPClient(client.server_registery) as own:
        for number in range(5):
            for each in (client, own):
                await each.list_tools("other")
                said = json.loads(await text_of(each, "rogue", "echo", {"text": [os.getpid(), number]}))
                right += said == {"text": [os.getpid(), number]}
    return right


async def connection() -> str:
    """The broker's name for the connection of this process."""
    async with BrokerClient() as broker:
        status = await broker.status()
    (mine,) = [each for each in status["clients"] if each["pid"] == os.getpid()]
    return str(mine["id"])


async def worker(number: int) -> None:
    sys.stdout.write(f"worker {number}: {await use(CLIENT)} answers\n")  # in one piece: there are others
    sys.stdout.flush()
    await CLIENT.aclose()


def work(number: int) -> None:
    """All that a worker does."""
    asyncio.run(asyncio.wait_for(worker(number), 30))
    sys.exit(0)


def main() -> None:
    """Connect, fork, wait for the workers, and go on as if nothing had been."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    before = asyncio.run_coroutine_threadsafe(first_use(), loop).result(30)
    warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, about threads at a fork
    workers = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            work(number)
        workers.append(pid)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    assert ended == [0] * WORKERS, ended
    answers, after = asyncio.run_coroutine_threadsafe(second_use(), loop).result(30)
    print(f"parent: {'the same' if after == before else 'another'} connection, {answers} answers")


async def first_use() -> str:
    await CLIENT.list_tools("rogue")
    return await connection()


async def second_use() -> tuple[int, str]:
    answers, seen = await use(CLIENT), await connection()
    await CLIENT.aclose()
    return answers, seen


if __name__ == "__main__":
    main()
