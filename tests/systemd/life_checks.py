"""Checks of the running service: stuck, killed, restarted and stopped, with clients at it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from client_shim.blocking import BlockingClient
from client_shim.errors import NoBroker
from tests.e2e.harness import is_alive
from tests.systemd.host import (
    ENDPOINT,
    PATIENCE_S,
    ROGUE,
    ROOT,
    SOCKET,
    background,
    call,
    configure,
    drop_in,
    journal,
    last_words,
    main_pid,
    processes_of,
    server_pids,
    sh,
    show,
    until,
    until_ready,
)

CALLERS = f"""
import asyncio, json, time
from client_shim import BrokerClient
from client_shim.errors import BrokerError

seen = {{"answered": [], "failed": []}}

async def caller(number, until):
    async with BrokerClient(f"caller {{number}}", endpoint={ENDPOINT!r}) as broker:
        for turn in range(10_000):
            if time.monotonic() > until:
                return
            began = time.monotonic()
            try:
                result = await broker.call_tool("fine", "echo", {{"text": str(turn)}}, timeout=30)
                assert json.loads(result.content[0].text) == {{"text": str(turn)}}
                seen["answered"].append(round(time.monotonic() - began, 3))
            except BrokerError as error:
                seen["failed"].append(f"{{type(error).__name__}}: {{error}}")
            await asyncio.sleep(0.01)

async def main():
    async with asyncio.timeout(60) if hasattr(asyncio, "timeout") else asyncio.Lock():
        await asyncio.gather(*(caller(number, time.monotonic() + {{seconds}}) for number in range(8)))

asyncio.run(main())
print(json.dumps(seen))
"""


def install_rogue() -> None:
    """A small config with servers that behave as they are told, in the place of the five."""
    sh(f"mkdir -p /opt/rogue/tests && cp -r {ROOT}/tests/servers /opt/rogue/tests")
    sh("chmod -R a+rX /opt/rogue")
    configure({"fine": ROGUE, "other": ROGUE})
    sh("systemctl restart mcp-broker")
    until_ready()


def a_stuck_broker_is_started_again() -> None:
    """The watchdog is fed from the loop that serves requests: one that is stuck is started again."""
    drop_in("[Service]\nWatchdogSec=1\n")
    install_rogue()
    before, servers = main_pid(), server_pids()
    time.sleep(2.5)
    assert main_pid() == before, "an idle broker feeds it"
    os.kill(before, signal.SIGSTOP)
    until(lambda: main_pid() not in (0, before), last_words)
    until_ready()
    assert not [pid for pid in servers.values() if is_alive(pid)]
    assert "Fatal Python error: Aborted" in journal(), "where it was stuck is in the log"
    drop_in("")


def a_killed_broker_is_started_again_and_no_server_twice() -> None:
    """SIGKILL of the broker: systemd starts it again, and no process is left or doubled."""
    before, servers = main_pid(), server_pids()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before), last_words)
    until_ready()
    assert not [pid for pid in (before, *servers.values()) if is_alive(pid)]
    assert sorted(processes_of("mcp-broker")) == sorted([main_pid(), *server_pids().values()])


def _with_callers(seconds: float, meanwhile: str) -> dict[str, list[str]]:
    """What callers saw while something was done."""
    callers = background(CALLERS.replace("{seconds}", str(seconds)))
    with BlockingClient(ENDPOINT, timeout_s=PATIENCE_S) as watching:
        until(lambda: watching.request("$broker", "status")["broker"]["clients"] > 1)
    time.sleep(0.5)
    sh(meanwhile)
    said, _ = callers.communicate(timeout=PATIENCE_S)
    assert callers.returncode == 0, said
    seen: dict[str, list[str]] = json.loads(said)
    return seen


def a_restart_loses_nothing_that_can_be_kept() -> None:
    """Calls in flight get their one clear error, calls made meanwhile are answered by the new broker."""
    before, servers = main_pid(), server_pids()
    seen = _with_callers(4.0, "systemctl restart mcp-broker")
    until_ready()
    assert len(seen["answered"]) > 50, seen
    assert main_pid() not in (0, before)
    assert not [pid for pid in (before, *servers.values()) if is_alive(pid)]
    assert len(seen["failed"]) <= 8, seen["failed"]
    assert all("broker" in failure for failure in seen["failed"]), seen["failed"]
    assert sorted(processes_of("mcp-broker")) == sorted([main_pid(), *server_pids().values()])


def who_connects_while_none_runs_starts_one() -> None:
    """Activation: after `systemctl stop` the socket is there still, and a client at it starts the broker."""
    inode = SOCKET.stat().st_ino
    said = sh("systemctl stop mcp-broker")
    assert "mcp-broker.socket" in said, "systemctl says that it can still be activated"
    assert main_pid() == 0
    assert json.loads(call("fine", "echo", {"text": "woken"})) == {"text": "woken"}
    assert main_pid() != 0
    assert SOCKET.stat().st_ino == inode
    until_ready()


def both_stopped_is_stopped() -> None:
    """`systemctl stop` of both: nobody listens, and a client is told so at once."""
    sh("systemctl stop mcp-broker.socket mcp-broker.service")
    assert processes_of("mcp-broker") == []
    began = time.monotonic()
    with pytest.raises(NoBroker, match="the broker that made it has ended"), BlockingClient(ENDPOINT):
        pass
    assert time.monotonic() - began < 1.0
    assert main_pid() == 0
    sh("systemctl start mcp-broker")
    until_ready()
    assert show("ActiveState", "mcp-broker.socket") == "active"


def what_a_server_left_detached_is_ended_by_its_cgroup() -> None:
    """The delegated cgroup's `cgroup.kill` reaches a child in a session of its own, without the cookie."""
    note = Path("/var/lib/mcp-broker/detached")
    detach = f"setsid env -i /bin/sh -c 'echo $$ >{note}; exec sleep 600' </dev/null >/dev/null 2>&1 &"
    script = Path("/opt/rogue/detaching")
    serve = f"exec {ROGUE['command']} {' '.join(ROGUE['args'])}"
    script.write_text(f"#!/bin/sh\n{detach}\n{serve}\n", encoding="utf-8")
    script.chmod(0o755)
    configure({"fine": ROGUE, "leaving": {"command": str(script)}})
    sh("systemctl restart mcp-broker")
    until_ready()
    until(lambda: note.exists() and note.read_text().strip())
    pid = int(note.read_text())
    assert is_alive(pid)
    cgroup = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]
    assert "mcp-broker.service/" in cgroup, cgroup
    sh("mcp-broker stop leaving")
    assert not is_alive(pid)
    assert not Path(f"/sys/fs/cgroup{cgroup}").exists(), "an empty cgroup is removed"


CHECKS = (
    a_stuck_broker_is_started_again,
    a_killed_broker_is_started_again_and_no_server_twice,
    a_restart_loses_nothing_that_can_be_kept,
    who_connects_while_none_runs_starts_one,
    both_stopped_is_stopped,
    what_a_server_left_detached_is_ended_by_its_cgroup,
)
