"""Hosts that others have written, before servers of both eras: the four cells, by both kinds of bridge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, running, script
from tests.e2e.test_path import MCP1
from tests.gateway.bridges import socket_door, sockets_of
from tests.gateway.test_clients import INSPECTOR, NODE, output_of

SERVERS = {
    "legacy": script("tests/servers/sdk1_server.py", python=str(MCP1)),
    "modern": script("tests/servers/sdk2_server.py"),
    "asks": script("tests/servers/everything.py"),
}
CLIENT = str(ROOT / "tests/gateway/sdk_client.py")
NODE_HOST = ROOT / "tests/node/host.mjs"
HOSTS = {
    "sdk 1.x": [str(MCP1), CLIENT, "legacy"],
    "sdk 2.x": [sys.executable, CLIENT, "legacy"],
    "2026": [sys.executable, CLIENT, "auto"],
    "typescript": [str(NODE), str(NODE_HOST)],
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running(SERVERS) as broker, socket_door(broker, *SERVERS):
        yield broker


def host(broker: RunningBroker, host: str, server: str, *, held: bool) -> dict[str, Any]:
    """What a host sees of a server behind `connect`."""
    if host == "typescript" and not has_node():
        pytest.skip("`make node` installs the TypeScript SDK")
    sockets = str(broker.folder / "no-gateway") if held else str(sockets_of(broker))
    env = {**os.environ, "MCP_BROKER_ENDPOINT": broker.endpoint, "MCP_BROKER_SOCKETS": sockets}
    bridge = [sys.executable, "-m", "broker", "connect", server]
    done = subprocess.run(
        [*HOSTS[host], *bridge],
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=2 * PATIENCE_S,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


needs_sdk1 = pytest.mark.skipif(not MCP1.exists(), reason="`make test` installs the 1.x SDK")


def has_node() -> bool:
    """Whether the TypeScript SDK can be run here."""
    sdk = NODE_HOST.parent / "node_modules/@modelcontextprotocol/sdk/package.json"
    return sdk.exists() and NODE.exists()


@needs_sdk1
@pytest.mark.parametrize("held", [False, True], ids=["relay", "held"])
@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("name", HOSTS)
def test_a_host_of_either_era_uses_a_server_of_either_era(
    broker: RunningBroker, name: str, server: str, held: bool
) -> None:
    """Lists, calls with progress, an error of a tool, a resource, a prompt, an unknown tool."""
    found = host(broker, name, server, held=held)
    assert found["version"] == ("2026-07-28" if name == "2026" else "2025-11-25")
    assert found["server"] == {"legacy": "sdk1", "modern": "sdk2"}[server]
    assert (found["sum"], found["is_error"]) == ("5", True)
    # The TypeScript SDK drops progress that arrives together with the answer.
    assert found["progress"] in ([[1, 2], [1, 2, 3]] if name == "typescript" else [[1, 2, 3]])
    assert (found["note"], found["prompt"]) == ("hello", "Hello, Bo!")
    assert "no-such-tool" in found["unknown"]


@needs_sdk1
@pytest.mark.parametrize("name", HOSTS)
def test_a_host_of_either_era_is_asked(broker: RunningBroker, name: str) -> None:
    """An `elicitation/create` for a legacy host, `input_required` for a modern one; either answers."""
    assert host(broker, name, "asks", held=False)["asked"] == "Hello, Ann!"


@needs_sdk1
@pytest.mark.skipif(not INSPECTOR.exists(), reason="`make node` has not installed the Inspector")
@pytest.mark.parametrize("held", [False, True], ids=["relay", "held"])
@pytest.mark.parametrize("server", ["legacy", "modern"])
def test_the_inspector_starts_the_bridge(broker: RunningBroker, server: str, held: bool) -> None:
    """The MCP Inspector's command line, as a host that starts `mcp-broker connect`."""
    sockets = broker.folder / "no-gateway" if held else sockets_of(broker)
    env = {"PYTHONPATH": ROOT, "MCP_BROKER_SOCKETS": sockets, "MCP_BROKER_ENDPOINT": broker.endpoint}
    given = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    cli = [str(NODE), str(INSPECTOR), "--cli", *given, sys.executable, "-m", "broker", "connect", server]
    listed = json.loads(output_of(*cli, "--method", "tools/list"))
    assert {tool["name"] for tool in listed["tools"]} >= {"add", "echo"}
    call = ["--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3"]
    assert json.loads(output_of(*cli, *call))["content"][0]["text"] == "5"
