"""`mcp-broker check --service`: what the installed service would find, and what not, seen from outside it."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.command import check, unit
from broker.command.cli import cli
from broker.command.unit import CONFIG_GROUP, FOLDERS, Unit, User, installed
from broker.config.loading import load
from tests.e2e.harness import ROOT, Table, toml

NOBODY = pwd.getpwnam("nobody")
STRANGER = User("nobody", NOBODY.pw_uid, frozenset({NOBODY.pw_gid}))


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., list[Path]]:
    """A host's folders of units, with these files below `systemd/system`, by folder."""

    def make(**files: dict[str, str]) -> list[Path]:
        for folder, texts in files.items():
            for name, text in texts.items():
                path = tmp_path / folder / "systemd" / "system" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        return [tmp_path / "etc", tmp_path / "lib"]

    return make


# --- the unit ------------------------------------------------------------------------------------------


def test_where_no_unit_is_there_is_no_service(host: Callable[..., list[Path]]) -> None:
    """A host without the service."""
    assert installed(host()) is None


def test_our_own_unit_is_understood(host: Callable[..., list[Path]]) -> None:
    """The user and the PATH of systemd/mcp-broker.service, with its specifiers filled in."""
    text = (ROOT / "systemd" / "mcp-broker.service").read_text(encoding="utf-8")
    found = installed(host(lib={unit.NAME: text}))
    assert found is not None
    assert found.user.name == "mcp-broker"
    assert found.environ["PATH"] == unit.SERVICE_PATH, "an import without the unit looks there, too"
    assert found.environ["PATH"].startswith("/var/lib/mcp-broker/.local/bin:/usr/local/sbin:")


def test_the_administrators_files_win(host: Callable[..., list[Path]]) -> None:
    """systemd.unit(5): /etc before /usr/lib; drop-ins in the order of their names; an empty value forgets."""
    folders = host(
        etc={
            f"{unit.NAME}.d/20.conf": '[Service]\nEnvironment=PATH=/b "WORDS=one two"\nUser=nobody',
            f"{unit.NAME}.d/10.conf": "[Service]\nEnvironment=\nEnvironment=PATH=/a\n",
        },
        lib={unit.NAME: "[Service]\nEnvironment=GONE=1\n# Environment=NOT=1\n[Install]\nEnvironment=NOR=1\n"},
    )
    found = installed(folders)
    assert found is not None
    assert found.user == STRANGER
    assert {name: found.environ.get(name) for name in ("PATH", "WORDS", "GONE", "NOT", "NOR")} == {
        "PATH": "/b",
        "WORDS": "one two",
        "GONE": None,
        "NOT": None,
        "NOR": None,
    }


def test_files_of_variables_are_read(host: Callable[..., list[Path]], tmp_path: Path) -> None:
    """`${VAR}` in broker.toml is filled from the service's variables; others stay unset."""
    (tmp_path / "environment").write_text("# a note\nAPI_KEY='s3cret'\n", encoding="utf-8")
    lines = ["[Service]", f"EnvironmentFile={tmp_path}/environment", f"EnvironmentFile=-{tmp_path}/none"]
    found = installed(host(lib={unit.NAME: "\n".join(lines)}))
    assert found is not None
    assert (found.environ["API_KEY"], found.unread) == ("s3cret", [])


def test_a_comment_that_may_hide_a_variable_is_told(
    host: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 8: it depends on the release of systemd whether API_KEY is set, so the line is named."""
    environment = tmp_path / "environment"
    environment.write_text("# a note \\\nAPI_KEY=s3cret\n", encoding="utf-8")
    found = installed(host(lib={unit.NAME: f"[Service]\nEnvironmentFile={environment}"}))
    assert found is not None
    monkeypatch.setattr(unit, "installed", lambda: found)
    config = tmp_path / "broker.toml"
    config.write_text('[servers.a]\ncommand = "sh"\n', encoding="utf-8")
    done = CliRunner(env={"MCP_BROKER_LANG": "en"}).invoke(
        cli, ["check", "--service", "--config", str(config)]
    )
    assert f"{environment}, line 1: systemd before 254" in done.output


def test_credentials_are_read(host: Callable[..., list[Path]], tmp_path: Path) -> None:
    """`LoadCredential=`, as `${VAR}` is filled from it; of one that is encrypted, that there is one."""
    (tmp_path / "key").write_text("s3cret\n", encoding="utf-8")
    (tmp_path / "environment").write_text("SET=by-the-file\n", encoding="utf-8")
    lines = [
        *("[Service]", f"LoadCredential=API_KEY:{tmp_path}/key", f"LoadCredential=SET:{tmp_path}/key"),
        *(f"LoadCredential=NONE:{tmp_path}/none", f"LoadCredential=FOLDER:{tmp_path}"),
        *(f"LoadCredentialEncrypted=LOCKED:{tmp_path}/key", f"EnvironmentFile={tmp_path}/environment"),
    ]
    found = installed(host(lib={unit.NAME: "\n".join(lines)}))
    assert found is not None
    values = {name: found.environ.get(name) for name in ("API_KEY", "SET", "NONE", "LOCKED")}
    assert values == {"API_KEY": "s3cret", "SET": "by-the-file", "NONE": None, "LOCKED": ""}
    assert found.unread == [tmp_path]


def test_the_folders_are_those_of_systemd() -> None:
    """systemd.unit(5), the table of the system's unit search path."""
    assert [str(folder) for folder in FOLDERS] == ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"]


# --- what it can use -------------------------------------------------------------------------------------


def _script(path: Path, first_line: str = "#!/bin/sh", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first_line}\n", encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that everybody may enter, which pytest's is not."""
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"{folder} is closed to others") if folder.owner() != _me() else folder.chmod(0o755)
    return tmp_path


