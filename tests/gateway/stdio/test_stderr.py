"""The stderr of `connect`: a host that never reads it holds nothing up, and is told what it missed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.gateway.stdio.relay import Relay, SocketDir
from broker.gateway.stdio.stderr import Stderr
from tests.e2e.harness import PATIENCE_S, ROOT


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def fill(writer: int) -> int:
    """Fill a pipe; return how many bytes it took."""
    os.set_blocking(writer, False)
    size = 0
    try:
        while True:
            size += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
        return size


def test_what_is_not_taken_at_once_is_dropped_and_counted(pipe: tuple[int, int]) -> None:
    """The writer never waits; the reader is told once how much it missed."""
    reader, writer = pipe
    err = Stderr(writer)
    size = fill(writer)
    assert (err.write("lost\n"), err.write("lost too\n"), err.dropped) == (5, 9, 14)
    os.read(reader, size)
    err.write("here\n")
    assert os.read(reader, size) == (b"mcp-broker connect: nobody read stderr; 14 bytes were dropped\nhere\n")
    assert err.dropped == 0


def test_a_text_longer_than_the_pipe_is_cut(pipe: tuple[int, int]) -> None:
    """A traceback may be long."""
    reader, writer = pipe
    err = Stderr(writer)
    err.write("x" * 1_000_000)
    assert err.dropped == 1_000_000 - len(os.read(reader, 1_000_000)) > 0


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    err = Stderr(writer)
    err.write("lost\n")
    assert err.dropped == 5
    os.close(writer)


def test_a_folder_is_complained_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again every second, for as long as the gateway is away."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    folder = tmp_path / "gateway"
    folder.mkdir()
    folder.chmod(0o777)
    relay = Relay("one", [SocketDir(str(folder))], 0, 1)
    assert [relay.connect() for _ in range(3)] == [False] * 3
    assert shown.getvalue().count(str(folder)) > 0
    assert shown.getvalue().count("\n") == 1


def test_a_host_that_reads_no_stderr_is_served(pipe: tuple[int, int], tmp_path: Path) -> None:
    """The process starts, complains of the folder into a full pipe, and ends with its host."""
    _, writer = pipe
    fill(writer)
    (tmp_path / "mcp-broker/gateway").mkdir(parents=True)
    (tmp_path / "mcp-broker/gateway").chmod(0o777)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MCP_BROKER_")}
    ended = subprocess.run(
        [sys.executable, "-m", "broker", "connect", "one"],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"")
