"""`mcp-broker import`: how one definition is converted, and which of two is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.config.names import derived
from tests.command.importing.asking import Run, Write, one, placed, programs, servers


def test_a_command_is_found_as_the_service_finds_it(run: Run, write: Write, tmp_path: Path) -> None:
    """`--path` decides; what is not there is kept and told."""
    path = write("a.json", one())
    other = programs(tmp_path / "other", "npx")
    assert "a service may not see" not in run(path, "--force", path=other).stderr
    assert servers()["it"]["command"] == f"{other}/npx"
    done = run(path, "--force", path="/nowhere")
    assert (done.exit_code, servers()["it"]["command"]) == (0, "npx")
    assert "it cannot start here: there is no command 'npx' in PATH (/nowhere)" in done.stderr


def test_without_a_path_it_is_the_current_one(run: Run, write: Write, bin_folder: Path) -> None:
    """What a person runs in the shell is what is found."""
    run(write("a.json", one()), path=None, PATH=str(bin_folder))
    assert servers()["it"]["command"] == f"{bin_folder}/npx"


@pytest.mark.parametrize("folder", ["home/.nvm/versions/node/v22.1.0/bin", "home/.local/bin", "opt/node/bin"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_a_service_does_not_see_is_told(
    run: Run, write: Write, tmp_path: Path, folder: str, whole: bool
) -> None:
    """The PATH of a unit has neither nvm nor ~/.local/bin, and another user has no way into this home."""
    found = programs(tmp_path / folder, "npx")
    path = write("a.json", one(command=f"{found}/npx" if whole else "npx"))
    done = run(path, path=None, PATH=f"{found}:/usr/bin")
    assert servers()["it"]["command"] == f"{found}/npx"
    seen = whole and not folder.startswith("home")
    assert (f"a service may have no access to {found}/npx" not in done.stderr) is seen, done.stderr


def test_a_server_with_a_path_of_its_own_is_found_there(run: Run, write: Write, tmp_path: Path) -> None:
    """As the broker does it."""
    found = programs(tmp_path / "own", "it-server")
    run(write("a.json", one(command="it-server", env={"PATH": f"{found}:${{env:PATH}}"})))
    assert servers()["it"]["command"] == f"{found}/it-server"
    assert servers()["it"]["env"] == {"PATH": f"{found}:${{PATH}}"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"cwd": "sub"}, {"cwd": "{folder}/sub"}),
        ({"cwd": "~/sub"}, {"cwd": "{folder}/home/sub"}),
        ({"cwd": "/srv"}, {"cwd": "/srv"}),
        ({"cwd": "${workspaceFolder}/sub"}, {"cwd": "{folder}/sub"}),
        ({"command": "./sub/run"}, {"cwd": "{folder}", "command": "{folder}/sub/run"}),
        ({"command": "../run", "cwd": "sub/sub"}, {"cwd": "{folder}/sub/sub", "command": "{folder}/sub/run"}),
        ({"command": "~/run"}, {"command": "{folder}/home/run"}),
        ({"command": "${userHome}/run"}, {"command": "{folder}/home/run"}),
        ({"args": ["--root=./data"]}, {"cwd": "{folder}"}),
        ({"args": ["."]}, {"cwd": "{folder}"}),
        ({"args": ["sub"]}, {"cwd": "{folder}"}),
        ({"args": ["-y", "sub-package", "--sub", "/sub", "https://sub/"]}, {}),
        ({"env": {"DATA": "../data"}}, {"cwd": "{folder}"}),
    ],
    ids=str,
)
def test_what_is_relative_starts_from_the_file(
    run: Run, write: Write, tmp_path: Path, bin_folder: Path, keys: dict[str, Any], expected: dict[str, str]
) -> None:
    """The broker starts from its own file, which may be elsewhere."""
    for folder in ("sub", "home"):
        programs(tmp_path / folder, "run")
        (tmp_path / folder / "sub").mkdir()
    (tmp_path / "other").mkdir()
    run(write("a.json", one(**keys)), "--output", "other/broker.toml")
    table = servers("other/broker.toml")["it"]
    found = {key: table[key] for key in ("command", "cwd") if key in table}
    assert found == {"command": f"{bin_folder}/npx", **placed(expected, folder=tmp_path)}


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (60, "claude.json", 60),
        (0.5, "claude.json", 0.5),
        (60_000, "claude.json", 60),
        (999, "claude.json", 999),
        (1000, "claude.json", None),
        (3600, "claude.json", None),
        (3601, "claude.json", 3.601),
        (0, "claude.json", None),
        (-1, "mcp_settings.json", None),
        (3600, "mcp_settings.json", 3600),
        (1800, ".roo/mcp.json", 1800),
        (60_000, ".gemini/settings.json", 60),
        (500, ".gemini/settings.json", 0.5),
        (60, ".mcp.json", None),
    ],
)
def test_a_timeout_is_seconds_or_milliseconds(
    run: Run, write: Write, value: float, name: str, expected: float | None
) -> None:
    """By the host where it is known, else by its size; what could be both is left out and told (law 8)."""
    done = run(write(name, one(timeout=value)))
    assert servers()["it"].get("timeout") == expected
    assert ("is left out" in done.stderr) is (expected is None)
    assert ("is read as milliseconds" in done.stderr) is (expected not in (None, value))


@pytest.mark.parametrize(
    ("value", "expected", "told"),
    [
        ("${FOO}", "${FOO}", "broker is started: FOO (it)"),
        ("Bearer ${env:FOO}", "Bearer ${FOO}", "broker is started: FOO (it)"),
        ("${FOO:-hidden}", "${FOO}", "the default of FOO in env A is left out"),
        ("${env:FOO:-hidden}", "${FOO}", "the default of FOO in env A is left out"),
        (
            "${input:notion-key}",
            "${NOTION_KEY}",
            "${input:notion-key} in env A is now the variable NOTION_KEY",
        ),
        ("${command:a.b}", "${COMMAND_A_B}", "is now the variable COMMAND_A_B"),
        ("${userHome}${/}x", "{folder}/home/x", ""),
        ("$FOO", "$FOO", "if it means a variable, write it with braces: ${NAME}"),
        (None, None, ""),
    ],
)
def test_variables_of_hosts_become_the_brokers(
    run: Run, write: Write, tmp_path: Path, value: str | None, expected: str | None, told: str
) -> None:
    """`env` only, from the broker's environment; a default may be a secret and is not shown."""
    done = run(write("a.json", one(env={"A": value})))
    assert servers()["it"]["env"].get("A") == placed(expected, folder=tmp_path)
    assert told in done.stderr
    assert "hidden" not in done.stderr


