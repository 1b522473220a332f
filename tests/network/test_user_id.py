"""Law 8: what a client says of itself is never taken for a key that the broker has checked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from client_shim import wire
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running
from tests.network.attacker import NO_KEY, ready
from tests.network.place import Keys, free_port


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of one broker, which knows a client `admin`."""
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.new("admin")
    return keys


@pytest.fixture(scope="module", params=[0, 1], ids=["no address needs keys", "a port needs keys"])
def broker(keys: Keys, request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """A broker on a path, and perhaps on a port beside it; it has the keys of clients in any case."""
    ports = [f"tcp://127.0.0.1:{free_port()}" for _ in range(request.param)]
    with running({"s": rogue()}, broker=keys.table(), ports=ports) as broker:
        yield broker


@pytest.mark.parametrize("claim", ["authorized key", "unknown key", "address"])
def test_a_client_on_the_socket_cannot_name_itself(broker: RunningBroker, keys: Keys, claim: str) -> None:
    """libzmq passes on the properties of a READY beside its own (RFC 23): the broker must not trust them. The
    client is the process that the kernel names, and is served as that.
    """
    claims = {
        "authorized key": {"User-Id": keys.of("admin").public},
        "unknown key": {"User-Id": keys.stranger().public},
        "address": {"Peer-Address": "10.0.0.5:0:0:1"},
    }
    hello = wire.encode(wire.Hello(0, 0, [wire.VERSION], {"name": "liar"}))
    instance = broker.status()["broker"]["instance"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(broker.endpoint.removeprefix("ipc://"))
        connection.sendall(NO_KEY + ready(claims[claim]))
        read_until(connection, b"READY")
        connection.sendall(bytes([0, len(hello)]) + hello)
        read_until(connection, instance.encode())
        (liar,) = (client for client in broker.status()["clients"] if client["name"] == "liar")
        assert (liar["key"], liar["uid"], liar["pid"]) == (None, os.geteuid(), os.getpid())


def read_until(connection: socket.socket, words: bytes) -> None:
    """Read until these bytes have come."""
    heard = b""
    while words not in heard:
        data = connection.recv(4096)
        assert data, "it was cut off"
        heard += data
