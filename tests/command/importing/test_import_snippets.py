"""`mcp-broker import`: pieces of files and lines for a shell, as pages of servers print them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.command.importing.asking import Run, Write, placed, servers

TIME = '{"command": "uvx", "args": ["mcp-server-time"]}'


@pytest.mark.parametrize(
    "text",
    [
        f'{{"mcpServers": {{"time": {TIME}}}}}',
        f'"mcpServers": {{"time": {TIME}}}',
        f'"mcpServers": {{\n  "time": {TIME},\n}},\n',
        f'{{"time": {TIME}}}',
        f'"time": {TIME},',
        f'// from its page\n"time": {TIME}',
        f'[{{"name": "time", {TIME[1:]}]',
        f'{{"name": "time", {TIME[1:]}',
        f'```json\n{{"mcpServers": {{"time": {TIME}}}}}\n```\n',
        f'# Install\n\nAdd this to your file:\n\n```json\n{{"time": {TIME}}}\n```\n\nThen restart.\n',
        "Or by the command:\n\n```bash\nclaude mcp add time -- uvx mcp-server-time\n```\n",
        f'\ufeff{{"servers": {{"time": {TIME}}}}}',
        '[mcp_servers.time]\ncommand = "uvx"\nargs = ["mcp-server-time"]\n',
        "mcpServers:\n  time:\n    command: uvx\n    args: [mcp-server-time]\n",
        "mcpServers:\n  - name: time\n    command: uvx\n    args:\n      - mcp-server-time\n",
        "claude mcp add time -- uvx mcp-server-time",
        "$ claude mcp add --scope user --transport stdio time -- uvx mcp-server-time\n",
        "claude mcp add time -s local \\\n  -- uvx \\\n  mcp-server-time",
        "# for everybody\nclaude mcp add time uvx mcp-server-time -s user",
        f"claude mcp add-json time '{TIME}' --scope user",
        f'code --add-mcp \'{{"name":"time",{TIME[1:]}\'',
        "codex mcp add time -- uvx mcp-server-time",
        "gemini mcp add -s user --trust time uvx mcp-server-time",
        "npx @anthropic-ai/claude-code mcp add time -- uvx mcp-server-time",
    ],
)
@pytest.mark.parametrize("way", ["file", "stdin", "dash"])
def test_a_piece_is_read_as_the_whole(run: Run, write: Write, bin_folder: Path, text: str, way: str) -> None:
    """From a file whose name says nothing, from standard input, and with `-` for it."""
    ways: dict[str, list[object]] = {"file": [write("snippet.txt", text)], "stdin": [], "dash": ["-"]}
    done = run(*ways[way], stdin="" if way == "file" else text)
    assert done.exit_code == 0, done.stderr
    assert servers() == {"time": {"command": f"{bin_folder}/uvx", "args": ["mcp-server-time"]}}


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (
            {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-everything@1.2"]},
            "server-everything",
        ),
        ({"command": ["npx", "-y", "thing@latest"]}, "thing"),
        ({"command": "uvx", "args": ["--from", "git+https://x/y", "the-tool"]}, "the-tool"),
        (
            {"command": "docker", "args": ["run", "-i", "--rm", "-e", "TOKEN", "ghcr.io/acme/notes:1"]},
            "notes",
        ),
        ({"command": "python3", "args": ["servers/laundry.py"]}, "laundry"),
        ({"command": "/opt/天气/天气"}, "天气"),
        ({"command": "npx -y whole-line"}, "whole-line"),
    ],
    ids=str,
)
def test_a_server_without_a_name_gets_that_of_its_program(run: Run, entry: dict[str, Any], name: str) -> None:
    """And that is told."""
    done = run(stdin=json.dumps(entry))
    assert list(servers()) == [name]
    assert f"{name}: it had no name" in done.stderr


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("-e A=1 -e B=two it -- npx x", {"env": {"A": "1", "B": "two"}}),
        ("it --env A=1 B=two -- npx x", {"env": {"A": "1", "B": "two"}}),
        ("it -e A=$MINE -- npx x", {"env": {"A": "${MINE}"}}),
        ('it -e A="a b" -- npx x', {"env": {"A": "a b"}}),
        (
            'it -- npx --dir "$(pwd)/d" ~/x -e C=3',
            {"args": ["--dir", "{folder}/d", "{folder}/home/x", "-e", "C=3"]},
        ),
        ("it docker run -i -e T=1 img", {"command": "docker", "args": ["run", "-i", "-e", "T=1", "img"]}),
        ("it npx x --port 80", {"args": ["x", "--port", "80"]}),
        ("it npx x -e A=1", {"env": {"A": "1"}}),
    ],
)
def test_the_options_of_the_host_are_not_the_servers(
    run: Run, tmp_path: Path, bin_folder: Path, line: str, entry: dict[str, Any]
) -> None:
    """Behind `--` all is the server's; before it what the host knows is the host's."""
    assert run("-", stdin=f"claude mcp add {line}").exit_code == 0
    whole = placed({"command": "npx", "args": ["x"], **entry}, folder=tmp_path)
    assert servers() == {"it": {**whole, "command": f"{bin_folder}/{whole['command']}"}}


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        (
            "claude mcp add --transport http notion https://x.example/mcp",
            1,
            "notion: not imported: it is a remote server (http)",
        ),
        (
            "codex mcp add far --url https://x.example/mcp",
            1,
            "far: not imported: it is a remote server (url)",
        ),
        ("claude mcp add time", 2, "<stdin>:1: the name or the command is missing"),
        ("claude mcp add x -- y\nclaude mcp remove z", 2, '<stdin>:2: "claude" adds no server'),
        ("claude mcp add --frob x -- y", 2, "the option --frob is not known"),
        ("claude mcp add x -- 'y", 2, "a quotation mark is not closed"),
        ("claude mcp add-json x '{'", 2, "its JSON is not an object"),
        ("claude mcp add x -- y && rm -rf z", 2, "adds no server"),
        ("hello world", 2, "the known hosts, with the key of each"),
        ("<mcp><server/></mcp>", 2, "the known hosts, with the key of each"),
        ("just: text\n", 2, "the known hosts, with the key of each"),
        ('"mcpServers": {"a": {"command": "npx"}', 2, "the text ends and } is missing: the { of line 1"),
        ('"mcpServers": {"a": {"command": "\\d"}}', 2, "<stdin>:1:34: not JSON: a single \\"),
        ('[mcp_servers.a]\ncommand = "C:\\Users"\n', 2, "in single quotation marks, or \\ twice"),
        ("mcpServers:\n\ta: 1\n", 2, "<stdin>:2:1: not YAML"),
        ("mcpServers: &a\n  x: *a\n", 1, "x: not imported"),
        ("mcp: &a\n  settings: *a\n", 2, "nested too deeply"),
        ('mcpServers:\n  a: {command: "\\ud800"}\n', 2, "an incomplete character"),
        ("  \n", 2, "<stdin> is empty"),
    ],
)
def test_what_is_missing_is_told(run: Run, text: str, status: int, told: str) -> None:
    """By its place and what to write; nothing is written."""
    done = run("-", stdin=text)
    assert (done.exit_code, told in done.stderr) == (status, True), done.stderr
    assert not Path("broker.toml").exists()


def test_a_key_that_yaml_has_twice_is_told(run: Run) -> None:
    """As in JSON: the last one counts, and people do not see it."""
    done = run("-", stdin="mcpServers:\n  a: {command: npx}\n  a: {command: uvx}\n")
    assert "duplicate keys, the last one counts: a" in done.stderr


def test_an_error_in_a_line_never_shows_a_secret(run: Run) -> None:
    """The line may hold one."""
    for line in ("export KEY=sk-live-0123", "claude mcp add x --api-key=sk-live-0123 -- y"):
        assert "0123" not in run("-", stdin=f"claude mcp add a -- b\n{line}").stderr


def test_notes_between_the_servers_are_no_servers(run: Run, write: Write) -> None:
    """`"//": "text"` and `"_comment"` are how people write into JSON."""
    notes = {"//": "mine", "_comment": ["a", "b"], "$schema": "https://x"}
    done = run(write("a.json", {"mcpServers": {**notes, "a": {"command": "npx"}}}))
    assert (done.exit_code, list(servers())) == (0, ["a"])


def test_projects_are_told_apart_whichever_comes_first(run: Run, write: Write) -> None:
    """Two of one name and one folder name get names of their own, which depend on nothing else."""
    folders = ["/a/site", "/b/site"]
    found = []
    for order in (folders, folders[::-1]):
        projects = {folder: {"mcpServers": {"db": {"command": "npx"}}} for folder in order}
        run(write(".claude.json", {"projects": projects}), "--force")
        found.append({table["cwd"]: name for name, table in servers().items()})
    assert found[0] == found[1]
    assert len({*found[0].values()}) == 2


def test_what_was_set_by_hand_is_no_other_definition(run: Run, write: Write) -> None:
    """Most hosts have no `timeout_start_sec`: a second import keeps the one that `broker.toml` has."""
    path = write("a.json", {"mcpServers": {"it": {"command": "npx"}}})
    run(path)
    old = Path("broker.toml").read_text(encoding="utf-8")
    Path("broker.toml").write_text(f"{old}timeout_start_sec = 120\n", encoding="utf-8")
    assert run(path, "--merge").exit_code == 0
    other = write("b.json", {"mcpServers": {"it": {"command": "uvx"}}})
    assert run(other, "--merge", "--prefer", "last").exit_code == 0
    assert servers()["it"]["timeout_start_sec"] == 120


KEYS = [
    *("mcpServers", "mcp_servers", "servers", "mcp", "context_servers", "extensions", "projects", "settings"),
    *(
        "command",
        "args",
        "env",
        "cwd",
        "timeout",
        "url",
        "type",
        "transport",
        "cmd",
        "envs",
        "env_keys",
        "name",
    ),
    *(
        "disabled",
        "enabled",
        "tool_timeout_sec",
        "environment",
        "experimental",
        "config",
        "excluded",
        "x/y",
        "",
    ),
]
TEXTS = [
    *(
        "npx",
        "-y",
        "x y",
        "cmd",
        "C:\\x",
        "${a}",
        "${input:x}",
        "{{X}}",
        "$X",
        "stdio",
        "local",
        "sse",
        "",
        "~/x",
    ),
    *("a\tb", "\0", "'", "a && b", "${{ secrets.X }}", "{env:X}", "${}", "FOO=1 x", "https://x", "builtin"),
]
parts = st.recursive(
    st.sampled_from(TEXTS) | st.none() | st.booleans() | st.sampled_from([0, -1, 5000, 1.5, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(KEYS), parts, min_size=1), st.sampled_from([json.dumps, yaml.safe_dump])
)
def test_whatever_a_file_says_it_is_imported_or_told(
    run: Run, value: object, dump: Callable[[object], str]
) -> None:
    """Never a traceback; and what is written is a config that the broker takes."""
    done = run("-", "--dry-run", stdin=dump(value))
    assert done.exit_code in (0, 1, 2)
    assert done.stderr or done.exit_code == 0
