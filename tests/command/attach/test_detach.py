"""`mcp-broker detach`: entry by entry, with what the user changed since kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.command.attach.home import Home

TEXT = """\
{
  "mcpServers": {
    "a": {"command": "uvx", "args": ["a"]}, // first
    "b": {"command": "uvx", "args": ["b"]}
  }
}
"""


def entries(home: Home) -> dict[str, Any]:
    from broker.command.importing import jsonc

    value: Any = jsonc.loads((home.folder / ".cursor/mcp.json").read_text())
    found: dict[str, Any] = value["mcpServers"]
    return found


def edit(home: Home, old: str, new: str) -> None:
    path = home.folder / ".cursor/mcp.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_was_edited_elsewhere_in_the_file_is_kept(home: Home) -> None:
    """New servers, new comments, new settings."""
    path = home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    edit(
        home,
        '  "mcpServers": {\n',
        '  "theme": 1, // new\n  "mcpServers": {\n    "c": {"url": "https://x"},\n',
    )
    home.detach()
    expected = TEXT.replace(
        '  "mcpServers": {\n', '  "theme": 1, // new\n  "mcpServers": {\n    "c": {"url": "https://x"},\n'
    )
    assert path.read_text() == expected


def test_keys_that_were_edited_in_an_entry_are_kept(home: Home) -> None:
    """A host writes its own keys into an entry: they stay, the command is restored, and it is told."""
    home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    edit(home, '"args": ["connect", "a"]', '"args": ["connect", "a"], "autoApprove": ["now"]')
    done = home.detach()
    assert "a: changed meanwhile, your values are kept: autoApprove" in done.stderr
    assert entries(home)["a"] == {"command": "uvx", "args": ["a"], "autoApprove": ["now"]}
    assert entries(home)["b"] == {"command": "uvx", "args": ["b"]}


@pytest.mark.parametrize("number", ["1e400", "9" * 500, "1.10"])
def test_a_number_that_was_added_keeps_its_text(number: str, home: Home) -> None:
    """Python cannot hold every number of JSON, nor how it is written."""
    home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    edit(home, '"args": ["connect", "a"]', f'"args": ["connect", "a"], "size": {number}')
    home.detach()
    assert f'"args": ["a"], "size": {number}}}' in (home.folder / ".cursor/mcp.json").read_text()


def test_an_entry_that_runs_something_else_by_now_stays(home: Home) -> None:
    """It is the user's: exit status 1, and `--force` restores the earlier one."""
    home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    edit(home, '["connect", "a"]', '["other"]')
    done = home.run("detach")
    assert (done.exit_code, "a: stays as it is: it runs another command" in done.stderr) == (1, True)
    assert (entries(home)["a"]["args"], entries(home)["b"]) == (["other"], {"command": "uvx", "args": ["b"]})
    home.detach("--force")
    assert entries(home)["a"] == {"command": "uvx", "args": ["a"]}
    assert "no host is attached" in home.detach().stderr


def test_an_entry_that_was_removed_stays_removed(home: Home) -> None:
    """What it was is still in the ledger, whose path is told."""
    path = home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    path.write_text('{"mcpServers": {}}')
    done = home.run("detach")
    ledger = home.folder / ".local/state/mcp-broker/attached.json"
    assert (done.exit_code, done.stderr.count(str(ledger))) == (1, 2)
    assert {
        one["before"] for file in json.loads(ledger.read_text()).values() for one in file["entries"].values()
    } == {
        '{"command": "uvx", "args": ["a"]}',
        '{"command": "uvx", "args": ["b"]}',
    }


def test_a_removed_entry_comes_back_by_force(home: Home) -> None:
    """Into its section, in JSON and TOML; what else is there stays."""
    path = home.write(".cursor/mcp.json", TEXT)
    toml = home.write(".codex/config.toml", 'x = 1\n[mcp_servers.t]\ncommand = "uvx" # why\n')
    home.attach("cursor", "codex")
    path.write_text('{\n  "mcpServers": {\n    "new": {"url": "https://x"}\n  } // end\n}\n')
    toml.write_text("x = 1 # one\n")
    assert home.run("detach").exit_code == 1
    home.detach("--force")
    assert entries(home) == {
        "a": {"command": "uvx", "args": ["a"]},
        "b": {"command": "uvx", "args": ["b"]},
        "new": {"url": "https://x"},
    }
    assert path.read_text().endswith('"new": {"url": "https://x"}\n  } // end\n}\n')
    assert toml.read_text() == 'x = 1 # one\n\n[mcp_servers.t]\ncommand = "uvx" # why\n'


def test_a_variable_that_was_lost_is_not_lost(home: Home) -> None:
    """Keys about the process are always those of before: a host that adds `env = {}` takes no secret away."""
    home.write(
        ".cursor/mcp.json", {"mcpServers": {"a": {"command": "uvx", "env": {"API_KEY": "sk-live-012345"}}}}
    )
    home.attach("cursor")
    value = json.loads((home.folder / ".cursor/mcp.json").read_text())
    value["mcpServers"]["a"]["env"] = {}
    (home.folder / ".cursor/mcp.json").write_text(json.dumps(value))
    assert "a: changed meanwhile, restored as it was: env" in home.detach().stderr
    assert entries(home)["a"] == {"command": "uvx", "env": {"API_KEY": "sk-live-012345"}}


def test_a_dry_run_makes_no_folder(home: Home) -> None:
    """Where nothing was attached."""
    assert "no host is attached" in home.detach("--dry-run").stderr
    assert list(home.folder.iterdir()) == []


def test_a_file_that_is_gone_does_not_keep_the_others(home: Home) -> None:
    """It is told; the other hosts are detached."""
    gone = home.write(".cursor/mcp.json", TEXT)
    path = home.write(".codex/config.toml", '[mcp_servers.a]\ncommand = "uvx"\nargs = ["a"]\n')
    home.attach("cursor", "codex")
    gone.unlink()
    done = home.run("detach")
    assert (done.exit_code, f"{gone} no longer exists" in done.stderr) == (1, True)
    assert path.read_text() == '[mcp_servers.a]\ncommand = "uvx"\nargs = ["a"]\n'


def test_only_what_is_named(home: Home) -> None:
    """A host, a file, a server; a dry run writes nothing."""
    path = home.write(".cursor/mcp.json", TEXT)
    home.write(".codex/config.toml", '[mcp_servers.c]\ncommand = "uvx"\n')
    home.attach("cursor", "codex")
    attached = path.read_text()
    home.detach("--dry-run")
    home.detach("codex")
    assert path.read_text() == attached
    home.detach("--config", str(path), "--server", "a")
    assert (entries(home)["a"]["args"], entries(home)["b"]["args"]) == (["a"], ["connect", "b"])
    home.detach()
    assert path.read_text() == TEXT


def test_an_entry_that_is_attached_anew_keeps_both(home: Home) -> None:
    """The user replaced an attached entry, and attached again: the first definition is not lost."""
    path = home.write(".cursor/mcp.json", TEXT)
    home.attach("cursor")
    path.write_text(TEXT.replace('"args": ["a"]', '"args": ["new"]'))
    home.attach("cursor", "--server", "a")
    ledger = json.loads((home.folder / ".local/state/mcp-broker/attached.json").read_text())
    (file,) = ledger.values()
    assert file["earlier"][0][1]["before"] == '{"command": "uvx", "args": ["a"]}'
    home.detach()
    assert entries(home)["a"]["args"] == ["new"]
