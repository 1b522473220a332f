"""``tcp://``: what listens there, whether it wants keys, and an error of its own for each way to fail."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from client_shim import BlockingClient, BrokerClient, MCPClient, errors
from client_shim.keys import VARIABLE, ClientKeys, Keys
from client_shim.transport.curve import new_pair
from client_shim.transport.endpoint import probe
from client_shim.transport.tcp import is_loopback, probe_tcp
from tests.client_shim.backend.kit import having
from tests.client_shim.keyed import ANY_PORT, KeyedPeer, write_keys
from tests.client_shim.loops import all_without_readers
from tests.client_shim.peer import PATIENCE_S, Peer, run, until

AT_ONCE_S = 3.0
"""Less than `reconnect_s` and the time of a greeting: the error is not one that was waited for."""

Connect = Callable[[str, "Keys | None"], None]


def connect_asyncio(endpoint: str, keys: Keys | None) -> None:
    """The first call of a `BrokerClient`."""

    async def main() -> None:
        client = BrokerClient("test", endpoint, keys=keys, timeout=PATIENCE_S)
        try:
            await client.ping()
        finally:
            await client.aclose()

    run(main(), asyncio.new_event_loop)


def connect_without_readers(endpoint: str, keys: Keys | None) -> None:
    """The same on a loop that cannot watch descriptors."""
    with all_without_readers():
        connect_asyncio(endpoint, keys)


def connect_blocking(endpoint: str, keys: Keys | None) -> None:
    """The first call of a `BlockingClient`."""
    client = BlockingClient(endpoint, keys=keys, timeout_s=PATIENCE_S)
    try:
        client.request("$broker", "ping")
    finally:
        client.close()


def connect_drop_in(endpoint: str, keys: Keys | None) -> None:
    """The first call of an `MCPClient`, which takes both from the environment."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCP_BROKER_ENDPOINT", endpoint)
        if keys is not None:
            path = write_keys(Path(folder) / "k", keys) if isinstance(keys, ClientKeys) else str(keys)
            patch.setenv(VARIABLE, path)

        async def main() -> None:
            async with MCPClient(having("s")) as client:
                await client.call_tool("s", "t", {})

        try:
            run(main(), asyncio.new_event_loop)
        except RuntimeError as error:
            raise error.__cause__ or error from None


@pytest.fixture(
    params=[connect_asyncio, connect_without_readers, connect_blocking, connect_drop_in],
    ids=["asyncio", "no add_reader", "blocking", "drop-in"],
)
def connect(request: pytest.FixtureRequest) -> Connect:
    """Makes a call with each client."""
    function: Connect = request.param
    return function


@contextmanager
def refused_at_once(kind: type[errors.Unavailable], words: str) -> Iterator[None]:
    """The error that the block ends in, long before anything that is waited for."""
    began = time.monotonic()
    with pytest.raises(errors.Unavailable) as caught:
        yield
    assert type(caught.value) is kind, repr(caught.value)
    assert words in str(caught.value)
    assert caught.value.hint
    assert "://" in str(caught.value) or kind is errors.InvalidKeys  # which names the file
    assert time.monotonic() - began < AT_ONCE_S


