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

    def __len__(self) -> int:
        return len(self._machine_of)

    def add(self, fd: int, address: str) -> int | None:
        """Add a connection. Return the descriptor of the one that has to end for it, if any."""
        self.remove(fd)
        machine = machine_of(address)
        self._machine_of[fd] = machine
        self._by_machine.setdefault(machine, {})[fd] = None
        if len(self._machine_of) <= self._most:
            return None
        most = max(self._by_machine, key=lambda one: len(self._by_machine[one]))
        oldest = next(iter(self._by_machine[most]))
        self.remove(oldest)
        return oldest

    def remove(self, fd: int) -> None:
        """Remove a connection that has ended, or has sent a message."""
        machine = self._machine_of.pop(fd, None)
        if machine is not None:
            theirs = self._by_machine[machine]
            del theirs[fd]
            if not theirs:
                del self._by_machine[machine]


def machine_of(address: str) -> str:
    """Return the part of an address that stands for a machine: of IPv6 64 bits, which it may have all."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped is not None:
        return address
    return found.packed[:8].hex()
