"""Files of hosts whose shape is not the `mcpServers` of most: what each becomes, and what is said of it."""

from __future__ import annotations

from tests.command.importing.hosts import Host

ZED = """// Zed settings
{
  "theme": "One Dark",
  "context_servers": {
    "old": {"command": {"path": "npx", "args": ["-y", "pg"], "env": {"A": "1"}}, "settings": {}},
    "new": {"source": "custom", "enabled": false, "command": "npx", "args": ["-y", "x"],},
    "postgres": {"settings": {"database_url": "postgres://db"}},
    "linear": {"url": "https://example.com/mcp"},
  },
}
"""

CONTINUE = """\
name: Mine
version: 1.0.0
mcpServers:
  - name: SQLite MCP
    command: npx
    args: ["-y", "mcp-sqlite"]
    env:
      KEY: ${{ secrets.MY_KEY }}
      COUNTRY: no
      PORT: 3000
      OCTAL: 010
    connectionTimeout: 20000
  - uses: acme/memory-mcp
  - name: far
    type: streamable-http
    url: https://example.com/mcp
"""

CONTINUE_JSON = {
    "models": [],
    "experimental": {
        "modelContextProtocolServers": [
            {"transport": {"type": "stdio", "command": "uvx", "args": ["mcp-server-sqlite", "--db", "/x.db"]}}
        ]
    },
}

LIBRECHAT = """\
version: 1.2.1
mcpServers:
  files:
    command: npx
    args:
      - -y
      - "@modelcontextprotocol/server-filesystem"
    timeout: 60000
    initTimeout: 15000
    startup: false
  mine:
    command: npx
    env:
      USER: "{{LIBRECHAT_USER_ID}}"
  far:
    url: http://localhost:3001/sse
"""

GOOSE = """\
GOOSE_PROVIDER: anthropic
extensions:
  developer:
    bundled: true
    enabled: true
    name: developer
    timeout: 300
    type: builtin
  fetch:
    args:
    - mcp-server-fetch
    cmd: uvx
    enabled: true
    env_keys:
    - FETCH_KEY
    envs:
      A: b
    name: fetch
    timeout: 1800
    type: stdio
  older:
    enabled: false
    config:
      type: stdio
      name: older
      cmd: npx
      args: ["-y", "tool"]
  far:
    type: sse
    uri: https://example.com/sse
    enabled: true
"""

CODEX = """\
model = "o3"

[mcp_servers."my docs"]
command = "npx"
args = ["-y", "docs"]
env = { A = "b" }
env_vars = ["DOCS_TOKEN", { name = "OTHER", source = "local" }]
enabled = false
startup_timeout_ms = 20000
tool_timeout_sec = 60.5
enabled_tools = ["read"]

[mcp_servers.github]
url = "https://example.com/mcp"
bearer_token_env_var = "GH_PAT"
startup_timeout_sec = 40
"""

OPENCODE = """{
  "$schema": "https://opencode.ai/config.json",
  "mcp": {
    "far": {"type": "remote", "url": "https://example.com", "headers": {"Authorization": "Bearer {env:K}"}},
    "near": {
      "type": "local", "command": ["npx", "-y", "near-mcp"], "environment": {"K": "{env:MY_KEY}"},
      "timeout": 500, "cwd": ".",
    },
  }, // the end
}"""

OPENCODE_2 = {
    "mcp": {
        "servers": {
            "it": {
                "type": "local",
                "command": ["npx", "-y", "it"],
                "disabled": True,
                "timeout": {"startup": 5000, "request": 60000},
            }
        }
    }
}

GEMINI = {
    "theme": "Default",
    "mcp": {"excluded": ["two"]},
    "mcpServers": {
        "one": {
            "command": "python3",
            "env": {"K": "$MY_KEY", "L": "${OTHER}"},
            "timeout": 500,
            "trust": False,
        },
        "two": {"command": "npx"},
        "three": {"httpUrl": "https://example.com"},
    },
}

VSCODE = {
    "inputs": [{"type": "promptString", "id": "path", "password": True}],
    "servers": {
        "env": {"type": "stdio", "command": "npx", "env": {"P": "${input:path}", "H": "${input:ключ}"}},
        "args": {"command": "npx", "args": ["--key=${input:path}"]},
    },
}

CLAUDE_CODE = {
    "numStartups": 12,
    "mcpServers": {"db": {"type": "stdio", "command": "npx", "args": [], "env": {}}},
    "projects": {
        "{folder}/site": {
            "allowedTools": [],
            "mcpServers": {"db": {"command": "npx", "args": ["a"]}, "logs": {"command": "uvx"}},
            "disabledMcpServers": ["logs"],
        },
        "{folder}/shop": {"mcpServers": {"db": {"command": "npx", "args": ["b"]}}},
        "{folder}/empty": {},
    },
}

