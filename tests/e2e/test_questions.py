"""Questions of real servers through a real broker to the callbacks of its clients, in both eras.

The broker passes a question on during a call, or a server of 2026-07-28 asks in its result: for the program
it is the same callback. Which question is for whom is checked by what the server got back.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client_shim import BlockingClient, BrokerClient, Question, QuestionRefused
from client_shim.errors import BrokerLost, DeadlineExceeded, ServerDied
from client_shim.protocol.calls import GRACE_S
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, script, wait_until

MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
ASKS: dict[str, Any] = {"serialized": True, "asks_within_calls": True}
WASHING = "examples/led_screen/washing.py"
FORM = {"method": "elicitation/create"}
PAGES = 40

SERVERS: dict[str, Any] = {
    "asking": script("tests/servers/asking.py", **ASKS),
    "hasty": script("tests/servers/asking.py", **ASKS, answer_timeout=0.5),
    "silent": script("tests/servers/asking.py"),
    "old": rogue(**ASKS),
    "new": rogue("--era", "modern"),
    "sdk2": script(WASHING, **ASKS),
    "talkative": script("tests/servers/sdk2_talkative.py"),
    **({"sdk1": script(WASHING, python=str(MCP1), **ASKS)} if MCP1.exists() else {}),
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A broker with servers of both eras, by hand and on both lines of the SDK."""
    with running(SERVERS) as found:
        yield found
        wait_until(lambda: not any(server["in_flight"] for server in found.status()["servers"]), found.log)


class Person:
    """A callback: thinks until it may answer, unless it knows the answer, and notes what happens."""

    def __init__(self, *, knows: str = "", **content: Any) -> None:
        self.asked: list[Question] = []
        self.cancelled = 0
        self.may_answer = asyncio.Event()
        self._knows = knows
        self._content = content

    async def __call__(self, question: Question) -> dict[str, Any]:
        self.asked.append(question)
        try:
            if question.params["message"] != self._knows:
                await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"action": "accept", "content": self._content}


async def until(so: Callable[[], bool]) -> None:
    """Wait for what a callback will have heard."""

    async def poll() -> None:
        while not so():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), PATIENCE_S)


def lines(result: Any) -> list[Any]:
    """What the server `asking` got for its questions."""
    return [json.loads(line) for line in json.loads(result.content[0].text)]


# --- an answer reaches its server, and no other one ------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "tool", "arguments", "content", "said"),
    [
        ("sdk1", "start_wash", {"machine_id": "W1"}, {"programme": "quick"}, "W1 was started: quick"),
        ("sdk2", "start_wash", {"machine_id": "W1"}, {"programme": "quick"}, "W1 was started: quick"),
        ("talkative", "order", {"what": "tea"}, {"size": "L"}, "an order of tea: L"),
        ("old", "ask", FORM, {"name": "Ann"}, '"name":"Ann"'),
        ("new", "ask", FORM, {"name": "Ann"}, '"name":"Ann"'),
    ],
)
def test_one_callback_answers_servers_of_both_eras(
    broker: RunningBroker, server: str, tool: str, arguments: Any, content: Any, said: str
) -> None:
    """And of both lines of the SDK: during the call, or in its result."""
    if server not in SERVERS:
        pytest.skip("`make test` installs the 1.x SDK into .venv-mcp1")
    asked: list[Question] = []

    def answer(question: Question) -> dict[str, Any]:
        asked.append(question)
        return {"action": "accept", "content": content}

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint, on_question=answer) as client:
            result = await client.call_tool(server, tool, arguments)
            assert not result.is_error
            assert said in result.content[0].text
        assert [(one.server, one.method) for one in asked] == [(server, "elicitation/create")]
        assert asked[0].params["message"]

    asyncio.run(main())


