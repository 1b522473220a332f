"""Start-up, without a clock: what is loaded; and clients are served before any server is ready."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.command import socket_mode
from broker.config.loading import OF_ENVIRONMENT
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import ROOT, RunningBroker, rogue, running

_COMMAND = """\
import sys
from broker.__main__ import main
try:
    status = main()
except SystemExit as ended:
    status = ended.code
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One server is ready, and one never will be."""
    servers = {"fine": rogue(), "silent": rogue("--silent", protocol="legacy", timeout_start_sec=600)}
    with running(servers, ready=False) as broker:
        broker.wait_state("fine", "ready")
        broker.wait_state("silent", "handshake")
        yield broker


def command(*arguments: str, language: str = "en") -> tuple[list[str], dict[str, str]]:
    """The command line in a process that tells on stderr what it has loaded, and its environment."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_LANG": language, "PYTHONUTF8": "1"}
    return [sys.executable, "-c", _COMMAND, *arguments], environ


def loaded(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints into a pipe, and which modules that took."""
    line, environ = command(*arguments)
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["tools", "fine"]])
def test_a_command_into_a_pipe_loads_little(broker: RunningBroker, arguments: list[str]) -> None:
    """`mcp-broker status` has no asyncio and no rich, and nothing of the daemon: it asks and prints."""
    printed, modules = loaded(*arguments, "--endpoint", broker.endpoint)
    assert "fine" in printed
    unwanted = {"asyncio", "concurrent.futures", "ssl", "rich", "trio", "mcp", "pydantic", "msgspec"}
    assert modules & unwanted == set()
    of_core = {name for name in modules if name.startswith("broker.core.")}
    assert of_core <= {
        "broker.config.names",
        "broker.base.secrets",
    }  # to quote a name, to mask a secret: 4 ms


def test_a_command_on_a_terminal_draws(broker: RunningBroker) -> None:
    """On a terminal it is rich that draws, in colour; still without asyncio."""
    ours, theirs = pty.openpty()
    line, environ = command("status", "--endpoint", broker.endpoint)
    environ |= {"TERM": "xterm-256color", "COLUMNS": "120"}
    environ.pop("NO_COLOR", None)
    done = subprocess.run(
        line, env=environ, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 1, done.stderr  # one is not ready
    assert "\x1b[32m" in shown
    assert "fine" in shown
    modules = set(done.stderr.splitlines()[-1].split())
    assert "rich" in modules
    assert "asyncio" not in modules


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_table_in_a_pipe_has_straight_columns(broker: RunningBroker, language: str) -> None:
    """Chinese characters are two columns wide; a figure stands below the end of its heading."""
    line, environ = command("status", "--endpoint", broker.endpoint, language=language)
    printed = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60).stdout
    lines = printed.splitlines()
    first = next(number for number, text in enumerate(lines) if text.startswith("fine"))
    head, *rows = lines[first - 1 : first + 2]
    assert rows[1].startswith("silent")
    assert {columns(text) for text in rows} == {columns(head)}, printed


def columns(text: str) -> int:
    """Its width in columns of a terminal."""
    return sum(2 if ord(char) > 0x2E80 else 1 for char in text)


def test_clients_are_served_before_servers_are_ready(broker: RunningBroker) -> None:
    """The broker answers about itself, and its other server works, while one has not even greeted."""
    with broker.client() as client:
        known = client.request(MANAGEMENT, "servers")["servers"]
        assert [server["state"] for server in known] == ["ready", "handshake"]
        assert client.request("fine", "tools/call", {"name": "echo", "arguments": {"n": 1}})


def test_the_broker_listens_before_it_starts_servers() -> None:
    """Its first log line about a server comes after the one that says where it listens."""
    with running({"fine": rogue()}) as broker:
        lines = broker.log().splitlines()
        listening = next(number for number, line in enumerate(lines) if "broker.listening" in line)
        first = next(number for number, line in enumerate(lines) if "server.ready" in line)
        assert listening < first


def test_the_broker_loads_no_more_than_it_runs_on() -> None:
    """Nothing of asyncio, of the SDK or of what draws: the time of its imports is the time of its start."""
    code = "import sys, broker.daemon, broker.service.logging; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    unwanted = {"asyncio", "rich", "click", "mcp", "pydantic", "multiprocessing", "prometheus_client"}
    assert set(done.stdout.split()) & unwanted == set()


def test_the_command_knows_the_variable_without_the_config() -> None:
    """`status` looks at the socket's mode, and loads nothing that reads a config."""
    assert OF_ENVIRONMENT["socket_mode"] == socket_mode.VARIABLE
