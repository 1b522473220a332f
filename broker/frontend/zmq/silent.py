"""TCP connections that have sent nothing yet: how many there may be, and which one ends for a new one.

A client sends its hello as soon as the handshake is done, which takes some round trips. Whoever has no key
gets no further, and may open as many connections as the network carries. So their number is limited, and the
oldest of the machine that has most of them makes room.
"""

from __future__ import annotations

import ipaddress


class SilentConnections:
    """The descriptors of connections without a message, by the machine at the other end.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._machine_of: dict[int, str] = {}
        self._by_machine: dict[str, dict[int, None]] = {}
        self._by_count: list[dict[str, None]] = []
        """The machines that have one connection, two, and so on: to compare them all takes long."""

    def __len__(self) -> int:
        return len(self._machine_of)

    def add(self, fd: int, address: str) -> int | None:
        """Add a connection. Return the descriptor of the one that has to end for it, if any."""
        self.remove(fd)
        machine = machine_of(address)
        self._machine_of[fd] = machine
        theirs = self._by_machine.setdefault(machine, {})
        theirs[fd] = None
        self._recount(machine, len(theirs) - 1, len(theirs))
        if len(self._machine_of) <= self._most:
            return None
        oldest = next(iter(self._by_machine[next(iter(self._by_count[-1]))]))
        self.remove(oldest)
        return oldest

    def remove(self, fd: int) -> None:
        """Remove a connection that has ended, or has sent a message."""
        machine = self._machine_of.pop(fd, None)
        if machine is not None:
            theirs = self._by_machine[machine]
            del theirs[fd]
            self._recount(machine, len(theirs) + 1, len(theirs))
            if not theirs:
                del self._by_machine[machine]

    def _recount(self, machine: str, before: int, now: int) -> None:
        if before:
            del self._by_count[before - 1][machine]
        if now > len(self._by_count):
            self._by_count.append({})
        if now:
            self._by_count[now - 1][machine] = None
        if not self._by_count[-1]:
            self._by_count.pop()


def machine_of(address: str) -> str:
    """Return the part of an address that stands for a machine: of IPv6 64 bits, which it may have all."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped is not None:
        return address
    return found.packed[:8].hex()
