"""`mcp-broker attach`: which servers, what is shown and asked, and files that it must not touch."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.command.attach import files
from broker.command.attach.texts import WORDS, AttachError
from tests.command.attach.home import COMMAND, Home, programs
from tests.e2e.harness import rogue, running

SECRET = "sk-live-0123456789"


def cursor(**servers: dict[str, Any]) -> dict[str, Any]:
    """Return a file of Cursor with these servers."""
    return {"mcpServers": servers}


def test_both_languages_say_the_same() -> None:
    """Each text has the same facts in English and Chinese."""
    from string import Formatter

    for word, texts in WORDS.items():
        english, chinese = ({name for _, name, _, _ in Formatter().parse(text) if name} for text in texts)
        assert english == chinese, word


# --- which servers ---------------------------------------------------------------------------------------

BOUND: dict[str, tuple[dict[str, Any], str]] = {
    "a variable of the project": (
        {"command": "npx", "args": ["x", "${workspaceFolder}/a"]},
        "${workspaceFolder}",
    ),
    "a variable in env": (
        {"command": "npx", "env": {"ROOT": "${workspaceFolder:api}"}},
        "${workspaceFolder:api}",
    ),
    "Claude Code's project": (
        {"command": "npx", "args": ["${CLAUDE_PROJECT_DIR:-.}"]},
        "${CLAUDE_PROJECT_DIR",
    ),
    "a relative command": ({"command": "./server.sh"}, "./server.sh"),
    "a relative folder": ({"command": "npx", "cwd": "tools"}, "tools"),
    "the current folder": ({"command": "uvx", "args": ["mcp-server-git", "--repository", "."]}, "the path ."),
    "roots": ({"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem"]}, "roots"),
    "a browser": ({"command": "npx", "args": ["@playwright/mcp@latest"]}, "drives a browser"),
    "another browser": ({"command": "npx", "args": ["-y", "chrome-devtools-mcp@latest"]}, "drives a browser"),
    "a language server": (
        {"command": "mcp-language-server", "args": ["--lsp", "gopls"]},
        "one project at a time",
    ),
    "serena": (
        {"command": "uvx", "args": ["--from", "git+https://github.com/oraios/serena", "serena"]},
        "serena",
    ),
    "thoughts": (
        {"command": "npx", "args": ["@modelcontextprotocol/server-sequential-thinking"]},
        "one session",
    ),
    "a disabled one": ({"command": "npx", "disabled": True}, "it is disabled"),
    "a remote one": ({"url": "https://example.org/mcp"}, "not a stdio server"),
    "a value that it asks for": (
        {"command": "npx", "env": {"KEY": "${input:key}"}},
        "set KEY where the broker",
    ),
    "a variable of its environment": (
        {"command": "npx", "env": {"K": "${env:GH}"}},
        "set GH where the broker",
    ),
    "a program that is not here": ({"command": "no-such-command"}, "cannot start here: there is no command"),
    "one for Windows": ({"command": "cmd", "args": ["/c", "npx", "x"]}, "shell of Windows"),
}
SHARED: dict[str, dict[str, Any]] = {
    "a folder for all": {
        "command": "npx",
        "args": ["-y", "@modelcontextprotocol/server-filesystem", "/srv/data"],
    },
    "a file in the home": {"command": "npx", "args": ["db", "~/data.db"]},
    "a container": {"command": "sh", "args": ["-c", "docker run -i --rm mcp/fetch"]},
    "a name like a browser's": {"command": "uvx", "args": ["mcp-server-time", "--browser-less"]},
}


@pytest.mark.parametrize("kind", BOUND)
def test_a_server_of_a_project_or_a_session_stays(kind: str, home: Home) -> None:
    """With the reason; the other servers of the file are attached."""
    entry, why = BOUND[kind]
    path = home.write(".cursor/mcp.json", cursor(it=entry, fine={"command": "uvx"}))
    done = home.attach("cursor")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("it: stays as it is: ")]
    assert why in line
    entries = json.loads(path.read_text())["mcpServers"]
    assert (entries["it"], entries["fine"]["args"]) == (entry, ["connect", "fine"])
    assert list(home.servers()) == ["fine"]


@pytest.mark.parametrize("kind", SHARED)
def test_a_server_that_all_can_share_is_attached(kind: str, home: Home) -> None:
    """What looks like a bound one and is not."""
    home.write(".cursor/mcp.json", cursor(it=SHARED[kind]))
    home.attach("cursor")
    assert list(home.servers()) == ["it"]


def test_a_server_that_is_named_is_attached_whatever_it_is(home: Home) -> None:
    """`--server`: only this one, also a bound one; an unknown name is told."""
    entry = {"command": "npx", "args": ["@playwright/mcp@latest"]}
    path = home.write(".cursor/mcp.json", cursor(web=entry, fine={"command": "uvx"}))
    done = home.attach("cursor", "--server", "web", "--server", "nope")
    entries = json.loads(path.read_text())["mcpServers"]
    assert (entries["web"]["args"], entries["fine"]) == (["connect", "web"], {"command": "uvx"})
    assert "nope: stays as it is: the host has no server of this name" in done.stderr


def test_servers_of_projects_stay_in_claude_code(home: Home) -> None:
    """`projects` of ~/.claude.json."""
    content = {
        "mcpServers": {"a": {"command": "uvx"}},
        "projects": {"/srv": {"mcpServers": {"b": {"command": "npx"}}}},
    }
    path = home.write(".claude.json", content)
    assert "b: stays as it is: it belongs to the project /srv" in home.attach("claude-code").stderr
    assert json.loads(path.read_text())["projects"] == content["projects"]


def test_one_server_of_two_hosts_is_one_server(home: Home) -> None:
    """Equal definitions share it, whatever their time-outs; a different one stays, with the keys named."""
    home.write(".cursor/mcp.json", cursor(a={"command": "uvx", "timeout": 90}, b={"command": "uvx"}))
    path = home.write(
        ".codex/config.toml", '[mcp_servers.a]\ncommand = "uvx"\n[mcp_servers.b]\ncommand = "npx"\n'
    )
    done = home.attach("cursor", "codex")
    assert "b: stays as it is: the broker's server of this name differs in command" in done.stderr
    assert list(home.servers()) == ["a", "b"]
    assert 'args = ["connect", "a"]' in path.read_text()
    assert '[mcp_servers.b]\ncommand = "npx"' in path.read_text()


def test_a_name_that_the_broker_cannot_use(home: Home) -> None:
    """The entry keeps its name; the server gets a derived one."""
    path = home.write(".cursor/mcp.json", cursor(**{"github.com/acme/notes": {"command": "uvx"}}))
    home.attach("cursor")
    entry = json.loads(path.read_text())["mcpServers"]["github.com/acme/notes"]
    assert entry["args"] == ["connect", "github.com-acme-notes-ccca9274"]
    assert list(home.servers()) == ["github.com-acme-notes-ccca9274"]


# --- what is shown and asked -----------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_writes_nothing(home: Home) -> None:
    """What would be written is shown, without the secrets."""
    path = home.write(
        ".cursor/mcp.json", cursor(it={"command": "uvx", "env": {"API_KEY": SECRET, "B": "p4ss-word"}})
    )
    before = path.read_bytes()
    done = home.attach("cursor", "--dry-run")
    assert "[servers.it]" in done.stdout
    assert '"connect", "it"' in done.stdout
    assert path.read_bytes() == before
    assert SECRET not in done.output
    assert "p4ss-word" not in done.output
    assert sorted(path.name for path in home.folder.iterdir()) == [".cursor"]


def test_without_a_name_it_asks_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts found here, one question; `--yes` answers it; without a terminal it has to be answered so."""
    home.write(".cursor/mcp.json", cursor(a={"command": "uvx"}))
    home.write(".codex/config.toml", '[mcp_servers.b]\ncommand = "uvx"\n')
    done = home.run("attach")
    assert (done.exit_code, "--yes" in done.stderr, os.path.exists("broker.toml")) == (2, True, False)
    monkeypatch.setattr("broker.command.attach.command.is_interactive", lambda: True)
    done = home.run("attach", input="n\n")
    assert (done.exit_code, os.path.exists("broker.toml")) == (1, False)
    done = home.run("attach", input="y\n")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("?") == 1
    assert list(home.servers()) == ["a", "b"]


