"""A server that does not help itself: it is tried on demand, replaced, and its calls are sent again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

import pytest

from client_shim import BrokerClient
from client_shim.errors import DeadlineExceeded, ServerDied, ServerDown
from tests.e2e.harness import PATIENCE_S, SERVERS, RunningBroker, is_alive, rogue, running
from tests.e2e.test_command import command

NEEDS_NETWORK = "test -e network || { echo 'no route to host' >&2; exit 7; }; exec %s -I -S %s"


def call(broker: RunningBroker, tool: str, arguments: dict[str, Any] | None = None, **keys: Any) -> str:
    """One call of the server "server" from a client of its own; the text of the answer."""
    with broker.client() as client:
        params = {"name": tool, "arguments": arguments or {}}
        result = client.request("server", "tools/call", params, **keys)
    text: str = result["content"][0]["text"]
    return text


def test_a_broken_server_is_healed_by_a_call() -> None:
    """A screen that booted before its network; `status` says why until then, with what it wrote."""
    script = NEEDS_NETWORK % (sys.executable, SERVERS / "rogue.py")
    table = {"command": "sh", "args": ["-c", script]}
    limits = {"start_limit_burst": 1, "start_limit_interval_sec": 0.3}
    with running({"server": {**table, **limits}}, ready=False) as broker:
        row = broker.wait_state("server", "broken")
        assert "it exited with status 7" in row["last_error"]
        assert row["last_lines"] == ["no route to host"]
        assert "\n    no route to host\n" in command("status", endpoint=broker.endpoint).stdout
        (broker.folder / "network").touch()
        assert healed(broker) == '{"n":1}'
        row = broker.server("server")
        assert (row["state"], row["restarts"], row["processes"]) == ("ready", 1, 1)


def healed(broker: RunningBroker) -> str:
    """Call until the server answers; it is refused until its last failure is a while ago."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            return call(broker, "echo", {"n": 1})
        except ServerDown as down:
            time.sleep(down.retry_after_s or 0.01)
    raise AssertionError(broker.log())


@pytest.mark.parametrize("ending", ["start", "death"])
def test_what_happens_while_a_stop_waits_for_the_calls(ending: str) -> None:
    """The last word of an operator counts; a death meanwhile does not undo his stop."""
    with running({"server": rogue(restart_sec=0.05)}, limits={"drain_sec": 600.0}) as broker:

        async def main() -> None:
            async with BrokerClient("stop", broker.endpoint) as client:
                hanging = asyncio.create_task(client.call_tool("server", "hang"))
                await until(client, "in_flight", 1)
                stopping = asyncio.create_task(client.request("$broker", "stop", {"server": "server"}))
                waiting = await paused(client)
                if ending == "start":
                    await client.request("$broker", "start", {"server": "server"})
                    assert (await waiting).content[0].text == "{}"
                    assert (await stopping)["state"] == "ready"
                    hanging.cancel()
                    return
                os.kill(broker.pids()["server"], signal.SIGKILL)
                assert (await stopping)["state"] == "stopped"
                for task in (hanging, waiting):
                    with pytest.raises((ServerDied, ServerDown)):
                        await task

        asyncio.run(main())


async def paused(client: BrokerClient) -> asyncio.Task[Any]:
    """Call until a call waits, which it does once the server is about to be stopped."""
    while True:
        waiting = asyncio.create_task(client.call_tool("server", "echo", timeout=PATIENCE_S))
        while not waiting.done():
            if (await client.status())["servers"][0]["queued"]:
                return waiting


async def until(client: BrokerClient, key: str, value: object, name: str = "server") -> None:
    """Wait until the status of the server says so; pytest bounds it."""
    while next(row for row in (await client.status())["servers"] if row["name"] == name)[key] != value:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["SIGKILL", "restart"])
