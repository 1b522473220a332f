"""A restart of the broker in order, under every kind of client and call: none of them fails."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from client_shim import BlockingClient, BrokerClient, MCPClient
from client_shim.errors import BrokerLost, CallError
from client_shim.wire import MANAGEMENT
from tests.client_shim.backend.kit import having
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, wait_until
from tests.soak.handovers import NAME, Calls, counting

RESTARTS = 2


def numbers() -> Callable[[str], str]:
    """Names for calls, each of them once."""
    seen: Counter[str] = Counter()

    def name(kind: str) -> str:
        seen[kind] += 1
        return f"{kind}.{seen[kind]}"

    return name


async def page(name: Callable[[str], str]) -> None:
    """A page of the backend: it lists the tools with one client, and calls one with another."""
    async with MCPClient(having(NAME, timeout=PATIENCE_S)) as client:
        assert "count" in {tool.name for tool in await client.list_tools(NAME)}
    call = name("page")
    async with MCPClient(having(NAME, timeout=PATIENCE_S)) as client:
        said = await client.call_tool(NAME, "count", {"call": call})
        assert said["content_items"][0]["text"] == call


async def repeat(kind: str, what: Callable[[], Awaitable[object]], done: Counter[str]) -> None:
    """Do it without end; what goes wrong ends this."""
    while True:
        await what()
        done[kind] += 1
        await asyncio.sleep(0.005)


def blocking(endpoint: str, name: Callable[[str], str], done: Counter[str], over: threading.Event) -> None:
    """The same with a client without an event loop."""
    with BlockingClient(endpoint, timeout_s=PATIENCE_S) as client:
        while not over.is_set():
            call = name("blocking")
            params = {"name": "count", "arguments": {"call": call, "seconds": 0.05}}
            said = client.request(NAME, "tools/call", params)
            assert said["content"][0]["text"] == call
            done["blocking"] += 1


async def all_went_on(done: Counter[str], tasks: list[asyncio.Task[None]]) -> None:
    """Wait until each kind was done once more; what went wrong with one of them is raised here."""
    seen = Counter(done)
    while any(done[kind] <= seen[kind] for kind in KINDS):
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.01)


KINDS = ("list", "status", "ping", "call", "page", "blocking")


def test_no_kind_of_client_notices_a_restart_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2: pages, lists, commands, subscriptions and scripts; and what was run, was run once (law 8)."""
    done, name, over = Counter[str](), numbers(), threading.Event()

    async def main(broker: RunningBroker) -> None:
        heard: list[str] = []
        client = BrokerClient(
            "all", broker.endpoint, timeout=PATIENCE_S, on_list_changed=lambda server, _: heard.append(server)
        )

        async def call() -> None:
            said = {"call": name("call"), "seconds": 0.05}
            assert (await client.call_tool(NAME, "count", said)).content[0].text == said["call"]

        kinds: dict[str, Callable[[], Awaitable[object]]] = {
            "list": lambda: client.list_tools(NAME),
            "status": client.status,
            "ping": client.ping,
            "call": call,
            "page": lambda: page(name),
        }
        tasks = [asyncio.create_task(repeat(kind, what, done)) for kind, what in kinds.items()]
        tasks.append(asyncio.create_task(asyncio.to_thread(blocking, broker.endpoint, name, done, over)))
        try:
            for _ in range(RESTARTS):
                await all_went_on(done, tasks)
                assert await asyncio.to_thread(broker.stop) == 0
                broker.start()
            await all_went_on(done, tasks)
            assert NAME in heard, "after a reconnection all may have changed"
        finally:
            over.set()
            for task in tasks[:-1]:
                task.cancel()
            await asyncio.wait(tasks)
            await client.aclose()

    with counting() as (broker, calls):
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        asyncio.run(asyncio.wait_for(main(broker), PATIENCE_S))
        broker.wait_ready()
        assert set(calls.runs().values()) == {1}


