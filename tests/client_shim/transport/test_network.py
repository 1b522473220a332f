"""A way between client and broker that is slow, silent or cut, and a broker that moves.

`tests/network/test_client.py` has real networks.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from client_shim import BlockingClient, BrokerClient, errors, wire
from client_shim.keys import ClientKeys
from client_shim.transport import dealer
from tests.client_shim.keyed import ANY_PORT, KeyedPeer
from tests.client_shim.loops import LoopWithoutReaders
from tests.client_shim.peer import PATIENCE_S, Peer, run, while_greeting

CHUNK_BYTES = 16_384

GREETING_BYTES = 64
"""The greeting of ZMTP 3 (RFC 23)."""


class Wire:
    """A way to a peer that passes on so many bytes a second, in each direction, or nothing."""

    def __init__(self, endpoint: str, bytes_a_second: float, broken: int = 0) -> None:
        self._broken = broken
        """The number of the connection that ends after the first bytes of the other side."""
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._pause_s = CHUNK_BYTES / bytes_a_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.is_cut = False
        self.is_full = False
        """Whether each connection ends after the greeting of the other side: it has too many connections."""
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._ends) // 2

    def _serve(self) -> None:
        with suppress(OSError):
            for number in itertools.count(1):
                one, _ = self._listener.accept()
                self._ends.append(one)
                other = socket.create_connection(self._target)
                self._ends.append(other)
                for end in (one, other):  # what the kernels hold is passed at once
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHUNK_BYTES)
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()
                arguments = (other, one, number == self._broken)
                threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_broken: bool = False) -> None:
        passed = 0
        with suppress(OSError):
            while not is_broken and (data := source.recv(CHUNK_BYTES)):
                time.sleep(self._pause_s * len(data) / CHUNK_BYTES)
                if not self.is_cut:
                    target.sendall(data)
                passed += len(data)
                is_broken = self.is_full and passed >= GREETING_BYTES
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close both ends of everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._serving.join(PATIENCE_S)
        for end in [self._listener, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def wired(peer: Peer, bytes_a_second: float = 1e9, broken: int = 0) -> Iterator[Wire]:
    """A way to this peer."""
    wire_ = Wire(peer.endpoint, bytes_a_second, broken)
    try:
        yield wire_
    finally:
        wire_.close()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats and a lease of 0.3 s."""
    monkeypatch.setattr(dealer, "HEARTBEAT_MS", 50)
    monkeypatch.setattr(dealer, "LEASE_MS", 300)


@pytest.mark.usefixtures("loops", "short_lease")
@pytest.mark.parametrize("direction", ["result", "params"])
@pytest.mark.parametrize("has_keys", [False, True], ids=["without keys", "with keys"])
def test_a_large_message_may_take_longer_than_the_lease(direction: str, has_keys: bool) -> None:
    """No heartbeat passes a message that is on the way: its own bytes are the sign of life."""
    large = b'"' + b"x" * 400_000 + b'"'

    async def main() -> None:
        with KeyedPeer() if has_keys else Peer(ANY_PORT) as peer, wired(peer, 400_000) as way:
            keys = peer.new_client() if isinstance(peer, KeyedPeer) else None
            client = BrokerClient("test", way.endpoint, keys=keys)
            await while_greeting(peer, client.connect())
            if direction == "result":
                call = asyncio.ensure_future(client.request_raw("s", "m"))
                peer.result(await peer.heard(), large)
                assert await call == large
            else:
                call = asyncio.ensure_future(client.request_raw("s", "m", b'{"a":%s}' % large))
                heard = await peer.heard()
                assert heard.body == b'{"a":%s}' % large
                peer.result(heard, b"1")
                assert await call == b"1"
            assert client.connected
            await client.aclose()

    run(main(), asyncio.new_event_loop)


@pytest.mark.usefixtures("loops", "short_lease")
def test_a_blocked_loop_keeps_its_lease_under_a_flood(tmp_path: Path) -> None:
    """libzmq goes on reading, and hears the answers to its heartbeats; credit bounds what waits."""

    async def main() -> None:
        with Peer(f"ipc://{tmp_path}/s") as peer:
            peer._router.setsockopt(zmq.SNDHWM, 0)
            client = BrokerClient("test", peer.endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "m"))
            heard = await peer.heard()
            note = wire.Notification(1, heard.message.id, "s", "notifications/progress")
            for _ in range(3000):
                peer.send(heard.who, note, b'{"progress":1}')
            time.sleep(1)  # noqa: ASYNC251  the loop is blocked on purpose
            assert peer.reaches(heard.who)
            peer.result(heard, b'"the end"')
            assert await call == "the end"
            await client.aclose()

    run(main(), asyncio.new_event_loop)


