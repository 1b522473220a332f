"""The command where its output fails, or its reader has seen enough: a status and a line, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import pytest
import tomli

from broker.command.common import explanation
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running

ARGS = (sys.executable, "-m", "broker")


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One ready server."""
    with running({"one": rogue()}) as broker:
        yield broker


def popen(broker: RunningBroker, *args: str, **more: Any) -> subprocess.Popen[bytes]:
    """The command as a client of that broker, its stderr read by the test."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint}
    environ |= {"MCP_BROKER_LANG": "en", **more.pop("env", {})}
    return subprocess.Popen([*ARGS, *args], cwd=ROOT, env=environ, stderr=subprocess.PIPE, **more)


def test_a_terminal_without_chinese_gets_escapes(broker: RunningBroker) -> None:
    """`PYTHONIOENCODING=latin-1`, or a locale of another age."""
    env = {"PYTHONIOENCODING": "latin-1", "MCP_BROKER_LANG": "zh"}
    with popen(broker, "status", stdout=subprocess.PIPE, env=env) as command:
        out, err = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, err) == (0, b"")
    assert "就绪".encode("unicode_escape") in out


@pytest.mark.parametrize("args", [("status",), ("status", "--json"), ("tools",), ("--help",)])
def test_a_full_disk_is_a_line(broker: RunningBroker, args: tuple[str, ...]) -> None:
    """`mcp-broker status >/dev/full`: status 1, and what the system says about it."""
    with open("/dev/full", "w") as full, popen(broker, *args, stdout=full) as command:
        _, err = command.communicate(timeout=PATIENCE_S)
    said = b"mcp-broker: cannot write the output: No space left on device\n"
    assert (command.returncode, err) == (1, said)


def test_a_reader_that_has_seen_enough_hears_nothing(broker: RunningBroker) -> None:
    """`mcp-broker status | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    with popen(broker, "status", stdout=writing) as command:
        os.close(writing)
        _, err = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, err) == (1, b"")


def test_a_closed_output_is_no_error(broker: RunningBroker) -> None:
    """`mcp-broker status >&-`: who closes it wants the exit status only."""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *ARGS, "status", "--endpoint", broker.endpoint]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("module", ["click", "client_shim.errors", "broker.command.cli"])
def test_ctrl_c_is_130_however_early(module: str) -> None:
    """Also while the command still imports what it runs on."""
    code = f"""
import os, signal, sys
class Early:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Early())
sys.argv = ["mcp-broker", "restart", "one"]
from broker.__main__ import main
sys.exit(main())
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_LANG": "en"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"mcp-broker: interrupted\n")


def test_ctrl_c_of_the_doctor_is_in_the_language_of_the_reader(broker: RunningBroker) -> None:
    """It ends its course, and says in a word that there is no verdict."""
    env = {"MCP_BROKER_LANG": "zh", "PYTHONUNBUFFERED": "1"}
    with popen(broker, "doctor", "--cycles", "1000", stdout=subprocess.DEVNULL, env=env) as command:
        assert command.stderr is not None
        _line_with(command.stderr, "/1000")
        command.send_signal(signal.SIGINT)
        rest = command.stderr.read().decode()
        assert command.wait(PATIENCE_S) == 130
    assert rest.endswith("mcp-broker: 已中断\n")
    assert "Aborted" not in rest


def test_an_error_of_a_server_says_in_chinese_too_what_it_means(broker: RunningBroker) -> None:
    """Law 10: below the server's own text a line, for who reads Chinese."""
    english, *chinese = errors_of(broker, "call", "one", "jsonrpc_error", lang="zh", status=1)
    assert english.startswith("mcp-broker: ")
    assert ["这是服务器自己返回的错误" in line for line in chinese] == [True], chinese


@pytest.mark.parametrize(
    ("args", "told", "status"),
    [
        (("call", "noe", "echo"), "没有服务器 'noe'；broker 中有 one；名称是否写错了？最接近的是 one；", 1),
        (("call", "one", "ecko"), "最接近的是 echo；工具及其参数见 `mcp-broker tools one`", 1),
        (("call", "one", "sleep", '{"seconds": 9}', "--timeout", "0.1"), "在 0.1 秒内没有响应 tools/call", 1),
        (
            ("status", "--endpoint", "ipc:///nowhere/b.sock"),
            "上没有 broker：文件不存在；请用 `",
            3,
        ),
        (
            ("status", "--endpoint", "tcp://127.0.0.1:1"),
            "tcp://127.0.0.1:1 上没有 broker：没有程序在监听；",
            3,
        ),
        (("status", "--endpoint", "foo"), "'foo' 不是有效的地址；请写 ipc:///路径/broker.sock", 2),
        (("doctor", "--endpoint", "foo"), "'foo' 不是有效的地址；请写 ipc:///路径/broker.sock", 2),
    ],
)
def test_a_chinese_error_has_the_facts_and_the_next_step(
    broker: RunningBroker, args: tuple[str, ...], told: str, status: int
) -> None:
    """Law 10 in Chinese: one line with the names, and what to do in this case, not in every case."""
    (line,) = errors_of(broker, *args, lang="zh", status=status)
    assert told in line


def test_who_reads_english_gets_one_line(broker: RunningBroker) -> None:
    """And the doctor speaks as its own option says."""
    assert len(errors_of(broker, "call", "noe", "echo", lang="en", status=1)) == 1
    nowhere = ("doctor", "--endpoint", "ipc:///nowhere/b.sock", "--lang")
    assert len(errors_of(broker, *nowhere, "en", lang="zh", status=3)) == 1
    assert len(errors_of(broker, *nowhere, "zh", lang="en", status=3)) == 1


def errors_of(broker: RunningBroker, *args: str, lang: str, status: int) -> list[str]:
    """The lines that the command ends with."""
    with popen(broker, *args, stdout=subprocess.DEVNULL, env={"MCP_BROKER_LANG": lang}) as command:
        _, err = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == status
    return err.decode().splitlines()


def test_what_an_error_means_has_no_markdown() -> None:
    """The pages link; a terminal has no use for it."""
    sections = tomli.loads((ROOT / "broker/command/texts/codes.toml").read_text(encoding="utf-8")).values()
    lines = [line for section in sections for code in section for line in explanation(code)]
    assert len(lines) > 30
    assert [line for line in lines if "](" in line or "\n" in line] == []
    assert explanation("of-a-newer-broker") == []


def test_watching_for_programs_is_an_object_a_line() -> None:
    """`status --watch --json`: the same keys, whether a broker answers or not."""
    args = ("status", "--watch", "--json")
    with running({"one": rogue()}) as broker, popen(broker, *args, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        seen = [json.loads(command.stdout.readline()) for _ in range(2)]
        broker.stop()
        give_up = time.monotonic() + PATIENCE_S
        while seen[-1]["broker"] is not None and time.monotonic() < give_up:
            seen.append(json.loads(command.stdout.readline()))
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0
    assert [one["servers"][0]["name"] for one in seen[:2]] == ["one", "one"]
    assert seen[-1] == {"broker": None, "servers": [], "clients": []}


def _line_with(stream: IO[bytes], words: str) -> None:
    for line in stream:
        if words in line.decode():
            return
    raise AssertionError(words)