def test_every_page_answers_its_own_questions(broker: RunningBroker) -> None:
    """Law 3: many pages, one process; each answer goes back to the call that is asked about."""
    page = contextvars.ContextVar[str]("page")

    async def visit(name: str) -> None:
        async def answer(question: Question) -> dict[str, Any]:
            assert question.params["message"] == f"{name}?"
            return {"action": "accept", "content": {"name": page.get()}}

        page.set(name)
        async with BrokerClient(name, broker.endpoint, on_question=answer) as client:
            result = await client.call_tool("asking", "ask", {"messages": [f"{name}?"] * 2})
            assert [line["result"]["content"] for line in lines(result)] == [{"name": name}] * 2

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(visit(f"page {n}")) for n in range(PAGES)))

    before = broker.server("asking")
    asyncio.run(main())
    assert broker.server("asking")["pid"] == before["pid"]


def test_several_questions_are_open_and_the_call_goes_on(broker: RunningBroker) -> None:
    """They are answered in any order; progress is reported meanwhile."""

    async def main() -> None:
        seen: list[float] = []
        may_answer = {name: asyncio.Event() for name in "abc"}

        async def answer(question: Question) -> dict[str, Any]:
            name = question.params["message"]
            await may_answer[name].wait()
            if name == "b":
                raise QuestionRefused(-1, "not b", {"n": 1})
            return {"action": "accept", "content": {"name": name}}

        async with BrokerClient("page", broker.endpoint) as client:
            call = asyncio.ensure_future(
                client.call_tool(
                    "asking",
                    "ask",
                    {"messages": ["a", "b", "c"], "progress": True},
                    on_question=answer,
                    on_progress=lambda done, *_: seen.append(done),
                )
            )
            await until(lambda: seen == [1])
            for name in "cab":
                may_answer[name].set()
                await asyncio.sleep(0.05)
            third, first, second = lines(await call)
            assert [one["result"]["content"]["name"] for one in (first, third)] == ["a", "c"]
            assert second["error"] == {"code": -1, "message": "not b", "data": {"n": 1}}
            assert seen == [1, 2]

    asyncio.run(main())


def test_a_callback_may_call_servers_itself(broker: RunningBroker) -> None:
    """The same client: its answer needs another call."""

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as client:

            async def answer(question: Question) -> dict[str, Any]:
                result = await client.call_tool("silent", "whoami")
                return {"action": "accept", "content": {"name": result.content[0].text}}

            result = await client.call_tool("asking", "ask", {"messages": ["?"]}, on_question=answer)
            (line,) = lines(result)
            assert line["result"]["content"]["name"] == str(broker.server("silent")["pid"])

    asyncio.run(main())


def test_a_script_answers_too(broker: RunningBroker) -> None:
    """`BlockingClient`, in both eras."""

    def answer(question: Question) -> dict[str, Any]:
        return {"action": "accept", "content": {"size": "L", "name": "Ann"}}

    with BlockingClient(broker.endpoint, timeout_s=PATIENCE_S, on_question=answer) as client:
        for server, tool, arguments, said in (
            ("talkative", "order", {"what": "tea"}, "an order of tea: L"),
            ("asking", "ask", {"messages": ["?"]}, "Ann"),
        ):
            result = client.request(server, "tools/call", {"name": tool, "arguments": arguments})
            assert said in result["content"][0]["text"]


# --- no answer -------------------------------------------------------------------------------------------


def test_without_a_callback_the_server_gets_an_error(broker: RunningBroker) -> None:
    """And one whose server is not declared to ask within calls: law 8. Both are counted."""
    before = {name: broker.server(name)["questions"] for name in ("asking", "silent")}

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as client:
            (line,) = lines(await client.call_tool("asking", "ask", {"messages": ["?"]}))
            assert line["error"]["code"] == -32601
            person = Person()
            result = await client.call_tool("silent", "ask", {"messages": ["?"]}, on_question=person)
            assert lines(result)[0]["error"]["code"] == -32601
            assert person.asked == []

    asyncio.run(main())
    assert all(broker.server(name)["questions"] > count for name, count in before.items())


