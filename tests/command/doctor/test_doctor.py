"""`mcp-broker doctor` on a running broker: what it measures, what it prints, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.command.doctor import comparison, examination, machine, pages
from broker.command.doctor.command import doctor
from broker.command.doctor.pages import PageLoad
from client_shim import BrokerClient
from client_shim.blocking import BlockingClient
from tests.e2e.harness import LED_SCREEN, PATIENCE_S, ROOT, RunningBroker, Table, rogue, running, wait_until

ENGLISH = {"LC_ALL": "C.UTF-8", "COLUMNS": "100"}


def own(name: str, table: Table) -> dict[str, Any]:
    """The same server with a command line of its own: other tests may run the same at the same time."""
    return {**table, "args": ["-X", f"of={name}-{os.getpid()}", *table["args"]]}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """How busy a broker at rest is does not matter here."""
    monkeypatch.setattr(examination, "QUIET_S", 0.02)


def run(broker: RunningBroker, *args: str, **env: str) -> Result:
    """Run the command, in English unless `env` says otherwise."""
    return CliRunner().invoke(doctor, [*args, "--endpoint", broker.endpoint], env={**ENGLISH, **env})


def start(broker: RunningBroker, *args: str) -> subprocess.Popen[str]:
    """Start the command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "broker", "doctor", *args, "--endpoint", broker.endpoint],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **ENGLISH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def plain(text: str) -> str:
    """As if it stood on one line."""
    return " ".join(text.split())


def codes(report: dict[str, Any]) -> set[tuple[str, str | None]]:
    """What was found, but for the remarks on few pages and on no backend."""
    usual = {("few_pages", None), ("no_backend", None)}
    return {(one["code"], one["server"]) for one in report["findings"]} - usual


def of_the_old_way() -> list[int]:
    """Processes that a comparison has started, anybody's."""
    mark = comparison.MARK.encode()
    return [pid for pid in machine.tasks() if any(name == mark.decode() for name in machine.environ(pid))]


# --- a broker that is well ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy() -> Iterator[RunningBroker]:
    """The LED screen's servers, one of the new era, one that is a tree of two, and one switched off."""
    servers = {name: own(name, table) for name, table in LED_SCREEN.items()}
    servers["modern"] = own("modern", rogue("--era", "modern"))
    servers["tree"] = own("tree", rogue("--fork-at-start", "child"))
    servers["off"] = rogue(enabled=False)
    tables: dict[str, Any] = {
        "servers.time.doctor": {"tool": "get_current_time", "arguments": {"timezone": "Asia/Tokyo"}},
        "servers.modern.doctor": {"tool": "echo"},
    }
    with running(servers, **tables) as broker:
        yield broker


def test_a_healthy_broker_is_an_a(healthy: RunningBroker) -> None:
    """Exit status 0, the record table of the guide, and why one process per server is right."""
    process = start(healthy, "--cycles", "6")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Verdict: A for the broker." in out) == (0, True), out + err
    rows = [line.split() for line in out.splitlines()]
    record = [row[2:4] for row in rows if row[:1] and row[0].isdecimal()]
    assert record == [["8", way] for way in ("closed", "forgotten") * 3]
    assert "Pages opened and left: 6, without closing their client: 3." in out
    assert "The correct number is one process tree per server, always" in out
    assert "tree: its tree has 2 processes, the same after each page" in out
    assert "\x1b[" not in out  # no colour where there is no terminal
    assert max(map(len, out.splitlines())) <= 100
    told = [line.split(":")[0] for line in err.splitlines() if "page" in line]
    assert told == [f"page {n}/6" for n in range(1, 7)]


def test_it_speaks_chinese(healthy: RunningBroker) -> None:
    """By `--lang`, or by the locale; what it says meanwhile, too."""
    chosen: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("--lang", "zh"), {}),
        ((), {"LC_ALL": "zh_CN.UTF-8"}),
    )
    for args, env in chosen:
        done = run(healthy, "--cycles", "1", *args, **env)
        assert done.exit_code == 0, done.output
        assert "判定：broker 为 A。" in done.stdout
        assert "每个服务器始终恰好有一个进程" in done.stdout
        assert "第 1/1 页" in done.stderr


