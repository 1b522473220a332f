"""Files as the hosts write them: what each becomes, and what is said about it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Host(NamedTuple):
    """A file, its servers in `broker.toml`, the exit status, and some of what is told."""

    name: str
    content: object
    servers: dict[str, Any]
    status: int
    told: tuple[str, ...]


VTUBER = """{
  // the servers of the screen
  "mcp_servers": {
    "time": {"command": "uvx", "args": ["mcp-server-time", "--local-timezone=Asia/Tokyo"], "timeout": 2000},
    /* its folder is that of this file */
    "laundry": {"command": "python3", "args": ["servers/laundry.py"], "env": {"PORT": 3000, "QUIET": true}},
  },
}"""

VSCODE = """{
  "inputs": [{"type": "promptString", "id": "perplexity-key", "password": true}],
  "servers": {
    "perplexity": {
      "type": "stdio", "command": "npx", "args": ["-y", "server-perplexity", "${workspaceFolder}/data"],
      "env": {"PERPLEXITY_API_KEY": "${input:perplexity-key}", "CACHE": "${env:HOME}/cache"}, // asked for
    },
    "github": {"type": "http", "url": "https://example.com/mcp"},
  }
}"""

CLINE = {
    "mcpServers": {
        "github.com/acme/notes": {
            "command": "npx",
            "args": ["-y", "notes"],
            "disabled": True,
            "autoApprove": ["list"],
            "alwaysAllow": [],
            "timeout": 1800,
            "type": "stdio",
        }
    }
}

CLAUDE_CODE = {
    "mcpServers": {"db": {"type": "stdio", "command": "docker", "args": ["run"], "timeout": 600000}}
}

HOSTS = [
    Host(
        "mcp_servers.json",
        VTUBER,
        {
            "time": {
                "command": "{bin}/uvx",
                "args": ["mcp-server-time", "--local-timezone=Asia/Tokyo"],
                "timeout": 2000,
            },
            "laundry": {
                "command": "{bin}/python3",
                "args": ["servers/laundry.py"],
                "env": {"PORT": "3000", "QUIET": "true"},
                "cwd": "{folder}",
            },
        },
        0,
        ("time: uvx is {bin}/uvx", "laundry: runs in {folder}"),
    ),
    Host(
        ".vscode/mcp.json",
        VSCODE,
        {
            "perplexity": {
                "command": "{bin}/npx",
                "args": ["-y", "server-perplexity", "{folder}/data"],
                "env": {"PERPLEXITY_API_KEY": "${PERPLEXITY_KEY}", "CACHE": "${HOME}/cache"},
            }
        },
        1,
        (
            "github: not imported: it is a remote server (http)",
            "${input:perplexity-key} in env PERPLEXITY_API_KEY is now the variable PERPLEXITY_KEY",
            "where the broker is started: HOME (perplexity), PERPLEXITY_KEY (perplexity)",
        ),
    ),
    Host(
        "cline_mcp_settings.json",
        CLINE,
        {
            "github.com-acme-notes-ccca9274": {
                "command": "{bin}/npx",
                "args": ["-y", "notes"],
                "timeout": 1800,
                "enabled": False,
            }
        },
        0,
        (
            "because 'github.com/acme/notes' is not a valid name",
            "stays disabled",
            "no such keys: autoApprove\n",
        ),
    ),
    Host(
        ".mcp.json",
        CLAUDE_CODE,
        {"db": {"command": "{bin}/docker", "args": ["run"], "timeout": 600}},
        0,
        ("timeout 600000 is read as milliseconds: 600 s",),
    ),
    Host(
        "settings.json",
        {"editor.fontSize": 12, "mcp": {"servers": {"a": {"command": "npx"}}}},
        {"a": {"command": "{bin}/npx"}},
        0,
        ("broker.toml: written, servers: 1; now run: mcp-broker check",),
    ),
]
