"""Fixtures of the tests of `attach`, `detach`, `add` and `remove`: a home folder, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.command.cli import cli
from tests.command.attach.home import COMMAND, Home, programs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home, in which `sh`, `npx` and `uvx` are in PATH and no broker runs."""
    folder = tmp_path / "home"
    folder.mkdir()
    found = programs(tmp_path / "bin", "npx", "uvx", COMMAND)
    monkeypatch.chdir(folder)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    env = {
        "HOME": str(folder),
        "PATH": f"{found}:/usr/bin:/bin",
        "MCP_BROKER_LANG": "en",
        "MCP_BROKER_ENDPOINT": f"ipc://{tmp_path}/none.sock",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", [str(found / COMMAND)])
    return Home(folder, found, lambda *args, **keys: CliRunner().invoke(cli, list(args), **keys))
