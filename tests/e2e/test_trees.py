"""One tree, found whole: what a server leaves that does its best to be found by nothing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import SERVERS, RunningBroker, running, wait_until

COUNT = {"daemon": 1, "stubborn": 1, "threads": 1, "respawns": 6}
"""What they do (tests/servers/escape.py) → how many they are."""


def leaving(how: str) -> dict[str, Any]:
    """A server that starts such a one, and then serves."""
    python = f"{sys.executable} -I -S"
    script = f"{python} {SERVERS}/escape.py {how} {name_of(how)}; exec {python} {SERVERS}/rogue.py"
    keys = {"restart_sec": 0.05, "timeout_stop_sec": 0.3, "protocol": "legacy"}
    return {"command": "sh", "args": ["-c", script], **keys}


def name_of(how: str) -> str:
    """Of its processes, so that no mark of the broker's is needed to find them here."""
    return f"{how}-{os.getpid()}"


def escapees(how: str) -> set[int]:
    """The processes of that kind, a thread that outlived its process's first one included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and any(_is_escapee(task, how) for task in _tasks(entry)):
            found.add(int(entry.name))
    return found


def _tasks(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:
        return []


def _is_escapee(task: Path, how: str) -> bool:
    try:
        return f"\0escapee-{name_of(how)}\0".encode() in (task / "cmdline").read_bytes()
    except OSError:
        return False


def wait_left(broker: RunningBroker) -> dict[str, set[int]]:
    """Every server's escapees, once all are there; and `status` counts them."""
    wait_until(lambda: all(len(escapees(how)) >= count for how, count in COUNT.items()))
    broker.wait(lambda status: all(row["processes"] >= 1 + COUNT[row["name"]] for row in status["servers"]))
    return {how: escapees(how) for how in COUNT}


def test_nothing_outlives_its_server() -> None:
    """Law 1: without a cgroup too; whoever ends the server, and however: `restart`, a crash, the next broker
    after a SIGKILL, shutdown."""
    with running({how: leaving(how) for how in COUNT}) as broker:
        before = wait_left(broker)
        with broker.client() as client:
            for how in COUNT:
                client.request(MANAGEMENT, "restart", {"server": how})
        broker.wait_ready()
        assert not {how for how in COUNT if escapees(how) & before[how]}
        before = wait_left(broker)
        for pid in broker.pids().values():
            os.kill(pid, signal.SIGKILL)
        broker.wait(lambda status: all(row["restarts"] == 2 for row in status["servers"]))
        broker.wait_ready()
        assert not {how for how in COUNT if escapees(how) & before[how]}
        before = wait_left(broker)
        broker.stop(signal.SIGKILL)
        assert all(escapees(how) for how in COUNT)
        broker.start()
        broker.wait_ready()
        assert not {how for how in COUNT if escapees(how) & before[how]}
        wait_left(broker)
    assert not {how: left for how in COUNT if (left := escapees(how))}