EXTENSION = {
    "dxt_version": "0.1",
    "name": "my-extension",
    "server": {
        "type": "node",
        "mcp_config": {
            "command": "npx",
            "args": ["${__dirname}/server/index.js"],
            "env": {"API_KEY": "${user_config.api_key}"},
        },
    },
}

WINDOWS = r"""{ "mcpServers": {
  "cmd": {"command": "cmd", "args": ["/c", "npx", "-y", "x"]},
  "exe": {"command": "C:\\Program Files\\nodejs\\node.exe", "args": ["C:\\x\\index.js"]},
  "wsl": {"command": "wsl.exe", "args": ["-d", "Ubuntu", "bash", "-c", "npx -y x"]},
  "npx": {"command": "npx.cmd"},
  "ps": {"command": "powershell.exe", "args": ["-Command", "npx x"]},
  "args": {"command": "npx", "args": ["-y", "fs", "C:\\Users\\me"]},
  "env": {"command": "npx", "env": {"APPDATA": "%APPDATA%"}},
  "lost": {"command": "npx", "args": ["--root=C:\temp"]},
  "web": {"command": "npx", "args": ["http://example.com:80/%20", "--ratio=1:2"]}
}}"""

LINES = {
    "mcpServers": {
        "whole": {"command": "npx -y @modelcontextprotocol/server-everything"},
        "quoted": {"command": "FOO=1 uvx tool --q 'a b'", "env": {"B": "2"}},
        "half": {"command": "uvx run", "args": ["s.py"]},
        "shell": {"command": "cd /x && npx y"},
        "space": {"command": "{bin}/my run"},
        "nowhere": {"command": "/opt/My App/run"},
    }
}


FAST_AGENT = """\
default_model: x
mcp:
  servers:
    fetch:
      command: uvx
      args: [mcp-server-fetch]
      read_timeout_seconds: 60
"""

SETTINGS = {
    "editor.tabSize": 2,
    "augment.advanced": {"mcpServers": [{"name": "one", "command": "npx"}]},
    "amp.mcpServers": {"two": {"command": "npx"}},
    "mcp.servers": {"three": {"command": "npx"}},
    "mcp": {"inputs": [], "servers": {"four": {"command": "npx"}}},
}

_FOUR = ("one", "two", "three", "four")

DEVCONTAINER = {"image": "x", "customizations": {"vscode": {"mcp": {"servers": {"it": {"command": "npx"}}}}}}


def _npx(*args: str, **keys: object) -> dict[str, object]:
    return {"command": "{bin}/npx", **({"args": [*args]} if args else {}), **keys}


