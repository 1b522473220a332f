"""The MCP hosts that can be attached: their files, and the keys of their entries.

Sources: the documentation of each host, as of late 2026.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from broker.command.importing.shapes import Table

HTTP_TOKEN = "MCP_BROKER_TOKEN"
"""The variable of the gateway's token in entries with an address. No token is written into a file."""

ENDPOINT = "MCP_BROKER_ENDPOINT"
"""The variable of the broker's endpoint. The programs that a host starts may not have it."""

PROCESS_KEYS = (
    *("command", "cmd", "args", "arguments", "env", "environment", "envs", "envFile", "env_file", "env_vars"),
    *("env_keys", "cwd", "workingDirectory", "working_directory", "dev"),
)
"""The keys of an entry that are about its process. The other keys are the host's, and stay in the entry."""

ADDRESS_KEYS = (
    "type",
    "url",
    "serverUrl",
    "httpUrl",
    "headers",
    "http_headers",
    "env_http_headers",
    "source",
)


class Host(NamedTuple):
    """A host.

    Attributes:
        name: its name in the command.
        title: its name in texts.
        format: the format of its file.
        paths: where its file may be, the first existing one counts; `~` and variables are filled in.
        sections: the keys that lead to its servers, the first existing section counts.
        http: the entry for an address, with `{url}`; `None` if the host takes no address, or no token from a
            variable.
        takes_list: whether `command` is a list that includes the arguments.
    """

    name: str
    title: str
    format: Literal["json", "toml"]
    paths: tuple[str, ...]
    sections: tuple[tuple[str, ...], ...]
    http: Mapping[str, object] | None
    takes_list: bool = False


def _bearer(variable: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {variable}"}


_CONFIG = "$XDG_CONFIG_HOME"
_MCP_SERVERS = (("mcpServers",),)

HOSTS = (
    Host(
        "claude-code",
        "Claude Code",
        "json",
        ("$CLAUDE_CONFIG_DIR/.claude.json", "~/.claude.json"),
        _MCP_SERVERS,
        {"type": "http", "url": "{url}", "headers": _bearer(f"${{{HTTP_TOKEN}}}")},
    ),
    Host(
        "claude-desktop",
        "Claude Desktop",
        "json",
        (f"{_CONFIG}/Claude/claude_desktop_config.json",),
        _MCP_SERVERS,
        None,
    ),
    Host(
        "cursor",
        "Cursor",
        "json",
        ("~/.cursor/mcp.json",),
        _MCP_SERVERS,
        {"url": "{url}", "headers": _bearer(f"${{env:{HTTP_TOKEN}}}")},
    ),
    Host(
        "vscode",
        "VS Code",
        "json",
        tuple(f"{_CONFIG}/{name}/User/mcp.json" for name in ("Code", "Code - Insiders", "VSCodium")),
        (("servers",),),
        {"type": "http", "url": "{url}", "headers": _bearer(f"${{env:{HTTP_TOKEN}}}")},
    ),
    Host(
        "windsurf",
        "Windsurf",
        "json",
        ("~/.codeium/windsurf/mcp_config.json",),
        _MCP_SERVERS,
        {"serverUrl": "{url}", "headers": _bearer(f"${{env:{HTTP_TOKEN}}}")},
    ),
    Host(
        "gemini",
        "Gemini CLI",
        "json",
        ("~/.gemini/settings.json",),
        _MCP_SERVERS,
        {"httpUrl": "{url}", "headers": _bearer(f"${HTTP_TOKEN}")},
    ),
    Host(
        "codex",
        "Codex",
        "toml",
        ("$CODEX_HOME/config.toml", "~/.codex/config.toml"),
        (("mcp_servers",),),
        {"url": "{url}", "bearer_token_env_var": HTTP_TOKEN},
    ),
    Host(
        "opencode",
        "OpenCode",
        "json",
        (f"{_CONFIG}/opencode/opencode.jsonc", f"{_CONFIG}/opencode/opencode.json"),
        (("mcp", "servers"), ("mcp",)),
        {"type": "remote", "url": "{url}", "headers": _bearer(f"{{env:{HTTP_TOKEN}}}")},
        takes_list=True,
    ),
    Host("zed", "Zed", "json", (f"{_CONFIG}/zed/settings.json",), (("context_servers",),), None),
)
"""The known hosts."""

BY_NAME = {host.name: host for host in HOSTS}


def paths_of(host: Host, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where the host's file may be. A path whose variable is not set is left out."""
    home = environ.get("HOME") or os.path.expanduser("~")
    variables = {
        "XDG_CONFIG_HOME": f"{home}/.config",
        **{key: value for key, value in environ.items() if value},
    }
    for path in host.paths:
        first, _, rest = path.partition("/")
        root = home if first == "~" else variables.get(first.removeprefix("$"))
        if root:
            yield Path(root, rest)


def connecting(host: Host, entry: Table, command: list[str]) -> Table:
    """Return the entry with another command. Keys that are not about the process keep their place."""
    program, *args = command
    new: Table = {"command": command} if host.takes_list else {"command": program, "args": args}
    return _replaced(entry, new, PROCESS_KEYS)


def with_address(host: Host, entry: Table, url: str) -> Table:
    """Return the entry with an address in place of its command."""
    new = {
        key: value.replace("{url}", url) if isinstance(value, str) else value
        for key, value in (host.http or {}).items()
    }
    return _replaced(entry, new, (*PROCESS_KEYS, *ADDRESS_KEYS))


def _replaced(entry: Table, new: Mapping[str, object], dropped: tuple[str, ...]) -> Table:
    found: Table = {}
    for key, value in entry.items():
        if key in dropped:
            found.update(new)
        elif key not in new:
            found[key] = value
    return {**found, **new} if not new.keys() <= found.keys() else found
