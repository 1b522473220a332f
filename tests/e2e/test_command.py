"""The command: what it prints, and the exit status that scripts rely on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_shim import BrokerClient
from client_shim.blocking import BlockingClient
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, toml, wait_until


def command(
    *args: str, endpoint: str | None = None, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `mcp-broker` with these arguments, in English unless `env` says otherwise."""
    full = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **env}
    full.pop("MCP_BROKER_ENDPOINT", None)
    if endpoint is not None:
        args = (*args, "--endpoint", endpoint)
    return subprocess.run(
        [sys.executable, "-m", "broker", *args],
        cwd=cwd,
        env=full,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """Two ready servers, one of which is switched off."""
    with running({"one": rogue(), "two": rogue("--era", "modern"), "off": rogue(enabled=False)}) as broker:
        yield broker


SERVER_KEYS = {
    *("name", "state", "pid", "processes", "uptime_s", "restarts", "era", "protocol", "tools", "hidden"),
    *("in_flight", "queued", "calls", "errors", "questions", "dropped", "p50_ms", "p99_ms", "rss_bytes"),
    *("cpu_s", "stopped_by_hand", "retry_after_s", "last_error"),
}


def test_status_json_is_the_contract(broker: RunningBroker) -> None:
    """Every key that others rely on, with its type."""
    done = command("status", "--json", endpoint=broker.endpoint)
    assert done.returncode == 0
    status: dict[str, Any] = json.loads(done.stdout)
    assert set(status) == {"broker", "servers", "clients"}
    about = status["broker"]
    expected = {"pid", "version", "instance", "uptime_s", "endpoint", "config", "rss_bytes", "clients"}
    assert expected <= set(about)
    assert (about["pid"], about["endpoint"], about["config"]) == (
        broker.pid,
        broker.endpoint,
        str(broker.config),
    )
    rows = {server["name"]: server for server in status["servers"]}
    assert all(set(row) >= SERVER_KEYS for row in rows.values())
    assert [rows[name]["state"] for name in ("one", "two", "off")] == ["ready", "ready", "disabled"]
    assert [rows[name]["era"] for name in ("one", "two", "off")] == ["legacy", "modern", None]
    assert rows["one"]["processes"] == rows["two"]["processes"] == 1
    assert rows["one"]["rss_bytes"] > 1_000_000
    (client,) = status["clients"]
    assert {"id", "name", "pid", "uid", "channels", "since_s", "in_flight", "calls"} <= set(client)
    assert client["uid"] == os.getuid()


def test_status_is_a_table_for_people(broker: RunningBroker) -> None:
    """It fits 100 columns, names every server whole, and says in a sentence how it is."""
    done = command("status", endpoint=broker.endpoint)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "All 2 servers are ready." in done.stdout
    for word in ("one", "two", "off", "disabled", "p50/p99", "memory"):
        assert word in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("one ")]
    processes, cpu, memory = (row.split()[column] for column in (3, -2, -1))
    assert (processes, cpu[-1], memory[-1]) == ("1", "s", "M")  # of the whole tree
    assert "\x1b[" not in done.stdout  # no colour where there is no terminal


@pytest.mark.parametrize("columns", ["60", "80"])
@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
def test_status_keeps_names_and_numbers_on_a_narrow_terminal(
    broker: RunningBroker, columns: str, locale: str
) -> None:
    """Fewer columns, each of them whole."""
    done = command("status", endpoint=broker.endpoint, COLUMNS=columns, LC_ALL=locale)
    assert "…" not in done.stdout
    for pid in broker.pids().values():
        (row,) = [line for line in done.stdout.splitlines() if f" {pid} " in line]
        assert row.split()[0] in ("one", "two")
        assert row.rstrip().endswith("M")


def test_status_speaks_chinese(broker: RunningBroker) -> None:
    """What a person reads exists in Chinese, chosen by the locale."""
    done = command("status", endpoint=broker.endpoint, LC_ALL="zh_CN.UTF-8")
    assert "全部 2 个服务器均已就绪。" in done.stdout
    assert "就绪" in done.stdout


def test_status_tells_what_is_wrong_by_its_exit_status() -> None:
    """1 while a server is not ready, with the cause."""
    with running({"bad": rogue("--exit-at-start", "3", start_limit_burst=1)}, ready=False) as broker:
        broker.wait_state("bad", "broken")
        done = command("status", endpoint=broker.endpoint)
        assert done.returncode == 1
        assert "bad: it exited with status 3" in done.stdout
        assert re.search(r"; next try in [45]m\d+s, or now with `mcp-broker start bad`\n", done.stdout)
        (row,) = json.loads(command("status", "--json", endpoint=broker.endpoint).stdout)["servers"]
        assert 200 < row["retry_after_s"] <= 300
        assert row["stopped_by_hand"] is False
        assert "mcp-broker logs SERVER" in done.stdout, "law 10: what to do next"
        assert "0 of 1 server is ready." in done.stdout


