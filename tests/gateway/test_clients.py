"""Real clients over HTTP: both lines of the Python SDK and of the TypeScript SDK, and the Inspector.

Each does the same with a server of either era: four cells of client era and server era.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, RunningBroker, running, script
from tests.e2e.test_path import MCP1
from tests.gateway.gateways import LEGACY, MODERN, RunningGateway, gateway

CLIENTS = Path(__file__).with_name("clients")
NODE_FOLDER = ROOT / "tests" / "node"
MODULES = NODE_FOLDER / "node_modules"
NODE = MODULES / f"node-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}" / "bin" / "node"
INSPECTOR = MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"

WAYS = {
    "python 1": ([str(MCP1), str(CLIENTS / "sdk1.py")], (), LEGACY),
    "python 2 legacy": ([sys.executable, str(CLIENTS / "sdk2.py")], ("legacy",), LEGACY),
    "python 2 auto": ([sys.executable, str(CLIENTS / "sdk2.py")], ("auto",), MODERN),
    "python 2 modern": ([sys.executable, str(CLIENTS / "sdk2.py")], (MODERN,), MODERN),
    "typescript 1": ([str(NODE), str(NODE_FOLDER / "client.mjs")], ("1",), LEGACY),
    "typescript 2 legacy": ([str(NODE), str(NODE_FOLDER / "client.mjs")], ("2", "legacy"), LEGACY),
    "typescript 2 auto": ([str(NODE), str(NODE_FOLDER / "client.mjs")], ("2", "auto"), MODERN),
    "typescript 2 modern": ([str(NODE), str(NODE_FOLDER / "client.mjs")], ("2", MODERN), MODERN),
}
"""client → its program, its further arguments, and the version that is agreed on."""

ASKS_WITHIN_CALLS: dict[str, Any] = {"serialized": True, "asks_within_calls": True}
SERVERS = {
    "modern": {
        "plain": script("tests/servers/sdk2_server.py"),
        "asking": script("tests/servers/sdk2_talkative.py"),
    },
    "legacy": {
        "plain": script("tests/servers/sdk1_server.py", python=str(MCP1)),
        "asking": script("tests/servers/sdk1_asking.py", python=str(MCP1), **ASKS_WITHIN_CALLS),
    },
}
"""era of the server → the servers: one that does not ask, and one that asks in the way of its era."""


@pytest.fixture(scope="module", params=["modern", "legacy"])
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    if request.param == "legacy" and not MCP1.exists():
        pytest.skip("`make test` installs the 1.x SDK into .venv-mcp1")
    with running(SERVERS[request.param]) as found:
        assert {server["era"] for server in found.status()["servers"]} == {request.param}
        yield found


@pytest.fixture(scope="module")
def door(broker: RunningBroker) -> Iterator[RunningGateway]:
    with gateway(broker) as found:
        yield found


def output_of(*command: str) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_a_client_finds_a_server(door: RunningGateway, broker: RunningBroker, way: str) -> None:
    """Lists, calls, progress, errors, resources, prompts, and a question of the server."""
    command, further, version = WAYS[way]
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed")
    url = f"http://127.0.0.1:{door.port}/mcp"
    seen: dict[str, Any] = json.loads(output_of(*command, url, door.token, *further))
    assert seen == {
        "version": version,
        "tools": ["add", "broken", "echo", "picture", "slow"],
        "sum": "5",
        "progress": [1, 2, 3],
        "failed": True,
        "note": "hello",
        "prompt": "Hello, Ann!",
        "order": "an order of tea: large",
    }
    assert broker.server("plain")["processes"] == 1  # law 1


@pytest.mark.skipif(not INSPECTOR.exists(), reason="`make node` has not installed the Inspector")
def test_the_inspector_finds_a_server(door: RunningGateway) -> None:
    """The MCP Inspector's command line."""
    url = f"http://127.0.0.1:{door.port}/mcp/plain"
    cli = [str(NODE), str(INSPECTOR), "--cli", url, "--transport", "http"]
    cli += ["--header", f"Authorization: Bearer {door.token}"]
    listed = json.loads(output_of(*cli, "--method", "tools/list"))
    assert {tool["name"] for tool in listed["tools"]} >= {"add", "echo"}
    call = ["--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3"]
    assert json.loads(output_of(*cli, *call))["content"][0]["text"] == "5"


@pytest.mark.parametrize("way", WAYS)
def test_a_client_with_another_token_is_told_at_once(door: RunningGateway, way: str) -> None:
    """A 401 begins no OAuth dance: no client looks for an authorization server, or hangs."""
    command, further, _ = WAYS[way]
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed")
    url = f"http://127.0.0.1:{door.port}/mcp"
    before = door.log().count("/.well-known/")
    done = subprocess.run(
        [*command, url, "another", *further],
        cwd=NODE_FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "401" in done.stderr or "token is not known" in done.stderr, done.stderr
    assert door.log().count("/.well-known/") == before