def test_hosts_that_take_no_address_are_passed_over(home: Home) -> None:
    """Where no host is named, the others are attached."""
    home.write(".config/Claude/claude_desktop_config.json", cursor(a={"command": "uvx"}))
    path = home.write(".cursor/mcp.json", cursor(b={"command": "uvx"}))
    done = home.attach("--yes", "--http")
    assert "Claude Desktop takes no address" in done.stderr
    assert "http://127.0.0.1:8420/mcp/b" in path.read_text()
    assert list(home.servers()) == ["b"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("emacs",), "there is no host emacs; known hosts: claude-code"),
        (("zed",), "Zed: no file at"),
        (("--config", "x.json"), "name its host"),
        (("--http", "cursor"), "cursor is not an address; write the hosts first"),
        ((), "no host with servers was found here"),
        (("cursor", "--config", "broken.json"), "broken.json:2: not JSON"),
        (("codex", "--config", "broken.json"), "not TOML"),
    ],
)
def test_what_cannot_be_done_is_2(args: tuple[str, ...], words: str, home: Home) -> None:
    """With what to do instead (law 10)."""
    home.write("broken.json", '{\n  "mcpServers": [}\n')
    done = home.run("attach", *args)
    assert (done.exit_code, words in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(
    ("option", "variable"), [("ipc:///tmp/b.sock", "ipc:///tmp/a.sock"), (None, "ipc:///tmp/b.sock")]
)
def test_an_endpoint_that_is_named_is_in_the_entry(
    option: str | None, variable: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host is started elsewhere, without this shell's variables."""
    monkeypatch.setenv("MCP_BROKER_ENDPOINT", variable)
    path = home.write(".cursor/mcp.json", cursor(it={"command": "uvx"}))
    home.attach("cursor", *(["--endpoint", option] if option else []))
    entry = json.loads(path.read_text())["mcpServers"]["it"]
    assert entry["args"] == ["connect", "it", "--endpoint", "ipc:///tmp/b.sock"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 500])
def test_a_number_that_python_cannot_hold_is_no_mistake(number: str, home: Home) -> None:
    """Elsewhere in the file it stays as it is; an entry that has it stays too, with the reason."""
    text = (
        f'{{"mcpServers": {{"big": {{"command": "uvx", "size": {number}}},\n'
        f'"fine": {{"command": "uvx"}}}}, "other": [{number}]}}'
    )
    path = home.write(".cursor/mcp.json", text)
    done = home.attach("cursor")
    assert "big: stays as it is: size has a value that cannot be kept exactly" in done.stderr
    assert path.read_text().count(number) == 2
    assert json.loads(path.read_text())["mcpServers"]["fine"]["args"] == ["connect", "fine"]
    home.detach()
    assert path.read_text() == text


# --- files -----------------------------------------------------------------------------------------------


def test_a_link_stays_a_link(home: Home) -> None:
    """A dotfile manager's: the file that it leads to is written, beside it the backup."""
    path = home.write("dotfiles/cursor.json", cursor(it={"command": "uvx"}))
    (home.folder / ".cursor").mkdir()
    link = home.folder / ".cursor" / "mcp.json"
    link.symlink_to("../dotfiles/cursor.json")
    before = path.read_bytes()
    home.attach("cursor")
    assert (link.is_symlink(), "connect" in path.read_text()) == (True, True)
    backup = path.with_name("cursor.json.bak")
    assert (backup.read_bytes(), stat.S_IMODE(backup.stat().st_mode)) == (before, 0o600)
    home.detach()
    assert (link.is_symlink(), path.read_bytes()) == (True, before)


def test_a_file_that_others_can_write_is_refused(home: Home) -> None:
    """Its writer could have any program run as this user."""
    path = home.write(".cursor/mcp.json", cursor(it={"command": "uvx"}))
    path.chmod(0o666)
    done = home.run("attach", "cursor")
    assert (done.exit_code, "another user can change" in done.stderr) == (2, True), done.output
    assert not os.path.exists("broker.toml")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_link_of_another_user_is_refused(home: Home, tmp_path: Path) -> None:
    """In a folder where others may write, a planted link would choose the file."""
    target = home.write("mine.json", cursor(it={"command": "uvx"}))
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "mcp.json"
    link.symlink_to(target)
    os.lchown(link, 65534, 65534)
    done = home.run("attach", "cursor", "--config", str(link))
    assert (done.exit_code, "another user can change" in done.stderr) == (2, True), done.output


def test_a_file_that_changes_while_its_backup_is_written_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running host may write its file at any time; the last look comes right before the change."""
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    read = files.read(path)
    create = files._create

    def created(*args: Any) -> str:
        path.write_text('{"newer": 1}')
        return create(*args)

    monkeypatch.setattr(files, "_create", created)
    with pytest.raises(AttachError):
        files.replace(read, '{"ours": 1}')
    assert path.read_text() == '{"newer": 1}'
    assert not [one.name for one in tmp_path.iterdir() if "mcp-broker" in one.name]


def test_a_file_that_changes_meanwhile_is_not_overwritten(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that saves its settings at the same moment loses nothing."""
    path = home.write(".cursor/mcp.json", cursor(it={"command": "uvx"}))
    read = files.read

    def read_then_saved(path: Path) -> files.HostFile:
        file = read(path)
        path.write_text(json.dumps(cursor(it={"command": "uvx"}, new={"command": "npx"})))
        return file

    monkeypatch.setattr(files, "read", read_then_saved)
    done = home.run("attach", "cursor")
    assert (done.exit_code, "changed while this command ran" in done.stderr) == (2, True)
    assert "new" in json.loads(path.read_text())["mcpServers"]


def test_what_each_entry_was_is_kept_for_this_user_alone(home: Home) -> None:
    """The ledger has secrets: mode 0600, in a folder of mode 0700."""
    home.write(".cursor/mcp.json", cursor(it={"command": "uvx", "env": {"API_KEY": SECRET}}))
    home.attach("cursor")
    ledger = home.folder / ".local/state/mcp-broker/attached.json"
    assert SECRET in ledger.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (ledger, ledger.parent)] == [0o600, 0o700]
    assert stat.S_IMODE(os.stat("broker.toml").st_mode) == 0o600


