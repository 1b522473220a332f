"""Every text that a person meets is in both languages: what the code writes in English has its Chinese."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.command.chinese import in_chinese
from broker.command.cli import cli
from broker.command.keys import keys
from broker.command.wrapping import display_width
from tests.e2e.harness import ROOT

CALLS = {
    "Problem": slice(1, 3),
    "ClaimError": slice(1),
    "about": slice(1, 2),
    "SpawnError": slice(1),
    "KeyFileError": slice(1),
}
"""Calls with texts for people among their arguments"""

NAMES = {"message", "problem", "mend", "missing", "ANOTHER", "MEND", "_PATTERNS", "_SIZE", "form"} | {
    *("SECONDS", "WHOLE", "WORDS", "SWITCH", "taken"),
}
"""Variables that such texts are put together in"""

FILES = [
    *sorted((ROOT / "broker/config").glob("*.py")),
    *(ROOT / f"broker/service/{name}.py" for name in ("config_file", "claims", "keys")),
    *(ROOT / name for name in ("broker/frontend/address.py", "broker/gateway/settings.py")),
    *(
        ROOT / name
        for name in (
            "broker/processes/program.py",
            "broker/management/reload.py",
            "broker/frontend/permissions.py",
            "client_shim/trusted.py",
            "client_shim/key_file.py",
        )
    ),
]

EXEMPT = {
    "already listens at {}; stop it first, or {}": "a part of `a broker with pid …`",
    "{}, or {}": "what `client_shim.trusted` found at a path, which is English, too",
    "a broker with pid {} {}": "whole only with its second part",
    "write the whole path instead of ~ as": "a part of `there is no file …`",
    "correct": "a part of `there is no file …`",
}
"""English template → why it has no Chinese of its own. Lines of the log stay English as a whole."""


def template(node: ast.expr) -> str | None:
    """A literal with `{}` for each fact; `None` if it is something else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def texts(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            found = node.args[CALLS[name]] if name in CALLS else []
        elif isinstance(node, ast.Assign):
            targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
            found = [node.value] if targets & NAMES else []
        elif isinstance(node, ast.Return) and node.value and file.name == "names.py":
            found = [node.value] if "it " in (template(node.value) or "") else []
        parts = [
            part
            for one in found
            for part in ([one.body, one.orelse] if isinstance(one, ast.IfExp) else [one])
        ]
        yield from (text for part in parts if (text := template(part)) is not None)


ALL = sorted({text for file in FILES for text in texts(file)} - EXEMPT.keys())


def sample(text: str) -> str:
    """The text with a fact in each place."""
    number = iter(range(100))
    return re.sub(r"\{\}", lambda _: f"fact{next(number)}", text)


@pytest.mark.parametrize("text", ALL)
def test_every_text_has_its_chinese(text: str) -> None:
    """A mistake in the config, a taken address, a missing program: in Chinese, with its facts."""
    chinese = in_chinese(sample(text))
    assert re.search("[\u4e00-\u9fff]", chinese), f"{text!r} is not in broker/command/chinese.toml"
    assert all(fact in chinese for fact in re.findall(r"fact\d+", sample(text)))


def test_the_texts_are_found() -> None:
    """The search above finds what it is to guard, and each exemption is still needed."""
    assert len(ALL) > 80
    found = {text for file in FILES for text in texts(file)}
    assert not EXEMPT.keys() - found - {"a broker with pid {} {}"}, EXEMPT.keys() - found


SPOKEN = {"echo", "fail", "give_up", "confirm"}
"""Calls that print their argument"""

UNSPOKEN: dict[str, str] = {
    "mcp-broker: {}": "the name before a message that is translated already",
}
"""Literal that a command prints → why it is no text"""


def test_the_commands_print_no_text_of_one_language() -> None:
    """What a command prints itself comes from the texts in both languages, not from a literal."""
    found = set()
    for file in sorted((ROOT / "broker" / "command").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = (
                getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            )
            for argument in node.args if isinstance(node, ast.Call) and name in SPOKEN else ():
                text = template(argument)
                if text is not None and re.search("[A-Za-z]{2}", text):
                    found.add(text)
    assert found == UNSPOKEN.keys()


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
        '  servers."时间".timeout：应为数，实际为字符串；请写大于 0 的秒数，例如 30 或 0.5',
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
    said = f"{endpoint} 已被其他程序占用；请停止它，或用 --endpoint 或在 [broker] 中指定其他地址"
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


def test_every_command_takes_lang() -> None:
    """Also the command itself."""
    assert all(any(one.name == "lang" for one in name.params) for name in (cli, *cli.commands.values()))


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_help_is_chinese(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every description, option and command: no English sentence is left, and no line is too wide.

    The default and the range that click adds (`[default: info]`) stay: they are values to type.
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
    assert not re.search(r"\b(the|of|and|is|are|with|instead)\b", plain), shown


COMMANDS = (cli, *cli.commands.values(), *keys.commands.values())
HELPS = {text for one in COMMANDS for text in (one.help or "").split("\n\n")} | {
    str(getattr(option, "help", "") or "") for one in COMMANDS for option in one.params
}


@pytest.mark.parametrize("text", sorted(HELPS - {""}))
def test_every_help_has_its_chinese(text: str) -> None:
    """Each paragraph of a command, and each option."""
    chinese = in_chinese(" ".join(text.split()))
    assert re.search("[\u4e00-\u9fff]", chinese), f"{text!r} is not in broker/command/chinese.toml"


def test_the_help_of_a_process_is_chinese() -> None:
    """`--lang` decides it, also behind `--help`."""
    done = command("status", "--help", "--lang", "zh")
    assert (done.returncode, "显示 broker 及其服务器" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "Show the broker and its servers" in command("status", "--help", "--lang", "en").stdout


@pytest.mark.parametrize("text", ["; " * 900, "x: y; " * 7 + "a: " * 180, " of " * 150])
def test_no_text_of_a_server_holds_the_command_up(text: str) -> None:
    """What a server wrote is compared with every text: a long one stays as it is."""
    assert in_chinese(text) == text
