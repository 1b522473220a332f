"""`mcp-broker attach` and `detach` on the file of each host, as its documentation shows it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import tomli

from broker.command.attach.hosts import HOSTS
from broker.command.importing import jsonc
from tests.command.attach.home import Home

SECRET = "sk-live-0123456789"


class Case(NamedTuple):
    """A host's file with a server `time`, and what stays in the entry beside the command."""

    host: str
    path: str
    text: str
    section: tuple[str, ...]
    kept: Mapping[str, Any] = MappingProxyType({})


MCP_SERVERS = """\
{
  // the user's own
  "theme": "dark",
  "mcpServers": {
    "time": {
      "command": "uvx",
      "args": ["mcp-server-time"], // a comment
      "env": {"TIME_API_KEY": "SECRET"},
    },
    "far": {"url": "https://example.org/mcp"},
  },
}
""".replace("SECRET", SECRET)

CLAUDE_CODE = """\
{
  "numStartups": 12,
  "mcpServers": {
    "time": {
      "type": "stdio",
      "command": "uvx",
      "args": [
        "mcp-server-time"
      ],
      "env": {}
    }
  },
  "projects": {
    "/srv/site": {"mcpServers": {"db": {"command": "npx", "args": ["db"]}}}
  }
}"""

VSCODE = """\
{
\t"inputs": [],
\t"servers": {
\t\t"time": {
\t\t\t"type": "stdio",
\t\t\t"command": "uvx",
\t\t\t"args": ["mcp-server-time"],
\t\t\t"dev": {"watch": "src/**"}
\t\t}
\t}
}
""".replace("\n", "\r\n")

GEMINI = (
    '\ufeff{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"], "trust": true, '
    '"timeout": 30000, "includeTools": ["now"]}}}'
)

CODEX = '''\
model = "gpt" # mine

# the clock
[mcp_servers.time] # local
command = "uvx"
args = [
  "mcp-server-time", # it
]
startup_timeout_sec = 20

[mcp_servers.time.env]
TIME_API_KEY = "SECRET"

# after
[mcp_servers.far]
url = "https://example.org/mcp"

[profiles.a]
note = """
[mcp_servers.fake]
"""
'''.replace("SECRET", SECRET)

OPENCODE_1 = """\
{"$schema": "https://opencode.ai/config.json",
 "mcp": {"time": {"type": "local", "command": ["uvx", "mcp-server-time"], "enabled": true,
                  "environment": {"A": "b"}}}}
"""

OPENCODE_2 = """\
{
  "mcp": {
    "servers": {
      // version 2
      "time": {
        "type": "local",
        "command": ["uvx", "mcp-server-time"],
      },
    },
  },
}
"""

ZED = """\
// Zed settings
{
  "vim_mode": true,
  "context_servers": {
    "time": {
      "source": "custom",
      "command": "uvx",
      "args": ["mcp-server-time"],
      "env": {}
    }
  }
}
"""

OF_GEMINI = {"trust": True, "timeout": 30000, "includeTools": ["now"]}

CASES = [
    Case("claude-code", ".claude.json", CLAUDE_CODE, ("mcpServers",), {"type": "stdio"}),
    Case("claude-desktop", ".config/Claude/claude_desktop_config.json", MCP_SERVERS, ("mcpServers",)),
    Case("cursor", ".cursor/mcp.json", MCP_SERVERS, ("mcpServers",)),
    Case("vscode", ".config/Code/User/mcp.json", VSCODE, ("servers",), {"type": "stdio"}),
    Case("windsurf", ".codeium/windsurf/mcp_config.json", MCP_SERVERS, ("mcpServers",)),
    Case("gemini", ".gemini/settings.json", GEMINI, ("mcpServers",), OF_GEMINI),
    Case("codex", ".codex/config.toml", CODEX, ("mcp_servers",), {"startup_timeout_sec": 20}),
    Case(
        "opencode", ".config/opencode/opencode.json", OPENCODE_1, ("mcp",), {"type": "local", "enabled": True}
    ),
    Case("opencode", ".config/opencode/opencode.jsonc", OPENCODE_2, ("mcp", "servers"), {"type": "local"}),
    Case("zed", ".config/zed/settings.json", ZED, ("context_servers",), {"source": "custom"}),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.host} {case.section[-1]}")


def value_of(case: Case, text: str) -> Any:
    value: Any = tomli.loads(text) if case.host == "codex" else jsonc.loads(text.removeprefix("\ufeff"))
    for key in case.section:
        value = value[key]
    return value


def test_every_host_has_a_case() -> None:
    """A new host comes with its file."""
    assert {case.host for case in CASES} == {host.name for host in HOSTS}


@every_case
def test_attach_then_detach_gives_the_file_byte_for_byte(case: Case, home: Home) -> None:
    """Only the entry changes: it runs the broker, its own keys stay; `detach` restores all of it."""
    path = home.write(case.path, case.text)
    path.chmod(0o640)
    done = home.attach(case.host)
    text = path.read_bytes().decode()
    entry = value_of(case, text)["time"]
    program, *args = home.connecting("time")
    command = {"command": [program, *args]} if case.host == "opencode" else {"command": program, "args": args}
    assert entry == {**case.kept, **command}
    server = home.servers()["time"]
    assert (server["command"], server["args"]) == (str(home.bin / "uvx"), ["mcp-server-time"])
    assert SECRET not in done.output
    assert home.detach(case.host).output.count(SECRET) == 0
    assert path.read_bytes().decode() == case.text
    assert path.stat().st_mode & 0o777 == 0o640


@every_case
def test_an_address_instead_of_a_command(case: Case, home: Home) -> None:
    """`--http` writes the gateway's address, and the name of the token's variable: never a token."""
    path = home.write(case.path, case.text)
    host = next(host for host in HOSTS if host.name == case.host)
    done = home.run("attach", case.host, "--http")
    if host.http is None:
        assert (done.exit_code, path.read_bytes().decode()) == (2, case.text)
        assert "without --http" in done.stderr
        return
    assert done.exit_code == 0, done.output
    entry = value_of(case, path.read_bytes().decode())["time"]
    assert "http://127.0.0.1:8420/mcp/time" in entry.values()
    assert "command" not in entry
    assert "MCP_BROKER_TOKEN" in str(entry)
    home.detach()
    assert path.read_bytes().decode() == case.text


@every_case
def test_a_second_attach_changes_nothing(case: Case, home: Home) -> None:
    """An attached entry is recognized, and stays restorable."""
    path = home.write(case.path, case.text)
    home.attach(case.host)
    once = path.read_bytes()
    assert "time: stays as it is: it is attached already" in home.attach(case.host).stderr
    assert path.read_bytes() == once
    home.detach()
    assert path.read_bytes().decode() == case.text
