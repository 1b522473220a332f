"""A client that keeps to nothing: a DEALER that sends the frames it is told, and reads only when told.

In a process of its own, to be stopped or killed:

    python tests/e2e/raw.py ENDPOINT ROLE NUMBER

`ROLES`, at the end, says what each role does. It writes a line when that is done, and waits to be ended.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from client_shim import wire
from client_shim.key_file import KeyFile
from client_shim.wire import Message, Request

PATIENCE_MS = 60_000
"""How long it waits for a message that should come much sooner; the machine may be loaded."""

NEVER_MS = 3_600_000

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"
Received: TypeAlias = "tuple[Message, bytes | None]"


class RawPeer:
    """One connection to a broker, without any of the rules of a client.

    Args:
        unread: how many messages libzmq reads ahead before the connection backs up; 0 is any number.
        routing_id: what a client must not give itself.
        keys: the keys of a client at an address that needs them.
        immediate: it can send when the handshake is done, and not before.
    """

    def __init__(
        self,
        context: Context,
        endpoint: str,
        *,
        unread: int = 0,
        routing_id: bytes = b"",
        keys: KeyFile | None = None,
        immediate: bool = False,
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IMMEDIATE, immediate)
        if keys is not None:
            self.socket.setsockopt_string(zmq.CURVE_PUBLICKEY, keys.public)
            self.socket.setsockopt_string(zmq.CURVE_SECRETKEY, keys.secret or "")
            self.socket.setsockopt_string(zmq.CURVE_SERVERKEY, keys.server or "")
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, unread),
            (zmq.RCVTIMEO, PATIENCE_MS),
            (zmq.SNDTIMEO, PATIENCE_MS),
            (zmq.RECONNECT_IVL, NEVER_MS),  # -1 would throw away what was received before a loss
        ):
            self.socket.setsockopt(option, value)
        if routing_id:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        # pyzmq's own name for it is used again too soon.
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED, f"inproc://{uuid4()}")
        self._ids = itertools.count(1)
        self.instance = ""
        self.read_bytes = 0
        """What it has read and given no credit back for."""
        self.socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        """Send these frames as one message, whatever they are."""
        self.socket.send_multipart(frames)

    def say(self, message: Message, body: bytes | None = None) -> None:
        """Send a message of the protocol."""
        self.send(wire.encode(message), *([] if body is None else [body]))

    def receive(self) -> Received:
        """The next message but credit. It gives none back, and waits for none."""
        while True:
            message, body = self._read()
            if not isinstance(message, wire.Credit):
                return message, body

    def _read(self) -> Received:
        header, *rest = self.socket.recv_multipart()
        body = rest[0] if rest else None
        self.read_bytes += wire.cost(header, body)
        return wire.decode(header), body

    def waiting(self) -> Iterator[Received]:
        """What has arrived and was not read yet, but credit."""
        while self.socket.poll(0):
            message, body = self._read()
            if not isinstance(message, wire.Credit):
                yield message, body

    def hello(self) -> RawPeer:
        """Greet, and be welcomed."""
        self.say(wire.Hello(0, 0, [wire.VERSION], {"name": "raw", "pid": os.getpid()}))
        self.read_bytes = 0  # what came before was on no credit
        welcome, _ = self.receive()
        assert isinstance(welcome, wire.Welcome), welcome
        self.instance = welcome.instance
        return self

    def request(self, service: str, method: str = "tools/call", **fields: Any) -> Request:
        """A request for this broker; an id of its own, on channel 1, where `fields` do not say otherwise."""
        plain = {"channel": 1, "timeout_ms": None, "flags": 0, "meta": None, "instance": self.instance}
        given = {**plain, **fields, "service": service, "method": method}
        return Request(**given) if "id" in given else Request(id=next(self._ids), **given)

    def call(self, service: str, body: bytes | None, method: str = "tools/call", **fields: Any) -> int:
        """Send a request; its id."""
        request = self.request(service, method, **fields)
        self.say(request, body)
        return request.id

    def ask(self, message: Message, body: bytes | None = None) -> Received:
        """Send a message; the next one that comes."""
        self.say(message, body)
        return self.receive()

    def give_credit(self) -> None:
        """Give back what it has read."""
        self.say(wire.Credit(0, 0, self.read_bytes))
        self.read_bytes = 0

    def ping(self) -> None:
        """Wait until the broker has taken everything in that was sent before."""
        answer, _ = self.ask(self.request(wire.MANAGEMENT, "ping"))
        assert isinstance(answer, wire.Result), answer
        self.give_credit()

    def flood(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Send as fast as it goes, without reading, until it is cut off or all is sent."""
        for frames in messages:
            while not self.socket.poll(10, zmq.POLLOUT):
                if self.is_cut_off(0):
                    return
            self.socket.send_multipart(frames)

    def is_cut_off(self, patience_ms: int = PATIENCE_MS) -> bool:
        """Whether the broker closes the connection."""
        return bool(self._monitor.poll(patience_ms))

    def close(self) -> None:
        """Close without a goodbye; a second time does nothing."""
        if not self.socket.closed:
            self.socket.disable_monitor()
            self._monitor.close(0)
            self.socket.close(0)


