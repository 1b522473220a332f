"""A restart of the broker with the lists of the last run: they are answered while no process is ready."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import SERVERS, RunningBroker, running, wait_until

NAMES = ("a", "b", "c", "d", "e")


def holding(folder: Path, *flags: str) -> dict[str, Any]:
    """A server that reads nothing, while there is a file `hold` in the folder."""
    program = folder / "server"
    hold, script = folder / "hold", SERVERS / "rogue.py"
    program.write_text(
        f'#!/bin/sh\nwhile test -e {hold}; do sleep 0.05; done\nexec {sys.executable} -I -S {script} "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return {"command": str(program), "args": list(flags)}


def kept(broker: RunningBroker) -> Path:
    """The folder with the kept catalogues."""
    return Path(broker.endpoint.removeprefix("ipc://") + ".state", "catalogues")


def wait_kept(broker: RunningBroker, *names: str) -> None:
    """Until the catalogues of these servers are written."""
    wait_until(lambda: all((kept(broker) / f"{name}.catalogue").exists() for name in names))


def start_again(broker: RunningBroker) -> None:
    """Start the next broker, and wait until it listens."""
    broker.start()
    broker.wait_log("broker.listening", times=2)


def tools(broker: RunningBroker, name: str) -> list[str]:
    """The tools of a server."""
    with broker.client() as client:
        return [tool["name"] for tool in client.request(name, "tools/list", timeout_s=60)["tools"]]


def states(broker: RunningBroker) -> dict[str, str]:
    """The state of each server, which costs no look at the machine."""
    with broker.client() as client:
        return {one["name"]: one["state"] for one in client.request(MANAGEMENT, "servers")["servers"]}


def test_a_page_has_its_lists_while_no_process_is_ready(tmp_path: Path) -> None:
    """Five servers; the calls wait for their processes, and the lists do not. No speed is needed for it."""
    with running({name: holding(tmp_path) for name in NAMES}) as broker:
        fresh = {name: tools(broker, name) for name in NAMES}
        wait_kept(broker, *NAMES)
        broker.stop()
        (tmp_path / "hold").touch()
        start_again(broker)
        assert {name: tools(broker, name) for name in NAMES} == fresh
        assert set(states(broker).values()) <= {"starting", "handshake"}
        (tmp_path / "hold").unlink()
        with broker.client() as client:
            assert client.request("a", "tools/call", {"name": "echo", "arguments": {"n": 1}}, timeout_s=60)
        broker.wait_ready()


def test_a_list_that_changed_just_before_the_end_is_kept(tmp_path: Path) -> None:
    """The end of the broker does not wait for the next look at the lists: it writes what has changed."""
    with running({"a": holding(tmp_path)}) as broker:
        wait_kept(broker, "a")
        with broker.client() as client:
            added = {"name": "add_tool", "arguments": {"name": "late"}}
            client.request("a", "tools/call", added, timeout_s=60)
            wait_until(lambda: "late" in tools(broker, "a"))
        broker.stop()
        (tmp_path / "hold").touch()
        start_again(broker)
        assert "late" in tools(broker, "a")
        (tmp_path / "hold").unlink()
        broker.wait_ready()


def test_a_file_that_is_not_believed_costs_the_wait_only(tmp_path: Path) -> None:
    """Told once, thrown away, and read anew: the next broker has the lists again."""
    with running({"a": holding(tmp_path), "b": holding(tmp_path)}) as broker:
        fresh = tools(broker, "a")
        wait_kept(broker, "a", "b")
        broker.stop()
        harmed = kept(broker) / "a.catalogue"
        os.truncate(harmed, harmed.stat().st_size - 1)
        start_again(broker)
        assert tools(broker, "a") == fresh
        assert broker.log().count("catalogue.discarded server=a") == 1
        broker.wait_ready()
        wait_kept(broker, "a", "b")


def test_another_environment_is_another_program(tmp_path: Path) -> None:
    """The lists of a server whose table was changed while no broker ran are not answered."""
    with running({"a": holding(tmp_path)}) as broker:
        wait_kept(broker, "a")
        broker.stop()
        broker.write({"a": {**holding(tmp_path), "env": {"ZONE": "utc"}}})
        broker.start()
        broker.wait_ready()
        assert "catalogue.outdated server=a" in broker.log()