OTHER_HOSTS = [
    Host(
        "fastagent.config.yaml",
        FAST_AGENT,
        {"fetch": {"command": "{bin}/uvx", "args": ["mcp-server-fetch"], "timeout": 60}},
        0,
        ("fetch: read_timeout_seconds is timeout, 60 s",),
    ),
    Host("settings.json", SETTINGS, {name: {"command": "{bin}/npx"} for name in _FOUR}, 0, ()),
    Host("devcontainer.json", DEVCONTAINER, {"it": {"command": "{bin}/npx"}}, 0, ()),
    Host(
        ".zed/settings.json",
        ZED,
        {"old": _npx("-y", "pg", env={"A": "1"}), "new": _npx("-y", "x", enabled=False)},
        1,
        (
            "postgres: not imported: it is built into its host (extension)",
            "linear: not imported: it is a remote server (url)",
        ),
    ),
    Host(
        "config.yaml",
        CONTINUE,
        {
            "SQLite MCP": _npx(
                "-y",
                "mcp-sqlite",
                env={"KEY": "${MY_KEY}", "COUNTRY": "no", "PORT": "3000", "OCTAL": "010"},
                timeout_start_sec=20,
            )
        },
        1,
        (
            "env KEY is now the variable MY_KEY",
            "it is built into its host (uses)",
            "far: not imported: it is a remote server (streamable-http)",
        ),
    ),
    Host(
        "config.json",
        CONTINUE_JSON,
        {"mcp-server-sqlite": {"command": "{bin}/uvx", "args": ["mcp-server-sqlite", "--db", "/x.db"]}},
        0,
        ("mcp-server-sqlite: it had no name; this one is made from its command",),
    ),
    Host(
        "librechat.yaml",
        LIBRECHAT,
        {
            "files": _npx(
                "-y",
                "@modelcontextprotocol/server-filesystem",
                timeout=60,
                timeout_start_sec=15,
            ),
            "mine": {"command": "npx", "env": {"USER": "{{LIBRECHAT_USER_ID}}"}, "enabled": False},
        },
        1,
        ("mine: imported but disabled: env USER has {{LIBRECHAT_USER_ID}}", "far: not imported"),
    ),
    Host(
        "goose.yaml",
        GOOSE,
        {
            "fetch": {
                "command": "{bin}/uvx",
                "args": ["mcp-server-fetch"],
                "env": {"FETCH_KEY": "${FETCH_KEY}", "A": "b"},
                "timeout": 1800,
            },
            "older": _npx("-y", "tool", enabled=False),
        },
        1,
        (
            "developer: not imported: it is built into its host (builtin)",
            "far: not imported: it is a remote server (sse)",
        ),
    ),
    Host(
        ".codex/config.toml",
        CODEX,
        {
            "my docs": _npx(
                "-y",
                "docs",
                env={"A": "b"},
                env_inherit=["DOCS_TOKEN", "OTHER"],
                timeout=60.5,
                timeout_start_sec=20,
                enabled=False,
            )
        },
        1,
        (
            "my docs: startup_timeout_ms 20000 is read as milliseconds: 20 s",
            "my docs: tool_timeout_sec is timeout, 60.5 s",
            "no such keys: enabled_tools\n",
            "github: not imported: it is a remote server (url)",
        ),
    ),
    Host(
        "opencode.jsonc",
        OPENCODE,
        {"near": _npx("-y", "near-mcp", env={"K": "${MY_KEY}"}, timeout=0.5, cwd="{folder}")},
        1,
        (
            "far: not imported: it is a remote server (url)",
            "near: timeout 500 is read as milliseconds: 0.5 s",
        ),
    ),
    Host(
        "opencode.json",
        OPENCODE_2,
        {"it": _npx("-y", "it", timeout=60, timeout_start_sec=5, enabled=False)},
        0,
        ("it: timeout.startup 5000 is read as milliseconds: 5 s",),
    ),
    Host(
        ".gemini/settings.json",
        GEMINI,
        {
            "one": {"command": "{bin}/python3", "env": {"K": "${MY_KEY}", "L": "${OTHER}"}, "timeout": 0.5},
            "two": _npx(enabled=False),
        },
        1,
        ("three: not imported: it is a remote server (httpUrl)",),
    ),
    Host(
        ".vscode/mcp.json",
        VSCODE,
        {
            "env": _npx(env={"P": "${MCP_PATH}", "H": "${MCP_1DE36A32}"}),
            "args": {"command": "npx", "args": ["--key=${input:path}"], "enabled": False},
        },
        1,
        ("${input:path} in env P is now the variable MCP_PATH", "args: imported but disabled"),
    ),
    Host(
        ".claude.json",
        CLAUDE_CODE,
        {
            "db": _npx(env={}, args=[]),
            "db-site": _npx("a", cwd="{folder}/site"),
            "logs": {"command": "{bin}/uvx", "cwd": "{folder}/site", "enabled": False},
            "db-shop": _npx("b", cwd="{folder}/shop"),
        },
        0,
        (
            "db-shop: this is 'db' of project {folder}/shop",
            "db-site: runs in {folder}/site, the folder of its project",
        ),
    ),
    Host(
        "manifest.json",
        EXTENSION,
        {"my-extension": _npx("{folder}/server/index.js", env={"API_KEY": "${API_KEY}"})},
        0,
        ("${user_config.api_key} in env API_KEY is now the variable API_KEY",),
    ),
    Host(
        "claude_desktop_config.json",
        WINDOWS,
        {
            "args": {"command": "npx", "args": ["-y", "fs", "C:\\Users\\me"], "enabled": False},
            "env": {"command": "npx", "env": {"APPDATA": "%APPDATA%"}, "enabled": False},
            "lost": {"command": "npx", "args": ["--root=C:\temp"], "enabled": False},
            "web": _npx("http://example.com:80/%20", "--ratio=1:2"),
        },
        1,
        (
            "cmd: not imported: cmd is a shell of Windows; on Linux write npx as command",
            "exe: not imported: C:\\Program Files\\nodejs\\node.exe is a program of Windows",
            "write that of Linux, such as node\n",
            "wsl: not imported: wsl.exe is a shell of Windows; on Linux write npx as command",
            "npx: not imported: npx.cmd is a program of Windows",
            "ps: not imported: powershell.exe is a shell of Windows; on Linux write npx",
            "args: imported but disabled: args has a path or variable of Windows, C:\\…;",
            "env: imported but disabled: env has a path or variable of Windows, %APPDATA%;",
            "lost: imported but disabled: args has 'C:\\t', a path of Windows whose single \\ made another",
        ),
    ),
    Host(
        "lines.json",
        LINES,
        {
            "whole": _npx("-y", "@modelcontextprotocol/server-everything"),
            "quoted": {
                "command": "{bin}/uvx",
                "args": ["tool", "--q", "a b"],
                "env": {"FOO": "1", "B": "2"},
            },
            "half": {"command": "{bin}/uvx", "args": ["run", "s.py"]},
            "shell": {"command": "cd /x && npx y", "enabled": False},
            "space": {"command": "{bin}/my run"},
            "nowhere": {"command": "/opt/My App/run"},
        },
        1,
        (
            "whole: its command was a whole line; now npx is the command, and 2 words are args",
            'shell: imported but disabled: its command is a line for a shell; write command = "sh"',
            "nowhere: imported unchanged, but it cannot start here",
        ),
    ),
]