def _me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _report(folder: Path, table: Table, path: str = "/usr/bin:/bin", mode: int = 0o644) -> list[str]:
    """What is said of one server, `*` before what is bad."""
    config = folder / "broker.toml"
    config.write_text(toml({"servers.one": table}), encoding="utf-8")
    config.chmod(mode)
    service = Unit(folder / unit.NAME, STRANGER, {"PATH": path}, [])
    loaded = load({"servers": {"one": table}}, service.environ, leave_out=True)
    found = check.report(config, loaded, service.environ, service)
    return [f"{'*' if finding.bad else ''}{finding.text}" for finding in found]


def test_a_variable_that_is_missing_has_its_file(open_folder: Path) -> None:
    """The service's variables are in a file beside its config; a shell's are not the service's."""
    program = _script(open_folder / "server")
    found = _report(open_folder, {"command": str(program), "env": {"A": "${CITY_TOKEN}", "B": "${PATH}"}})
    assert found[0].startswith("*servers.one.env.A: ${CITY_TOKEN} is not in the broker's environment")
    assert found[1].startswith(
        f"  write into {open_folder}/environment, each on a line of its own: CITY_TOKEN=…;"
    )


def test_what_the_service_can_run_is_fine(open_folder: Path) -> None:
    """The whole path of what would be run."""
    program = _script(open_folder / "server")
    assert _report(open_folder, {"command": str(program)}) == [f"one: {program}"]


