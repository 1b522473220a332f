"""The descriptors of the ROUTER's connections, and which connections are over.

libzmq tells of connections in two ways that do not know each other: its monitor names descriptors, its
messages name keys. Only the first message of a connection has both.
"""

from __future__ import annotations

import math
import re
import resource
import select
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from broker.core.clients.connections import Peer

REMEMBERED = 4096
"""The number of ended connections that are remembered: messages of theirs may still be read."""

_KEY_BYTES = 5
_CREDENTIALS = re.compile(r":(\d+):(\d+):(-?\d+)\Z")


class Descriptors:
    """The table of connections. `lost` holds those that have ended and that the hub has not been told of."""

    def __init__(self) -> None:
        self.lost: deque[bytes] = deque()
        self.peers: dict[bytes, Peer] = {}
        """The client process of each connection that has sent a message."""
        self._descriptor_of: dict[bytes, int] = {}
        self._key_at: dict[int, bytes | None] = {}
        self._over: dict[bytes, None] = {}

    def __len__(self) -> int:
        """Return how many descriptors are in use, also of connections that have sent nothing."""
        return len(self._key_at)

    def descriptor_of(self, key: bytes) -> int | None:
        """Return the descriptor of this connection, or `None` if it is not known."""
        return self._descriptor_of.get(key)

    def accepted(self, fd: int) -> None:
        """Note that the monitor tells of a connection on this descriptor. An earlier one on it has ended."""
        self.ended(fd)
        self._key_at[fd] = None

    def ended(self, fd: int) -> None:
        """Note that the monitor tells of the end of the connection on this descriptor."""
        key = self._key_at.pop(fd, None)
        if key is not None:
            self._lose(key)

    def turn_away(self, fd: int) -> None:
        """Forget the connection on this descriptor, which is refused."""
        self.ended(fd)

    def admit(self, key: bytes, fd: int | None) -> bool:
        """Return whether the first message of a connection belongs to a connection that still exists.

        libzmq hands out messages of a connection even after it has told of its loss, and after its descriptor
        belongs to another connection. The keys tell which of the two is the later one.
        """
        if fd not in self._key_at or key in self._over or not is_routers_own(key):
            return False
        other = self._key_at[fd]
        if other is not None:
            if _is_later(other, key):
                return False
            self._lose(other)
        return True

    def greet(self, key: bytes, fd: int, peer: Peer) -> None:
        """Add a connection that was admitted."""
        self._key_at[fd] = key
        self._descriptor_of[key], self.peers[key] = fd, peer

    def forget(self, key: bytes) -> None:
        """Forget a connection; its next message would be a first one."""
        self.peers.pop(key, None)
        fd = self._descriptor_of.pop(key, None)
        if fd is not None and self._key_at.get(fd) == key:
            self._key_at[fd] = None

    def end(self, key: bytes) -> None:
        """Forget a connection that has ended; its further messages are late."""
        self._over[key] = None
        if len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]
        self.forget(key)

    def _lose(self, key: bytes) -> None:
        self.end(key)
        self.lost.append(key)


def peer_at(address: str) -> Peer:
    """Return the client's process by the address of a peer: libzmq appends what the kernel says to it."""
    found = _CREDENTIALS.search(address)
    if not found:
        return Peer()
    uid, gid, pid = map(int, found.groups())
    return Peer(uid, gid, pid)


def address_at(fd: int) -> str:
    """Return the address at the other end of a connection; an empty text if it has ended or is not of TCP."""
    with suppress(OSError):
        connection = socket.socket(fileno=fd)
        try:
            name = connection.getpeername()
            return plain_address(str(name[0])) if isinstance(name, tuple) else ""
        finally:
            connection.detach()
    return ""


def plain_address(address: str) -> str:
    """Return an address as people write it: IPv4 that came in at a port of both families is IPv4."""
    return address.removeprefix("::ffff:") if "." in address else address


def is_routers_own(key: bytes) -> bool:
    """Return whether the ROUTER made this key: a zero byte and a counted number (zmq_socket(7))."""
    return len(key) == _KEY_BYTES and key[0] == 0


def _is_later(one: bytes, other: bytes) -> bool:
    """Return whether a key of the ROUTER's own was made after another; the number begins anew at 2**32."""
    ahead = (int.from_bytes(one[1:], "big") - int.from_bytes(other[1:], "big")) % 2**32
    return 0 < ahead < 2**31


def hung_up(descriptors: Iterable[int]) -> list[int]:
    """Return the descriptors whose other end is closed (poll(2))."""
    poller = select.poll()
    for fd in descriptors:
        poller.register(fd, select.POLLRDHUP)
    return [fd for fd, _ in poller.poll(0)]


def shut(fd: int) -> None:
    """Shut down a connection of libzmq, which then closes its descriptor."""
    with suppress(OSError):  # the connection has ended meanwhile
        connection = socket.socket(fileno=fd)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()


def first_reserved() -> float:
    """Return the first descriptor that connections may not use.

    A quarter of the descriptors is for everything else. The kernel gives the lowest free one, so a connection
    that gets a higher one came when all below were in use.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if descriptors == resource.RLIM_INFINITY else descriptors * 3 // 4