# --- Claude Code's own command ---------------------------------------------------------------------------

CLAUDE = """\
#!/usr/bin/env python3
import json, os, sys
path = os.path.expanduser("~/.claude.json")
config = json.load(open(path))
if sys.argv[2] == "remove":
    del config["mcpServers"][sys.argv[3]]
else:
    if os.path.exists(os.path.expanduser("~/broken")):
        sys.exit("claude: out of order")
    if sys.argv[3] in config["mcpServers"]:
        sys.exit("it exists already")
    config["mcpServers"][sys.argv[3]] = {"type": "stdio", **json.loads(sys.argv[4])}
assert sys.argv[-2:] == ["--scope", "user"]
json.dump(config, open(path, "w"), indent=2)
open(os.path.expanduser("~/calls"), "a").write(" ".join(sys.argv[2:4]) + "\\n")
"""


def test_claude_code_changes_its_file_itself(home: Home) -> None:
    """A running Claude Code writes its file from its memory, so its own command is used where it is there."""
    (home.bin / "claude").write_text(CLAUDE)
    (home.bin / "claude").chmod(0o755)
    path = home.write(".claude.json", {"mcpServers": {"it": {"command": "uvx", "args": ["x"]}}, "n": 1})
    home.attach("claude-code")
    entry = json.loads(path.read_text())["mcpServers"]["it"]
    assert entry == {"type": "stdio", "command": str(home.bin / COMMAND), "args": ["connect", "it"]}
    home.detach()
    assert json.loads(path.read_text())["mcpServers"]["it"] == {
        "type": "stdio",
        "command": "uvx",
        "args": ["x"],
    }
    assert (home.folder / "calls").read_text().split("\n")[:-1] == ["remove it", "add-json it"] * 2


