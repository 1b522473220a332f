"""`mcp-broker import --service`: the config and the secrets of the service, with their owner and mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.command import environment_file
from broker.command.importing import service_files
from tests.command.importing.asking import Run, Write, one, servers

SECRET = "sk-live-0123456789"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The path of the service's config, in a folder that is not there yet."""
    return tmp_path / "etc" / "mcp-broker" / "broker.toml"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def variables(config: Path) -> dict[str, str]:
    return environment_file.values_of(config.with_name("environment").read_text(encoding="utf-8"))


def test_the_secrets_go_where_only_root_reads_them(run: Run, write: Write, config: Path) -> None:
    """The config names them as variables; neither it nor the terminal has a value."""
    path = write("a.json", one(env={"API_KEY": SECRET, "CITY": "福冈"}))
    done = run(path, "--service", "--output", config)
    assert done.exit_code == 0, done.stderr
    assert servers(config)["it"]["env"] == {"API_KEY": "${API_KEY}", "CITY": "福冈"}
    assert variables(config) == {"API_KEY": SECRET}
    assert (mode(config), mode(config.with_name("environment"))) == (0o640, 0o600)
    assert SECRET not in done.output + config.read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [True, False])
def test_the_next_step_fits_the_host(
    run: Run, write: Write, config: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10: a service that is not installed cannot be restarted."""
    monkeypatch.setattr("broker.command.import_.installed", lambda: there or None)
    done = run(write("a.json", one()), "--service", "--output", config)
    assert ("sudo systemctl restart mcp-broker" in done.stderr) is there
    assert ("sudo make install" in done.stderr) is not there


def test_the_service_s_group_may_read_the_config(
    run: Run, write: Write, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an older one had another mode."""
    group = 12345 if os.geteuid() == 0 else os.getgid()  # only root can give a file to any group
    monkeypatch.setattr(service_files, "_group", lambda: group)
    config.parent.mkdir(parents=True)
    config.write_text("", encoding="utf-8")
    config.chmod(0o604)
    assert run(write("a.json", one()), "--service", "--output", config, "--force").exit_code == 0
    assert (config.stat().st_gid, mode(config)) == (group, 0o640)


def test_the_default_config_is_replaced_unasked(
    run: Run, write: Write, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installation's own servers are nobody's; with a change in it, it is the operator's."""
    monkeypatch.setattr(
        service_files, "DEFAULT_CONFIG", write("share.toml", "[servers.demo]\ncommand = 'x'\n")
    )
    config.parent.mkdir(parents=True)
    config.write_text("[servers.demo]\ncommand = 'x'\n", encoding="utf-8")
    path = write("a.json", one())
    assert run(path, "--service", "--output", config).exit_code == 0
    assert list(servers(config)) == ["it"]
    done = run(path, "--service", "--output", config)
    assert (done.exit_code, "already exists" in done.stderr) == (2, True)


def test_what_is_set_already_stays(run: Run, write: Write, config: Path) -> None:
    """A variable is used again for the same secret; another secret of that name gets another variable."""
    config.parent.mkdir(parents=True)
    there = config.with_name("environment")
    there.write_text("# mine\nAPI_KEY='sk-live-0123456789'\nTOKEN=older-token-1", encoding="utf-8")
    path = write("a.json", one(env={"API_KEY": SECRET, "TOKEN": "newer-token-2"}))
    assert run(path, "--service", "--output", config).exit_code == 0
    assert servers(config)["it"]["env"] == {"API_KEY": "${API_KEY}", "TOKEN": "${IT_TOKEN}"}
    assert there.read_text(encoding="utf-8").endswith("\nTOKEN=older-token-1\nIT_TOKEN=newer-token-2\n")


def test_a_secret_that_changed_is_told(run: Run, write: Write, config: Path) -> None:
    """A second import of the same servers keeps the variable and its value, and says that they differ."""
    run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
    path = write("a.json", one(env={"API_KEY": "sk-live-another"}))
    done = run(path, "--service", "--output", config, "--merge")
    assert "the value there stays, although the one in" in done.stderr
    assert variables(config) == {"API_KEY": SECRET}


def test_variables_without_a_value_are_named(run: Run, write: Write, config: Path) -> None:
    """What the file only names, and what a line of that file cannot hold."""
    env = {"GIVEN": "${env:NOT_SET}", "PRIVATE_KEY": "-----BEGIN\nKEY-----", "API_KEY": SECRET}
    done = run(write("a.json", one(env=env)), "--service", "--output", config)
    told = f"to {config.with_name('environment')}: NOT_SET (it), PRIVATE_KEY (it); until then"
    assert told in done.stderr
    assert variables(config) == {"API_KEY": SECRET}


def test_a_dry_run_writes_nothing(run: Run, write: Write, config: Path) -> None:
    """It prints the config, without the secrets."""
    done = run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config, "--dry-run")
    assert 'API_KEY = "${API_KEY}"' in done.stdout
    assert SECRET not in done.output
    assert not config.parent.exists()


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; tests/systemd has the same as a user"
)
def test_without_root_it_says_sudo(run: Run, write: Write, tmp_path: Path) -> None:
    """The files of the service are root's."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    done = run(write("a.json", one()), "--service", "--output", closed / "etc" / "broker.toml")
    assert (done.exit_code, "run this command with sudo" in done.stderr) == (2, True)


printable = st.text(st.characters(exclude_categories=["Cs"])).filter(str.isprintable)


@given(printable)
def test_whatever_the_value_is_the_file_has_it(value: str) -> None:
    """Quotation marks, backslashes, dollars and blanks included. tests/systemd has systemd read it."""
    assert environment_file.can_hold(value)
    assert environment_file.values_of(environment_file.line_of("NAME", value)) == {"NAME": value}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("sk-live_1.2:3/4@5", "A=sk-live_1.2:3/4@5\n"),
        ("two words", 'A="two words"\n'),
        ("密钥#1", 'A="密钥#1"\n'),
        ('a"b$c\\d`', 'A="a\\"b\\$c\\\\d\\`"\n'),
    ],
)
def test_a_value_is_quoted_as_systemd_reads_it(value: str, line: str) -> None:
    """systemd.exec(5), EnvironmentFile=: between double quotation marks a backslash escapes these four."""
    assert environment_file.line_of("A", value) == line
