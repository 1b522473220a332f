"""What the tests of `mcp-broker import` share: a folder with programs, a host's file, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.command.import_ import import_
from tests.command.importing.asking import Run, Write, programs


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """The folder that a service finds its programs in."""
    return programs(tmp_path / "bin", "npx", "uvx", "python3", "docker", "sh")


@pytest.fixture
def run(tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in `tmp_path`, where it writes its `broker.toml`; `path` is what `--path` says."""
    monkeypatch.chdir(tmp_path)

    def run(
        *args: object, path: object = bin_folder, language: str = "en", stdin: str = "", **environ: str
    ) -> Result:
        chosen = [*map(str, args), *(["--path", str(path)] if path else [])]
        env = {"MCP_BROKER_LANG": language, "HOME": str(tmp_path / "home"), **environ}
        return CliRunner().invoke(import_, chosen, input=stdin, env=env, catch_exceptions=False)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a host's file, given as text or as what its JSON says."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write