def test_watch_draws_again_and_again(broker: RunningBroker) -> None:
    """`status --watch` goes on until it is interrupted."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-m", "broker", "status", "--watch", "--endpoint", broker.endpoint]
    watch = subprocess.Popen(args, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert watch.stdout is not None
        drawn = 0
        while drawn < 2:
            line = watch.stdout.readline()
            assert line, "it ended by itself"
            drawn += "mcp-broker" in line
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=PATIENCE_S)
        assert watch.returncode == 0
    finally:
        watch.kill()
        watch.communicate()


def test_tools(broker: RunningBroker) -> None:
    """All servers' tools, or one's, for people and for programs."""
    done = command("tools", endpoint=broker.endpoint)
    assert (done.returncode, "echo(" in done.stdout) == (0, True)
    listed = json.loads(command("tools", "one", "--json", endpoint=broker.endpoint).stdout)
    assert list(listed) == ["one"]
    assert "echo" in {tool["name"] for tool in listed["one"]}


def test_call(broker: RunningBroker) -> None:
    """The result on stdout, progress on stderr, and a failed tool is exit status 1."""
    done = command("call", "one", "echo", '{"text": "你好"}', endpoint=broker.endpoint)
    assert (done.returncode, done.stdout) == (0, '{"text":"你好"}\n')
    done = command("call", "two", "progress", '{"steps": 2}', endpoint=broker.endpoint)
    assert (done.stdout, done.stderr) == ("2 steps\n", "1/2 step 1\n2/2 step 2\n")
    assert (
        json.loads(command("call", "one", "empty", "--json", endpoint=broker.endpoint).stdout)["content"]
        == []
    )
    assert command("call", "one", "fail", endpoint=broker.endpoint).returncode == 1
    done = command("call", "one", "jsonrpc_error", '{"message": "坏了"}', endpoint=broker.endpoint)
    assert (done.returncode, "坏了" in done.stderr) == (1, True)


def test_logs_prints_what_a_server_wrote(broker: RunningBroker) -> None:
    """The last lines of its stderr, and with -f those that come."""
    command("call", "one", "stderr", '{"lines": 3, "bytes": 10}', endpoint=broker.endpoint)
    wait_until(lambda: command("logs", "one", endpoint=broker.endpoint).stdout.count("eee") >= 3)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-m", "broker", "logs", "one", "-f", "--endpoint", broker.endpoint]
    follow = subprocess.Popen(args, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert follow.stdout is not None
        assert follow.stdout.readline().startswith("1 e")
        command("call", "one", "stderr", '{"lines": 1, "bytes": 77}', endpoint=broker.endpoint)
        while len(follow.stdout.readline()) < 77:
            pass
        follow.send_signal(signal.SIGINT)
        follow.communicate(timeout=PATIENCE_S)
        assert follow.returncode == 0
    finally:
        follow.kill()
        follow.communicate()


def test_who_follows_a_broker_that_ends_is_told_that_and_nobody_is_warned() -> None:
    """An ordinary stop while somebody watches: status 3 for who does, and no warning in the log."""
    with running({"one": rogue("--ignore-eof", timeout_stop_sec=0.6)}) as broker:  # it is asked meanwhile
        args = [sys.executable, "-m", "broker", "logs", "-f", "one", "--endpoint", broker.endpoint]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        follow = subprocess.Popen(
            args, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert follow.stderr is not None
            assert "nothing so far" in follow.stderr.readline()  # it has connected and begun to ask
            broker.stop(signal.SIGTERM)
            _, said = follow.communicate(timeout=PATIENCE_S)
        finally:
            follow.kill()
            follow.communicate()
        assert follow.returncode == 3, said
        assert "look before you repeat it" not in said
        assert " warning " not in broker.log()


def test_stop_start_and_restart_say_what_became_of_the_calls() -> None:
    """Calls in flight may end, those that wait are refused by a stop and served after a restart."""
    with running({"one": rogue(max_in_flight=1), "off": rogue(enabled=False)}) as broker:
        before = broker.pids()["one"]
        done = command("restart", "one", endpoint=broker.endpoint)
        assert (done.returncode, done.stdout) == (
            0,
            "one: ready; calls: 0 ended, 0 sent again, 0 cut off, 0 waiting\n",
        )
        assert broker.pids()["one"] != before
        done = command("stop", "one", endpoint=broker.endpoint)
        assert (done.returncode, broker.pids()) == (0, {})
        shown = command("status", endpoint=broker.endpoint).stdout
        assert "one: stopped; `mcp-broker start one` starts it\n" in shown
        done = command("call", "one", "echo", endpoint=broker.endpoint)
        assert (done.returncode, "`mcp-broker start one` starts it" in done.stderr) == (1, True), done.stderr
        done = command("start", "one", endpoint=broker.endpoint)
        assert (done.returncode, "one: ready" in done.stdout) == (0, True)
        done = command("start", "one", endpoint=broker.endpoint)
        assert (done.returncode, done.stdout) == (0, "one: already running\n")
        assert command("call", "one", "echo", endpoint=broker.endpoint).returncode == 0
        assert "'off' is switched off" in command("restart", "off", endpoint=broker.endpoint).stderr
        assert "no server 'oen'" in command("stop", "oen", endpoint=broker.endpoint).stderr


def test_a_restart_lets_calls_end_and_serves_those_that_wait() -> None:
    """Nobody who called before or during a restart is left without an answer."""
    with running({"one": rogue(max_in_flight=1)}, limits={"drain_sec": 60.0}) as broker:

        async def main() -> None:
            async with BrokerClient("calls", broker.endpoint) as client:
                first = asyncio.create_task(client.call_tool("one", "sleep", {"seconds": 0.5}))
                while not (await client.status())["servers"][0]["in_flight"]:
                    await asyncio.sleep(0.01)
                second = asyncio.create_task(client.call_tool("one", "whoami"))
                while not (await client.status())["servers"][0]["queued"]:
                    await asyncio.sleep(0.01)
                before = broker.pids()["one"]
                moved = await client.request("$broker", "restart", {"server": "one"})
                assert (moved["ended"], moved["cut"], moved["waiting"]) == (1, 0, 1)
                assert (await first).content[0].text == "slept"
                assert json.loads((await second).content[0].text)["pid"] != before

        asyncio.run(main())


BAD_TIMES = ("0", "-1", "nan", "inf")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("call", "one", "echo", "{"), "not a JSON object"),
        (("call", "one", "echo", "[1]"), "not a JSON object: a list"),
        (("call", "one"), "Missing argument 'TOOL'"),
        (("nonsense",), "No such command 'nonsense'"),
        *((("call", "one", "echo", "--timeout", bad), "is not in the range x>0") for bad in BAD_TIMES),
    ],
)
def test_wrong_use_is_2(broker: RunningBroker, args: tuple[str, ...], words: str) -> None:
    """Exit status 2, and nothing is sent."""
    endpoint = broker.endpoint if args[0] == "call" and len(args) == 4 else None
    done = command(*args, endpoint=endpoint)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_status_of_the_broker_alone_is_its_health() -> None:
    """A server that is down makes no broker unhealthy; a socket that others were to open does."""
    with running({"bad": rogue("--exit-at-start", "3", start_limit_burst=1)}, ready=False) as broker:
        broker.wait_state("bad", "broken")
        done = command("status", "--broker", endpoint=broker.endpoint)
        assert (done.returncode, done.stdout.count("\n")) == (0, 1)
        assert done.stdout.startswith("mcp-broker ")
        shown = json.loads(command("status", "--broker", "--json", endpoint=broker.endpoint).stdout)
        assert (shown["broker"]["pid"], shown["servers"]) == (broker.pid, [])
        done = command("status", "--broker", endpoint=broker.endpoint, MCP_BROKER_SOCKET_MODE="0660")
        assert done.returncode == 1
        assert "has mode 0600" in done.stderr
        assert "remove socket_mode from [broker]" in done.stderr
        os.chmod(broker.endpoint.removeprefix("ipc://"), 0o660)
        done = command("status", "--broker", endpoint=broker.endpoint, MCP_BROKER_SOCKET_MODE="0660")
        assert done.returncode == 0
    assert command("status", "--broker", "one", endpoint=broker.endpoint).returncode == 2
    assert command("status", "--broker", endpoint=broker.endpoint).returncode == 3


@pytest.mark.parametrize(
    ("keys", "status"), [({}, 0), ({"socket_mode": "0600"}, 1), ({"socket_mode": "0660"}, 0)]
)
def test_check_sees_that_nobody_but_the_broker_can_connect(
    tmp_path: Path, keys: dict[str, str], status: int
) -> None:
    """The environment has a mode for the users beside it, as that of the image, and the config closes it."""
    config = tmp_path / "broker.toml"
    config.write_text(toml({"broker": keys, "servers.one": rogue()}))
    done = command("check", "--config", str(config), MCP_BROKER_SOCKET_MODE="0660")
    assert done.returncode == status
    assert ("nobody but the broker's user can connect" in done.stdout) == bool(status)


@pytest.mark.parametrize("args", [("status",), ("tools",), ("call", "one", "echo"), ("status", "--json")])
def test_no_broker_is_3(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Exit status 3, at once, with what to do."""
    done = command(*args, endpoint=f"ipc://{tmp_path}/none.sock")
    assert (done.returncode, "mcp-broker serve" in done.stderr) == (3, True), done.stderr


