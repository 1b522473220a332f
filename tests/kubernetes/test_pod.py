"""The pods of examples/kubernetes, acted out without a cluster: volumes, users, mounts and probes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AS_IMAGE = ROOT / "tests/docker/as-image"
IN_ITS_NETWORK = 'ip link set lo up && exec "$@"'


@pytest.fixture(scope="module", params=["backend", "gateway"])
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `pod.py` saw; a skip where this cannot be done."""
    probe = subprocess.run([AS_IMAGE, "-p"], cwd=ROOT, capture_output=True, text=True, check=False)
    if probe.returncode == 77:
        pytest.skip(f"no pod can be acted out here: {probe.stdout.strip()}")
    if not shutil.which("ip"):
        pytest.skip("no pod can be acted out here: it needs the command ip (apt-get install iproute2)")
    act = [sys.executable, "-m", "tests.kubernetes.pod", f"examples/kubernetes/{request.param}.yaml"]
    command = [str(AS_IMAGE), "unshare", "--net", "sh", "-c", IN_ITS_NETWORK, "sh", *act]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_pod_starts_in_its_order_and_every_probe_succeeds(seen: dict[str, Any]) -> None:
    """The folders, then the broker, then what uses it; it lives, and ends with status 0."""
    assert seen["folders"] == [0, ""]
    assert seen["startup"], seen["logs"]
    assert seen["alive"]
    assert {*seen["ends"]} == {0}, seen["logs"]


def test_the_folders_are_needed(seen: dict[str, Any]) -> None:
    """An emptyDir itself is open to everybody, and the broker refuses it with what to do."""
    status, said = seen["without folders"]
    assert status != 0
    assert "everybody may write to the folder /run/mcp-broker (mode 0777)" in said


def test_what_uses_the_broker_is_served(seen: dict[str, Any]) -> None:
    """The backend calls a tool; a client of the gateway has the token and the name, or is refused."""
    if "backend" in seen:
        told, printed = seen["backend"]
        assert told, seen["logs"]
        assert printed.startswith("tools: get_current_time, convert_time\n")
        return
    assert seen["gateway"] == [True, True, True], seen["logs"]
    status, body = seen["client"]
    assert status == 200, seen["logs"]
    assert "get_current_time" in body
    assert (seen["without token"], seen["other name"]) == (401, 403)
