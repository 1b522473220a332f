"""Which connection of the ROUTER sits on which descriptor, and who of them is over.

libzmq tells of connections in two ways that know nothing of each other: its monitor names descriptors, its
messages name keys. Only a connection's first message has both.
"""

from __future__ import annotations

import math
import resource
import select
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from broker.core.clients.connections import Peer

REMEMBERED = 4096
"""So many connections that are over are known by name, for what of theirs is still to be read."""

_KEY_BYTES = 5


class Descriptors:
    """The table of connections. `lost` has those that are over and that the hub was not told of yet."""

    def __init__(self) -> None:
        self.lost: deque[bytes] = deque()
        self.peers: dict[bytes, Peer] = {}
        """The client process of each connection that has sent a message."""
        self._descriptor_of: dict[bytes, int] = {}
        self._key_at: dict[int, bytes | None] = {}
        self._over: dict[bytes, None] = {}

    def __len__(self) -> int:
        """How many descriptors are in use, also of those that have said nothing yet."""
        return len(self._key_at)

    def descriptor_of(self, key: bytes) -> int | None:
        """Return the descriptor of this connection, or `None` if it is not known."""
        return self._descriptor_of.get(key)

    def accepted(self, fd: int) -> None:
        """The monitor says that there is one on this descriptor; if there was another, it has ended."""
        self.ended(fd)
        self._key_at[fd] = None

    def ended(self, fd: int) -> None:
        """The monitor says that there is none any more."""
        key = self._key_at.pop(fd, None)
        if key is not None:
            self._lose(key)

    def turn_away(self, fd: int) -> None:
        """The connection on this descriptor is not to be one."""
        del self._key_at[fd]

    def admit(self, key: bytes, fd: int | None) -> bool:
        """Whether the first message of a connection is one of a connection that is there.

        libzmq hands out what a connection sent even after it has told of its loss, and after the
        connection's descriptor has gone to another one. Which of two is the later one, its key says.
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
        """A connection that was admitted is known from now on."""
        self._key_at[fd] = key
        self._descriptor_of[key], self.peers[key] = fd, peer

    def forget(self, key: bytes) -> None:
        """The broker is done with this connection; its next message would be a first one."""
        self.peers.pop(key, None)
        fd = self._descriptor_of.pop(key, None)
        if fd is not None and self._key_at.get(fd) == key:
            self._key_at[fd] = None

    def end(self, key: bytes) -> None:
        """The same, and what is still to be read of it is late."""
        self._over[key] = None
        if len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]
        self.forget(key)

    def _lose(self, key: bytes) -> None:
        self.end(key)
        self.lost.append(key)


def is_routers_own(key: bytes) -> bool:
    """Whether the ROUTER made this key: a zero byte, and a number that it counts up (zmq_socket(7))."""
    return len(key) == _KEY_BYTES and key[0] == 0


def _is_later(one: bytes, other: bytes) -> bool:
    """Whether a key of the ROUTER's own was made after another; the number begins anew at 2**32."""
    ahead = (int.from_bytes(one[1:], "big") - int.from_bytes(other[1:], "big")) % 2**32
    return 0 < ahead < 2**31


def hung_up(descriptors: Iterable[int]) -> list[int]:
    """Those whose other end is closed (poll(2))."""
    poller = select.poll()
    for fd in descriptors:
        poller.register(fd, select.POLLRDHUP)
    return [fd for fd, _ in poller.poll(0)]


def shut(fd: int) -> None:
    """End a connection of libzmq's, which then closes its descriptor."""
    with suppress(OSError):  # it has ended meanwhile
        connection = socket.socket(fileno=fd)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()


def first_reserved() -> float:
    """A quarter of the descriptors is for all else. The kernel gives the lowest that is free: who gets one
    from here on came when all those before it were in use, by whatever."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if descriptors == resource.RLIM_INFINITY else descriptors * 3 // 4