@pytest.mark.usefixtures("loops")
def test_a_half_open_connection_ends_and_the_broker_is_found_at_its_new_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Laws 2 and 8: a call that was under way has an end; the name is looked up again for the next one."""
    monkeypatch.setattr(dealer, "HEARTBEAT_MS", 50)
    monkeypatch.setattr(dealer, "MESSAGE_MS", 300)
    look_up, address = socket.getaddrinfo, "127.0.0.1"

    def named(host: str, *arguments: int, **options: int) -> object:
        return look_up(address if host == "broker.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", named)

    async def main() -> None:
        nonlocal address
        with KeyedPeer() as peer, wired(peer) as way:
            port = way.endpoint.rpartition(":")[2]
            keys = peer.new_client()
            client = BrokerClient("test", f"tcp://broker.example:{port}", keys=keys, reconnect_s=PATIENCE_S)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "slow"))
            await peer.heard()
            way.is_cut = True
            with pytest.raises(errors.BrokerLost, match="nothing was heard of it"):
                await call
            address = "127.0.0.2"
            waiting = asyncio.ensure_future(client.request("s", "m"))
            with KeyedPeer(f"tcp://127.0.0.2:{port}", "i2", pair=peer.pair) as moved:
                moved.authorized = peer.authorized
                await moved.greet()
                moved.result(await moved.heard(), b'"found"')
                assert await waiting == "found"
                await client.aclose()

    run(main(), asyncio.new_event_loop)


@pytest.mark.parametrize("kind", ["asyncio", "no add_reader", "blocking"])
def test_a_handshake_that_is_cut_is_not_taken_for_a_wrong_key(kind: str) -> None:
    """Law 8: a broker that ends in the middle of it says as little as one with another key."""
    with KeyedPeer() as peer, wired(peer, broken=2) as way:  # the first connection is the probe's
        keys = peer.new_client()
        serving = threading.Thread(target=lambda: peer.welcome(peer.receive().who), daemon=True)
        serving.start()
        if kind == "blocking":
            with BlockingClient(way.endpoint, keys=keys):
                pass
        else:

            async def main() -> None:
                async with BrokerClient("test", way.endpoint, keys=keys):
                    pass

            run(main(), LoopWithoutReaders if kind == "no add_reader" else asyncio.new_event_loop)
        serving.join(PATIENCE_S)
        assert not serving.is_alive()


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
def test_a_broker_with_too_many_connections_is_named_and_waited_for(kind: str) -> None:
    """Law 8: it ends a handshake without a word, as one with another key does. A client that only tries is
    told the reason; a call waits, as for a broker that is not there.
    """
    with KeyedPeer() as peer, wired(peer) as way:
        keys = peer.new_client()
        way.is_full = True
        with pytest.raises(errors.NoBroker, match="it has too many") as caught:
            use(kind, way.endpoint, keys, only_try=True)
        assert caught.value.data["reason"] == "turned-away"
        attempts = way.connections

        def recover() -> None:
            end = time.monotonic() + PATIENCE_S
            while way.connections < attempts + 6:  # two whole attempts and their doubts
                assert time.monotonic() < end
                time.sleep(0.001)
            way.is_full = False
            peer.welcome(peer.receive().who)
            peer.result(peer.receive())

        serving = threading.Thread(target=recover, daemon=True)
        serving.start()
        use(kind, way.endpoint, keys, only_try=False)
        serving.join(PATIENCE_S)
        assert not serving.is_alive()


def use(kind: str, endpoint: str, keys: ClientKeys, *, only_try: bool) -> None:
    """Connect with a client of this kind, or make its first call."""
    if kind == "blocking":
        blocking = BlockingClient(endpoint, keys=keys, reconnect_s=PATIENCE_S)
        with closing(blocking):
            blocking.connect() if only_try else blocking.request(wire.MANAGEMENT, "ping")
        return

    async def main() -> None:
        client = BrokerClient("test", endpoint, keys=keys, reconnect_s=PATIENCE_S)
        try:
            await (client.connect() if only_try else client.ping())
        finally:
            await client.aclose()

    run(main(), asyncio.new_event_loop)
