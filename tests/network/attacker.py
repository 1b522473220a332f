"""What somebody without a key may try at a port: each way opens one connection, and gets no further."""

from __future__ import annotations

import os
import resource
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from types import MappingProxyType

import zmq

from client_shim import wire
from client_shim.key_file import KeyFile
from tests.e2e.raw import PATIENCE_MS, RawPeer

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""The greeting of ZMTP 3.0 of a client that has CURVE (RFC 23)."""

HELLO = b"\x04\xc8\x05HELLO\x01\x00"
"""The beginning of a HELLO command, whose 200 bytes need the broker's public key."""

NO_KEY = GREETING.replace(b"CURVE", b"NULL\0")


def ready(properties: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The READY command of a DEALER, with more properties (RFC 23)."""
    body = b"\x05READY"
    for name, value in {"Socket-Type": "DEALER", **properties}.items():
        body += struct.pack(f">B{len(name)}sI", len(name), name.encode(), len(value)) + value.encode()
    return struct.pack(">BB", 0x04, len(body)) + body


def silent(address: tuple[str, int], keys: KeyFile) -> socket.socket:
    """Connect, and say nothing."""
    return connect(address)


def junk(address: tuple[str, int], keys: KeyFile) -> socket.socket:
    """Send bytes that are no ZMTP."""
    return connect(address, os.urandom(512))


def half_a_handshake(address: tuple[str, int], keys: KeyFile) -> socket.socket:
    """Greet, and begin a handshake that never ends."""
    return connect(address, GREETING + HELLO)


def forged_handshake(address: tuple[str, int], keys: KeyFile) -> socket.socket:
    """Greet, and send a HELLO that no key has made: the broker has to try to open it."""
    return connect(address, GREETING + HELLO + os.urandom(192))


def without_a_key(address: tuple[str, int], keys: KeyFile) -> socket.socket:
    """Greet as a client that needs no key, with the messages of one behind it."""
    return connect(address, NO_KEY + ready() + b"\x00\x05hello")


Way = Callable[[tuple[str, int], KeyFile], socket.socket]
RAW: list[Way] = [
    silent,
    junk,
    half_a_handshake,
    forged_handshake,
    without_a_key,
]
"""The ways that need no libzmq, and so cost the attacker least."""


def connect(address: tuple[str, int], data: bytes = b"") -> socket.socket:
    """Connect, and send these bytes."""
    made = socket.create_connection(address, timeout=PATIENCE_MS / 1000)
    with suppress(OSError):  # the broker may have turned it away already
        made.sendall(data)
    return made


def port_of(endpoint: str) -> tuple[str, int]:
    """The host and port of an endpoint."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def connections(
    endpoint: str, keys: KeyFile, count: int, at_once: int, held: list[socket.socket]
) -> Iterator[int]:
    """Make so many connections in all raw ways, one after the other. So many of them are held open."""
    for number in range(count):
        with suppress(OSError):
            held.append(RAW[number % len(RAW)](port_of(endpoint), keys))
        yield number
        if len(held) > at_once:
            held.pop(0).close()


@contextmanager
def attacked(endpoint: str, keys: KeyFile, count: int, at_once: int) -> Iterator[Callable[[], int]]:
    """Connections in all raw ways, one after the other, of which so many stay open; until the end of the
    block, or their number is reached. Yield how many there have been.
    """
    over, made = threading.Event(), [0]

    def attack() -> None:
        held: list[socket.socket] = []
        for _ in connections(endpoint, keys, count, at_once, held):
            made[0] += 1
            if over.is_set():
                break
        over.wait(PATIENCE_MS / 1000)
        for one in held:
            one.close()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield lambda: made[0]
    finally:
        over.set()
        thread.join()


class Recorder:
    """Passes one connection on, and keeps what the client sent."""

    def __init__(self, endpoint: str) -> None:
        self._target = port_of(endpoint)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = b""
        self._thread = threading.Thread(target=self._pass)
        self._thread.start()

    def _pass(self) -> None:
        client, _ = self._listener.accept()
        with closing(client), closing(socket.create_connection(self._target)) as server:
            back = threading.Thread(target=_copy, args=(server, client))
            back.start()
            while data := client.recv(65536):
                self.sent += data
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    def close(self) -> None:
        """Wait until the recorded connection has ended."""
        self._thread.join()
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def is_deaf(peer: RawPeer) -> bool:
    """Whether a libzmq client that says hello is cut off without a word."""
    peer.say(wire.Hello(0, 0, [wire.VERSION], {"name": "attacker", "pid": 1}))
    return peer.is_cut_off() and not peer.socket.poll(0, zmq.POLLIN)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _ in connections(sys.argv[1], KeyFile("nobody", ""), int(sys.argv[2]), int(sys.argv[3]), []):
        pass
