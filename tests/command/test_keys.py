"""`mcp-broker keys`: pairs are made, listed and taken away, and nothing of another is overwritten."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.command.cli import cli
from broker.config.loading import ConfigError
from broker.service.keys import read_authorized, read_server
from client_shim.key_file import parse
from client_shim.transport.curve import public_of

Run = Callable[..., Result]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `mcp-broker keys …` in an empty folder that has a config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    Path("broker.toml").write_text('[servers.a]\ncommand = "sh"\n')
    return lambda *args: CliRunner().invoke(cli, ["keys", *args])


def name_the_keys() -> None:
    """Add the two lines to the config that `keys new` asks for."""
    with open("broker.toml", "a") as config:
        config.write('[broker]\nserver_key = "server.key_secret"\nauthorized_keys = "authorized_keys"\n')


def test_a_port_that_is_open_to_others_gets_its_keys_as_its_refusal_says(keys: Run) -> None:
    """Law 10: with the lines and the command that the message names, the config is fine."""
    config = Path("broker.toml")
    servers = config.read_text()
    config.write_text(f'[broker]\nendpoint = "tcp://*:5555"\n{servers}')
    refused = CliRunner().invoke(cli, ["check"]).output
    assert "with `mcp-broker keys new NAME`" in refused
    lines = re.findall(r'\w+ = "\w[\w.]+"', refused)
    config.write_text("\n".join(["[broker]", 'endpoint = "tcp://*:5555"', *lines, servers]))
    done = keys("new", "laptop")
    assert done.exit_code == 0, done.output
    fine = CliRunner().invoke(cli, ["check"])
    assert fine.exit_code == 0, fine.output


def test_keys_that_the_config_names_are_made(keys: Run) -> None:
    """`check` says that the folder is missing and that this command makes it; so it does."""
    name_the_keys()
    assert "keys new" in CliRunner().invoke(cli, ["check"]).output
    done = keys("new", "laptop")
    assert (done.exit_code, Path("authorized_keys/laptop.key").exists()) == (0, True), done.output


def test_a_new_client_gets_all_that_it_needs(keys: Run) -> None:
    """Its own pair and the broker's public key, in a file that only this user can read."""
    done = keys("new", "laptop")
    assert done.exit_code == 0, done.output
    mine, broker = parse(Path("laptop.key_secret").read_text()), read_server(Path("server.key_secret"))
    assert mine.secret is not None
    assert public_of(mine.secret) == mine.public
    assert mine.server == broker.public
    assert read_authorized(Path("authorized_keys")).names == {mine.public: "laptop"}
    assert mine.secret not in Path("authorized_keys/laptop.key").read_text()
    for file in ("laptop.key_secret", "server.key_secret", "authorized_keys/laptop.key"):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat("authorized_keys").st_mode) == 0o700
    assert 'server_key = "server.key_secret"' in done.output
    assert 'authorized_keys = "authorized_keys"' in done.output
    assert mine.secret not in done.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which makes the keys of the installed service")
def test_the_installed_service_can_read_what_root_makes(keys: Run) -> None:
    """/etc/mcp-broker/broker.toml is root's and readable for the broker's group; so are the keys. The
    client's own file is not.
    """
    os.chown("broker.toml", 0, 4242)
    Path("broker.toml").chmod(0o640)
    assert keys("new", "laptop").exit_code == 0
    modes = {name: os.stat(name) for name in ("server.key_secret", "authorized_keys/laptop.key")}
    assert {(one.st_uid, one.st_gid, stat.S_IMODE(one.st_mode)) for one in modes.values()} == {
        (0, 4242, 0o640)
    }
    folder, client = os.stat("authorized_keys"), os.stat("laptop.key_secret")
    assert (folder.st_gid, stat.S_IMODE(folder.st_mode)) == (4242, 0o750)
    assert (client.st_gid, stat.S_IMODE(client.st_mode)) == (os.getegid(), 0o600)


def test_the_broker_keeps_its_pair(keys: Run) -> None:
    """The second client gets the same key of the broker, and the config that has the keys is not nagged."""
    keys("new", "laptop")
    name_the_keys()
    done = keys("new", "desk", "--out", "elsewhere")
    assert done.exit_code == 0, done.output
    assert "[broker]" not in done.output
    assert parse(Path("elsewhere").read_text()).server == parse(Path("laptop.key_secret").read_text()).server
    listed = json.loads(keys("list", "--json").output)
    assert [one["name"] for one in listed["keys"]] == ["desk", "laptop"]
    assert listed["faults"] == []


