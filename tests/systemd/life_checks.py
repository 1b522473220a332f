"""Checks of the running service: stuck, killed, restarted and stopped, with clients at it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client_shim.blocking import BlockingClient
from client_shim.errors import NoBroker
from tests.e2e.harness import is_alive
from tests.systemd.host import (
    CONFIG,
    ENDPOINT,
    PATIENCE_S,
    PYTHON,
    ROGUE,
    SOCKET,
    Skipped,
    as_user,
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
    status,
    until,
    until_ready,
)

CALLERS = 8
ENOUGH = Path("/run/enough-calls")

CALLING = f"""
import asyncio, json, os, time
from contextlib import AsyncExitStack
from client_shim import BrokerClient
from client_shim.errors import BrokerError

seen = {{"answered": [], "failed": []}}

async def caller(number, broker):
    while not os.path.exists({str(ENOUGH)!r}):
        began = time.monotonic()
        text = f"{{number}} {{began}}"
        try:
            result = await broker.call_tool("fine", "echo", {{"text": text}}, timeout={PATIENCE_S})
            assert json.loads(result.content[0].text) == {{"text": text}}
            seen["answered"].append(time.monotonic() - began)
        except BrokerError as error:
            took = round(time.monotonic() - began, 3)
            seen["failed"].append([number, type(error).__name__, str(error), took])
        await asyncio.sleep(0.01)

async def main():
    async with AsyncExitStack() as connected:  # all of them, before the first call
        callers = []
        for number in range({CALLERS}):
            client = BrokerClient(f"caller {{number}}", endpoint={ENDPOINT!r})
            callers.append(caller(number, await connected.enter_async_context(client)))
        await asyncio.wait_for(asyncio.gather(*callers), {3 * PATIENCE_S})

asyncio.run(main())
print(json.dumps(seen))
"""

STUCK = """
import signal, sys
from broker.__main__ import main

def spin(*_):
    while True:
        pass

signal.signal(signal.SIGUSR1, spin)
sys.exit(main())
"""
"""A broker with a loop that never comes back once it was told to be stuck."""


def while_they_call(what: Callable[[], object], *, in_order: bool = False) -> None:
    """Have the broker replaced under eight callers.

    Where it ends in order, no call fails. Else those under way get their one clear error. Calls made
    meanwhile wait within their deadline and are answered by the new broker; no process is lost or left.
    """
    before, servers, calls = main_pid(), server_pids(), _calls_of_fine()
    ENOUGH.unlink(missing_ok=True)
    callers = background(CALLING)
    try:
        until(lambda: _calls_of_fine() > calls + CALLERS)
        what()
        until(lambda: main_pid() not in (0, before), last_words)
        until_ready()
        until(lambda: _calls_of_fine() > CALLERS or callers.poll() is not None, last_words)
    finally:
        ENOUGH.touch()
    said, _ = callers.communicate(timeout=PATIENCE_S)
    assert callers.returncode == 0, f"{said}\n{last_words()}"
    seen = json.loads(said)
    assert not (in_order and seen["failed"]), seen["failed"]
    failed = [number for number, *_ in seen["failed"]]
    assert len(failed) == len({*failed}), f"one error for each caller, at most: {seen['failed']}"
    assert {kind for _, kind, *_ in seen["failed"]} <= {"BrokerLost"}, seen["failed"]
    assert max(seen["answered"]) > 0.1, f"somebody waited for the next broker: {seen['failed']}"
    assert not [pid for pid in (before, *servers.values()) if is_alive(pid)]
    assert sorted(processes_of("mcp-broker")) == sorted([main_pid(), *server_pids().values()])


def _calls_of_fine() -> int:
    rows = {row["name"]: row for row in status().get("servers", [])}
    return int(rows["fine"]["calls"]) if rows else 0


def an_idle_broker_feeds_the_watchdog() -> None:
    """Nothing to do is not stuck."""
    stuck = Path("/opt/rogue/stuck.py")
    stuck.write_text(STUCK, encoding="utf-8")
    start = f"ExecStart=\nExecStart={PYTHON} {stuck} serve --config {CONFIG}"
    drop_in(f"[Service]\nWatchdogSec=1\nRestartSec=0.1\n{start}\n")
    sh("systemctl restart mcp-broker")
    until_ready()
    before = main_pid()
    time.sleep(2.5)
    assert main_pid() == before


def a_stopped_broker_is_started_again() -> None:
    """One that does not even run (SIGSTOP, a hung disk) gives no sign of life."""
    before, servers = main_pid(), server_pids()
    os.kill(before, signal.SIGSTOP)
    until(lambda: main_pid() not in (0, before), last_words)
    until_ready()
    assert not [pid for pid in servers.values() if is_alive(pid)]


def a_stuck_broker_is_started_again() -> None:
    """The watchdog is fed from the loop that serves requests: one that spins is started again."""
    pid = main_pid()
    while_they_call(lambda: os.kill(pid, signal.SIGUSR1))
    assert "Fatal Python error: Aborted" in journal(), last_words()
    assert "in spin" in journal(), "where it was stuck is in the log"
    drop_in("")
    sh("systemctl restart mcp-broker")
    until_ready()


def a_killed_broker_is_started_again_and_no_server_twice() -> None:
    """SIGKILL of the broker: systemd starts it again, and no process is left or doubled."""
    pid = main_pid()
    while_they_call(lambda: os.kill(pid, signal.SIGKILL))


def a_restart_loses_nothing_that_can_be_kept() -> None:
    """`systemctl restart` under callers fails no call."""
    while_they_call(lambda: sh("systemctl restart mcp-broker"), in_order=True)


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
    """Who stops the socket stops both: nobody listens, and a client is told so at once."""
    sh("systemctl stop mcp-broker.socket")
    assert show("ActiveState") == "inactive"
    assert processes_of("mcp-broker") == []
    began = time.monotonic()
    with pytest.raises(NoBroker, match="the broker that made it has ended"), BlockingClient(ENDPOINT):
        pass
    assert time.monotonic() - began < 1.0
    assert main_pid() == 0
    sh("systemctl start mcp-broker")
    until_ready()
    assert show("ActiveState", "mcp-broker.socket") == "active"


def a_socket_whose_file_was_removed_comes_back() -> None:
    """As the message that a client gets says: both are started again, and the file is there."""
    SOCKET.unlink()
    with pytest.raises(NoBroker) as told, BlockingClient(ENDPOINT):
        pass
    mend = "sudo systemctl restart mcp-broker.socket mcp-broker"
    assert f"`{mend}`" in str(told.value)
    sh(mend.removeprefix("sudo "))
    until_ready()
    assert json.loads(call("fine", "echo", {"text": "back"})) == {"text": "back"}


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


def no_server_can_read_the_secrets_of_the_others() -> None:
    """The broker's /proc is closed to its own user, and nothing dumps core."""
    kept = CONFIG.with_name("environment")
    before = kept.read_text(encoding="utf-8")
    kept.write_text("OTHERS_KEY=planted-others-1\n", encoding="utf-8")
    configure({"fine": ROGUE, "other": {**ROGUE, "env": {"KEY": "${OTHERS_KEY}"}}})
    sh("systemctl restart mcp-broker")
    until_ready()
    assert "planted-others-1" not in sh(f"cat /proc/{server_pids()['fine']}/environ")
    assert "KEY=planted-others-1" in sh(f"cat /proc/{server_pids()['other']}/environ")
    said = as_user("mcp-broker", "cat", f"/proc/{main_pid()}/environ", status=1)
    assert "Permission denied" in said, said
    assert "planted-others-1" in sh(f"cat /proc/{main_pid()}/environ"), "root can"
    assert (show("LimitCORE"), "planted-" in journal()) == ("0", False)
    kept.write_text(before, encoding="utf-8")
    _back_to_two_servers()