def test_json_is_for_programs(healthy: RunningBroker) -> None:
    """One object: the verdict, what was found by its code, every page and server, before and after."""
    done = run(healthy, "--cycles", "2", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code, report["verdict"]) == (0, "A"), done.output
    assert codes(report) == {("wrapped", "tree"), ("no_tool", None)}
    assert {"text", "why", "rule", "broker_version", "comparison", "no_comparison"} <= set(report)
    assert (report["endpoint"], report["clients_left"]) == (healthy.endpoint, 0)
    first, second = report["pages"]
    assert (first["number"], first["closed"], first["processes"]) == (1, True, 8)
    assert (second["number"], second["closed"], second["processes"]) == (2, False, 8)
    assert 0 < first["open_s"] <= first["took_s"]
    called = {visit["server"]: (visit["tool"], visit["chosen"]) for visit in first["visits"]}
    assert called["time"] == ("get_current_time", "config")
    assert called["laundry-assistant"] == ("list_machines", "doctor")
    assert "off" not in called
    for moment in (report["before"], report["after"]):
        assert (moment["load"]["processes"], moment["strays"]) == (8, [])
        assert moment["load"]["rss_bytes"] > 100_000_000
        assert moment["load"]["cpu_percent"] >= 0


def test_the_comparison() -> None:
    """The old way grows by every server at each page, the broker does not; nothing of the old way is left."""
    servers = {
        "one": own("one", rogue()),
        "two": own("two", rogue()),
        "modern": own("modern", rogue("--era", "modern")),
    }
    with running(servers) as broker:
        report = json.loads(run(broker, "--cycles", "2", "--compare", "--json").stdout)
        assert [page["processes"] for page in report["pages"]] == [3, 3]
        old = report["comparison"]
        assert [page["processes"] for page in old["pages"]] == [3, 6]
        # A server of the new era does not know `initialize`; it was started nevertheless.
        assert [set(page["failed"]) for page in old["pages"]] == [{"modern"}, {"modern"}]
        assert (old["left"], of_the_old_way()) == (0, [])
        drawn = plain(run(broker, "--cycles", "1", "--compare").stdout)
        assert "1 old way 3 ████████████████" in drawn
        assert "After page 1: 3 processes" in drawn
        assert of_the_old_way() == []


def test_an_a_says_what_it_proves(healthy: RunningBroker) -> None:
    """With no backend only the broker is proven; with one, the report names it; a command is no backend."""
    alone = run(healthy, "--cycles", "1", "--lang", "en")
    with (
        BlockingClient(healthy.endpoint, name="屏幕后端"),
        BlockingClient(healthy.endpoint, name="mcp-broker"),
    ):
        served = [run(healthy, "--cycles", "1", *form) for form in ((), ("--markdown",), ("--json",))]
    said = plain(alone.stdout)
    assert "Connected during the test: nobody but the doctor" in said
    assert "It does not prove that your backend uses the broker." in said
    assert all(command in said for command in ("`pgrep -fa WORD`", "`docker top CONTAINER`"))
    for done in served[:2]:
        assert "Verdict: A, fixed." in done.stdout
        assert "屏幕后端" in done.stdout
        assert "pgrep" not in done.stdout
    report = json.loads(served[2].stdout)
    assert (report["clients"], report["verdict"]) == ({"屏幕后端": 1}, "A")


# --- brokers that are not -----------------------------------------------------------------------------


def test_a_server_that_does_not_work_is_a_b_and_named() -> None:
    """Exit status 1, which server it is, its last error, and what to do; the good one is not blamed."""
    servers = {
        "good": own("good", rogue()),
        "shaky": own("shaky", rogue()),
        "lost": {"command": "no-such-command", "start_limit_burst": 1},
    }
    tables: dict[str, Any] = {
        "servers.good.doctor": {"tool": "echo"},
        "servers.shaky.doctor": {"tool": "crash"},
    }
    with running(servers, ready=False, **tables) as broker:
        broker.wait_state("lost", "broken")
        broker.wait_state("shaky", "ready")
        broker.wait_state("good", "ready")
        done = run(broker, "--cycles", "2")
        assert (done.exit_code, "Verdict: B, partly fixed." in done.stdout) == (1, True), done.output
        said = plain(done.stdout)
        assert "lost: it is not ready (broken): there is no command 'no-such-command'" in said
        assert "then run `mcp-broker restart lost`" in said
        assert "shaky: it exited while pages used it, 1×: it exited with status 1" in said
        assert "`mcp-broker logs shaky`" in said
        assert "good: " not in said


def test_a_leak_is_a_c() -> None:
    """A server that keeps a process at each use: not fixed, with the likely cause; here in Markdown."""
    tables: dict[str, Any] = {"servers.leaky.doctor": {"tool": "spawn"}}
    with running({"leaky": own("leaky", rogue())}, **tables) as broker:
        done = run(broker, "--cycles", "6", "--markdown")
        assert (done.exit_code, "**Verdict: C, not fixed.**" in done.stdout) == (1, True), done.output
        assert re.search(
            r"^- leaky: its processes grow page by page, from 1 to \d\.", done.stdout, re.MULTILINE
        )
        head, rule, *rows = (line for line in done.stdout.splitlines() if line.startswith("|"))
        assert head == "| page | answer time, s | processes | client | remark |"
        assert rule == "| --- | --- | --- | --- | --- |"
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[:6]]
        assert [cell[0] for cell in cells] == ["1", "2", "3", "4", "5", "6"]
        counts = [int(cell[2]) for cell in cells]
        assert counts == sorted(counts)
        remarks = [cell[4] for before, cell in pairwise(cells) if before[2] != cell[2]]
        assert remarks
        assert all(re.fullmatch(r"leaky: \d → \d processes", remark) for remark in remarks)


