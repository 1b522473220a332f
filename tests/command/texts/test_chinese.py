"""What the commands print in Chinese: mistakes in the config and the command line, the help."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.command.cli import cli
from broker.command.texts.chinese import in_chinese
from broker.command.texts.filling import fill
from broker.command.texts.words import say
from broker.command.texts.wrapping import display_width
from tests.e2e.harness import ROOT


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker", *args],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MCP_BROKER_LANG": ""},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


MISTAKES = """\
[servers."时间"]
comand = "x"
command = "sh"
timeout = "long"
max_in_flight = 0
env = { K = "${NOT_SET_ANYWHERE}" }
restart = "often"
"""


@pytest.mark.parametrize("name", ["check", "serve"])
def test_mistakes_in_the_config_are_chinese(name: str, tmp_path: Path) -> None:
    """With the facts filled in and the same next step as in English."""
    path = tmp_path / "broker.toml"
    path.write_text(MISTAKES, encoding="utf-8")
    done = command(name, "--config", str(path), "--lang", "zh")
    assert done.returncode == 2
    said = done.stderr
    for line in (
        '  servers."时间".comand：没有这个键；是否应为 command？',
        '  servers."时间".timeout：应为数字，实际为字符串；请写大于 0 的秒数，例如 30 或 0.5',
        '  servers."时间".max_in_flight：应为不小于 1 的整数；请写 1 到 1000000000 的整数',
        '  servers."时间".restart：不能取值 \'often\'；请写 "always"、"on-failure" 或 "never"',
        "NOT_SET_ANYWHERE",
    ):
        assert line in said
    assert "is not" not in said


def test_an_address_that_is_taken_is_chinese(tmp_path: Path) -> None:
    """`serve` says whose the address is, and what to do."""
    path = tmp_path / "broker.toml"
    path.write_text('[servers.a]\ncommand = "sh"\n')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = command("serve", "--config", str(path), "--endpoint", endpoint, "--lang", "zh")
    said = (
        f"{endpoint} 已被其他程序占用；请停止它，也可以用 --endpoint 或 [broker] 中的 endpoint 指定其他地址"
    )
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("status", "--jsn"), "错误：没有选项 '--jsn'"),
        (("call", "time"), "错误：缺少参数 'TOOL'"),
        (("statsu",), "错误：没有命令 'statsu'，"),
        (("doctor", "--cycles", "0"), "错误：'--cycles' 的值无效：0 不在范围 1<=x<=1000 之内"),
    ],
)
def test_mistakes_in_the_command_line_are_chinese(args: tuple[str, ...], said: str) -> None:
    """The option names the language even for a mistake that stands before it."""
    done = command(*args, "--lang=zh")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert "用法：mcp-broker" in done.stderr.replace("： ", "：")


def test_names_are_listed_as_chinese_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `、` between them: in texts that are English first, and in those of the command."""
    assert in_chinese("there is no server 'x'; the broker has a, b") == "没有服务器 'x'；broker 中有 a、b"
    for lang, between in (("zh", "、"), ("en", ", ")):
        monkeypatch.setenv("MCP_BROKER_LANG", lang)
        assert f"a{between}b" in say("no_server", server="x", known=["a", "b"])


def test_every_command_takes_lang() -> None:
    """Also the command itself."""
    assert all(any(one.name == "lang" for one in name.params) for name in (cli, *cli.commands.values()))


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_help_is_chinese(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every description, option and command: no English sentence is left, and no line is too wide.

    The range that click adds (`[x>0]`) stays.
    """
    monkeypatch.setenv("MCP_BROKER_LANG", "zh")
    monkeypatch.setenv("COLUMNS", "80")
    one = cli.commands[name] if name else cli
    with one.make_context(f"mcp-broker {name}".strip(), [], resilient_parsing=True) as context:
        shown = context.get_help()
    assert "用法：" in shown
    assert "选项：" in shown
    assert max(map(display_width, shown.splitlines())) <= 80
    plain = re.sub(r"`[^`]*`", "", shown)
    assert not re.search(r"\b(?:the|of|and|is|are|with|instead)\b|default:", plain), shown


def test_the_help_of_a_process_is_chinese() -> None:
    """`--lang` decides it, also behind `--help`."""
    done = command("status", "--help", "--lang", "zh")
    assert (done.returncode, "显示 broker 及其服务器" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "Show the broker and its servers" in command("status", "--help", "--lang", "en").stdout


@pytest.mark.parametrize(
    "text",
    [
        "; " * 900,
        "x: y; " * 7 + "a: " * 180,
        " of " * 150,
        "a, or " * 99,
        "x: a, or y; " * 4,
        "; ".join("abcdefghi"),
    ],
)
def test_no_text_of_a_server_holds_the_command_up(text: str) -> None:
    """What a server wrote is compared with every text: a long one stays as it is."""
    began = time.process_time()
    assert in_chinese(text) == text
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "reason", ["Permission denied", "it exited with status 1; its last line was: no key"]
)
def test_a_reason_within_a_text_is_chinese_too(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system and the broker give it in English; a name or a path stays as it is."""
    text = ("{path}: {problem}", "{path}：{problem}")
    monkeypatch.setenv("MCP_BROKER_LANG", "zh")
    told = fill(text, path="Permission denied", problem=reason)
    assert told == f"Permission denied：{in_chinese(reason)}"
    assert re.search("[\u4e00-\u9fff]", told)
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    assert fill(text, path="p", problem=reason) == f"p: {reason}"