@pytest.mark.parametrize("blocks", [False, True], ids=["asyncio", "blocking"])
def test_a_call_that_outlasts_the_drain_is_cut_and_the_one_in_line_goes_on(blocks: bool) -> None:
    """Law 8: the one was begun, and its outcome is unknown; the other was not, and is made again."""

    async def main(broker: RunningBroker, calls: Calls) -> None:
        async with BrokerClient("all", broker.endpoint, timeout=PATIENCE_S) as client:
            long = asyncio.create_task(client.call_tool(NAME, "count", {"call": "long", "seconds": 60}))
            await asyncio.to_thread(wait_until, lambda: calls.runs()["long"] == 1)
            in_line = asyncio.create_task(
                asyncio.to_thread(from_a_thread, broker.endpoint)
                if blocks
                else client.call_tool(NAME, "count", {"call": "in line"})
            )
            await asyncio.to_thread(broker.wait, lambda status: status["servers"][0]["queued"] == 1)
            assert await asyncio.to_thread(broker.stop) == 0
            with pytest.raises((CallError, BrokerLost)) as caught:
                await long
            assert caught.value.outcome_unknown
            assert not in_line.done()
            broker.start()
            await in_line

    with counting(drain_sec=0.2, max_in_flight=1) as (broker, calls):
        asyncio.run(asyncio.wait_for(main(broker, calls), PATIENCE_S))
        assert calls.runs() == {"long": 1, "in line": 1}


def test_a_command_that_calls_waits_for_the_next_broker() -> None:
    """The one that is there ends, and refuses whoever comes: the next one answers."""
    command = [sys.executable, "-m", "broker", "call", NAME, "count", '{"call": "command"}', "--endpoint"]

    async def main(broker: RunningBroker, calls: Calls) -> None:
        client = BrokerClient("all", broker.endpoint, timeout=PATIENCE_S)
        long = asyncio.create_task(client.call_tool(NAME, "count", {"call": "long", "seconds": 60}))
        await asyncio.to_thread(wait_until, lambda: calls.runs()["long"] == 1)
        broker.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(broker.wait_log, "broker.ending")
        process = await asyncio.create_subprocess_exec(*command, broker.endpoint, cwd=ROOT, stdout=PIPE)
        await asyncio.to_thread(broker.wait_log, "request.refused code=shutting-down")
        await client.aclose()
        await asyncio.wait([long])
        assert await asyncio.to_thread(broker.process.wait, PATIENCE_S) == 0
        broker.start()
        said, _ = await process.communicate()
        assert (process.returncode, said) == (0, b"command\n")

    with counting(drain_sec=PATIENCE_S, log_level="debug") as (broker, calls):
        asyncio.run(asyncio.wait_for(main(broker, calls), PATIENCE_S))
        assert calls.runs() == {"long": 1, "command": 1}


def from_a_thread(endpoint: str) -> object:
    """The call of a script."""
    with BlockingClient(endpoint, timeout_s=PATIENCE_S) as client:
        return client.request(NAME, "tools/call", {"name": "count", "arguments": {"call": "in line"}})


def test_a_broker_that_is_killed_while_it_drains_has_begun_what_it_has_begun() -> None:
    """Law 8: without a goodbye, what was sent and not refused is unknown; what was refused goes on."""

    async def main(broker: RunningBroker, calls: Calls) -> None:
        async with BrokerClient("all", broker.endpoint, timeout=PATIENCE_S) as client:
            begun = asyncio.create_task(client.call_tool(NAME, "count", {"call": "begun", "seconds": 60}))
            await asyncio.to_thread(wait_until, lambda: calls.runs()["begun"] == 1)
            broker.process.send_signal(signal.SIGTERM)
            while client.connected:  # until one was refused
                kept = asyncio.create_task(client.request(MANAGEMENT, "ping"))
                await asyncio.wait([kept], timeout=0.05)
            await asyncio.to_thread(broker.stop, signal.SIGKILL)
            with pytest.raises(BrokerLost) as caught:
                await begun
            assert caught.value.outcome_unknown
            assert not kept.done()
            broker.start()
            assert await kept == {}

    with counting(drain_sec=60.0) as (broker, calls):
        asyncio.run(asyncio.wait_for(main(broker, calls), PATIENCE_S))
        assert calls.runs() == {"begun": 1}
