"""The image and compose.yaml, acted out without an engine: two users and pid namespaces, one volume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AS_IMAGE = ROOT / "tests/docker/as-image"


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What `inside.py` saw; a skip where this cannot be done."""
    probe = subprocess.run([AS_IMAGE, "-p"], cwd=ROOT, capture_output=True, text=True, check=False)
    if probe.returncode == 77:
        pytest.skip(f"the image cannot be acted out here: {probe.stdout.strip()}")
    command = [str(AS_IMAGE), sys.executable, "-m", "tests.docker.inside"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_entry_command_runs_and_the_health_check_comes_to_say_so(seen: dict[str, Any]) -> None:
    """Both as the Dockerfile has them, as its user, on a root that cannot be written to."""
    *before, last = seen["health"]
    assert last == 0, seen["log"]
    assert {*before} <= {1, 3}, "a server is not ready yet, or nobody listens yet"


def test_a_backend_of_another_user_in_the_group_calls_a_tool(seen: dict[str, Any]) -> None:
    """User, group_add, volume and variable of compose.yaml are all that a backend needs."""
    status, printed, errors = seen["backend"]
    assert (status, errors) == (0, "")
    assert printed.startswith("tools: get_current_time, convert_time\n")
    assert '"timezone": "Asia/Tokyo"' in printed


def test_a_client_of_another_pid_namespace_has_the_pid_0(seen: dict[str, Any]) -> None:
    """The design, traps: the kernel has no number for it here; all else works, and its user is known."""
    status = seen["status"]
    (client,) = status["clients"]
    assert (client["pid"], client["uid"]) == (0, 1000)
    assert {server["state"] for server in status["servers"]} == {"ready"}


def test_who_is_outside_the_group_is_told_so_at_once(seen: dict[str, Any]) -> None:
    """ "not allowed", with what to do, within a second."""
    code, message, took_s = seen["outsider"]
    assert code == "not-allowed"
    assert "10001" in message, "the group that it would have to be in"
    assert took_s < 1


def test_the_socket_is_the_groups(seen: dict[str, Any]) -> None:
    """`socket_mode` 0660, of the user and the group of the image."""
    assert seen["socket"] == [0o660, 10001, 10001]


def test_a_stop_ends_it_well_and_leaves_no_process(seen: dict[str, Any]) -> None:
    """STOPSIGNAL is SIGTERM: exit status 0, and nothing is left of the servers."""
    assert (seen["end"], seen["left"]) == (0, []), seen["log"]
