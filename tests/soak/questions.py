"""Clients ask and are asked, servers are killed and restarted: no question and no answer at the wrong one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from client_shim import BrokerClient, Question
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, script, wait_until
from tests.soak.crowd import Crowd, busy, settled
from tests.soak.ground import Halfway, Line, Progress, beside, counted, starts, vitals

PROCESSES = 25
"""Two clients are in each."""

MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
RAW = ("one", "two", "three")
SDK = {"sdk-1": str(MCP1) if MCP1.exists() else sys.executable, "sdk-2": sys.executable}
"""Servers on the two lines of the SDK, and the Python of each."""

CALLED = (*RAW, *RAW, *SDK)
"""What the clients call. A server of the SDK takes seconds to start: it has fewer calls and restarts."""

BACKGROUND = "background"
"""The server that asks without a call. Only this process calls it."""

KEYS: dict[str, Any] = {
    "serialized": True,
    "asks_within_calls": True,
    "answer_timeout": 0.5,
    "restart_sec": 0.05,
    "start_limit_burst": 1000,
}
STOPS = {"stops_on_cancel": True}
"""The SDK cancels the handler of a cancelled call. The line 2.x does not answer it then."""

ENDINGS = {"result", "server-died", "cancelled"}
LOST = {"lost", "deadline-exceeded"}
ABOUT_QUESTIONS = {
    "asked",
    "answered",
    "error",
    "withdrawn",
    "foreign-question",
    "stale-question",
    "foreign-answer",
}
"""What a client counts beside the endings of its calls."""

TRIPWIRE_EVERY_S = 5
WARM_UP_S = 2
"""For what Python and malloc keep anyway."""


def run(count: int, progress: Progress) -> list[Line]:
    """`count` seconds of it."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        tables = servers(folder)
        with counted(tables, folder) as broker:
            size = PROCESSES if count > 20 else 6
            warm = Crowd(broker, size, asker, CALLED)
            time.sleep(WARM_UP_S)
            warm.finish()
            settled(broker)
            before, halfway = vitals(broker, folder), Halfway(broker, count, progress)
            crowd, tripped = Crowd(broker, size, asker, CALLED), list[bool]()
            for second in range(count):
                crowd.disturb()
                if second % TRIPWIRE_EVERY_S == 0:
                    tripped.append(asyncio.run(trips(broker)))
                time.sleep(1)
                halfway(second + 1)
            heard = crowd.finish()
            status = settled(broker)
            after = vitals(broker, folder, like=before)
            counters = status["broker"]["counters"]
            assert heard["answered"] > count, f"hardly anything was asked: {heard} {counters}"
        wrong = sum(len(lines_of(folder / f"{server}.wrong")) for server in tables)
        begun = sum(len(starts(folder / server)) for server in tables)
        asked_for = len(tables) + crowd.disturbed.total() + len(tripped)
        return [
            *about_calls(heard),
            *about_questions(counters),
            Line("questions.foreign", heard["foreign-question"], 0),
            Line("questions.stale", heard["stale-question"], 0),
            Line("questions.answers-foreign", heard["foreign-answer"] + wrong, 0),
            Line("questions.tripwire", len(tripped)),
            Line("questions.tripwire-missed", tripped.count(False), 0),
            Line("questions.disturbances", crowd.disturbed.total()),
            Line("questions.starts-unasked", max(0, begun - asked_for), 0),
            Line("two-at-once", sum(beside(folder / server) for server in tables), 0),
            Line("questions.clients-left", status["broker"]["clients"] - 1, 0),
            Line("questions.calls-left", busy(status), 0),
            *after.more_than(before),
            halfway.since(after),
        ]


def about_calls(heard: Counter[str]) -> list[Line]:
    """How the calls ended."""
    endings = {kind: number for kind, number in heard.items() if kind not in ABOUT_QUESTIONS}
    return [
        Line("calls", sum(endings.values())),
        Line("questions.lost", sum(heard[kind] for kind in LOST), 0),
        Line("questions.wrongly-ended", sum(endings[kind] for kind in endings.keys() - ENDINGS - LOST), 0),
    ]


def about_questions(counters: dict[str, int]) -> list[Line]:
    """What the broker counted."""
    withdrawn = counters.get("question.withdrawn", 0) + counters.get("question.expired", 0)
    return [
        Line("questions.asked", counters.get("question.asked", 0)),
        Line("questions.answered", counters.get("question.answered", 0)),
        Line("questions.withdrawn", withdrawn),
        Line("questions.refused", counters.get("dropped.question", 0)),
        Line("questions.late", counters.get("late.answer", 0)),
        Line("questions.answers-wrong", counters.get("wrong.answer", 0), 0),
    ]


def servers(folder: Path) -> dict[str, dict[str, Any]]:
    """The tables of the servers."""
    raw = {
        name: script("tests/servers/enquiring.py", str(folder / name), **KEYS) for name in (*RAW, BACKGROUND)
    }
    sdk = {
        name: script("tests/servers/sdk_enquiring.py", str(folder / name), python=python, **STOPS, **KEYS)
        for name, python in SDK.items()
    }
    return {**raw, **sdk}


def lines_of(path: Path) -> list[str]:
    """The lines of a file that may not be there."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


async def trips(broker: RunningBroker) -> bool:
    """Whether a question without a call is refused, with all that follow, and a new process may ask again."""
    asked: list[str] = []

    def answer(question: Question) -> dict[str, Any]:
        token = question.params["message"]
        asked.append(token)
        return {"action": "accept", "content": {"token": token, "by": "tripwire"}}

    async def told(token: str) -> list[str]:
        result = await client.call_tool(BACKGROUND, "enquire", {"token": token})
        return [kind for said in json.loads(result.content[0].text)["told"] for kind in said]

    client = BrokerClient("tripwire", broker.endpoint, timeout=PATIENCE_S, on_question=answer)
    async with client:
        before = await told("before")
        row = broker.server(BACKGROUND)
        os.kill(row["pid"], signal.SIGUSR1)
        wait_until(lambda: broker.server(BACKGROUND)["questions"] > row["questions"])
        after = await told("after")
        await client.request(MANAGEMENT, "restart", {"server": BACKGROUND})
    return (before, after, asked) == (["result"], ["error"], ["before"])


def asker(endpoint: str, number: int) -> list[str]:
    """The command of a process of clients."""
    return [str(Path(__file__).with_name("asker.py")), endpoint, f"asker-{number}", *CALLED]