def test_a_wrong_config_never_starts_half_a_broker(tmp_path: Path) -> None:
    """Exit status 2 with every mistake at once; nothing is started, nothing listens."""
    path = tmp_path / "broker.toml"
    started = tmp_path / "started"
    tables = {
        "broker": {"endpoint": f"ipc://{tmp_path}/b.sock", "socket_mode": "rw"},
        "servers.good": rogue("--start-file", str(started)),
        "servers.bad": {"comand": "x", "timeout": "soon"},
    }
    path.write_text(toml(tables))
    for subcommand in ("serve", "check"):
        done = command(subcommand, "--config", str(path))
        assert done.returncode == 2
        for mistake in (
            "4 mistakes",
            "broker.socket_mode: this value does not fit; write three octal digits",
            "servers.bad.comand: there is no such key; did you mean command?",
            "servers.bad.command: this key is missing",
            "servers.bad.timeout: expected a number, got a string; write a number of seconds",
        ):
            assert mistake in done.stderr, done.stderr
    assert not started.exists()
    assert not (tmp_path / "b.sock").exists()


def test_check_tells_what_a_server_will_run(tmp_path: Path) -> None:
    """0 and the resolved programs; 1 where one cannot be found."""
    path = tmp_path / "broker.toml"
    path.write_text(toml({"servers.good": rogue(), "servers.off": {"command": "gone", "enabled": False}}))
    done = command("check", "--config", str(path))
    assert (done.returncode, f"good: {sys.executable}" in done.stdout) == (0, True)
    path.write_text(toml({"servers.lost": {"command": "no-such-command"}}))
    done = command("check", "--config", str(path))
    assert "1 of 1 server cannot be started" in done.stdout
    assert (done.returncode, "lost: there is no command 'no-such-command'" in done.stdout) == (1, True)


