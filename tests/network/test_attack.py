"""Laws 4 to 6: somebody without a key gets nowhere, takes nothing that others need, and leaves nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from broker.frontend.zmq.monitor import MAX_SILENT
from client_shim import BlockingClient, wire
from client_shim.errors import NoBroker
from client_shim.key_file import KeyFile
from client_shim.keys import ClientKeys
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, wait_until
from tests.e2e.raw import Peers
from tests.network.attacker import GREETING, RAW, Recorder, Way, attacked, connect, is_deaf, port_of
from tests.network.place import Keys, reachable

CALL = b'{"name":"echo","arguments":{"text":"hi"}}'
BURST = 10
"""The lines of one kind in the log at once; then there is one a second."""

SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
"""What a libzmq of today says first: the signature of ZMTP (RFC 23)."""

LOGIN = 'login.refused address=127.0.0.1 reason="the key is not known"'

FEW = 3000
"""Connections of an attack: more than may say nothing at once. The soak has more."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of one broker."""
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.new("laptop")
    return keys


@pytest.fixture(scope="module")
def place(keys: Keys) -> Iterator[tuple[RunningBroker, str]]:
    """A broker on a path and a port."""
    with reachable(keys, {"s": rogue()}) as place:
        yield place


def descriptors(broker: RunningBroker) -> int:
    """How many the broker has open."""
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def serve(broker: RunningBroker, address: str, laptop: KeyFile, calls: int) -> None:
    """A client with a key and one on the path come in, and each of their calls is answered."""
    with closing(Peers(address)) as peers, closing(Peers(broker.endpoint)) as local:
        for peer in (peers.hello(keys=laptop), local.hello()):
            for _ in range(calls):
                answer, _ = peer.ask(peer.request("s"), CALL)
                assert isinstance(answer, wire.Result), answer
                peer.give_credit()


