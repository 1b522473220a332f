"""Starts as they are in the field: long downloads, deadlines that are named, servers that are left out."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import SERVERS, rogue, running
from tests.e2e.test_command import command

SERVE = shlex.join([sys.executable, "-I", "-S", str(SERVERS / "rogue.py")])

DOWNLOADS = {
    "stderr moves": "for n in 1 2 3 4 5 6 7 8; do echo downloading $n of 8 >&2; sleep 0.4; done",
    "nothing is said": "sleep 3",
}


def runner(folder: Path, download: str, name: str = "npx", **keys: Any) -> dict[str, Any]:
    """A server behind a package runner of this name, which downloads first."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{download}\nexec {SERVE}\n", encoding="utf-8")
    program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return {"command": name, "args": ["-y", "@example/server"], "env": {"PATH": path}, **keys}


@pytest.mark.parametrize("download", DOWNLOADS.values(), ids=DOWNLOADS)
def test_a_download_is_not_ended(download: str, tmp_path: Path) -> None:
    """An `npx` whose tree lives has longer than `timeout_start_sec`, and comes to ready."""
    with running({"slow": runner(tmp_path, download, timeout_start_sec=1)}) as broker:
        assert (broker.server("slow")["restarts"], broker.server("slow")["last_error"]) == (0, None)
        broker.wait_log("server.more_time server=slow runner=npx")


def test_a_download_is_shown(tmp_path: Path) -> None:
    """`status` has the newest lines of a server that is still starting, and how long it may take."""
    download = "echo 'Downloading torch (800.0MiB)' >&2; sleep 600"
    with running({"slow": runner(tmp_path, download, timeout_start_sec=1)}, ready=False) as broker:
        seen = broker.wait(lambda seen: (seen["servers"][0]["start"] or {}).get("extended", False))
        row = seen["servers"][0]
        assert row["last_lines"] == ["Downloading torch (800.0MiB)"]
        assert (row["start"]["timeout_start_sec"], row["start"]["at_most_s"]) == (1.0, 10.0)
        for language, words in (("en", "`npx` may be downloading, for 10s at most"), ("zh", "最多 10s")):
            printed = command("status", endpoint=broker.endpoint, MCP_BROKER_LANG=language).stdout
            assert words in printed
            assert "    Downloading torch (800.0MiB)" in printed


def test_a_download_without_an_end_is_ended(tmp_path: Path) -> None:
    """Ten times `timeout_start_sec`, and the reason names both, with what it wrote last."""
    download = "echo 'Downloading torch (800.0MiB)' >&2; sleep 600"
    with running({"slow": runner(tmp_path, download, timeout_start_sec=0.3)}, ready=False) as broker:
        said = str(broker.wait_state("slow", "backoff", "broken")["last_error"])
        assert "it was not ready within 3 s (timeout_start_sec = 0.3" in said
        assert said.endswith("its last line was: Downloading torch (800.0MiB)")


def test_the_deadline_that_applied_is_named() -> None:
    """Seen: a reload during the start, and the new value was named for the old one."""
    server = rogue("--silent", "--stderr-at-start", "waiting for the database", protocol="legacy")
    with running({"one": {**server, "timeout_start_sec": 2}}, ready=False) as broker:
        broker.wait_state("one", "handshake")
        row = broker.wait(lambda seen: seen["servers"][0]["last_lines"] != [])["servers"][0]
        assert row["last_lines"] == ["waiting for the database"]
        assert not row["start"]["extended"]
        broker.write({"one": {**server, "timeout_start_sec": 500}})
        assert "timeout_start_sec" in command("reload", "--no-wait", endpoint=broker.endpoint).stdout
        ended = broker.wait(lambda seen: seen["servers"][0]["last_error"] is not None)
        assert ended["servers"][0]["last_error"] == (
            "it was not ready within 2 s (timeout_start_sec = 2; its next start has 500 s); "
            "its last line was: waiting for the database"
        )
