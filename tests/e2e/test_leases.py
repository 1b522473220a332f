"""`lease_sec` with real processes: clients take turns, a killed one makes way, and the operator has the last
word; over the shim, the gateway and `mcp-broker connect`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from client_shim.errors import DeadlineExceeded
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running
from tests.e2e.test_command import command
from tests.gateway.bridges import Bridge
from tests.gateway.gateways import gateway

HOLDER = """
import sys
from client_shim.blocking import BlockingClient
with BlockingClient(sys.argv[1], name="holder") as client:
    client.request("browser", "tools/call", {"name": "echo", "arguments": {}})
    print("it has it", flush=True)
    sys.stdin.read()
"""
WHOAMI: dict[str, Any] = {"name": "whoami", "arguments": {}}


@contextmanager
def holder(broker: RunningBroker) -> Iterator[subprocess.Popen[str]]:
    """A process of a client that has the lease of the server, until its stdin is closed or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, broker.endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "it has it\n"
            yield process
        finally:
            process.kill()


def browser(**keys: Any) -> dict[str, Any]:
    """A leased server."""
    return rogue(**{"lease_sec": 600.0, "serialized": True, **keys})


def lease_of(broker: RunningBroker) -> Any:
    """What `status` says of the lease."""
    return broker.server("browser")["lease"]


@contextmanager
def waiting(broker: RunningBroker) -> Iterator[Any]:
    """Another client whose call waits for the lease; its result is there at the end, and its pid is that of
    the one process."""
    pid = broker.server("browser")["pid"]
    with broker.client() as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.request, "browser", "tools/call", WHOAMI)
        broker.wait(lambda status: status["servers"][0]["lease"]["waiting"] == 1)
        yield call
        result = call.result(PATIENCE_S)
        assert json.loads(result["content"][0]["text"])["pid"] == pid
    assert broker.server("browser")["pid"] == pid


def test_a_client_that_waits_is_told_who_has_the_server_and_a_killed_holder_makes_way() -> None:
    """Law 1: one process, whoever has it."""
    with running({"browser": browser()}) as broker, holder(broker) as process:
        lease = lease_of(broker)
        assert (lease["client"], lease["pid"], lease["waiting"]) == ("holder", process.pid, 0)
        assert 500 < lease["ends_in_s"] <= 600
        with (
            broker.client() as other,
            pytest.raises(DeadlineExceeded, match=f"client 'holder' \\(pid {process.pid}\\) has had") as told,
        ):
            other.request("browser", "tools/call", WHOAMI, timeout_s=0.2)
        assert "mcp-broker release browser" in told.value.hint
        with waiting(broker):
            process.kill()
        assert "lease.ended server=browser client=holder" in broker.log()
        assert "reason=closed" in broker.log()
        assert lease_of(broker) is None


def test_an_idle_holder_loses_it_and_may_have_it_again() -> None:
    """The time of the table, on the clock of the machine."""
    with running({"browser": browser(lease_sec=0.2)}) as broker, holder(broker):
        broker.wait(lambda status: status["servers"][0]["lease"] is None)
        assert "reason=idle" in broker.log()
        with broker.client() as other:
            other.request("browser", "tools/call", WHOAMI)


def test_the_operator_ends_it() -> None:
    """`mcp-broker release`, and what it says when nobody has the server, or when there is no lease."""
    with running({"browser": browser(), "shared": rogue()}) as broker:
        with holder(broker) as process:
            shown = command("status", endpoint=broker.endpoint).stdout
            assert f"browser: leased to holder (pid {process.pid}) for " in shown
            assert "shared" in shown
            shown = command("status", "browser", endpoint=broker.endpoint, LC_ALL="zh_CN.UTF-8").stdout
            assert "shared" not in shown
            assert f"browser：由 holder（进程号 {process.pid}）独占" in shown
            with waiting(broker):
                assert "`mcp-broker release browser`" in command("status", endpoint=broker.endpoint).stdout
                done = command("release", "browser", endpoint=broker.endpoint)
                assert done.returncode == 0
                assert f"browser: taken from holder (pid {process.pid}), which had it for " in done.stdout
                assert done.stdout.endswith("calls waiting: 1\n")
            done = command("release", "browser", "--json", endpoint=broker.endpoint)
            assert (done.returncode, json.loads(done.stdout)["released"]) == (0, None)
            done = command("release", "browser", endpoint=broker.endpoint)
            assert (done.returncode, done.stdout) == (0, "browser: no client has it for itself\n")
            done = command("release", "browser", endpoint=broker.endpoint, LC_ALL="zh_CN.UTF-8")
            assert "没有客户端独占" in done.stdout
        done = command("release", "shared", endpoint=broker.endpoint)
        assert done.returncode == 1
        assert "lease_sec" in done.stderr
        assert command("release", "none", endpoint=broker.endpoint).returncode == 1
        done = command("status", "none", endpoint=broker.endpoint)
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is no server none; the broker has browser, shared" in done.stderr


def test_a_release_says_which_calls_still_run() -> None:
    """The next client waits for them."""
    with (
        running({"browser": browser(serialized=False)}) as broker,
        broker.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = {"name": "sleep", "arguments": {"seconds": 600}}
        call = pool.submit(client.request, "browser", "tools/call", slow, timeout_s=600)
        broker.wait(lambda status: status["servers"][0]["in_flight"] == 1)
        done = command("release", "browser", endpoint=broker.endpoint)
        assert done.stdout.endswith("calls of that client that still run: 1; others are served after them\n")
        assert lease_of(broker) is None
        client.close()
        assert call.exception(PATIENCE_S) is not None


def test_a_reload_begins_and_ends_it_without_another_process() -> None:
    """The holder keeps the process, and the others have it, too."""
    with running({"browser": browser()}) as broker, holder(broker):
        with waiting(broker):
            broker.write({"browser": rogue(serialized=True)})
            done = command("reload", endpoint=broker.endpoint)
            assert "browser: lease_sec changed, applied without a restart" in done.stdout
        assert lease_of(broker) is None
        broker.write({"browser": browser()})
        command("reload", endpoint=broker.endpoint)
        with broker.client() as client:
            client.request("browser", "tools/call", WHOAMI)
            assert lease_of(broker) is not None


def test_a_session_of_the_gateway_is_a_client_and_so_is_a_bridge() -> None:
    """Sessions of the older protocol have a channel each; requests of 2026-07-28 one for their token."""
    with running({"browser": browser(timeout=1.0)}) as broker, gateway(broker) as door:
        first, second = (door.http("browser").initialized() for _ in range(2))
        echo = {"name": "echo", "arguments": {}}
        assert "result" in first.ask("tools/call", echo).message
        refused = second.ask("tools/call", echo).message["error"]
        assert "has had for itself" in refused["message"]
        assert "tools" in second.ask("tools/list").message["result"]
        modern = door.http("browser")
        assert "has had for itself" in modern.ask("tools/call", echo).message["error"]["message"]
        assert first.send("DELETE").status in (200, 204)
        broker.wait(lambda status: status["servers"][0]["lease"] is None)
        assert "result" in modern.ask("tools/call", echo).message
        assert "result" in door.http("browser").ask("tools/call", echo).message
        command("release", "browser", endpoint=broker.endpoint)
        with Bridge(broker, "browser", held=True) as bridge:
            bridge.initialize()
            assert "result" in bridge.call("echo")
            assert "has had for itself" in modern.ask("tools/call", echo).message["error"]["message"]
        broker.wait(lambda status: status["servers"][0]["lease"] is None)
        assert "result" in modern.ask("tools/call", echo).message