class Peers:
    """Makes raw peers, and closes what is left of them."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._context: Context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._all: list[RawPeer] = []

    def connect(self, **how: Any) -> RawPeer:
        """A peer that has not said hello; `how` as for `RawPeer`."""
        peer = RawPeer(self._context, self._endpoint, **how)
        self._all.append(peer)
        return peer

    def hello(self, **how: Any) -> RawPeer:
        """A peer that was welcomed."""
        return self.connect(**how).hello()

    def close(self) -> None:
        """Close all that are still open, without a goodbye."""
        for peer in self._all:
            peer.close()
        self._context.destroy(linger=0)


# -- in a process of its own --------------------------------------------------------------------------------


@contextmanager
def process(endpoint: str, role: str, number: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A process in that role, once it has done what the role says; killed at the end."""
    command = [sys.executable, __file__, endpoint, role, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"done\n"
            yield child
        finally:
            child.kill()


def silent(peers: Peers, number: int) -> None:
    """So many peers connect, are known to the broker by a bad frame, and say no hello."""
    for _ in range(number):
        peer = peers.connect()
        peer.send(b"")
        peer.receive()


def idle(peers: Peers, number: int) -> None:
    """So many peers say hello, and nothing else."""
    for _ in range(number):
        peers.hello()


def hang(peers: Peers, number: int) -> None:
    """One peer has so many calls that are never answered."""
    peer = peers.hello()
    for _ in range(number):
        peer.call("s", b'{"name":"hang"}')
    peer.ping()


def steps(peers: Peers, number: int) -> None:
    """One peer has so many calls that report progress for ever, and reads none of it."""
    peer = peers.hello(unread=1)
    for _ in range(number):
        peer.call(
            "s", b'{"name":"progress","arguments":{"steps":1000000,"delay":0.001}}', flags=wire.WANTS_PROGRESS
        )


def results(peers: Peers, number: int) -> None:
    """One peer asks for so many results of 32 KiB, and reads none of them."""
    peer = peers.hello(unread=1)
    for _ in range(number):
        peer.call("s", b'{"name":"big","arguments":{"bytes":32768}}')


def requests(peers: Peers, number: int) -> None:
    """One peer makes so many calls that are never answered, as fast as it can, and reads nothing."""
    peer = peers.hello()  # a libzmq that has stopped reading would not learn that it is cut off
    peer.flood([wire.encode(peer.request("s")), b'{"name":"hang"}'] for _ in range(number))


def cancels(peers: Peers, number: int) -> None:
    """One peer takes back requests that it never made: so many, or as many as find room on the way."""
    peer = peers.hello()
    for id in range(1, number + 1):
        if not peer.socket.poll(100, zmq.POLLOUT):
            return
        peer.say(wire.Cancel(1, id, None))


def flood(peers: Peers, number: int) -> None:
    """One peer calls without end, so many ahead of what it has read; `done` comes before."""
    peer = peers.hello()
    print("done", flush=True)
    for sent in itertools.count():
        peer.call("s", b'{"name":"empty"}')
        if sent >= number:
            peer.receive()
            peer.give_credit()


def noise(peers: Peers, number: int) -> None:
    """So many peers send 1000 bad frames each, at once, and read none of what comes back."""
    some = [peers.connect() for _ in range(number)]
    for peer in some:
        for _ in range(1000):
            peer.send(b"")


ROLES: dict[str, Callable[[Peers, int], None]] = {
    role.__name__: role for role in (silent, idle, hang, steps, results, requests, cancels, flood, noise)
}


def main(endpoint: str, role: str, number: str) -> None:
    """Do what the role says, say so, and wait."""
    ROLES[role](peers := Peers(endpoint), int(number))
    print("done", flush=True)
    sys.stdin.read()
    peers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
