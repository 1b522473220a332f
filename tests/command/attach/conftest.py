"""Fixtures of the tests of `attach`, `detach`, `add` and `remove`: a home folder, and the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.command.cli import cli
from client_shim.transport.endpoint import SYSTEM_SOCKET, VARIABLE
from tests.command.attach.home import COMMAND, Home, programs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home, in which `sh`, `npx` and `uvx` are in PATH and no broker runs."""
    folder = tmp_path / "home"
    folder.mkdir()
    found = programs(tmp_path / "bin", "npx", "uvx", COMMAND)
    monkeypatch.chdir(folder)
    if os.path.lexists(SYSTEM_SOCKET):
        pytest.skip("a broker of the system is installed here, which the command would change")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    env = {
        "HOME": str(folder),
        "PATH": f"{found}:/usr/bin:/bin",
        "MCP_BROKER_LANG": "en",
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", [str(found / COMMAND)])
    return Home(folder, found, lambda *args, **keys: CliRunner().invoke(cli, list(args), **keys))
