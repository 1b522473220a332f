"""`mcp-broker import --service`: the config and the secrets of the service, with their owner and mode."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
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


def test_a_changed_secret_of_two_servers_is_not_lost(run: Run, write: Write, config: Path) -> None:
    """One variable never stands for two values: the server with the changed secret gets one of its own."""

    def given(**keys: str) -> Path:
        env = {name: {"command": "npx", "env": {"API_KEY": key}} for name, key in keys.items()}
        return write("a.json", {"mcpServers": env})

    run(given(a=SECRET, b=SECRET), "--service", "--output", config)
    before = config.read_text(encoding="utf-8")
    changed = given(a="sk-live-of-a-alone", b=SECRET)
    done = run(changed, "--service", "--output", config, "--merge")
    assert (done.exit_code, "a: " in done.stderr, "differ in env" in done.stderr) == (2, True, True)
    assert (config.read_text(encoding="utf-8"), variables(config)) == (before, {"API_KEY": SECRET})
    for _ in range(2):  # the second time it is the same
        assert run(changed, "--service", "--output", config, "--merge", "--prefer", "last").exit_code == 0
        assert {name: table["env"]["API_KEY"] for name, table in servers(config).items()} == {
            "a": "${A_API_KEY}",
            "b": "${API_KEY}",
        }
        assert variables(config) == {"API_KEY": SECRET, "A_API_KEY": "sk-live-of-a-alone"}


def test_a_secret_of_a_server_that_is_not_imported_stays(run: Run, write: Write, config: Path) -> None:
    """Its variable is not given another value by the import of the server that shares it."""
    both = {name: {"command": "npx", "env": {"API_KEY": SECRET}} for name in "ab"}
    run(write("a.json", {"mcpServers": both}), "--service", "--output", config)
    only_a = {"a": {"command": "npx", "env": {"API_KEY": "sk-live-of-a-alone"}}}
    path = write("b.json", {"mcpServers": only_a})
    assert run(path, "--service", "--output", config, "--merge", "--prefer", "last").exit_code == 0
    assert variables(config) == {"API_KEY": SECRET, "A_API_KEY": "sk-live-of-a-alone"}


def test_a_server_in_two_files_leaves_no_secret_in_the_config(run: Run, write: Write, config: Path) -> None:
    """Both definitions are the same, and the one that is taken has the variable."""
    first, second = (write(name, one(env={"API_KEY": SECRET})) for name in ("a.json", "b.json"))
    done = run(first, second, "--service", "--output", config)
    assert done.exit_code == 0, done.stderr
    assert servers(config)["it"]["env"] == {"API_KEY": "${API_KEY}"}
    assert variables(config) == {"API_KEY": SECRET}


def test_variables_without_a_value_are_named(run: Run, write: Write, config: Path) -> None:
    """What the file only names, and what systemd accepts in no value."""
    env = {"GIVEN": "${env:NOT_SET}", "PRIVATE_KEY": "secret-with-\uffff", "API_KEY": SECRET}
    done = run(write("a.json", one(env=env)), "--service", "--output", config)
    told = f"to {config.with_name('environment')}: NOT_SET (it), PRIVATE_KEY (it); until then"
    assert told in done.stderr
    assert variables(config) == {"API_KEY": SECRET}


def test_a_secret_of_several_lines_is_written(run: Run, write: Write, config: Path) -> None:
    """As a private key has. What is added after it is a variable of its own."""
    key = '-----BEGIN PRIVATE KEY-----\nA="$1"\n-----END PRIVATE KEY-----\n'
    assert run(write("a.json", one(env={"PRIVATE_KEY": key})), "--service", "--output", config).exit_code == 0
    assert variables(config) == {"PRIVATE_KEY": key}
    other = {"mcpServers": {"b": {"command": "npx", "env": {"API_KEY": SECRET}}}}
    assert run(write("b.json", other), "--service", "--output", config, "--merge").exit_code == 0
    assert variables(config) == {"PRIVATE_KEY": key, "API_KEY": SECRET}


@pytest.mark.parametrize("what", ["a config that the broker would refuse", "a full disk"])
def test_a_failed_import_leaves_nothing(run: Run, write: Write, config: Path, what: str) -> None:
    """Neither secrets nor a folder: all is checked first and written last."""
    path = write("a.json", one(env={"API_KEY": SECRET}))
    merge: list[str] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if what == "a full disk":  # for the config; the variables would have room
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    else:
        write("etc/mcp-broker/broker.toml", "[broker]\nno_such_key = 1\n")
        merge = ["--merge"]
    before = sorted(config.parent.parent.rglob("*"))
    try:
        done = run(path, "--service", "--output", config, *merge)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 2, done.stderr
    assert sorted(config.parent.parent.rglob("*")) == before


def test_a_folder_of_which_one_file_cannot_be_written_stays_as_it_is(
    run: Run, write: Write, config: Path
) -> None:
    """The old config, its mode and the variables: no backup and no half of a new file is left beside them."""
    run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
    before = {path.name: path.read_bytes() for path in config.parent.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(map(len, before.values())) + 8, limits[1]))
    try:
        other = {"mcpServers": {"b": {"command": "npx", "env": {"TOKEN": "t" * 9}}}}
        done = run(write("b.json", other), "--service", "--output", config, "--merge")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 2, done.stderr
    assert {path.name: path.read_bytes() for path in config.parent.iterdir()} == before


@pytest.mark.parametrize("there", [True, False], ids=["files are there", "no files are there"])
@pytest.mark.parametrize("fixed", ["environment", "broker.toml"])
def test_a_file_that_cannot_be_replaced_leaves_the_other_as_it_is(
    run: Run, write: Write, config: Path, fixed: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both or neither, whichever rename fails, as onto an immutable file or one that is a mount."""
    config.parent.mkdir(parents=True)
    if there:
        run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
        config.with_name("environment").chmod(0o640)
    before = {path: (path.read_bytes(), path.stat().st_ino, mode(path)) for path in config.parent.iterdir()}
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == fixed:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    other = {"mcpServers": {"b": {"command": "npx", "env": {"TOKEN": "t" * 9}}}}
    done = run(write("b.json", other), "--service", "--output", config, "--merge")
    assert (done.exit_code, "nothing was changed" in done.stderr) == (2, True), done.stderr
    assert f"{config.with_name(fixed)} cannot be written: Device or resource busy" in done.stderr
    assert before == {
        path: (path.read_bytes(), path.stat().st_ino, mode(path)) for path in config.parent.iterdir()
    }


