"""The backend's own sequence, page after page, against a real broker: the point of the whole project.

Each test runs `app.py` in a process of its own, in one of the environments that a backend may have.
MCP_BROKER_PAGES says how many pages; it takes a few by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from client_shim.blocking import BlockingClient
from tests.client_shim.backend.pythons import VERSIONS, thin_python
from tests.client_shim.loops import LOOPS, all_without_readers, programs_are_without_readers, python_path
from tests.e2e.harness import LED_SCREEN, ROOT, RunningBroker, descendants, running, wait_until

PAGES = int(os.environ.get("MCP_BROKER_PAGES", "20"))
APP = ROOT / "tests" / "client_shim" / "backend" / "app.py"
OLD_SDK = ROOT / ".venv-mcp1" / "bin" / "python"
APP_S = 60 + PAGES
Step = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """The five servers of the LED screen, the same for all backends."""
    with running(LED_SCREEN) as broker:
        yield broker


@pytest.fixture(scope="module")
def expected(broker: RunningBroker) -> list[list[str]]:
    """What each page must be told: asked for by another client, one call at a time."""
    with broker.client() as client:
        return [[ask(client, *step) for step in plan(page)] for page in range(PAGES)]


def plan(page: int) -> list[Step]:
    """The calls of a page, which differ from those of the others, so that a mix-up shows."""
    time = f"{page // 60 % 24:02}:{page % 60:02}"
    zones = {"source_timezone": "Asia/Tokyo", "time": time, "target_timezone": "Europe/Berlin"}
    return [
        ("time", "convert_time", zones),
        ("laundry-assistant", "machine_status", {"machine_id": "W1", "at": time}),
        ("advertisement-server", "find_advertisements", {"query": "abcdefghijklmnop"[page % 16]}),
        ("weather-server", "list_cities", {}),
        ("fukuoka-transit", "next_departures", {"station": "tenjin", "after": time}),
        ("laundry-assistant", "machine_status", {"machine_id": f"no machine {page}"}),
    ]


def ask(client: BlockingClient, server: str, tool: str, arguments: dict[str, Any]) -> str:
    """The same call without the drop-in, as a model would read it."""
    result = client.request(server, "tools/call", {"name": tool, "arguments": arguments})
    text: str = result["content"][0]["text"]
    return f"Error: {text}" if result["isError"] else text


def replay(
    broker: RunningBroker, folder: Path, python: str | Path, *options: str, path: tuple[Path, ...] = ()
) -> Any:
    """Run the backend in that Python, and check all that must hold in every one of them; its report."""
    entries = {name: {"command": "is-not-run", "args": []} for name in LED_SCREEN}
    registry, plans = folder / "mcp_servers.json", folder / "plans.json"
    registry.write_text(json.dumps({"mcp_servers": entries}), encoding="utf-8")
    plans.write_text(json.dumps([plan(page) for page in range(PAGES)]), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env = {**kept, "MCP_BROKER_ENDPOINT": broker.endpoint, "PYTHONPATH": python_path(*path)}
    before = broker.pids(), sorted(descendants(broker.pid))
    done = subprocess.run(
        [python, "-X", "dev", "-W", "error", APP, registry, plans, *options],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=APP_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (broker.pids(), sorted(descendants(broker.pid))) == before
    report = json.loads(done.stdout)
    assert (report["children"], report["clients"]) == (False, 0)
    assert report["waits in a thread"] is (programs_are_without_readers() and report["loop"] == "asyncio")
    assert report["mcp loaded"] is ("--import-mcp" in options)
    (row,) = report["at the broker"]
    assert (row["in_flight"], row["channels"]) == (0, 0)
    wait_until(lambda: row["pid"] not in [client["pid"] for client in broker.status()["clients"]])
    assert all(server["in_flight"] == server["queued"] == 0 for server in broker.status()["servers"])
    return report


@pytest.mark.parametrize("version", VERSIONS)
def test_on_every_python_with_the_shim_and_nothing_else(
    broker: RunningBroker, expected: list[list[str]], tmp_path: Path, version: str
) -> None:
    """Law 1, law 4: no page costs a process, each gets its own answers, none leaves anything behind."""
    python = thin_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    report = replay(broker, tmp_path, python)
    assert report["answers"] == expected
    assert report["python"].startswith(f"{version}.")
    assert report["mcp"] is None


@pytest.mark.parametrize("loop", LOOPS)
def test_beside_the_newer_sdk_on_each_loop(
    broker: RunningBroker, expected: list[list[str]], tmp_path: Path, loop: str
) -> None:
    """The design, section 3: any major version of `mcp` may stand beside the shim; uvicorn runs on uvloop."""
    module = "uvloop" if loop == "uvloop" else "asyncio"
    with all_without_readers() if loop == "no add_reader" else nullcontext():
        report = replay(broker, tmp_path, sys.executable, "--loop", module, "--import-mcp", path=(ROOT,))
    assert report["answers"] == expected
    assert report["loop"] == module
    assert report["mcp"].startswith("2.")


def test_beside_the_older_sdk(broker: RunningBroker, expected: list[list[str]], tmp_path: Path) -> None:
    """The design, section 4: the backend still has mcp 1.x, which it imports for its types."""
    if not OLD_SDK.exists():
        pytest.skip("there is no .venv-mcp1 (`make test` makes it)")
    report = replay(broker, tmp_path, OLD_SDK, "--import-mcp")
    assert report["answers"] == expected
    assert report["mcp"].startswith("1.")
