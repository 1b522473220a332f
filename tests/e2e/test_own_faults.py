"""A fault of the broker's own: where it is in what belongs to one server it ends that, else the broker."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from client_shim.errors import BrokerError
from tests.e2e.faulty_broker import PLACES
from tests.e2e.harness import PATIENCE_S, RunningBroker, descendants, is_alive, rogue, running, wait_until

PROGRAM = ("-m", "tests.e2e.faulty_broker")
SERVERS = {name: rogue(restart_sec=0.05) for name in ("one", "other")}


def provoke(broker: RunningBroker, place: str, armed: Path) -> None:
    """Have the broker come to the place, for one server."""
    with broker.client() as client:
        if place == "its stdin":
            with pytest.raises(BrokerError, match="a fault of the broker's own"):
                client.request("one", "tools/call", {"name": "echo"})
        elif place == "its stderr":
            with suppress(BrokerError):  # its answer may come first
                client.request("one", "tools/call", {"name": "stderr", "arguments": {"lines": 1, "bytes": 3}})
        else:
            wait_until(lambda: came_to_it(broker, armed))


def came_to_it(broker: RunningBroker, armed: Path) -> bool:
    """Kill the server, unless it is so far. Where its output is seen to end before it does, nobody waits for
    its last lines, and it is killed again."""
    pid = broker.pids().get("one")
    if pid is not None and armed.exists():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not armed.exists() or broker.pids().get("one") not in (None, pid))
    return not armed.exists()


@pytest.mark.parametrize("place", [place for place in PLACES if place != "the core"])
def test_a_fault_in_what_belongs_to_one_server_ends_that_one(place: str, tmp_path: Path) -> None:
    """Laws 1, 5, 9 and 10: it is told once, with its traceback; nothing is left, and it comes back."""
    armed = tmp_path / "armed"
    with running(SERVERS, program=PROGRAM, env={"FAULT": place, "ARMED": str(armed)}) as broker:
        before = broker.pids()
        armed.touch()
        provoke(broker, place, armed)
        broker.wait_log("server.crashed_here")
        broker.wait(lambda _: broker.pids().get("one", before["one"]) != before["one"])
        row = broker.wait_state("one", "ready")
        assert (row["processes"], row["restarts"] > 0) == (1, True)
        assert not is_alive(before["one"])
        assert broker.pids()["other"] == before["other"]
        assert broker.counter("crashed-here") == 1
        (told,) = [line for line in broker.log().splitlines() if " error server.crashed_here " in line]
        assert "server=one" in told
        assert "nobody thought of this" in told
        if place in ("its start", "its stdin", "its stderr"):  # else it was on its way out for another reason
            assert "a fault of the broker's own" in str(row["last_error"])
            broker.wait_log("server.backoff server=one")
        with broker.client() as client:
            for name in SERVERS:
                client.request(name, "tools/call", {"name": "echo"})


def test_a_fault_in_the_core_ends_the_broker(tmp_path: Path) -> None:
    """Law 3: tables that may be half changed serve nobody; and nothing is left of it."""
    armed = tmp_path / "armed"
    with running(SERVERS, program=PROGRAM, env={"FAULT": "the core", "ARMED": str(armed)}) as broker:
        servers = descendants(broker.pid)
        armed.touch()
        with broker.client() as client, pytest.raises(BrokerError):
            client.request("one", "tools/call", {"name": "echo"})
        assert broker.process.wait(PATIENCE_S) == 1
        assert "server.crashed_here" not in broker.log()
        wait_until(lambda: not any(map(is_alive, servers)))
        broker.start()  # as systemd does
        broker.wait_ready()