@contextmanager
def something_else(says: bytes, *, stays: bool = True) -> Iterator[str]:
    """A program that is no broker: it says this to whoever comes, and stays or leaves."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            kept: list[socket.socket] = []
            try:
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(says)
                    if stays:
                        kept.append(connection)
                    else:
                        connection.close()
            except OSError:  # the test is over
                for connection in kept:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_variable", [False, True])
def test_a_client_with_keys_is_served(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_variable: bool
) -> None:
    """From an argument, or from the file that the variable names."""
    with KeyedPeer() as peer:
        keys = peer.new_client()
        serving = threading.Thread(target=_serve_one, args=(peer,))
        serving.start()
        if from_variable:
            monkeypatch.setenv(VARIABLE, write_keys(tmp_path / "k", keys))
        connect(peer.endpoint, None if from_variable else keys)
        serving.join(PATIENCE_S)


def _serve_one(peer: Peer) -> None:
    peer.welcome(peer.receive().who)
    peer.result(peer.receive(), b'{"content":[]}')


def test_each_mistake_with_keys_is_an_error_of_its_own_at_once(connect: Connect, tmp_path: Path) -> None:
    """Law 10: libzmq retries all of them in silence, and a call would wait out its deadline."""
    with KeyedPeer() as peer, Peer(ANY_PORT) as bare:
        known = peer.new_client()
        with refused_at_once(errors.KeyMissing, "only clients with keys"):
            connect(peer.endpoint, None)
        with refused_at_once(errors.KeyRefused, "was revoked"):
            connect(peer.endpoint, ClientKeys(peer.public, *new_pair()))
        with refused_at_once(errors.WrongBrokerKey, "does not have the key"):
            connect(peer.endpoint, known._replace(server=new_pair()[0]))
        with refused_at_once(errors.WrongBrokerKey, "cannot prove"):
            connect(bare.endpoint, known)
        with refused_at_once(errors.InvalidKeys, "cannot be read"):
            connect(peer.endpoint, str(tmp_path / "not there"))
        assert not peer.has_mail()
        assert not bare.has_mail(), "nothing was sent to a program that is not the broker"


def test_another_machine_is_reached_with_keys_only(connect: Connect) -> None:
    """Without keys nothing would be encrypted, so nothing is sent, and no name is looked up."""
    for host in ("broker.example", "10.0.0.1", "0.0.0.0", "[2001:db8::1]"):
        with refused_at_once(errors.KeyMissing, "another machine"):
            connect(f"tcp://{host}:5", None)


@pytest.mark.usefixtures("loops")
def test_a_revoked_key_ends_the_calls_and_the_next_ones_say_why() -> None:
    """The broker cuts the connection; no call waits for a broker that will not take this client."""

    async def main() -> None:
        with KeyedPeer() as peer:
            client = BrokerClient("test", peer.endpoint, keys=peer.new_client(), timeout=PATIENCE_S)
            call = asyncio.ensure_future(client.request("s", "slow"))
            await peer.greet()
            await peer.heard()
            endpoint, pair = peer.endpoint, peer.pair
        with pytest.raises(errors.BrokerLost):
            await call
        with KeyedPeer(endpoint, pair=pair):  # it takes no client any more
            with pytest.raises(errors.KeyRefused):
                await asyncio.wait_for(client.request("s", "m"), AT_ONCE_S)
            await client.aclose()

    run(main(), asyncio.new_event_loop)


@pytest.mark.usefixtures("loops")
def test_a_renewed_file_of_keys_is_read_at_the_next_attempt(tmp_path: Path) -> None:
    """A key that is replaced needs no restart of the backend."""

    async def main() -> None:
        with KeyedPeer() as peer:
            path = write_keys(tmp_path / "k", ClientKeys(peer.public, *new_pair()))
            client = BrokerClient("test", peer.endpoint, keys=path)
            with pytest.raises(errors.KeyRefused):
                await client.ping()
            write_keys(tmp_path / "k", peer.new_client())
            connecting = asyncio.ensure_future(client.connect())
            await peer.greet()
            await connecting
            await client.aclose()

    run(main(), asyncio.new_event_loop)


# --- no broker -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "says", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 9 + b"\0"]
)
def test_a_port_with_something_else_behind_it_is_named(connect: Connect, says: bytes) -> None:
    """libzmq takes what it reads for an old ZeroMQ, and waits."""
    with something_else(says) as endpoint, refused_at_once(errors.NotABroker, "does not speak ZeroMQ"):
        connect(endpoint, None)


def test_an_open_port_with_nothing_behind_it_may_have_a_broker_later() -> None:
    """A proxy of Docker takes every connection, and closes it as long as its container is not up."""
    with something_else(b"", stays=False) as endpoint:
        assert refusal(endpoint).data["reason"] == "closed"


def test_a_program_that_says_nothing_is_not_waited_for_without_end() -> None:
    """A broker that is stopped, or a program that waits for the other side."""
    with something_else(b"") as endpoint, pytest.raises(errors.BrokerSilent, match="said nothing"):
        probe(endpoint, wait_s=0.1)


@pytest.mark.timeout(30)
def test_a_connection_is_held_no_longer_than_there_is_time() -> None:
    """Law 2: the second probe, after a handshake that failed, is within the deadline too."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    with something_else(greeting) as endpoint:
        assert probe_tcp(endpoint, has_keys=True, wait_s=0.2, hold_s=600.0) == endpoint