def a_credential_fills_a_variable() -> None:
    """`LoadCredential=` in a drop-in: `${API_KEY}` is what is in the file, for the servers that name it."""
    credential = CONFIG.with_name("api-key")
    credential.write_text("planted-credential-2\n", encoding="utf-8")
    credential.chmod(0o600)
    drop_in(f"[Service]\nLoadCredential=API_KEY:{credential}\n")
    configure({"fine": {**ROGUE, "env": {"KEY": "${API_KEY}"}}, "other": ROGUE})
    said = sh("mcp-broker check --service")
    sh("systemctl restart mcp-broker")
    inside = f"nsenter -t {main_pid()} -m setpriv --reuid=mcp-broker --regid=mcp-broker --init-groups"
    seen = sh(f"{inside} cat /run/credentials/mcp-broker.service/API_KEY", status=None)
    try:
        assert "fine, 2 servers" in said, said
        if "Permission denied" in seen:
            raise Skipped("this systemd has no way to give a credential to another user than root")
        until_ready()
        assert "KEY=planted-credential-2" in sh(f"cat /proc/{server_pids()['fine']}/environ")
        assert "planted-credential" not in journal()
    finally:
        credential.unlink()
        drop_in("")
        _back_to_two_servers()


def _back_to_two_servers() -> None:
    configure({"fine": ROGUE, "other": ROGUE})
    sh("systemctl restart mcp-broker")
    until_ready()


CHECKS = (
    an_idle_broker_feeds_the_watchdog,
    a_stopped_broker_is_started_again,
    a_stuck_broker_is_started_again,
    a_killed_broker_is_started_again_and_no_server_twice,
    a_restart_loses_nothing_that_can_be_kept,
    who_connects_while_none_runs_starts_one,
    both_stopped_is_stopped,
    a_socket_whose_file_was_removed_comes_back,
    what_a_server_left_detached_is_ended_by_its_cgroup,
    no_server_can_read_the_secrets_of_the_others,
    a_credential_fills_a_variable,
)
