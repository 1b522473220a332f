"""What others clean away while the broker runs: its socket, its lock, its state, the folder of them all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    """One with a folder of its own for what exists while it runs."""
    with running({"s": rogue()}, broker={"endpoint": f"ipc://{tmp_path}/run/b.sock"}) as broker:
        yield broker


def test_a_folder_that_is_cleaned_away_is_made_anew(broker: RunningBroker, tmp_path: Path) -> None:
    """Laws 1, 9 and 10: nobody could reach the broker else, and the next one could not find its servers."""
    folder, pids = tmp_path / "run", broker.pids()
    owner = (folder / "b.sock.state" / "owner").read_text()
    with broker.client() as client:
        client.request(MANAGEMENT, "ping")
        shutil.rmtree(folder)
        wait_until(lambda: (folder / "b.sock.state" / "owner").exists(), broker.log)
        client.request(MANAGEMENT, "ping")
    assert broker.pids() == pids
    assert (folder / "b.sock").stat().st_mode & 0o777 == 0o600
    for event in ("endpoint.made_anew", "state.written_anew"):
        assert broker.log().count(event) == 1
    second = [sys.executable, "-m", "broker", "serve", "--config", str(broker.config)]
    done = subprocess.run(second, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "a broker whose lock was removed" in done.stderr
    assert broker.pids() == pids
    assert (folder / "b.sock.state" / "owner").read_text() == owner
    assert [path.name.partition(".")[0] for path in (folder / "b.sock.state").glob("*.json")] == ["s"]


def test_what_is_in_the_place_of_the_socket_is_told_and_left_alone(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """Law 8: it may be somebody's. Once it is gone, the socket is there again."""
    path = tmp_path / "run" / "b.sock"
    path.unlink()
    path.write_text("somebody's")
    broker.wait_log("endpoint.unreachable")
    assert path.read_text() == "somebody's"
    path.unlink()
    broker.wait_log("endpoint.made_anew")
    assert broker.status()["broker"]["clients"] == 1
    path.unlink()
    path.write_text("somebody's")
    assert broker.stop(signal.SIGTERM) == 0
    assert path.read_text() == "somebody's"
    path.unlink()
