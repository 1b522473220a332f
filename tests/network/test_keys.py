"""Clients with keys: the right one is served, and no other one gets a word through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from client_shim import wire
from client_shim.key_file import KeyFile
from tests.e2e.harness import RunningBroker, rogue
from tests.e2e.raw import Peers
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
        assert b"hi" in (body or b"")
        result = client.request("s", "tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        assert "hi" in str(result)


def test_nobody_else_is_let_in(place: tuple[RunningBroker, str], keys: Keys, laptop: KeyFile) -> None:
    """An unknown key, the key of another broker, a public key without its secret, no key at all: none of
    them is answered, and the broker serves the others.
    """
    broker, address = place
    no_secret = keys.stranger()._replace(public=laptop.public)
    others = [keys.stranger(), keys.stranger(server=keys.stranger().public), no_secret, None]
    with closing(Peers(address)) as peers:
        for other in others:
            peer = peers.connect(keys=other)
            peer.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": 1}))
            assert peer.is_cut_off(SOON_MS), other
            assert not peer.socket.poll(0, zmq.POLLIN), other
        peers.hello(keys=laptop).ping()
    assert broker.counter("login-refused") == 1  # the others did not get as far as the handshake's end
    assert all(one["name"] != "raw" for one in broker.status()["clients"])
    assert "login.refused" in broker.log()


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
