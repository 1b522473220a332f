"""Servers without a process until they are called, with real processes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from client_shim.errors import CallError, ServerDied
from tests.e2e.harness import RunningBroker, descendants, rogue, running
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
    with running({"a": rogue(idle_stop_sec=0.2)}, ready=False) as broker:
        broker.wait_log("server.ready")
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


def test_thirty_servers_on_demand_are_a_broker_and_no_more() -> None:
    """All lists, no process, and no more than 45 MiB; the first call to one starts that one."""
    names = [f"s{number}" for number in range(30)]
    with running({name: rogue(start="demand") for name in names}, ready=False) as broker:
        broker.wait_log("broker.listening")
        fresh = [tools(broker, name) for name in names]
        wait_kept(broker, *names)
        broker.stop()
        start_again(broker)
        assert [tools(broker, name) for name in names] == fresh
        status = broker.status()
        assert status["broker"]["rss_bytes"] <= 45 * 1024**2
        assert [one["processes"] for one in status["servers"]] == [0] * 30
        assert echo(broker, "s7", "hello")
        assert broker.pids().keys() == {"s7"}


def test_a_storm_of_thirty_first_calls_makes_none_time_out() -> None:
    """`starts_at_once`: the time in the queue is not time to start; each call is answered, and none fails."""
    names = [f"s{number}" for number in range(30)]
    with running({name: rogue(start="demand") for name in names}, ready=False) as broker:
        broker.wait_log("broker.listening")
        with ThreadPoolExecutor(30) as pool:
            said = list(pool.map(lambda name: echo(broker, name, name), names))
        assert all(name in str(one) for name, one in zip(names, said, strict=True))
        assert {one["restarts"] for one in broker.status()["servers"]} == {0}


def call_on(broker: RunningBroker, names: str, seed: int, over: threading.Event, ended: Counter[str]) -> None:
    """Call at moments that nobody planned; count the endings, and let no answer be another's."""
    chance = random.Random(seed)
    with broker.client() as client:
        while not over.wait(chance.choice([0.0, 0.02, 0.05, 0.15])):
            text = f"{seed}.{sum(ended.values())}"
            params = {"name": "echo", "arguments": {"text": text}}
            try:
                said = client.request(chance.choice(names), "tools/call", params, timeout_s=60)
                ended["answered" if text in str(said) else "another's"] += 1
            except ServerDied:
                ended["died"] += 1
            except CallError as error:
                ended[repr(error)] += 1


@pytest.mark.parametrize(("names", "most"), [("a", 1), ("abc", 2)], ids=["one server", "max_running"])
def test_calls_that_cross_idle_stops_kills_and_reloads_end_once(names: str, most: int) -> None:
    """Laws 1 and 2 with real processes: four callers, an idle time of 20 ms, SIGKILL and other processes.

    Then the same with three servers of which two may run: no call waits for room for ever, and there is never
    a third process. `MCP_BROKER_IDLE_S` is how long it goes on, 3 s by default.
    """
    keys = {"start": "demand", "idle_stop_sec": 0.02, "start_limit_burst": 1000, "restart_sec": 0.05}
    table, over, ended = rogue(**keys), threading.Event(), Counter[str]()
    tables, budget = dict.fromkeys(names, table), {"max_running": 2}
    until = time.monotonic() + float(os.environ.get("MCP_BROKER_IDLE_S", "3"))
    with running(tables, ready=False, broker=budget) as broker, ThreadPoolExecutor(4) as pool:
        broker.wait_log("broker.listening")
        callers = [pool.submit(call_on, broker, names, seed, over, ended) for seed in range(4)]
        try:
            for edition in count():
                row = broker.server("a")
                assert len(descendants(broker.pid)) <= most, broker.status()
                if row["pid"] and edition % 3 == 0:
                    with suppress(ProcessLookupError):
                        os.kill(row["pid"], signal.SIGKILL)
                elif edition % 3 == 1:
                    edited = {**table, "env": {"EDITION": str(edition)}}
                    broker.write({**tables, "a": edited}, broker=budget)
                    assert command("reload", "--no-wait", endpoint=broker.endpoint).returncode == 0
                if time.monotonic() > until and ended["answered"] >= 20:
                    break
                time.sleep(0.1)
        finally:
            over.set()
        for caller in callers:
            caller.result(60)
        assert ended.keys() <= {"answered", "died"}, ended
        for name in names:
            broker.wait_state(name, "idle")
        assert descendants(broker.pid) == []