def test_servers_beside_the_broker_are_found(tmp_path: Path) -> None:
    """A backend that still starts servers, and what a broker that is gone has left: who it is."""
    uvx = tmp_path / "uvx"
    uvx.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    uvx.chmod(0o755)
    servers = {"one": {**own("one", rogue()), "command": str(uvx)}, "two": own("two", rogue())}
    left_over = {**os.environ, machine.COOKIE.decode().rstrip("="): "of-another-broker"}
    with running(servers) as broker:
        ours = [
            subprocess.Popen([sys.executable, *servers[name]["args"]], stdin=subprocess.PIPE, env=env)
            for name, env in (("one", None), ("two", left_over))
        ]
        try:
            examining = start(broker, "--cycles", "1", "--json")  # what it starts itself is no stray
            report = json.loads(examining.communicate(timeout=PATIENCE_S)[0])
        finally:
            for stray in ours:
                stray.communicate()
        assert report["verdict"] == "B"
        assert codes(report) >= {("beside", "one"), ("orphan", "two"), ("runtime", None)}
        beside, orphan = sorted(report["after"]["strays"], key=lambda stray: stray["server"])
        assert [stray["pid"] for stray in (beside, orphan)] == [one.pid for one in ours]
        assert f"(pid {os.getpid()})" in beside["by"]
        assert json.loads(run(broker, "--cycles", "1", "--json").stdout)["verdict"] == "A"


def test_pages_that_are_not_released_are_a_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a client kept, by the shim or by the broker, it would be counted: law 4 is measured."""
    kept: list[BrokerClient] = []

    async def open_and_keep(name: str, endpoint: str, *, close: bool) -> PageLoad:
        kept.append(BrokerClient(name, endpoint))
        await kept[-1].connect()
        return await pages.open_page(name, endpoint, close=close)

    monkeypatch.setattr(examination, "open_page", open_and_keep)
    monkeypatch.setattr(examination, "RELEASE_WAIT_S", 0.0)
    with running({"one": own("one", rogue())}) as broker:
        done = run(broker, "--cycles", "1", "--json")
        assert done.exit_code == 1, done.output
        assert ("left", None) in codes(json.loads(done.stdout))


# --- how it ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "flags"),
    [(signal.SIGINT, ["--ignore-sigterm", "--ignore-eof"]), (signal.SIGHUP, [])],
    ids=["Ctrl-C", "closed terminal"],
)
def test_an_interrupted_comparison_leaves_nothing(number: signal.Signals, flags: list[str]) -> None:
    """Ctrl-C and a closed terminal: every process of the old way is ended, however it was started."""
    servers = {"one": own("one", rogue("--fork-at-start", "setsid")), "two": own("two", rogue())}
    with running(servers) as broker:
        # From here on, who reads the config gets a server that never answers, and may not end when asked to.
        text = broker.config.read_text()
        two = json.dumps(servers["two"]["args"])
        stubborn = json.dumps([*servers["two"]["args"], "--silent", *flags])
        broker.config.write_text(text.replace(two, stubborn))
        process = start(broker, "--cycles", "1", "--compare")
        wait_until(lambda: len(of_the_old_way()) == 3, of_the_old_way)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) in ((130, ""), (143, "")), err
        assert of_the_old_way() == []
        assert broker.wait_ready()


def test_a_config_that_cannot_be_read_is_no_comparison() -> None:
    """The verdict is given nevertheless, with why there is no comparison."""
    with running({"one": own("one", rogue())}) as broker:
        broker.config.unlink()
        done = run(broker, "--cycles", "1", "--compare", "--markdown")
        assert done.exit_code == 0, done.output
        assert f"No comparison: cannot read the broker's config {broker.config}" in done.stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("--cycles", "0"), 2, "--cycles"),
        (("--json", "--markdown"), 2, "--json and --markdown exclude each other"),
        (("--lang", "fr"), 2, "--lang"),
        ((), 3, "mcp-broker serve"),
        (("--compare", "--json"), 3, "mcp-broker serve"),
    ],
)
def test_wrong_use_is_2_and_no_broker_is_3(
    tmp_path: Path, args: tuple[str, ...], status: int, words: str
) -> None:
    """The exit statuses of every command, at once, with what to do."""
    done = CliRunner().invoke(doctor, [*args, "--endpoint", f"ipc://{tmp_path}/none.sock"])
    assert (done.exit_code, done.stdout) == (status, "")
    assert words in done.stderr