def test_nothing_is_overwritten(keys: Run) -> None:
    """A name that has a key, and a file that is there: status 1, and both stay as they are."""
    keys("new", "laptop")
    before = {path: path.read_bytes() for path in Path().rglob("*.key*") if path.is_file()}
    again = keys("new", "laptop", "--out", "other")
    assert (again.exit_code, "keys revoke laptop" in again.output) == (1, True)
    there = keys("new", "desk", "--out", "laptop.key_secret")
    assert (there.exit_code, "--out" in there.output) == (1, True)
    assert {path: path.read_bytes() for path in Path().rglob("*.key*") if path.is_file()} == before


@pytest.mark.parametrize("out", ["none/laptop", "broker.toml/laptop"])
def test_a_client_whose_file_cannot_be_written_is_not_authorized(keys: Run, out: str) -> None:
    """The error has the whole path and what to do, and the name is free for the next try."""
    done = keys("new", "laptop", "--out", out)
    assert done.exit_code == 1
    assert f"{Path(out).absolute()} cannot be written" in done.output
    assert "--out" in done.output
    assert not list(Path().rglob("laptop.key"))
    assert keys("new", "laptop").exit_code == 0


def test_a_client_that_cannot_be_authorized_gets_no_file(keys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its secret nor half of its public key is left."""
    Path("authorized_keys").touch()
    done = keys("new", "laptop")
    assert (done.exit_code, "sudo" in done.output) == (1, True)
    assert str(Path("authorized_keys/laptop.key").absolute()) in done.output
    Path("authorized_keys").unlink()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("broker.service.keys.give", refuse)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    Path("authorized_keys").mkdir(mode=0o700)
    assert keys("new", "laptop").exit_code == 1
    assert not [*Path().rglob("laptop*")]


def test_every_path_that_is_told_is_whole(keys: Run) -> None:
    """The reader may be in another folder, or read the output elsewhere."""
    here = str(Path().absolute())
    for args in (("new", "laptop"), ("new", "desk"), ("revoke", "desk")):
        keys(*args)
    made = keys("new", "phone").output
    taken, there = keys("new", "laptop").output, keys("new", "desk", "--out", "broker.toml").output
    unknown = keys("revoke", "nobody").output
    for output, file in (
        (made, "phone.key_secret"),
        (made, "broker.toml"),
        (taken, "authorized_keys/laptop.key"),
        (there, "broker.toml"),
        (unknown, "authorized_keys"),
    ):
        assert f"{here}/{file}" in output


@pytest.mark.parametrize("command", [("new", "laptop"), ("list",), ("revoke", "laptop")])
def test_a_config_that_this_user_cannot_read_is_told_with_sudo(
    keys: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config of the service has secrets, so nobody is told to open it."""
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # root can read every file
    done = keys(*command)
    assert (done.exit_code, "sudo" in done.output, "chmod" in done.output) == (2, True, False)
    assert str(Path("broker.toml").absolute()) in done.output


def test_a_broker_that_could_not_be_told_is_not_taken_for_none(keys: Run) -> None:
    """Law 10: something listens there, so the operator has to reload it."""
    name_the_keys()
    done = keys("new", "laptop", "--endpoint", f"ipc://{Path('broker.toml').absolute()}")
    assert (done.exit_code, "mcp-broker reload" in done.output) == (2, True), done.output
    assert "no broker answers" not in done.output


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("told_by", ["--endpoint", "the config", "the variable"])
def test_the_address_where_no_broker_answers_is_named(
    keys: Run, told_by: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 8: a broker may run at another address, so the command names the address that it asked."""
    name_the_keys()
    address = f"ipc://{Path('nobody.sock').absolute()}"
    options = ["--endpoint", address] if told_by == "--endpoint" else []
    if told_by == "the config":
        with open("broker.toml", "a") as config:
            config.write(f'endpoint = ["tcp://127.0.0.1:5555", "{address}"]\n')
    monkeypatch.setenv("MCP_BROKER_ENDPOINT", address if told_by == "the variable" else "ipc:///none")
    monkeypatch.setenv("MCP_BROKER_LANG", language)
    for command in ("new", "revoke"):
        done = keys(command, "laptop", *options)
        assert done.exit_code == 0, done.output
        assert address in done.output
        assert "mcp-broker reload --endpoint" in done.output


def test_a_revocation_that_a_running_broker_cannot_have_heard_of_fails(
    keys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 8: a broker that listens at `tcp://` only is asked nowhere, and would keep the client."""
    name_the_keys()
    with open("broker.toml", "a") as config:
        config.write('endpoint = "tcp://*:5555"\n')
    monkeypatch.setenv("MCP_BROKER_ENDPOINT", "ipc:///nobody.sock")
    assert keys("new", "laptop").exit_code == 0
    done = keys("revoke", "laptop")
    assert done.exit_code == 1, done.output
    for word in ("names no ipc:// endpoint", "ipc:///nobody.sock", "mcp-broker reload --endpoint"):
        assert word in done.output
    keys("new", "laptop", "--out", "again")
    named = keys("revoke", "laptop", "--endpoint", "ipc:///other.sock")
    assert (named.exit_code, "ipc:///other.sock" in named.output) == (0, True), named.output


def test_a_revoked_client_has_no_key(keys: Run) -> None:
    """And a name without a key cannot be revoked, be there a folder of keys or not."""
    none = keys("revoke", "laptop")
    assert (none.exit_code, "there is no key of laptop" in none.output) == (1, True), none.output
    keys("new", "laptop")
    assert keys("revoke", "laptop").exit_code == 0
    assert read_authorized(Path("authorized_keys")).names == {}
    assert keys("revoke", "laptop").exit_code == 1
    assert keys("revoke", "../server").exit_code == 1


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\nb", "-x", "a" * 65])
def test_a_name_that_is_no_file_name_is_refused(keys: Run, name: str) -> None:
    """Nothing is made for it."""
    assert keys("new", "--", name).exit_code == 2
    assert not Path("authorized_keys").exists()


def test_a_file_with_a_mistake_is_left_out_and_named(keys: Run) -> None:
    """The other clients keep their keys."""
    keys("new", "laptop")
    folder = Path("authorized_keys")
    (folder / "copy.key").write_text((folder / "laptop.key").read_text())
    (folder / "empty.key").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "open.key").write_text((folder / "laptop.key").read_text())
    (folder / "open.key").chmod(0o666)
    done = keys("list")
    assert done.exit_code == 1
    names = [Path(fault.partition(" is left out")[0]).name for fault in read_authorized(folder).faults]
    assert names == ["empty.key", "laptop.key", "notes.txt", "open.key"]  # `copy` comes before `laptop`
    assert all(name in done.output for name in names)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.chmod(0o604), "everybody may read"),
        (lambda path: path.chmod(0o606), "may write"),
        (lambda path: path.write_text(""), "not a key file"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_a_pair_that_is_not_secret_is_refused(keys: Run, change: Callable[[Path], object], says: str) -> None:
    """The broker would not start with it."""
    keys("new", "laptop")
    change(Path("server.key_secret"))
    with pytest.raises(ConfigError, match=says):
        read_server(Path("server.key_secret"))


def test_check_tells_who_may_connect_and_what_is_wrong(keys: Run) -> None:
    """A mistake in the folder, a pair that everybody can read; and that loopback without keys is open."""
    keys("new", "laptop")
    config = Path("broker.toml")
    plain = config.read_text()
    config.write_text(f'[broker]\nendpoint = "tcp://*:5555"\nserver_key = "server.key_secret"\n{plain}')
    assert "lacks server_key or authorized_keys" in CliRunner().invoke(cli, ["check"]).output
    table = 'server_key = "server.key_secret"\nauthorized_keys = "authorized_keys"'
    config.write_text(f'[broker]\nendpoint = "tcp://*:5555"\n{table}\n{plain}')
    fine = CliRunner().invoke(cli, ["check"])
    assert (fine.exit_code, "1 client may connect" in fine.output) == (0, True), fine.output
    Path("authorized_keys/bad.key").write_text("")
    Path("server.key_secret").chmod(0o604)
    wrong = CliRunner().invoke(cli, ["check"])
    assert (wrong.exit_code, "2 mistakes in the keys" in wrong.output) == (1, True), wrong.output
    config.write_text(f'[broker]\nendpoint = "tcp://127.0.0.1:5555"\n{plain}')
    loopback = CliRunner().invoke(cli, ["check"])
    assert (loopback.exit_code, "needs no key" in loopback.output) == (0, True), loopback.output
