"""One of five servers is changed by a reload, again and again, under calls: the other four notice nothing."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from client_shim import BrokerClient
from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, RunningBroker, Table, rogue
from tests.soak.ground import Line, Progress, counted, vitals

NAMES = [f"s{number}" for number in range(5)]
CHANGED = "s2"


def run(count: int, progress: Progress) -> list[Line]:
    """`count` reloads, each of which gives one server another environment, while all five are called."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        with counted(servers(0), folder) as broker:
            asyncio.run(under_calls(broker, max(2, count // 20), Counter(), lambda _: None))  # kept anyway
            before, pids, had = vitals(broker, folder), broker.pids(), broker.server(CHANGED)["restarts"]
            seen: Counter[str] = Counter()
            asyncio.run(under_calls(broker, count, seen, progress))
            broker.wait_ready()
            after, rows = vitals(broker, folder, like=before), broker.status()["servers"]
    others = [row for row in rows if row["name"] != CHANGED]
    return [
        Line("calls", sum(seen[name] for name in NAMES)),
        Line("reloads.calls-lost", seen["lost"], 0),
        Line("reloads.wrongly-told", seen["wrongly told"], 0),
        Line("reloads.others-replaced", sum(row["pid"] != pids[row["name"]] for row in others), 0),
        Line("reloads.not-made", count - (restarts_of_changed(rows) - had), 0),
        Line("reloads.processes-too-many", sum(row["processes"] - 1 for row in rows), 0),
        *after.more_than(before),
    ]


def servers(turn: int) -> dict[str, Table]:
    """The five; one of them differs from turn to turn."""
    return {name: rogue(env={"TURN": str(turn)}) if name == CHANGED else rogue() for name in NAMES}


def restarts_of_changed(rows: list[dict[str, Any]]) -> int:
    """How often the changed one was started again."""
    return next(int(row["restarts"]) for row in rows if row["name"] == CHANGED)


async def under_calls(broker: RunningBroker, count: int, seen: Counter[str], progress: Progress) -> None:
    """Reload while all are called; between two reloads the changed one has answered, and so has the rest."""
    over, first = asyncio.Event(), int(time.monotonic() * 1000)  # no turn twice
    async with BrokerClient("callers", broker.endpoint, timeout=PATIENCE_S) as client:
        calls = [asyncio.create_task(call(client, name, over, seen)) for name in NAMES]
        for number in range(count):
            broker.write(servers(first + number))
            said = await client.request(MANAGEMENT, "reload")
            told = {one["name"]: (one["what"], one["cut"]) for one in said["servers"]}
            expected = {**dict.fromkeys(NAMES, ("unchanged", 0)), CHANGED: ("restarted", 0)}
            seen["wrongly told"] += told != expected
            sent = {name: seen[name] for name in NAMES}
            while any(seen[name] == sent[name] for name in NAMES) and not all(one.done() for one in calls):
                await asyncio.sleep(0.01)
            progress(number + 1)
        over.set()
        await asyncio.gather(*calls)


async def call(client: BrokerClient, name: str, over: asyncio.Event, seen: Counter[str]) -> None:
    """Call one server until it is over, and count its answers, and the calls that had none."""
    while not over.is_set():
        said = f'{{"n":{seen[name]}}}'
        try:
            result = await client.call_tool(name, "echo", {"n": seen[name]})
        except BrokerError:
            seen["lost"] += 1
        else:
            seen[name if result.content[0].text == said else "lost"] += 1
