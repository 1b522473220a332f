"""Clients that call servers which ask, and answer their questions: two of them in one process.

    python tests/soak/asker.py ENDPOINT NAME SERVER ...

They call until the input ends, wait for what is open, and write one line of JSON: how their calls ended, and
how many questions and answers were not their own.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from client_shim import BrokerClient, CallError, Question, QuestionRefused
from tests.e2e.harness import PATIENCE_S

PAUSE_S = 0.02
"""Between two calls: fifty clients share two processors with all the servers."""

SLOWEST_S = 0.05
"""The longest time that a person takes who answers."""

HANGS_S = 30.0
"""The time of a person who thinks longer than any `answer_timeout` here."""

WAYS = {"accept": 77, "decline": 7, "refuse": 7, "hang": 3, "cancel": 6}
"""What people do with a question, and how many of a hundred."""

USER_REFUSED = -1


class Asker:
    """One client: what it was asked, what it answered, and how its calls ended.

    Args:
        answers: whether it takes questions at all.
    """

    def __init__(self, endpoint: str, name: str, servers: list[str], *, answers: bool) -> None:
        on_question = self.answer if answers else None
        self.client = BrokerClient(name, endpoint, timeout=PATIENCE_S, on_question=on_question)
        self.counts: Counter[str] = Counter()
        self._name = name
        self._answers = answers
        self._servers = servers
        self._open: dict[str, asyncio.Task[None]] = {}
        self._dice = random.Random(name)
        self._number = 0

    async def answer(self, question: Question) -> dict[str, Any]:
        """Answer with the token of the question and the name of the client, or do what else people do."""
        token = question.params["message"]
        self.counts["asked"] += 1
        self.counts["foreign-question"] += not token.startswith(f"{self._name}-")
        self.counts["stale-question"] += token not in self._open
        (way,) = self._dice.choices(list(WAYS), list(WAYS.values()))
        if way == "cancel" and token in self._open:
            self._open[token].cancel()
        try:
            await asyncio.sleep(HANGS_S if way == "hang" else self._dice.uniform(0, SLOWEST_S))
        except asyncio.CancelledError:
            self.counts["withdrawn"] += 1
            raise
        if way == "refuse":
            raise QuestionRefused(USER_REFUSED, "the person said no")
        if way == "decline":
            return {"action": "decline"}
        return {"action": "accept", "content": {"token": token, "by": self._name}}

    async def calls(self, done: asyncio.Event) -> None:
        """Make one call after the other."""
        while not done.is_set():
            self._number += 1
            token = f"{self._name}-{self._number}"
            call = self._call(self._dice.choice(self._servers), token, self._dice.randrange(3))
            self._open[token] = asyncio.create_task(call)
            await asyncio.wait({self._open[token]})
            ended = self._open.pop(token)
            if ended.cancelled():
                self.counts["cancelled"] += 1
            else:
                ended.result()
            await asyncio.sleep(PAUSE_S)

    async def _call(self, server: str, token: str, questions: int) -> None:
        try:
            result = await self.client.call_tool(server, "enquire", {"token": token, "questions": questions})
        except CallError as error:
            self.counts[error.code] += 1
        else:
            self._check(json.loads(result.content[0].text), token, questions)

    def _check(self, said: dict[str, Any], token: str, questions: int) -> None:
        """Check that the call has the answers of this client to its own questions, and no other."""
        self.counts["result"] += 1
        self.counts["foreign-answer"] += said["token"] != token or len(said["told"]) != questions
        for told in said["told"]:
            content = told.get("result", {}).get("content")
            self.counts["error" if "error" in told else "answered"] += 1
            if content is not None:
                self.counts["foreign-answer"] += content != {"token": token, "by": self._name}
            self.counts["foreign-answer"] += "result" in told and not self._answers


async def main(endpoint: str, name: str, *servers: str) -> None:
    """Two clients of one connection; one of ten takes no questions."""
    number = int(name.rpartition("-")[2])
    askers = [
        Asker(endpoint, f"{name}{half}", list(servers), answers=number % 5 > 0 or half == "a")
        for half in "ab"
    ]
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, done.set)  # the end of the input
    await asyncio.gather(*(asker.calls(done) for asker in askers))
    for asker in askers:
        await asker.client.aclose()
    print(json.dumps(sum((asker.counts for asker in askers), Counter())))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
