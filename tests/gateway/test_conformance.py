"""The official conformance suite through gateway, broker and one process of the everything-server.

The server is a modern one, which asks in its results, or a legacy one, which asks during its calls.
`make conformance` runs this file alone. Without Node the tests are skipped, and say what is missing.
"""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from client_shim import BrokerClient
from tests.e2e.harness import ROOT, RunningBroker, running, script
from tests.gateway.gateways import RunningGateway, gateway

MODULES = ROOT / "tests" / "node" / "node_modules"
SUITE = MODULES / "@modelcontextprotocol" / "conformance"
NODE = MODULES / f"node-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}" / "bin" / "node"
REVISIONS = ("2026-07-28", "2025-11-25")
SERVERS = {
    "modern": script("tests/servers/everything.py"),
    "legacy": {**script("tests/servers/everything.py"), "serialized": True, "asks_within_calls": True},
}
"""The two eras of the same server: with `asks_within_calls`, the broker opens a legacy session with it."""

PAIRS = [("modern", "2026-07-28"), ("modern", "2025-11-25"), ("legacy", "2025-11-25")]
"""The server, and the revision of the client."""

BEYOND = {
    "2026-07-28": {"http-header-validation", "http-custom-header-server-validation"},
    "2025-11-25": {"server-session-lifecycle"},
}
"""Scenarios that pass beyond those that a revision requires."""

NEIGHBOURS = 8

pytestmark = pytest.mark.skipif(
    not NODE.exists() or not SUITE.exists(), reason="`make node` has not installed the conformance suite"
)


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running(SERVERS) as found:
        yield found
        for server in found.status()["servers"]:
            assert (server["era"], server["restarts"], server["processes"]) == (server["name"], 0, 1)  # law 1


@pytest.fixture(scope="module")
def door(broker: RunningBroker) -> Iterator[RunningGateway]:
    with gateway(broker, gateway={"token": False}) as found:
        yield found


def scored(revision: str) -> set[str]:
    """The scenarios that a revision requires of a server."""
    text = (SUITE / "requirements" / f"{revision}.yaml").read_text(encoding="utf-8")
    return set(yaml.safe_load(text)["server"])


def run_suite(door: RunningGateway, server: str, revision: str, folder: Path) -> dict[str, bool]:
    """Run the suite; scenario → whether it has passed."""
    url = f"http://127.0.0.1:{door.port}/mcp/{server}"
    command = [str(NODE), str(SUITE / "dist" / "index.js"), "server", "--url", url]
    done = subprocess.run(
        [*command, "--requirements", revision, "-o", str(folder)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    lines = re.findall(r"^(✓|✗) ([\w-]+): \d+ passed, \d+ failed$", done.stdout, re.MULTILINE)
    assert lines, done.stdout + done.stderr
    return {name: mark == "✓" for mark, name in lines}


@contextmanager
def neighbours(endpoint: str, server: str) -> Iterator[list[int]]:
    """Clients that call all the while, each with a number that its answer has to have."""
    stop, calls, failed = threading.Event(), [0] * NEIGHBOURS, list[BaseException]()

    async def call(number: int) -> None:
        async with BrokerClient(f"neighbour {number}", endpoint) as client:
            while not stop.is_set():
                arguments = {"region": f"{number}-{calls[number]}"}
                result = await client.call_tool(server, "test_custom_header", arguments)
                assert result.content[0].text == arguments["region"]  # law 3
                calls[number] += 1

    async def all_of_them() -> None:
        await asyncio.gather(*map(call, range(NEIGHBOURS)))

    def run() -> None:
        try:
            asyncio.run(all_of_them())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield calls
    finally:
        stop.set()
        thread.join()
    assert not failed


@pytest.mark.parametrize(("server", "revision"), PAIRS)
def test_every_required_scenario_passes(
    door: RunningGateway, server: str, revision: str, tmp_path: Path
) -> None:
    """The requirement sets of the suite: all scored scenarios of both revisions."""
    passed = run_suite(door, server, revision, tmp_path)
    assert scored(revision) <= passed.keys()
    assert {name for name in scored(revision) | BEYOND[revision] if not passed[name]} == set()


@pytest.mark.parametrize(("server", "revision"), PAIRS)
def test_they_pass_beside_eight_other_clients(
    door: RunningGateway, broker: RunningBroker, server: str, revision: str, tmp_path: Path
) -> None:
    """Law 3 and law 5: the same process serves others all the while, and asks none of them."""
    with neighbours(broker.endpoint, server) as calls:
        passed = run_suite(door, server, revision, tmp_path)
    assert {name for name in scored(revision) if not passed[name]} == set()
    assert min(calls) > 0


def test_the_sets_are_as_large_as_they_are_said_to_be() -> None:
    """A set that cannot be read would pass."""
    assert {revision: len(scored(revision)) for revision in REVISIONS} == {"2026-07-28": 37, "2025-11-25": 30}