@pytest.mark.parametrize(
    "keys", [{"args": ["${FOO}"]}, {"cwd": "${env:FOO}"}, {"command": "${input:foo}/run"}]
)
def test_a_variable_outside_of_env_disables_the_server(run: Run, write: Write, keys: dict[str, Any]) -> None:
    """The broker would pass `${FOO}` on as it stands there."""
    done = run(write("a.json", one(**keys)))
    assert (done.exit_code, servers()["it"]["enabled"]) == (1, False)
    assert f"imported but disabled: {next(iter(keys))} has ${{" in done.stderr


def test_what_a_shell_fills_stays(run: Run, write: Write) -> None:
    """`sh -c` has its own variables."""
    done = run(write("a.json", one(command="sh", args=["-c", "exec x ${FOO}"])))
    assert (done.exit_code, "enabled" in servers()["it"]) == (0, False), done.stderr


def test_a_file_of_variables_is_told(run: Run, write: Write, tmp_path: Path) -> None:
    """Without them the server may start and fail: exit status 1."""
    done = run(write("a.json", one(envFile="${workspaceFolder}/.env")))
    assert (done.exit_code, f"the variables in {tmp_path}/.env are not imported" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("keys", "enabled", "left_out"),
    [
        ({"disabled": False, "enabled": True, "isActive": True}, None, None),
        ({"enabled": False}, False, None),
        ({"isActive": False}, False, None),
        ({"disabled": "yes"}, None, "disabled"),
        ({"alwaysAllow": ["x"], "autoApprove": [], "trust": True}, None, "alwaysAllow, trust"),
    ],
)
def test_keys_of_hosts(
    run: Run, write: Write, keys: dict[str, Any], enabled: bool | None, left_out: str | None
) -> None:
    """What switches a server off does; what the broker has no key for is named."""
    done = run(write("a.json", one(**keys)))
    assert servers()["it"].get("enabled") is enabled
    assert ("left out" in done.stderr) is (left_out is not None)
    assert f"no such keys: {left_out}\n" in done.stderr or left_out is None