def test_a_call_that_does_no_harm_survives_its_server(how: str) -> None:
    """It is sent again to the new process, and its client sees nothing but the answer."""
    with running({"server": rogue(restart_sec=0.05)}, limits={"drain_sec": 0.1}) as broker:
        before = broker.pids()["server"]

        async def main() -> None:
            async with BrokerClient("patient", broker.endpoint) as client:
                file = broker.folder / "first"
                arguments = {"file": str(file)}
                once = asyncio.create_task(
                    client.call_tool("server", "hang_once", arguments, timeout=PATIENCE_S)
                )
                other = asyncio.create_task(client.call_tool("server", "hang", timeout=PATIENCE_S))
                await until(client, "in_flight", 2)
                while not file.exists():
                    await asyncio.sleep(0.01)
                if how == "restart":
                    moved = await client.request("$broker", "restart", {"server": "server"})
                    assert [moved[key] for key in ("ended", "again", "cut", "waiting")] == [0, 1, 1, 0]
                else:
                    os.kill(before, signal.SIGKILL)
                with pytest.raises(ServerDied, match="annotated neither readOnlyHint nor") as caught:
                    await other
                assert caught.value.outcome_unknown
                assert caught.value.data["not_sent_again"] == "tool"
                assert int((await once).content[0].text) == broker.pids()["server"] != before

        asyncio.run(main())


@pytest.mark.parametrize("calls", [0, 1])
def test_a_stopped_server_is_replaced_busy_or_not(calls: int) -> None:
    """SIGSTOP is found by looking; its call ends at once, and the other server notices nothing."""
    table = rogue(watchdog_sec=0.3, restart_sec=0.05, timeout_stop_sec=600.0)
    with running({"server": table, "other": rogue()}) as broker:
        before = broker.pids()

        async def main() -> None:
            async with BrokerClient("patient", broker.endpoint) as client:
                hanging = [
                    asyncio.create_task(client.call_tool("server", "hang", timeout=600)) for _ in range(calls)
                ]
                await until(client, "in_flight", calls)
                os.kill(before["server"], signal.SIGSTOP)
                for call in hanging:
                    with pytest.raises(ServerDied, match="SIGSTOP"):
                        await call
                while broker.pids().get("server") in (None, before["server"]):
                    await asyncio.sleep(0.02)
                echoed = client.call_tool("server", "echo", {"n": 1}, timeout=PATIENCE_S)
                assert (await echoed).content[0].text == '{"n":1}'

        asyncio.run(main())
        assert not is_alive(before["server"])
        assert broker.pids()["other"] == before["other"] != broker.pids()["server"]
        assert "SIGSTOP" in broker.server("server")["last_error"]


def test_a_server_that_hangs_behind_a_wrapper_is_replaced() -> None:
    """The wrapper lives, its child answers no health check; afterwards there is one tree again."""
    script = f"{sys.executable} -I -S {SERVERS / 'rogue.py'}; exit 9"
    keys = {"watchdog_sec": 0.5, "restart_sec": 0.05, "timeout_stop_sec": 0.2}
    with running({"server": {"command": "sh", "args": ["-c", script], **keys}}) as broker:
        child = json.loads(call(broker, "whoami"))["pid"]
        wrapper = broker.pids()["server"]
        assert child != wrapper
        os.kill(child, signal.SIGSTOP)
        with pytest.raises((DeadlineExceeded, ServerDied)):
            call(broker, "echo", timeout_s=0.5)
        broker.wait(lambda status: status["servers"][0]["pid"] not in (None, wrapper))
        row = broker.wait_state("server", "ready")
        assert "it answered neither calls nor health checks for" in row["last_error"]
        assert not is_alive(child)
        broker.wait(lambda status: status["servers"][0]["processes"] == 2)


def test_a_stopped_server_is_ended_at_once() -> None:
    """It hears neither the end of its input nor SIGTERM: nobody waits `timeout_stop_sec` twice for it."""
    with running({"server": rogue(watchdog_sec=0, timeout_stop_sec=600.0)}) as broker:
        pid = broker.pids()["server"]
        os.kill(pid, signal.SIGSTOP)
        assert command("stop", "server", endpoint=broker.endpoint).returncode == 0
        assert not is_alive(pid)