def test_nobody_listens_at_a_port() -> None:
    """As for a socket file."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert refusal(f"tcp://127.0.0.1:{port}").data["reason"] == "nobody-listens"


def test_an_unknown_host_and_one_that_does_not_answer_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a name is known when the other container runs; a cable may be out."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    def dropped(self: object, address: object) -> None:
        raise TimeoutError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        error = refusal("tcp://broker.example:5", has_keys=True)
        assert error.data["reason"] == "unknown-host"
        assert "Name or service not known" in str(error)
    monkeypatch.setattr(socket.socket, "connect", dropped)
    error = refusal("tcp://127.0.0.1:5")
    assert error.data["reason"] == "unreachable"
    assert "did not answer in time" in str(error)


def test_a_machine_without_ipv6_reaches_the_other_addresses_of_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its name servers and its table of hosts still name addresses of IPv6, and first."""
    look_up, make = socket.getaddrinfo, socket.socket

    def both(host: str, port: int, **options: int) -> list[object]:
        return [*look_up("::1", port, **options), *look_up("127.0.0.1", port, **options)]

    def without_ipv6(family: int = -1, *arguments: int, **options: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return make(family, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with Peer(ANY_PORT) as peer:
        monkeypatch.setattr("client_shim.transport.tcp.socket.socket", without_ipv6)
        port = peer.endpoint.rpartition(":")[2]
        assert probe(f"tcp://localhost:{port}") == f"tcp://127.0.0.1:{port}"
    assert refusal(f"tcp://localhost:{port}").data["reason"] == "nobody-listens"


@pytest.mark.usefixtures("loops")
def test_the_first_call_waits_for_a_host_that_is_not_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose starts a backend before its broker: the name of that is not known until then."""
    known, looked_up = threading.Event(), threading.Event()
    look_up = socket.getaddrinfo

    def late(host: str, port: int, **options: int) -> object:
        if host == "mcp-broker" and not known.is_set():
            looked_up.set()
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return look_up("127.0.0.1" if host == "mcp-broker" else host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", late)

    async def main() -> None:
        with KeyedPeer() as peer:
            endpoint = f"tcp://mcp-broker:{peer.endpoint.rpartition(':')[2]}"
            client = BrokerClient("test", endpoint, keys=peer.new_client(), reconnect_s=PATIENCE_S)
            call = asyncio.ensure_future(client.ping())
            await until(looked_up.is_set)
            known.set()
            await peer.greet()
            peer.result(await peer.heard())
            await call
            await client.aclose()

    run(main(), asyncio.new_event_loop)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://",
        "tcp://h",
        "tcp://:1",
        "tcp://h:0",
        "tcp://h:65536",
        "tcp://a b:1",
        "tcp://127.0.0.1:5;h:5",
        "tcp://::1:5",
        "tcp://*:5",
        "tcp://[fe80::1%]:5",
        "tcp://[fe80::1%eth0;x]:5",
    ],
)
def test_what_names_no_host_and_port_is_told_how_to_write_it(endpoint: str) -> None:
    """Law 10. libzmq has more forms, such as a source address: none of them is for a client."""
    error = refusal(endpoint)
    assert isinstance(error, errors.InvalidEndpoint)
    assert error.hint


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("ends", ["client", "loop"])
def test_a_search_that_outlives_its_client_or_its_loop_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: str
) -> None:
    """A name server may take half a minute: nothing waits for that thread, and it wakes no closed loop."""
    asked, answered = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        asked.set()
        answered.wait(PATIENCE_S)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    keys = ClientKeys(new_pair()[0], *new_pair())
    client = BrokerClient("test", "tcp://broker.example:5", keys=keys)

    async def main() -> None:
        call = asyncio.ensure_future(client.ping())
        await until(asked.is_set)
        if ends == "client":
            await client.aclose()
            with pytest.raises(errors.ClientClosed):
                await call
        else:
            call.cancel()

    run(main(), asyncio.new_event_loop)
    monkeypatch.setattr("client_shim.asyncio.reconnect.MAX_SEARCHES", 1)
    with pytest.raises(errors.Unavailable, match="too many searches"):
        run(BrokerClient("another", "tcp://broker.example:5", keys=keys).connect(), asyncio.new_event_loop)
    searches = [thread for thread in threading.enumerate() if thread.name == "mcp-broker search"]
    assert searches
    answered.set()
    for thread in searches:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert capsys.readouterr().err == ""


def test_the_endpoint_for_libzmq_has_the_address_that_answered() -> None:
    """libzmq would look up names in the thread that sends the heartbeats of all connections."""
    with Peer(ANY_PORT) as peer:
        port = peer.endpoint.rpartition(":")[2]
        assert probe(f"tcp://localhost:{port}") == f"tcp://127.0.0.1:{port}"


def link_local() -> str:
    """An address of this machine that needs a scope, with its scope."""
    with open("/proc/net/if_inet6", encoding="ascii") as table:
        for digits, _, _, kind, _, device in map(str.split, table):
            if kind == "20":  # link-local (RFC 4291)
                return f"{IPv6Address(int(digits, 16))}%{device}"
    pytest.skip("this machine has no link-local address")


def test_an_address_with_a_scope_is_reached() -> None:
    """Two machines on one cable have no other addresses (RFC 4007), and libzmq needs the scope, too."""
    here = link_local()
    with KeyedPeer(f"tcp://[{here}]:*") as peer:
        port = peer.endpoint.rpartition(":")[2]
        keys = peer.new_client()
        serving = threading.Thread(target=_serve_one, args=(peer,))
        serving.start()
        connect_blocking(f"tcp://[{here}]:{port}", keys)
        serving.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("10.0.0.1", False), ("localhost.example", False), ("::ffff:10.0.0.1", False), ("::", False)],
)  # fmt: skip
def test_loopback_is_said_by_numbers_and_one_name(host: str, is_here: bool) -> None:
    """A name server must not decide that something may be sent without encryption."""
    assert is_loopback(host) is is_here


def refusal(endpoint: str, *, has_keys: bool = False) -> errors.Unavailable:
    """What the probe raises."""
    with pytest.raises(errors.Unavailable) as caught:
        probe(endpoint, has_keys=has_keys)
    return caught.value