def test_thousands_of_connections_keep_nobody_out(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """Silence, junk, halves of handshakes, forged ones, and clients without a key, at full speed: the others
    come in and are served meanwhile. At the end nothing is left of the attack.
    """
    broker, address = place
    before, turned_away, began = descriptors(broker), broker.counter("turned-away"), time.monotonic()
    with attacked(address, keys.stranger(), FEW, FEW) as made:
        while made() < FEW:
            serve(broker, address, keys.of("laptop"), 5)
        wait_until(lambda: descriptors(broker) <= before + MAX_SILENT + 8)
        serve(broker, address, keys.of("laptop"), 20)
        assert len(broker.status()["clients"]) == 1
    wait_until(lambda: descriptors(broker) <= before, lambda: f"{before}, {descriptors(broker)}")
    assert broker.counter("turned-away") > turned_away
    lines = broker.log().count("connection.turned_away")  # law 6: the log is bounded, too
    assert 1 <= lines <= BURST + time.monotonic() - began
    assert broker.server("s")["restarts"] == 0


def test_an_attacker_takes_no_descriptors_that_others_need(keys: Keys) -> None:
    """Of 400 descriptors a quarter of those for connections may be silent; the rest is for who has a key."""
    few = ("sh", "-c", 'ulimit -n 400; exec "$0" "$@"')
    with reachable(keys, {"s": rogue()}, before=few) as (broker, address):
        with attacked(address, keys.stranger(), 600, 600) as made:
            wait_until(lambda: made() >= 600)
            serve(broker, address, keys.of("laptop"), 5)
            assert descriptors(broker) < 300
        assert "connection.turned_away limit=silent most=75 address=127.0.0.1" in broker.log()


def test_a_broker_of_few_connections_has_room_for_handshakes(keys: Keys) -> None:
    """Whatever `connections` is: silent ones take no place of clients, and no client is taken for one. Beyond
    its limit the broker says so, and the client waits.
    """
    laptop = keys.of("laptop")
    client_keys = ClientKeys(keys.server.public, laptop.public, str(laptop.secret))
    with reachable(keys, {"s": rogue()}, limits={"connections": 1}) as (broker, address):
        with closing(Peers(address)) as peers:
            with attacked(address, keys.stranger(), 40, 40) as made:
                wait_until(lambda: made() == 40)
                peers.hello(keys=laptop).ping()
            for _ in range(2):
                answer, _ = peers.connect(keys=laptop).ask(wire.Hello(0, 0, [wire.VERSION], {}))
                assert isinstance(answer, wire.Fault)
                assert answer.code == wire.Code.BUSY.value
                assert (
                    answer.message
                    == "the broker has as many connections as it takes: limits.connections is 1"
                )
                assert "raise connections" in answer.data["hint"]
            with pytest.raises(NoBroker, match="it has too many"):
                BlockingClient(address, keys=client_keys).connect()

            def is_logged() -> bool:
                connect(port_of(address)).close()  # one line a second after so many
                return "connection.turned_away limit=connections most=2 address=127.0.0.1" in broker.log()

            wait_until(is_logged)
            assert "connection.turned_away limit=silent most=16 address=127.0.0.1" in broker.log()
        with closing(BlockingClient(address, keys=client_keys, reconnect_s=PATIENCE_S)) as client:
            assert client.request(wire.MANAGEMENT, "ping") is not None


@pytest.mark.parametrize("way", RAW, ids=lambda way: way.__name__)
def test_whoever_has_no_key_is_not_answered(place: tuple[RunningBroker, str], keys: Keys, way: Way) -> None:
    """The broker's greeting is all that comes, and an end: at once, or with the handshake's time limit. A
    client that comes later has its answer by then, from the same thread of libzmq.
    """
    _, address = place
    with closing(way(port_of(address), keys.stranger())) as one, closing(Peers(address)) as peers:
        heard = b""
        with suppress(BlockingIOError, ConnectionResetError):  # libzmq may end it before it has greeted
            heard += one.recv(len(SIGNATURE), socket.MSG_WAITALL)
            peers.hello(keys=keys.of("laptop")).ping()
            one.setblocking(False)
            heard += one.recv(4096)
        assert not heard or heard.startswith(SIGNATURE)
        assert b"WELCOME" not in heard
        assert len(heard) <= len(GREETING)


def test_other_keys_end_at_the_handshake(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """An unknown key, the public key of a client without its secret, another broker's key, a revoked one."""
    broker, address = place
    revoked = keys.new("revoked")
    with broker.client() as client, closing(Peers(address)) as peers:
        client.request(wire.MANAGEMENT, "reload")
        peers.hello(keys=revoked)
        keys.revoke("revoked")
        client.request(wire.MANAGEMENT, "reload")
        stranger, laptop = keys.stranger(), keys.of("laptop")
        stolen = stranger._replace(public=laptop.public)
        other = laptop._replace(server=keys.stranger().public)
        for attempt in (stranger, stolen, other, revoked):
            assert is_deaf(peers.connect(keys=attempt)), attempt.name
    assert not [one for one in broker.status()["clients"] if one["name"] == "attacker"]


def test_a_recorded_connection_cannot_be_played_again(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """Its bytes are worth nothing under the keys of another connection: no call is made twice (law 2)."""
    broker, address = place
    with closing(Recorder(address)) as recorder, closing(Peers(recorder.endpoint)) as peers:
        peer = peers.hello(keys=keys.of("laptop"))
        answer, _ = peer.ask(peer.request("s"), CALL)
        assert isinstance(answer, wire.Result)
        peers.close()
    calls = broker.server("s")["calls"]
    assert CALL not in recorder.sent  # it is encrypted
    with closing(connect(port_of(address), recorder.sent)) as again:
        again.settimeout(PATIENCE_S)
        heard = b""
        with suppress(ConnectionResetError):
            while data := again.recv(4096):
                heard += data
    assert b"READY" not in heard
    assert broker.server("s")["calls"] == calls
    assert not [one for one in broker.status()["clients"] if one["key"] == "laptop"]


def test_the_log_names_the_place_of_the_attack(place: tuple[RunningBroker, str], keys: Keys) -> None:
    """Law 9: it is counted, and logged with its address, though not for each of thousands."""
    broker, address = place
    before, lines, began = broker.counter("login-refused"), broker.log().count(LOGIN), time.monotonic()
    with closing(Peers(address)) as peers:
        for _ in range(15):
            assert is_deaf(peers.connect(keys=keys.stranger()))
    assert broker.counter("login-refused") == before + 15
    assert 1 <= broker.log().count(LOGIN) - lines <= BURST + time.monotonic() - began
