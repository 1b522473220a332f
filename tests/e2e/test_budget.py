"""`max_running` and `memory_high` with real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from client_shim.errors import Busy, CallError
from tests.e2e.harness import ROOT, RunningBroker, descendants, rogue, running, wait_until
from tests.e2e.test_command import command
from tests.e2e.test_on_demand import echo

NAMES = ("a", "b", "c")
MIB = 1024 * 1024


@contextmanager
def working(broker: RunningBroker, *names: str) -> Iterator[None]:
    """Each of these servers has a call for the length of a `with`; then its client is gone."""
    script = [sys.executable, "-m", "broker", "call", "--endpoint", broker.endpoint]
    arguments = ["sleep", '{"seconds": 600}', "--timeout", "600"]
    with ExitStack() as stack:
        for name in names:
            caller = subprocess.Popen([*script, name, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
            stack.callback(caller.wait)
            stack.callback(caller.kill)
        wait_until(lambda: all(broker.server(name)["in_flight"] for name in names))
        yield


def call(broker: RunningBroker, name: str, timeout_s: float) -> None:
    """Call a server that has so much time."""
    with broker.client() as client:
        client.request(name, "tools/call", {"name": "echo", "arguments": {}}, timeout_s=timeout_s)


def test_three_servers_are_called_and_two_run() -> None:
    """Nine callers at once: every call is answered, and at no moment there is a third process."""
    tables = {name: rogue(start="demand") for name in NAMES}
    with running(tables, ready=False, broker={"max_running": 2}) as broker:
        broker.wait_log("broker.listening")
        most, over = 0, threading.Event()

        def count() -> None:
            nonlocal most
            while not over.wait(0.01):
                most = max(most, len(descendants(broker.pid)))

        with ThreadPoolExecutor(10) as pool:
            counting = pool.submit(count)
            said = list(pool.map(lambda number: echo(broker, NAMES[number % 3], f"n{number}"), range(9)))
            over.set()
            counting.result()
        assert all(f"n{number}" in str(one) for number, one in enumerate(said))
        assert most == 2
        assert "server.made_room" in broker.log()
        assert {one["restarts"] for one in broker.status()["servers"]} == {0}


def test_a_call_for_which_there_is_no_room_says_so() -> None:
    """Both are busy: the call is refused at its deadline; the commands say why, in both languages."""
    tables = {name: rogue(start="demand") for name in NAMES}
    with running(tables, ready=False, broker={"max_running": 2}) as broker:
        broker.wait_log("broker.listening")
        with working(broker, "a", "b"):
            with pytest.raises(Busy, match="2 servers run, and max_running is 2"):
                call(broker, "c", 0.5)
            assert broker.wait_state("c", "idle")["room"] == {"limit": "max_running", "value": 2, "used": 2}
            for language, words in (
                ("en", "c: not started: 2 servers are running (max_running = 2)"),
                ("zh", "c：未启动：正在运行 2 个服务器（max_running = 2）"),
            ):
                shown = command("status", endpoint=broker.endpoint, MCP_BROKER_LANG=language)
                assert (shown.returncode, words in shown.stdout) == (0, True), shown.stdout
                started = command("start", "c", endpoint=broker.endpoint, MCP_BROKER_LANG=language)
                assert (started.returncode, words in started.stderr) == (1, True), started.stderr
        assert echo(broker, "c", "now")
        assert broker.server("c")["room"] is None


def test_servers_that_start_with_the_broker_leave_room() -> None:
    """The third waits for its first call; a reload that gives more room starts who waits."""
    tables = {name: rogue() for name in NAMES}
    with running(tables, ready=False, broker={"max_running": 2}) as broker:
        for name, state in zip(NAMES, ("ready", "ready", "idle"), strict=True):
            broker.wait_state(name, state)
        with working(broker, "a", "b"), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(echo, broker, "c", "hello")
            assert broker.wait_state("c", "starting")["room"]
            broker.write(tables, broker={"max_running": 3})
            assert command("reload", endpoint=broker.endpoint).returncode == 0
            assert "hello" in str(waiting.result(60))


def test_idle_servers_give_their_memory_back() -> None:
    """Three that hold 64 MiB each, of which two may be held: the one unused for longest is stopped."""
    tables = {name: rogue("--hold-mib", "64", start="demand") for name in NAMES}
    with running(tables, ready=False, broker={"memory_high": 170 * MIB}) as broker:
        broker.wait_log("broker.listening")
        for name in NAMES:
            assert echo(broker, name, name)
        broker.wait_state("a", "idle")
        broker.wait_log("server.made_room server=a")
        assert broker.pids().keys() == {"b", "c"}


def test_no_server_is_started_beside_one_that_holds_too_much() -> None:
    """It is busy, and so it is not stopped; the other one is started when it is idle."""
    tables = {"a": rogue("--hold-mib", "64", start="demand"), "b": rogue(start="demand")}
    with running(tables, ready=False, broker={"memory_high": 40 * MIB}) as broker:
        broker.wait_log("broker.listening")
        with working(broker, "a"):
            wait_until(lambda: is_refused(broker, "b"))
            assert broker.server("a")["state"] == "ready"
        assert echo(broker, "b", "now")
        assert broker.server("a")["state"] == "idle"


def is_refused(broker: RunningBroker, name: str) -> bool:
    """Whether a call is refused because of the memory, which is measured every second."""
    try:
        call(broker, name, 0.2)
    except Busy as error:
        return "memory_high is 40 MiB" in str(error)
    except CallError:
        pass
    return False