def test_check_tells_of_a_tool_for_the_doctor_that_is_hidden(tmp_path: Path) -> None:
    """The doctor is a client like every other one."""
    path = tmp_path / "broker.toml"
    for hidden, shown in (("get_*", False), ("delete_*", True)):
        path.write_text(
            f'[servers.s]\ncommand = "{sys.executable}"\n[servers.s.doctor]\ntool = "get_time"\n'
            f'[servers.s.tools]\nhide = ["{hidden}"]\n'
        )
        done = command("check", "--config", str(path))
        assert done.returncode == 0, done.stdout
        assert ("hides get_time" in done.stdout) is not shown


def test_check_tells_what_is_wrong_with_a_command_and_only_that(tmp_path: Path) -> None:
    """A mend of its own for each; where else a command is, only where none was found."""
    path, script = tmp_path / "broker.toml", tmp_path / "srv.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    servers = {"moved": {"command": "cat", "cwd": "gone"}, "bare": {"command": "srv.sh"}}
    servers["home"] = {"command": "~/srv.sh"}
    path.write_text(toml({f"servers.{name}": server for name, server in servers.items()}))
    moved, bare, home, *rest = command("check", "--config", str(path)).stdout.splitlines()
    assert moved.endswith("/gone' is not a folder; correct cwd in [servers.moved]")
    assert bare.endswith("write ./srv.sh as command in [servers.bare]")
    assert home.endswith("write the whole path instead of ~ as command in [servers.home]")
    assert rest == [f"{path}: 3 of 3 servers cannot be started"]


def test_one_of_a_thing_is_said_as_one(tmp_path: Path, broker: RunningBroker) -> None:
    """1 mistake, 1 client, 1 server; 2 servers."""
    path = tmp_path / "broker.toml"
    path.write_text(toml({"servers.a": {"comand": "x", "command": sys.executable}}))
    assert command("check", "--config", str(path)).stderr.startswith(f"mcp-broker: {path}: 1 mistake\n")
    path.write_text(toml({"servers.a": rogue()}))
    assert command("check", "--config", str(path)).stdout.endswith(": fine, 1 server\n")
    path.write_text(toml({"servers.a": rogue(), "servers.b": rogue()}))
    assert command("check", "--config", str(path)).stdout.endswith(": fine, 2 servers\n")
    with BlockingClient(broker.endpoint, name="屏幕后端"):
        status = command("status", endpoint=broker.endpoint).stdout
    assert ", 1 client, " in status
    assert f"\nclient 屏幕后端 (pid {os.getpid()}): 1 connection, " in status


def test_no_config_at_all_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Exit status 2 and the two places."""
    done = command("serve", cwd=tmp_path)
    assert (done.returncode, "broker.toml" in done.stderr, "--config" in done.stderr) == (2, True, True)
