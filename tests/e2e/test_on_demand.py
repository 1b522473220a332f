"""Servers without a process until they are called, with real processes."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

from client_shim.errors import CallError
from tests.e2e.harness import RunningBroker, rogue, running, wait_until
from tests.e2e.test_command import command
from tests.e2e.test_kept_lists import start_again, tools, wait_kept

NAMES = ("a", "b", "c")


def echo(broker: RunningBroker, name: str, text: str) -> Any:
    """Call a tool; its answer."""
    with broker.client() as client:
        return client.request(name, "tools/call", {"name": "echo", "arguments": {"text": text}}, timeout_s=60)


def test_lists_start_nothing_and_the_first_call_starts_that_server_only() -> None:
    """The broker was restarted: its lists are there, with no process at all."""
    with running({name: rogue(start="demand") for name in NAMES}, ready=False) as broker:
        broker.wait_log("broker.listening")
        fresh = {name: tools(broker, name) for name in NAMES}
        wait_kept(broker, *NAMES)
        broker.stop()
        start_again(broker)
        assert {name: tools(broker, name) for name in NAMES} == fresh
        assert broker.pids() == {}
        assert {one["state"] for one in broker.status()["servers"]} == {"idle"}
        assert echo(broker, "b", "hello")
        assert broker.pids().keys() == {"b"}


def test_an_idle_server_is_no_fault() -> None:
    """`status` ends with 0, and says so in both languages; `stop` and `start` mean what they always do."""
    with running({"a": rogue(start="demand")}, ready=False) as broker:
        broker.wait_log("broker.listening")
        for language, words in (("en", "idle until a call: 1"), ("zh", "1 个空闲")):
            shown = command("status", endpoint=broker.endpoint, MCP_BROKER_LANG=language)
            assert (shown.returncode, words in shown.stdout) == (0, True), shown.stdout
        assert command("stop", "a", endpoint=broker.endpoint).returncode == 0
        assert (broker.server("a")["state"], broker.server("a")["stopped_by_hand"]) == ("stopped", True)
        assert command("start", "a", endpoint=broker.endpoint).returncode == 0
        assert broker.server("a")["state"] == "ready"


def test_a_process_that_nobody_uses_is_ended() -> None:
    """All of it; the next call starts another, and nothing was restarted."""
    with running({"a": rogue(idle_stop_sec=0.2)}) as broker:
        broker.wait_state("a", "idle")
        row = broker.server("a")
        assert (row["pid"], row["processes"], row["restarts"], row["last_error"]) == (None, 0, 0, None)
        assert echo(broker, "a", "again")
        broker.wait_state("a", "idle")


def test_a_reload_changes_when_it_starts() -> None:
    """To `boot`: it starts; to `demand`: its process goes on until it is idle."""
    with running({"a": rogue(start="demand")}, ready=False) as broker:
        broker.wait_state("a", "idle")
        broker.write({"a": rogue()})
        assert command("reload", endpoint=broker.endpoint).returncode == 0
        pid = broker.wait_state("a", "ready")["pid"]
        broker.write({"a": rogue(start="demand", args=rogue()["args"])})
        assert command("reload", endpoint=broker.endpoint).returncode == 0
        assert broker.server("a")["pid"] == pid


def test_calls_that_cross_idle_stops_and_kills_end_once(tmp_path: Path) -> None:
    """Laws 1 and 2: calls of four threads, idle stops at every moment, SIGKILL and reloads now and then."""
    starts, done, failed = tmp_path / "starts", list[str](), list[Exception]()
    table = rogue("--start-file", str(starts), start="demand", idle_stop_sec=0.02, start_limit_burst=1000)
    table = {**table, "restart_sec": 0.05}
    over = threading.Event()

    def calls(number: int, broker: RunningBroker) -> None:
        chance = random.Random(number)
        with broker.client() as client:
            while not over.wait(chance.choice([0.0, 0.02, 0.05, 0.15])):
                text = f"{number}.{len(done)}"
                params = {"name": "echo", "arguments": {"text": text}}
                try:
                    said = client.request("a", "tools/call", params, timeout_s=60)
                    assert text in str(said), said
                    done.append(text)
                except CallError as error:
                    failed.append(error)
                except AssertionError as error:
                    failed.append(error)
                    return

    with running({"a": table}, ready=False) as broker:
        broker.wait_log("broker.listening")
        threads = [threading.Thread(target=calls, args=(number, broker)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: starts.exists() and len(starts.read_text().splitlines()) >= 20, broker.log)
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
        assert not failed, failed
        assert done
        broker.wait_state("a", "idle")
        assert broker.server("a")["processes"] == 0