@pytest.mark.parametrize("how", ["taken back", "answer_timeout", "cancelled", "killed"])
def test_the_callback_is_cancelled_when_its_question_is_withdrawn(broker: RunningBroker, how: str) -> None:
    """By its server, by time, by the caller, by the death of the server; which is then not asked again."""

    async def main() -> None:
        person = Person(knows="2", name="Ann")  # the server takes the first one back once it has the others
        async with BrokerClient("page", broker.endpoint, on_question=person) as client:
            arguments: dict[str, Any] = {"messages": ["1", "2"] if how == "taken back" else ["1"]}
            server = "hasty" if how == "answer_timeout" else "asking"
            arguments |= {"takes_back": how == "taken back"}
            call = asyncio.ensure_future(client.call_tool(server, "ask", arguments))
            await until(lambda: len(person.asked) == len(arguments["messages"]))
            if how == "cancelled":
                call.cancel()
            elif how == "killed":
                os.kill(broker.server(server)["pid"], signal.SIGKILL)
            await until(lambda: person.cancelled == 1)
            person.may_answer.set()
            if how == "cancelled":
                with pytest.raises(asyncio.CancelledError):
                    await call
            elif how == "killed":
                with pytest.raises(ServerDied):
                    await call
            else:
                (line,) = lines(await call)
                assert ("error" in line) is (how == "answer_timeout")
            assert len(person.asked) == len(arguments["messages"])

    asyncio.run(main())
    broker.wait_ready()


def test_a_call_whose_question_was_answered_is_not_sent_again(broker: RunningBroker) -> None:
    """Law 8: the server dies after the answer. What was answered cannot be taken back."""

    async def main() -> None:
        person = Person(name="Ann")

        async def answer_the_first(question: Question) -> dict[str, Any]:
            if question.params["message"] == "1":
                person.asked.append(question)
                return {"action": "accept", "content": {}}
            return await person(question)

        async with BrokerClient("page", broker.endpoint, on_question=answer_the_first) as client:
            arguments = {"messages": ["1"], "again": "2"}
            call = asyncio.ensure_future(client.call_tool("asking", "ask", arguments))
            await until(lambda: len(person.asked) == 2)
            os.kill(broker.server("asking")["pid"], signal.SIGKILL)
            with pytest.raises(ServerDied) as died:
                await call
            assert died.value.outcome_unknown
            assert len(person.asked) == 2

    asyncio.run(main())
    broker.wait_ready()


def test_a_person_may_think_for_longer_than_the_call_may_take(broker: RunningBroker) -> None:
    """The deadline stands still, at the broker and at the client; afterwards it is as strict as before."""
    timeout_s = 0.5

    async def main() -> None:
        person = Person(name="Ann")
        async with BrokerClient("page", broker.endpoint, timeout=timeout_s, on_question=person) as client:
            for then_waits in (False, True):
                person.may_answer.clear()
                arguments = {"messages": ["?"], "then_waits": then_waits}
                call = asyncio.ensure_future(client.call_tool("asking", "ask", arguments))
                await until(lambda: len(person.asked) == 1)
                await asyncio.sleep(timeout_s + GRACE_S + 0.5)
                assert not call.done()
                person.may_answer.set()
                answered_at = time.monotonic()
                if then_waits:
                    with pytest.raises(DeadlineExceeded):
                        await call
                    assert time.monotonic() - answered_at < timeout_s + GRACE_S, "the broker ends it"
                else:
                    assert lines(await call)[0]["result"]["content"] == {"name": "Ann"}
                person.asked.clear()

    asyncio.run(main())


def test_the_death_of_the_broker_ends_the_question() -> None:
    """Laws 4 and 8: the callback is cancelled, and the next broker does not get the call."""
    with running({"asking": SERVERS["asking"]}) as broker:

        async def main() -> None:
            person = Person(name="Ann")
            async with BrokerClient("page", broker.endpoint, on_question=person) as client:
                call = asyncio.ensure_future(client.call_tool("asking", "ask", {"messages": ["?"]}))
                await until(lambda: len(person.asked) == 1)
                broker.stop(signal.SIGKILL)
                with pytest.raises(BrokerLost):
                    await call
                await until(lambda: person.cancelled == 1)
                broker.start()
                person.may_answer.set()
                result = await client.call_tool("asking", "ask", {"messages": ["again?"]}, timeout=PATIENCE_S)
                assert lines(result)[0]["result"]["content"] == {"name": "Ann"}
                assert [one.params["message"] for one in person.asked] == ["?", "again?"]

        asyncio.run(main())