def test_names_that_the_broker_cannot_use_are_mended(run: Run, write: Write) -> None:
    """Each gets one of its own; a name that is fine is never touched."""
    names = ["a b", "a-b", "a/b", "天气", "时间", "@scope/x", "-", "n" * 80, "ok.1_2", "Привет"]
    done = run(write("a.json", {"mcpServers": {name: {"command": "npx"} for name in names}}))
    wanted = ["a b", "a-b", "a-b-c14cddc0", "天气", "时间", "scope-x-c1bb0a31", "server-3973e022"]
    assert list(servers()) == [*wanted, f"{'n' * 55}-{derived('n' * 80)[-8:]}", "ok.1_2", "Привет"]
    assert done.stderr.count("is not a valid name") == 4


def test_a_second_import_never_takes_one_server_for_another(run: Run, write: Write) -> None:
    """What is derived comes from the old name alone, whatever else the file has, and whichever is first."""
    for name, command in (("a/b", "npx"), ("a:b", "uvx"), ("时间", "npx"), ("寸止", "uvx")):
        path = write("a.json", {"mcpServers": {name: {"command": command}}})
        assert run(path, "--merge", "--prefer", "last").exit_code == 0
    found = {name: Path(table["command"]).name for name, table in servers().items()}
    assert found == {derived("a/b"): "npx", derived("a:b"): "uvx", "时间": "npx", "寸止": "uvx"}
    assert "nothing to write" in run(path, "--merge").stderr


# --- two files -----------------------------------------------------------------------------------------


def test_the_same_server_in_two_files_is_one(run: Run, write: Write) -> None:
    """Also where one of them writes a default down."""
    first = write("a.json", one())
    second = write("b.json", one(args=[], env={}, timeout=30, disabled=False))
    done = run(first, second)
    assert (done.exit_code, f"it: the same in {first} and {second}" in done.stderr) == (0, True)
    assert list(servers()) == ["it"]


def test_two_definitions_are_refused(run: Run, write: Write) -> None:
    """All of them are named with the keys that differ, and no value is shown; nothing is written."""
    first = write("a.json", {"mcpServers": {"x": {"command": "npx"}, "y": {"command": "npx"}}})
    entries = {"x": {"command": "uvx"}, "y": {"command": "npx", "env": {"A_TOKEN": "hidden"}}}
    done = run(first, write("b.json", {"mcpServers": entries}))
    assert done.exit_code == 2
    for told in ("x: {} and {} differ in command\n", "y: {} and {} differ in env\n"):
        assert told.format(first, first.with_name("b.json")) in done.stderr
    assert ("--prefer first or --prefer last" in done.stderr, "hidden" in done.stderr) == (True, False)
    assert not Path("broker.toml").exists()


@pytest.mark.parametrize(("prefer", "expected"), [("first", "npx"), ("last", "docker")])
def test_one_of_two_definitions_is_preferred(run: Run, write: Write, prefer: str, expected: str) -> None:
    """The choice is told, and the other file's servers are taken too."""
    files = [write(f"{command}.json", one(command=command)) for command in ("npx", "uvx", "docker")]
    done = run(*files, write("more.json", {"servers": {"more": {"command": "uvx"}}}), "--prefer", prefer)
    assert done.exit_code == 0
    assert servers()["it"]["command"].endswith(expected)
    assert "more" in servers()
    assert done.stderr.count("it: taken from") == 2