def test_a_secret_is_never_an_argument_of_claude(home: Home) -> None:
    """Every user can read the process list: an entry with secrets is restored in the file."""
    (home.bin / "claude").write_text(CLAUDE)
    (home.bin / "claude").chmod(0o755)
    entry = {"command": "uvx", "env": {"API_KEY": SECRET}}
    path = home.write(".claude.json", {"mcpServers": {"it": entry}})
    home.attach("claude-code")
    assert SECRET not in path.read_text()
    assert "restart Claude Code" in home.detach().stderr
    assert json.loads(path.read_text())["mcpServers"]["it"] == entry
    assert (home.folder / "calls").read_text().split("\n")[:-1] == ["remove it", "add-json it"]


def test_a_claude_that_fails_loses_nothing(home: Home) -> None:
    """The earlier entry is in the ledger; `detach` restores it."""
    (home.bin / "claude").write_text(CLAUDE)
    (home.bin / "claude").chmod(0o755)
    path = home.write(".claude.json", {"mcpServers": {"it": {"command": "uvx"}}})
    home.write("broken", "")
    done = home.run("attach", "claude-code")
    assert (done.exit_code, "claude: out of order" in done.stderr, "detach" in done.stderr) == (2, True, True)
    assert json.loads(path.read_text())["mcpServers"] == {}
    (home.folder / "broken").unlink()
    home.detach("--force")
    assert json.loads(path.read_text())["mcpServers"]["it"] == {"type": "stdio", "command": "uvx"}


