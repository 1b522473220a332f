"""Clients with keys: the right one is served, and no other one gets a word through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner

from broker.command.cli import cli
from client_shim import wire
from client_shim.blocking import BlockingClient
from client_shim.errors import KeyRefused
from client_shim.key_file import KeyFile, parse, text_of
from tests.e2e.harness import PATIENCE_S, RunningBroker, Table, rogue, wait_until
from tests.e2e.raw import PATIENCE_MS, Peers
from tests.network.place import Keys, reachable

SOON_MS = 5_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of one broker."""
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def place(keys: Keys) -> Iterator[tuple[RunningBroker, str]]:
    """A broker on a path and a port."""
    keys.new("laptop")
    with reachable(keys, {"s": rogue()}) as place:
        yield place


@pytest.fixture
def laptop(keys: Keys, place: tuple[RunningBroker, str]) -> KeyFile:
    """A client with a key."""
    broker, _ = place
    found = keys.new("desk")
    with broker.client() as client:
        client.request(wire.MANAGEMENT, "reload")
    return found


def test_a_client_with_a_key_is_served_beside_one_on_the_socket(
    place: tuple[RunningBroker, str], laptop: KeyFile
) -> None:
    """Both addresses lead to the same server; on the path no key is needed."""
    broker, address = place
    with closing(Peers(address)) as peers, broker.client() as client:
        peer = peers.hello(keys=laptop)
        answer, body = peer.ask(peer.request("s"), b'{"name":"echo","arguments":{"text":"hi"}}')
        assert isinstance(answer, wire.Result), answer
        result = client.request("s", "tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        assert json.loads(body or b"") == result
        assert result["content"] == [{"type": "text", "text": '{"text":"hi"}'}]


def test_nobody_else_is_let_in(place: tuple[RunningBroker, str], keys: Keys, laptop: KeyFile) -> None:
    """An unknown key, the key of another broker, a public key without its secret, no key at all: none of
    them is answered, and the broker serves the others.
    """
    broker, address = place
    no_secret = keys.stranger()._replace(public=laptop.public)
    before = broker.counter("login-refused")
    others = [keys.stranger(), keys.stranger(server=keys.stranger().public), no_secret, None]
    with closing(Peers(address)) as peers:
        for other in others:
            peer = peers.connect(keys=other)
            peer.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": 1}))
            assert peer.is_cut_off(SOON_MS), other
            assert not peer.socket.poll(0, zmq.POLLIN), other
        peers.hello(keys=laptop).ping()
    assert (
        broker.counter("login-refused") == before + 1
    )  # the others did not get as far as the handshake's end
    assert all(one["name"] != "raw" for one in broker.status()["clients"])
    broker.wait_log('login.refused address=127.0.0.1 reason="the key is not known" count=')


def test_the_broker_says_where_it_listens(place: tuple[RunningBroker, str]) -> None:
    """In its log, each address; and in the status."""
    broker, address = place
    told = broker.status()["broker"]["endpoints"]
    assert [(one["address"], one["keys"], one["open"]) for one in told] == [
        (broker.endpoint, False, False),
        (address, True, False),
    ]
    assert f"broker.listening endpoint={address}" in broker.log()
    assert "endpoint.without_keys" not in broker.log()


def test_a_path_that_was_made_anew_needs_no_key_and_the_port_still_does(
    place: tuple[RunningBroker, str], laptop: KeyFile
) -> None:
    """What libzmq is told for one address does not hold for the next one."""
    broker, address = place
    Path(broker.endpoint.removeprefix("ipc://")).unlink()
    broker.wait_log("endpoint.made_anew")
    with closing(Peers(broker.endpoint)) as local, closing(Peers(address)) as peers:
        local.hello().ping()
        peers.hello(keys=laptop).ping()
        stranger = peers.connect()
        stranger.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": 1}))
        assert stranger.is_cut_off(SOON_MS)


def test_a_revoked_client_is_cut_at_once_and_stays_out(
    place: tuple[RunningBroker, str], keys: Keys, laptop: KeyFile
) -> None:
    """Its call is cancelled at the server, its next connection is refused, and the others go on."""
    broker, address = place
    lost = keys.new("lost")
    with closing(Peers(address)) as peers, broker.client() as client:
        client.request(wire.MANAGEMENT, "reload")
        gone, stays = peers.hello(keys=lost), peers.hello(keys=laptop)
        gone.call("s", b'{"name":"hang"}')
        gone.ping()
        (row,) = (one for one in broker.status()["clients"] if one["key"] == "lost")
        assert (row["name"], row["address"], row["pid"], row["in_flight"]) == ("raw", "127.0.0.1", -1, 1)
        cancelled = broker.server("s")["in_flight"]
        keys.revoke("lost")
        done = client.request(wire.MANAGEMENT, "reload")
        assert done["revoked"] == 1
        assert done["adjusted"] == ["broker.authorized_keys"]
        assert gone.is_cut_off(SOON_MS)
        assert not [one for one in broker.status()["clients"] if one["key"] == "lost"]
        again = peers.connect(keys=lost)
        again.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": 1}))
        assert again.is_cut_off(SOON_MS)
        wait_until(lambda: broker.server("s")["in_flight"] < cancelled)
        stays.ping()
    assert 'client.closed client="raw (lost)" reason=revoked key=lost' in broker.log()


def test_a_client_whose_key_is_revoked_between_handshake_and_hello_is_cut(
    place: tuple[RunningBroker, str], keys: Keys
) -> None:
    """libzmq had admitted it; the broker asks again when it says hello."""
    broker, address = place
    late = keys.new("late")
    with closing(Peers(address)) as peers, broker.client() as client:
        client.request(wire.MANAGEMENT, "reload")
        peer = peers.connect(keys=late, immediate=True)
        assert peer.socket.poll(PATIENCE_MS, zmq.POLLOUT), "the handshake does not end"
        keys.revoke("late")
        client.request(wire.MANAGEMENT, "reload")
        peer.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": 1}))
        assert peer.is_cut_off(SOON_MS)
        assert not peer.socket.poll(0, zmq.POLLIN)
    broker.wait_log(f'client.closed client="raw ({late.public})" reason=revoked')


def test_a_client_with_a_key_sees_and_manages_what_its_table_says(
    place: tuple[RunningBroker, str], keys: Keys
) -> None:
    """By default it may use every server, sees itself only, and manages nothing."""
    broker, address = place
    for name in ("plain", "admin", "narrow"):
        keys.new(name)
    tables: dict[str, Table] = {"keys.admin": {"manage": True}, "keys.narrow": {"servers": ["other*"]}}
    broker.write({"s": rogue(), "t": rogue()}, broker=keys.table(), **tables)
    with closing(Peers(address)) as peers, broker.client() as client:
        client.request(wire.MANAGEMENT, "reload")
        broker.wait_ready()
        seen = {}
        for name in ("plain", "admin", "narrow"):
            peer = peers.hello(keys=keys.of(name))
            _, body = peer.ask(peer.request(wire.MANAGEMENT, "status"))
            status = json.loads(body or b"")
            seen[name] = [one["name"] for one in status["servers"]], len(status["clients"])
            answer, _ = peer.ask(peer.request(wire.MANAGEMENT, "restart"), b'{"server":"t"}')
            assert isinstance(answer, wire.Result) is (name == "admin"), answer
    assert seen == {"plain": (["s", "t"], 1), "admin": (["s", "t"], 3), "narrow": ([], 1)}


def test_a_table_whose_name_is_mistyped_is_told_of(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """By the answer to the reload and by the log; `mcp-broker reload` and `check` end with status 1."""
    broker, _ = place
    tables: dict[str, Table] = {"keys.narow": {"servers": ["other*"]}}
    broker.write({"s": rogue()}, broker=keys.table(), **tables)
    with broker.client() as client:
        (told,) = client.request(wire.MANAGEMENT, "reload")["left_out"]
    assert told.startswith("keys.narow: no client has a key of this name")
    broker.wait_log('key.left_out reason="keys.narow: ')
    for command in (["reload", "--endpoint", broker.endpoint], ["check", "--config", str(broker.config)]):
        done = CliRunner().invoke(cli, command)
        assert (done.exit_code, "keys.narow: " in done.output) == (1, True), done.output
    broker.write({"s": rogue()}, broker=keys.table())
    with broker.client() as client:
        done = client.request(wire.MANAGEMENT, "reload")
    assert (done["left_out"], done["adjusted"]) == ([], ["keys"])


def test_the_command_lets_clients_in_and_cuts_them(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """`mcp-broker keys new` and `keys revoke` tell the running broker, on its path."""
    broker, address = place
    broker.write({"s": rogue()}, broker=keys.table())
    out = broker.folder / "mine"
    options = ["--config", str(broker.config), "--endpoint", broker.endpoint]
    done = CliRunner().invoke(cli, ["keys", "new", "mine", "--out", str(out), *options])
    assert (done.exit_code, "lets mine in" in done.output) == (0, True), done.output
    with closing(Peers(address)) as peers:
        peer = peers.hello(keys=parse(out.read_text()))
        done = CliRunner().invoke(cli, ["keys", "revoke", "mine", *options])
        assert (done.exit_code, "cut: 1" in done.output) == (0, True), done.output
        assert peer.is_cut_off(SOON_MS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_broker_with_another_config_is_not_told(
    place: tuple[RunningBroker, str], keys: Keys, tmp_path: Path, language: str
) -> None:
    """It has other keys: it is left alone, and the operator learns which broker has to be told."""
    broker, _ = place
    other = tmp_path / "broker.toml"
    table = 'server_key = "server.key_secret"\nauthorized_keys = "authorized_keys"'
    other.write_text(f'[broker]\n{table}\n[servers.a]\ncommand = "sh"\n')
    before = broker.log().count("config.reloaded")
    options = ["--config", str(other), "--endpoint", broker.endpoint]
    for command in (["new", "mine", "--out", str(tmp_path / "mine")], ["revoke", "mine"]):
        done = CliRunner(env={"MCP_BROKER_LANG": language}).invoke(cli, ["keys", *command, *options])
        assert done.exit_code == 0, done.output
        told = (str(broker.config), str(other), "mcp-broker reload --endpoint")
        assert all(word in done.output for word in told), done.output
    assert broker.log().count("config.reloaded") == before


def test_the_client_takes_the_file_that_the_command_made(
    place: tuple[RunningBroker, str], keys: Keys
) -> None:
    """`MCP_BROKER_KEYS` names it; a revoked client is told so at once, and never hangs."""
    broker, address = place
    made = keys.new("user")
    file = broker.folder / "user.key_secret"
    file.write_text(text_of(made))
    with broker.client() as client:
        client.request(wire.MANAGEMENT, "reload")
        with BlockingClient(address, keys=str(file), timeout_s=PATIENCE_S) as user:
            assert user.request("s", "tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        keys.revoke("user")
        client.request(wire.MANAGEMENT, "reload")
    with pytest.raises(KeyRefused), BlockingClient(address, keys=str(file)):
        pass
