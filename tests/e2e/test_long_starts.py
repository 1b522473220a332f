"""Starts as they are in the field: long downloads, deadlines that are named, servers that are left out."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from client_shim.errors import ServerDown
from tests.e2e.harness import SERVERS, rogue, running, toml
from tests.e2e.test_command import command

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unset": (
        rogue(env={"TOKEN": "${NO_SUCH_TOKEN_OF_ANYBODY}"}),
        "set NO_SUCH_TOKEN_OF_ANYBODY where the broker",
    ),
    "late": (rogue(timeout=-1), "write a number of seconds above 0"),
    "empty": ({"args": ["x"]}, "servers.empty.command: this key is missing"),
    "listed": ({"command": ["npx", "-y", "x"]}, "write the program as a string"),
}
"""Servers that cannot be started as their tables are, and a part of what is said."""

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
        for language, words in (("en", "`npx` may be downloading; limit 10s"), ("zh", "最多等待 10s")):
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
        said = ended["servers"][0]["last_error"]
        assert said.startswith(
            "it was not ready within 2 s (timeout_start_sec = 2; its next start has 500 s); "
        )
        assert said.endswith("; its last line was: waiting for the database")


# --- servers that are left out ----------------------------------------------------------------------------


def test_a_server_with_a_mistake_is_left_out_and_the_others_start() -> None:
    """`status` says why and what to do, calls to it are refused at once, and the log names it."""
    with running(
        {"fine": rogue(), **{name: table for name, (table, _) in BAD.items()}}, ready=False
    ) as broker:
        broker.wait_state("fine", "ready")
        printed = command("status", endpoint=broker.endpoint)
        assert printed.returncode == 1
        for name, (_, said) in BAD.items():
            row = broker.server(name)
            assert (row["state"], row["pid"], row["stopped_by_hand"]) == ("misconfigured", None, False)
            assert said in row["last_error"]
            assert "mcp-broker reload" in row["last_error"]
            assert said in printed.stdout
            with (
                broker.client() as client,
                pytest.raises(ServerDown, match=f"'{name}' was left out") as caught,
            ):
                client.request(name, "tools/call", {"name": "echo", "arguments": {}}, timeout_s=30)
            assert "mcp-broker reload" in str(caught.value.data["hint"])
            refused = command("start", name, endpoint=broker.endpoint)
            assert (refused.returncode, "was left out" in refused.stderr) == (1, True)
            assert f"server.misconfigured server={name} what=left-out" in broker.log()
        with broker.client() as client:
            assert client.request("fine", "tools/call", {"name": "echo", "arguments": {"n": 1}})


def test_a_server_that_was_left_out_comes_up_after_a_reload() -> None:
    """The table is corrected; the other server does not notice."""
    with running({"fine": rogue(), "late": BAD["late"][0]}, ready=False) as broker:
        pid = broker.wait_state("fine", "ready")["pid"]
        again = command("reload", endpoint=broker.endpoint)
        assert (again.returncode, "late: not started" in again.stdout, "timeout: " in again.stderr) == (
            1,
            True,
            True,
        )
        broker.write({"fine": rogue(), "late": rogue()})
        done = command("reload", endpoint=broker.endpoint)
        assert (done.returncode, "late: enabled, ready" in done.stdout) == (0, True)
        assert broker.server("late")["config_problems"] == []
        assert broker.server("late")["last_error"] is None
        assert broker.server("fine")["pid"] == pid


def test_a_reload_with_a_mistake_for_one_server_keeps_its_process() -> None:
    """It goes on by the table that it had; what is new for the others holds."""
    with running({"one": rogue(), "two": rogue()}) as broker:
        pid = broker.server("one")["pid"]
        broker.write({"one": rogue(timeout=0), "two": rogue(timeout=5), "three": rogue()})
        done = command("reload", endpoint=broker.endpoint)
        assert done.returncode == 1
        assert "one: runs with its earlier table" in done.stdout
        assert "two: timeout changed" in done.stdout
        assert "three: added, ready" in done.stdout
        row = broker.server("one")
        assert (row["state"], row["pid"], len(row["config_problems"])) == ("ready", pid, 1)
        shown = command("status", endpoint=broker.endpoint)
        assert "one: runs with its earlier table" in shown.stdout
        broker.write({"one": rogue(), "two": rogue(timeout=5), "three": rogue()})
        assert command("reload", endpoint=broker.endpoint).returncode == 0
        assert (broker.server("one")["pid"], broker.server("one")["config_problems"]) == (pid, [])


def test_a_key_that_is_misspelt_stops_everything(tmp_path: Path) -> None:
    """`serve` and `check` end with status 2 and name it, and the mistakes of the servers as well."""
    config = tmp_path / "broker.toml"
    tables = {
        "servers.fine": rogue(),
        "servers.odd": {**rogue(), "comand": "x"},
        "servers.late": BAD["late"][0],
    }
    config.write_text(toml(tables), encoding="utf-8")
    for verb in ("check", "serve"):
        done = command(verb, "--config", str(config))
        assert done.returncode == 2
        assert "servers.odd.comand: there is no such key; did you mean command?" in done.stderr
        assert "servers.late.timeout" in done.stderr


def test_check_names_the_servers_that_are_left_out(tmp_path: Path) -> None:
    """Exit status 1: the broker would serve the others. A mark at the start of the file harms nobody."""
    config = tmp_path / "broker.toml"
    text = toml({"servers.fine": rogue(), **{f"servers.{name}": table for name, (table, _) in BAD.items()}})
    config.write_text(f"\ufeff{text}", encoding="utf-8")
    done = command("check", "--config", str(config))
    assert done.returncode == 1, done.stderr
    assert f"fine: {sys.executable}" in done.stdout
    assert f"{len(BAD)} of {len(BAD) + 1} servers cannot be started" in done.stdout
    for name, (_, said) in BAD.items():
        assert f"servers.{name}." in done.stdout
        assert said in done.stdout