# --- a running broker ------------------------------------------------------------------------------------


def test_a_running_broker_takes_the_servers_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own file is changed and reloaded; then the host's."""
    programs(home.folder / "more", "server")
    with running({"there": rogue()}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        table = rogue()
        path = home.write(
            ".cursor/mcp.json", cursor(new={"command": table["command"], "args": table["args"]})
        )
        home.attach("cursor")
        broker.wait_state("new", "ready")
        assert "connect" in path.read_text()
        done = home.run("remove", "new")
        assert (done.exit_code, "mcp-broker detach --server new" in done.stderr) == (2, True)
        home.detach()
        assert home.run("remove", "new").exit_code == 0
        assert [row["name"] for row in broker.status()["servers"]] == ["there"]


def test_an_attached_entry_speaks_mcp(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host starts instead of the server answers as the server does, with the server's tools."""
    command = Path(sys.executable).with_name(COMMAND)
    if not command.exists():
        pytest.skip("this Python has the broker without its command")
    monkeypatch.setattr("sys.argv", [str(command)])
    with running({"there": rogue()}) as broker:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
        table = rogue()
        path = home.write(".cursor/mcp.json", cursor(it={key: table[key] for key in ("command", "args")}))
        home.attach("cursor")
        broker.wait_state("it", "ready")
        monkeypatch.delenv("MCP_BROKER_ENDPOINT")
        entry = json.loads(path.read_text())["mcpServers"]["it"]
        with subprocess.Popen(
            [entry["command"], *entry["args"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as host:
            assert host.stdin is not None
            assert host.stdout is not None
            about = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "h", "version": "1"},
            }
            for message in (
                {"id": 1, "method": "initialize", "params": about},
                {"method": "notifications/initialized"},
                {"id": 2, "method": "tools/list"},
            ):
                host.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            host.stdin.flush()
            answers = {
                answer["id"]: answer for answer in map(json.loads, (host.stdout.readline() for _ in "12"))
            }
            host.stdin.close()
            assert host.wait(timeout=10) == 0
        assert "echo" in {tool["name"] for tool in answers[2]["result"]["tools"]}