@pytest.mark.parametrize(
    ("closed", "table"),
    [
        ("home", {"command": "home/server"}),
        ("private", {"command": "private"}),
        ("home/python", {"command": "with-interpreter"}),
        ("home", {"command": "/bin/sh", "args": ["home/server"]}),
        ("home", {"command": "/bin/sh", "cwd": "home"}),
    ],
)
def test_what_is_closed_to_its_user_is_named(
    open_folder: Path, closed: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command in a home, a file without rights, an interpreter in root's pyenv, a script as argument."""
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    _script(open_folder / "home/server")
    _script(open_folder / "private", mode=0o700)
    _script(open_folder / "home/python", mode=0o700 if closed == "home/python" else 0o755)
    _script(open_folder / "with-interpreter", f"#!{open_folder}/home/python")
    (open_folder / "home").chmod(0o700 if closed == "home" else 0o755)
    command = str(table["command"])
    here = {} if command.startswith("/") else {"command": str(open_folder / command)}
    (line,) = _report(open_folder, {**table, **here})
    assert line.startswith("*one: ")
    assert f"user nobody has no access to {open_folder / closed}" in line


def test_what_is_not_in_its_path_is_looked_for_where_people_have_it(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvm, `~/.local/bin`: where it is, and what to do about it, which depends on who may enter."""
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    monkeypatch.setenv("HOME", str(open_folder))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    node = _script(open_folder / ".nvm/versions/node/v22.0.0/bin/npx-of-nvm")
    lost, here, mend = _report(open_folder, {"command": "npx-of-nvm"})
    assert lost.startswith("*one: there is no command 'npx-of-nvm' in PATH (/usr/bin:/bin)")
    assert here == f"  found at: {node}"
    assert f"Environment=PATH=/usr/bin:/bin:{node.parent}" in mend
    (open_folder / ".nvm").chmod(0o700)
    *_, mend = _report(open_folder, {"command": "npx-of-nvm"})
    assert "user nobody has no access: install npx-of-nvm for all users" in mend


# --- who can read the config -------------------------------------------------------------------------------

SECRET = {"command": "/bin/sh", "env": {"API_KEY": "s3cr3t-v4lue"}}


def test_secrets_that_everybody_can_read_are_named(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their keys, never by their values; and it is no reason not to start."""
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    _, warning = _report(open_folder, SECRET)
    assert "these look like secrets: servers.one.env.API_KEY; chmod o-r, or write ${NAME}" in warning
    assert "s3cr3t" not in warning
    _, warning = _report(open_folder, {"command": "/bin/sh", "args": ["--token", "s3cr3t-v4lue"]})
    assert "servers.one.args" in warning


def test_a_config_that_is_closed_to_others_may_have_secrets(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But then the service has to be one of those who can read it."""
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    _, closed = _report(open_folder, SECRET, mode=0o600)
    assert closed.startswith("*")
    assert "of the service has no access to" in closed
    assert "chgrp nobody, and chmod 0640" in closed


def test_a_config_that_clients_can_read_is_named(
    open_folder: Path, host: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has a group for its config and its keys. Clients are in the group of its user."""
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    config = open_folder / "broker.toml"
    config.write_text(toml({"servers.one": {"command": "/bin/sh"}}), encoding="utf-8")
    clients = config.stat().st_gid
    monkeypatch.setattr(unit, "group_id", lambda name: 4242 if name == CONFIG_GROUP else clients)
    monkeypatch.setattr(check, "group_id", unit.group_id)
    text = f"[Service]\nUser=nobody\nSupplementaryGroups=docker {CONFIG_GROUP}\n"
    service = installed(host(lib={unit.NAME: text}))
    assert service is not None
    assert (service.user.config_group, 4242 in service.user.gids) == (CONFIG_GROUP, True)
    loaded = load({"servers": {"one": {"command": "/bin/sh"}}}, service.environ)
    for mode, warns in ((0o640, True), (0o644, True), (0o600, False)):
        config.chmod(mode)
        lines = [line.text for line in check.report(config, loaded, service.environ, service)]
        said = f"which are the clients, can read it; chgrp {CONFIG_GROUP}"
        assert any(said in line for line in lines) is warns, lines


def test_the_groups_of_the_unit_count(host: Callable[..., list[Path]]) -> None:
    """systemd.exec(5): Group= is the first group, SupplementaryGroups= adds to those of the user."""
    lines = [
        "[Service]",
        "User=nobody",
        "Group=4242",
        "SupplementaryGroups=4243 no-such-group",
        "SupplementaryGroups=4244",
    ]
    found = installed(host(lib={unit.NAME: "\n".join(lines)}))
    assert found is not None
    assert {4242, 4243, 4244} <= found.user.gids
    assert found.user.config_group == "nobody"


# --- the command -----------------------------------------------------------------------------------------


def test_the_service_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 2 where there is no service; its PATH and user first where there is one."""
    monkeypatch.setenv("MCP_BROKER_LANG", "zh")
    path = tmp_path / "broker.toml"
    path.write_text(toml({"servers.one": {"command": sys.executable}}), encoding="utf-8")
    monkeypatch.setattr(unit, "installed", lambda: None)
    done = CliRunner().invoke(cli, ["check", "--service", "--config", str(path)])
    assert (done.exit_code, "未安装 mcp-broker.service" in done.stderr) == (2, True)
    root = User("root", 0, frozenset())
    monkeypatch.setattr(unit, "installed", lambda: Unit(path, root, {"PATH": "/nowhere"}, []))
    done = CliRunner().invoke(cli, ["check", "--service", "--config", str(path)])
    assert (done.exit_code, "用户 root，PATH /nowhere" in done.stdout) == (0, True)


def test_a_mark_at_the_beginning_changes_nothing(tmp_path: Path) -> None:
    """`check` reads the file a second time, for its secrets, and once did so in another way than `serve`."""
    path = tmp_path / "broker.toml"
    text = (
        f'[servers."时间"]\ncommand = {str(sys.executable)!r}\nenv = {{ API_KEY = "sk-live-0123456789" }}\n'
    )
    path.write_text(f"\ufeff{text}", encoding="utf-8")
    path.chmod(0o644)
    done = CliRunner().invoke(cli, ["check", "--config", str(path)], env={"MCP_BROKER_LANG": "en"})
    assert done.exit_code == 0, done.output
    assert 'these look like secrets: servers."时间".env.API_KEY' in done.output
