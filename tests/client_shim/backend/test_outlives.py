"""What a client of a backend outlives: other loops, threads, forks, a blocked loop, the broker itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from client_shim import MCPClient, errors
from client_shim.backend import mcp_client
from tests.client_shim.backend.kit import PATIENCE_S, fails, having, in_flight, mine, run, text_of
from tests.client_shim.loops import python_path
from tests.client_shim.peer import connections_of
from tests.e2e.harness import ROOT, RunningBroker, rogue, running

pytestmark = pytest.mark.usefixtures("endpoint", "loops")

PREFORK = ROOT / "tests" / "client_shim" / "backend" / "prefork.py"


# --- loops, threads, processes ---------------------------------------------------------------------------


def test_two_loops_in_two_threads_have_a_connection_each(broker: RunningBroker) -> None:
    """A backend may run a second loop; the clients of one know nothing of the other."""
    both = threading.Barrier(2, timeout=PATIENCE_S)
    loops: list[asyncio.AbstractEventLoop] = []

    async def page(number: int) -> str:
        loops.append(asyncio.get_running_loop())
        async with MCPClient(having("rogue")) as client:
            await client.list_tools("rogue")
            both.wait()
            assert len(mine(broker)) == 2
            both.wait()
            return await text_of(client, "rogue", "echo", {"text": number})

    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(lambda number: asyncio.run(page(number)), range(2)))
    assert [text.replace(" ", "") for text in said] == ['{"text":0}', '{"text":1}']
    assert [connections_of(loop) for loop in loops] == [[], []]


def test_one_client_in_two_loops_says_what_to_do(broker: RunningBroker) -> None:
    """Law 10: a client belongs to the loop it is used in. After that loop it may be used in another."""
    client = MCPClient(having("rogue"))

    async def main() -> None:
        await client.list_tools("rogue")
        with pytest.raises(RuntimeError, match="another event loop; make one for each loop"):
            await asyncio.to_thread(asyncio.run, text_of(client, "rogue", "echo"))
        assert await text_of(client, "rogue", "echo", {}) == "{}"

    async def again() -> None:
        assert await text_of(client, "rogue", "echo", {}) == "{}"
        await client.aclose()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    run(again())


def test_forked_workers_use_what_they_inherit(broker: RunningBroker) -> None:
    """Trap: a socket that two processes use belongs to neither. Each worker gets a connection of its own."""
    before = broker.pids()
    done = subprocess.run(
        [sys.executable, PREFORK],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    *workers, parent = done.stdout.splitlines()
    assert sorted(workers) == ["worker 0: 10 answers", "worker 1: 10 answers"]
    assert parent == "parent: the same connection, 10 answers"
    assert broker.pids() == before


def test_a_blocked_loop_keeps_its_connection(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a loop that is blocked for longer than the lease keeps it; heartbeats are libzmq's own affair."""
    monkeypatch.setattr("client_shim.transport.dealer.HEARTBEAT_MS", 100)
    monkeypatch.setattr("client_shim.transport.dealer.LEASE_MS", 500)

    async def main() -> None:
        client = MCPClient(having("rogue"))
        call = asyncio.ensure_future(text_of(client, "rogue", "sleep", {"seconds": 1}))
        await in_flight(broker, "rogue", 1)
        (before,) = mine(broker)
        time.sleep(2.5)  # noqa: ASYNC251  what is tested
        (after,) = mine(broker)
        assert after["id"] == before["id"]
        assert await call == "slept"
        assert await text_of(client, "rogue", "echo", {}) == "{}"
        await client.aclose()

    run(main())


# --- the broker ends and comes again ---------------------------------------------------------------------


def test_a_killed_broker_costs_the_calls_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call works without a line in the backend, also one that is made before there is a broker."""
    monkeypatch.setattr(mcp_client, "RECONNECT_S", PATIENCE_S)

    async def main(broker: RunningBroker) -> None:
        client, idle = MCPClient(having("s0")), MCPClient(having("s0"))
        await idle.list_tools("s0")
        lost = asyncio.ensure_future(client.call_tool("s0", "hang", {}))
        await in_flight(broker, "s0", 1)
        await asyncio.to_thread(broker.stop, signal.SIGKILL)
        words = await fails(lost, ConnectionError, errors.BrokerLost)
        assert "whether it was carried out is unknown" in words
        early = asyncio.ensure_future(text_of(client, "s0", "echo", {"text": "early"}))
        await asyncio.sleep(0)
        broker.start()
        assert "early" in await early
        assert await idle.list_tools("s0")
        assert (await idle.call_tool("s0", "echo", {}))["content_items"][0]["text"] == "{}"
        for each in (client, idle):
            await each.aclose()

    with running({"s0": rogue()}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        run(main(broker))


def test_a_broker_that_stays_away_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that opens meanwhile lists five servers twice: waiting each time would keep it for a minute."""
    monkeypatch.setattr(mcp_client, "RECONNECT_S", 0.1)

    async def main(broker: RunningBroker) -> None:
        client = MCPClient(having("s0"))
        await client.list_tools("s0")
        await asyncio.to_thread(broker.stop, signal.SIGKILL)
        await fails(MCPClient(having("s0")).list_tools("s0"), RuntimeError, errors.Unavailable)
        page = asyncio.ensure_future(MCPClient(having("s0")).list_tools("s0"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert page.done(), "it waits"
        await fails(page, RuntimeError, errors.NoBroker)
        broker.start()
        await asyncio.to_thread(broker.wait_ready)
        assert await client.list_tools("s0")
        await client.aclose()

    with running({"s0": rogue()}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        run(main(broker))


def test_a_page_that_opens_while_the_broker_is_replaced_has_its_tools(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that ends refuses new calls, and has begun none of them: the next broker is asked."""
    monkeypatch.setattr(mcp_client, "RECONNECT_S", PATIENCE_S)

    async def main(broker: RunningBroker) -> None:
        client = MCPClient(having("s0", timeout=PATIENCE_S))
        call = asyncio.ensure_future(client.call_tool("s0", "hang", {}))
        await in_flight(broker, "s0", 1)
        broker.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(broker.wait_log, "broker.ending")
        listing = asyncio.ensure_future(client.list_tools("s0"))
        await asyncio.to_thread(broker.wait_log, "shutting-down")
        calling = asyncio.ensure_future(text_of(client, "s0", "echo", {"text": "kept"}))
        await asyncio.sleep(0)
        call.cancel()
        assert await asyncio.to_thread(broker.process.wait, PATIENCE_S) == 0
        assert not listing.done()
        assert not calling.done()
        broker.start()
        assert "echo" in {tool.name for tool in await listing}
        assert "kept" in await calling
        await client.aclose()

    with running({"s0": rogue()}, limits={"drain_sec": PATIENCE_S}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        run(main(broker))


def test_a_server_that_was_missing_is_there_after_what_the_error_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law 10: pasting the table into broker.toml and restarting is all there is to do."""
    monkeypatch.setattr(mcp_client, "RECONNECT_S", PATIENCE_S)

    async def main(broker: RunningBroker) -> None:
        table = rogue()
        client = MCPClient(having("new", command=table["command"], args=table["args"]))
        with pytest.raises(ValueError, match=r"broker\.toml") as caught:
            await client.list_tools("new")
        with broker.config.open("a", encoding="utf-8") as config:
            config.write("\n" + str(caught.value).partition("\n\n")[2] + "\n")
        await asyncio.to_thread(broker.stop)
        broker.start()
        assert "echo" in {tool.name for tool in await client.list_tools("new")}
        await client.aclose()

    with running({"s0": rogue()}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        run(main(broker))