def test_a_file_that_cannot_be_put_back_is_told(
    run: Run, write: Write, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 9: the disk takes no write any more, so the command does not say that nothing was changed."""
    run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
    replace = Path.replace

    def fail(*_: object, **__: object) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def replace_once(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", fail)
        monkeypatch.setattr(Path, "unlink", fail)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_once)
    other = {"mcpServers": {"b": {"command": "npx", "env": {"TOKEN": "t" * 9}}}}
    done = run(write("b.json", other), "--service", "--output", config, "--merge")
    assert (done.exit_code, "nothing was changed" in done.stderr) == (2, False)
    assert f"{config.with_name('environment')} has its new content" in done.stderr


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


def test_a_program_in_the_path_of_the_service_is_not_private(
    run: Run, write: Write, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the import does not write the files of the service."""
    path, told = write("a.json", one()), "a service may have no access"
    assert told in run(path, "--dry-run", path=None, PATH=str(bin_folder)).stderr
    monkeypatch.setattr("broker.command.import_.SERVICE_PATH", f"/bin:{bin_folder}")
    assert told not in run(path, "--dry-run", path=None, PATH=str(bin_folder)).stderr


def test_a_secret_in_an_argument_stays_in_the_config_and_is_told(
    run: Run, write: Write, config: Path
) -> None:
    """The broker fills in variables in env only. The name of the server is told, and not the secret."""
    done = run(write("a.json", one(args=["--api-key", SECRET])), "--service", "--output", config)
    assert "it: an argument looks like a secret: it stays in args" in done.stderr
    assert SECRET not in done.output
    assert (servers(config)["it"]["args"], mode(config)) == (["--api-key", SECRET], 0o640)
    assert variables(config) == {}


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"SUDO_USER": "nobody"}, pwd.getpwnam("nobody").pw_dir),
        ({"SUDO_USER": "root"}, pwd.getpwuid(0).pw_dir),
        ({"SUDO_USER": "no such user"}, pwd.getpwuid(0).pw_dir),
        ({}, pwd.getpwuid(0).pw_dir),
        ({"SUDO_USER": "nobody", "HOME": "/srv/home"}, "/srv/home"),  # as with sudo HOME=…
    ],
    ids=str,
)
def test_with_sudo_the_home_is_that_of_the_calling_user(
    run: Run, write: Write, config: Path, environ: dict[str, str], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~` in the user's own file is not root's home, although sudo says HOME=/root."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    path = write("a.json", one(command="~/bin/server", cwd="~/data", env={"LOGS": "${userHome}/logs"}))
    given = {"HOME": pwd.getpwuid(0).pw_dir, **environ}
    assert run(path, "--service", "--output", config, **given).exit_code == 0
    found = servers(config)["it"]
    wanted = f"{home}/bin/server", f"{home}/data", f"{home}/logs"
    assert (found["command"], found["cwd"], found["env"]["LOGS"]) == wanted


values = st.text(st.characters(exclude_categories=["Cs"])).filter(environment_file.can_hold)


@example({"A": "two\nlines=1", "B": "\r\n'\"\\\n", "C": " # no comment"})
@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]*", fullmatch=True), values))
def test_whatever_the_values_are_the_file_has_them(values: dict[str, str]) -> None:
    """Quotation marks, backslashes, dollars, line ends included. tests/systemd has systemd read it."""
    text = "# mine\nOTHER=1" if "OTHER" not in values else ""
    written = environment_file.values_of(environment_file.extended(text, values))
    assert {name: written[name] for name in values} == values
    assert written.keys() - values.keys() <= {"OTHER"}


@pytest.mark.parametrize("value", ["a\0b", "\ufeffa", "\ud800", "\ufdd0", "\uffff", "\U0010fffe"])
def test_what_systemd_accepts_in_no_value(value: str) -> None:
    """systemd.exec(5), EnvironmentFile=: NUL, byte-order marks, noncharacters; a surrogate is no UTF-8."""
    assert not environment_file.can_hold(value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A = 1 2 \t\n", {"A": "1 2"}),
        ("A=it's\n", {"A": "it's"}),
        ("A='1\n2'\nB=\"3\n4\"\n", {"A": "1\n2", "B": "3\n4"}),
        ('A="1\\\n2\\x\\\\"', {"A": "12\\x\\"}),
        ("A=1\\\n2\\x\\\\\n", {"A": "12x\\"}),
        ("A='1'\"2\"3\n", {"A": "123"}),
        ("A=\nB=\n", {"A": "", "B": ""}),
        ("# A=1\n ; B=2\nno assignment\n=3\n\nC=#4\n", {"C": "#4"}),
        ("A='open\nB=2", {"A": "open\nB=2"}),
        ("A=1\nA=2\n", {"A": "2"}),
    ],
)
def test_the_file_is_read_as_systemd_reads_it(text: str, found: dict[str, str]) -> None:
    """systemd.exec(5), EnvironmentFile=: a quoted value may have several lines; the last one counts."""
    assert environment_file.values_of(text) == found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('A="x\n', 1),
        ("A='x\n\n", 1),
        ("# note\nA=1\nB=x\\", 3),
        ("A=1\nB=x\\\n", 2),
        ("A='1\n2'\nB=\"3\n4\n5", 3),
        ("A='it'\"s\n", 1),
    ],
)
def test_a_variable_is_not_added_to_a_value_that_does_not_end(
    run: Run, write: Write, config: Path, text: str, line: int
) -> None:
    """Law 8: systemd would take the new lines for a part of that value, and the server gets no secret."""
    config.parent.mkdir(parents=True)
    there = config.with_name("environment")
    there.write_text(text, encoding="utf-8")
    done = run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
    assert done.exit_code == 2, done.stderr
    assert f"{there}, line {line}: the value that begins here" in done.stderr
    assert [(path, path.read_text(encoding="utf-8")) for path in config.parent.iterdir()] == [(there, text)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# note \\\nA=1\n", 1),
        ("A=1\n\n  ; note \\\\\\\n\tB=2\n", 3),
        ("# note \\\n# note \\\nA=1\n", 2),
        ("A=1\n# note \\\n", 2),
        ("A=1\n# note \\", 2),
        ("A='1\n2'\n# note \\\nB=1", 3),
        ("# note \\\\\nA=1\n", None),
        ("# note \\ \nA=1\n", None),
        ("# note \\\n\nA=1\n", None),
        ("# note \\\r\nA=1\r\n", None),
        ("# note \\\n # more\nA=1\n", None),
        ("A='\n# no note \\\n1'\n", None),
        ("A=1\\\n# no note\n", None),
    ],
)
def test_a_comment_that_may_hide_the_next_line_is_refused(
    run: Run, write: Write, config: Path, text: str, line: int | None
) -> None:
    """Law 8: systemd 252 continues a comment after a backslash, 254 does not."""
    config.parent.mkdir(parents=True)
    there = config.with_name("environment")
    there.write_text(text, encoding="utf-8")
    done = run(write("a.json", one(env={"API_KEY": SECRET})), "--service", "--output", config)
    assert done.exit_code == (0 if line is None else 2), done.stderr
    if line is not None:
        assert f"{there}, line {line}: the comment ends with a backslash" in done.stderr
        assert there.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("sk-live_1.2:3/4@5", "A=sk-live_1.2:3/4@5\n"),
        ("two words", 'A="two words"\n'),
        ("密钥#1", 'A="密钥#1"\n'),
        ('a"b$c\\d`', 'A="a\\"b\\$c\\\\d\\`"\n'),
        ("two\nlines", 'A="two\nlines"\n'),
    ],
)
def test_a_value_is_quoted_as_systemd_reads_it(value: str, line: str) -> None:
    """systemd.exec(5), EnvironmentFile=: between double quotation marks a backslash escapes these four."""
    assert environment_file.line_of("A", value) == line
