"""`mcp-broker import`: the files of the hosts, whole, and those that are none."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest

from broker.command.importing.texts import WORDS
from tests.command.importing.asking import Run, Write, one, placed, programs, servers
from tests.command.importing.hosts import HOSTS, Host
from tests.command.importing.other_hosts import OTHER_HOSTS
from tests.e2e.harness import PATIENCE_S, ROOT, rogue, running


@pytest.mark.parametrize("host", [*HOSTS, *OTHER_HOSTS], ids=lambda host: host.name)
def test_the_file_of_each_host(run: Run, write: Write, tmp_path: Path, bin_folder: Path, host: Host) -> None:
    """Whole commands, folders, seconds; what cannot be known is told, and goes to stderr."""
    write("servers/laundry.py", "")
    programs(tmp_path / "site", "one")
    programs(tmp_path / "shop", "one")
    programs(bin_folder / "my", "one")
    (bin_folder / "my/one").rename(bin_folder / "my run")
    whole = isinstance(host.content, str)
    done = run(
        write(host.name, host.content if whole else placed(host.content, folder=tmp_path, bin=bin_folder))
    )
    expected, told = placed([host.servers, host.told], folder=tmp_path, bin=bin_folder)
    assert (done.exit_code, servers()) == (host.status, expected), done.stderr
    assert [text for text in told if text not in done.stderr] == [], done.stderr
    assert done.stdout == ""


def test_a_server_that_was_imported_runs(run: Run, write: Write, tmp_path: Path) -> None:
    """The whole way: a relative path, the broker's own check, and a call to the running server."""
    args = [argument.replace(f"{ROOT}/", "./") for argument in rogue()["args"]]
    entry = {"command": os.path.basename(sys.executable), "args": args, "cwd": str(ROOT), "timeout": 20}
    path = write("mcp_servers.json", {"mcp_servers": {"rogue": entry}})
    assert run(path, path=os.path.dirname(sys.executable)).exit_code == 0
    check = [sys.executable, "-m", "broker", "check", "--config", str(tmp_path / "broker.toml")]
    assert subprocess.run(check, cwd=ROOT, timeout=PATIENCE_S, check=False).returncode == 0
    with running(servers()) as broker, broker.client() as client:
        result = client.request("rogue", "tools/call", {"name": "echo", "arguments": {"text": "it lives"}})
    assert "it lives" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"mcpServers": {\n  "a" 1}}', ":2:7: not JSON"),
        (b'{"mcpServers": { // a comment\n  "a": {"command": @}}}', ":2:20: not JSON"),
        (b'{"mcpServers": {"a"', ":1:20: not JSON"),
        (b"", "is empty; name the file of another host"),
        (b"// nothing", ":1:11: not JSON: there is nothing but comments"),
        (b'{"mcpServers": {"a": {"command": "\\ud800"}}}', "an incomplete character"),
        (b'{"mcpServers": ' + b"[" * 100_000, "nested too deeply"),
        ('{"mcpServers": {}}'.encode("utf-16"), "not UTF-8"),
        (b'{"name": "x", "repository": {"type": "git", "url": "https://x"}}', "Goose (extensions)"),
        (b'{"tools": {}}', "Zed (context_servers); Goose (extensions)"),
        (b"[]", "Zed (context_servers); Goose (extensions)"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_such_file_is_2(run: Run, tmp_path: Path, content: bytes | None, told: str) -> None:
    """Exit status 2 with the file and, in JSON, the line and the column; nothing is written."""
    path = tmp_path / "its.json"
    if content is not None:
        path.write_bytes(content)
    done = run(path)
    assert (done.exit_code, str(path) in done.stderr, told in done.stderr) == (2, True, True), done.stderr
    assert not Path("broker.toml").exists()


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "servers.it.command: this key is missing"),
        ({"command": "npx", "args": "-y x"}, "servers.it.args: expected a list, got a string"),
        ({"command": "npx", "env": {"A": ["x"]}}, "servers.it.env: expected a string, got a list"),
        ({"command": "npx", "env": {"A=B": "x"}}, "servers.it.env.A=B: this cannot name a variable"),
        ({"command": "npx", "timeout": "30"}, "servers.it.timeout: expected a number"),
        ("npx -y x", "servers.it: this must be a table"),
        ({"url": "https://example.com"}, "it is a remote server (url)"),
        ({"serverUrl": "https://example.com"}, "it is a remote server (serverUrl)"),
        (
            {"command": "C:\\x y\\z.exe --key abc"},
            "C:\\x y\\z.exe is a program of Windows; write that of Linux, such as z\n",
        ),
        ({"command": "npx", "type": "sse"}, "it is a remote server (sse)"),
        ({"command": "npx", "transportType": "streamable-http"}, "it is a remote server (streamable-http)"),
    ],
    ids=str,
)
def test_what_cannot_be_imported_is_1(run: Run, write: Write, entry: object, told: str) -> None:
    """It is told and left out; the other servers are written."""
    done = run(write("a.json", {"mcpServers": {"it": entry, "good": {"command": "npx"}}}))
    assert (done.exit_code, f"it: not imported: {told}" in done.stderr) == (1, True), done.stderr
    assert list(servers()) == ["good"]


def test_nothing_to_import_writes_nothing(run: Run, write: Write) -> None:
    """A file without a server would be a mistake to the broker."""
    done = run(write("a.json", {"mcpServers": {}}))
    assert (done.exit_code, "nothing to write" in done.stderr) == (1, True)
    assert not Path("broker.toml").exists()


def test_a_mark_at_the_beginning_is_no_mistake(run: Run, write: Write) -> None:
    """Editors of Windows put one there."""
    assert run(write("a.json", "\ufeff" + json.dumps(one()))).exit_code == 0


def test_a_key_that_stands_twice_is_told(run: Run, write: Write) -> None:
    """JSON keeps the last one, and people do not see it."""
    done = run(write("a.json", '{"mcpServers": {"a": {"command": "npx"}, "a": {"command": "uvx"}}}'))
    assert "duplicate keys, the last one counts: a" in done.stderr
    assert servers()["a"]["command"].endswith("uvx")


def test_it_speaks_chinese(run: Run, write: Write) -> None:
    """What a person reads exists in both languages, with the same facts in it."""
    done = run(write("a.json", one(disabled=True)), language="zh")
    assert "it：保持禁用" in done.stderr
    assert Path("broker.toml").read_text(encoding="utf-8").startswith("# 由 `mcp-broker import` 根据")
    for word, (english, chinese) in WORDS.items():
        assert facts(english) == facts(chinese), word


def facts(text: str) -> set[str]:
    """The names in braces."""
    return {str(name) for _, name, _, _ in string.Formatter().parse(text) if name}


def test_the_command_line_does_not_pay_for_it() -> None:
    """`mcp-broker status` loads nothing of what only an import needs."""
    code = "import sys, broker.command.import_; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert not {"yaml", "tomlkit", "tomli", "msgspec", "trio", "broker.command.importing"} & set(
        done.stdout.split()
    )
