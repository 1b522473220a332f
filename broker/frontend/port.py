"""TCP ports: the broker binds them itself, and looks at what it got before it listens.

An address has many spellings (`*`, `::`, `0x7f.1`, a host name, an IPv4 address inside of IPv6), and a name
may lead elsewhere tomorrow. So without keys the bound address is what counts, as the kernel tells it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress

from broker.service.claims import ClaimError

ANOTHER = "give another endpoint by --endpoint or in [broker]"
"""The last advice if an address cannot be used."""

BACKLOG = 1024

_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""The errors of an address whose family this machine does not have, such as IPv6."""


def not_bound(endpoint: str, number: int, another: str = ANOTHER) -> ClaimError:
    """Return the error for an address at which the system refuses to listen; `number` is the errno."""
    if number == errno.EADDRINUSE:
        return ClaimError(f"{endpoint} is taken by another program; stop it, or {another}")
    return ClaimError(f"the broker cannot listen at {endpoint}: {os.strerror(number)}; {another}")


def open_port(endpoint: str, *, with_keys: bool) -> socket.socket:
    """Return a socket that is bound to a `tcp://` endpoint, for `listen`.

    It may be bound to a port where another program does not listen yet: then `listen` fails.

    Args:
        with_keys: whether clients there need a key; if not, an address beyond loopback is refused.

    Raises:
        ClaimError: the address cannot be used.
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    made = _bound(endpoint, _resolved(endpoint, host.strip("[]"), int(port)))
    bound = made.getsockname()[0]
    if not with_keys and not is_local(bound):
        made.close()
        raise ClaimError(
            f"{endpoint} leads to {bound}, which other machines may reach; write tcp://127.0.0.1:{port}, or "
            f"give the clients keys (`mcp-broker keys new NAME`)"
        )
    return made


def listen(endpoint: str, made: socket.socket) -> int:
    """Let a bound socket listen, and return its descriptor, which the caller owns.

    Raises:
        ClaimError: another program has begun to listen there since the socket was bound.
    """
    with made:
        try:
            made.listen(BACKLOG)
        except OSError as error:
            raise not_bound(endpoint, error.errno or 0) from None
        return made.detach()


def _bound(endpoint: str, addresses: list[_Address]) -> socket.socket:
    """Return a socket that is bound to the first of these addresses whose family this machine has.

    Raises:
        ClaimError: no address can be used.
    """
    number = errno.EADDRNOTAVAIL
    for family, address in addresses:
        try:
            return _bound_to(family, address)
        except OSError as error:
            number = error.errno or 0
            if number not in _NOT_HERE:
                break
    raise not_bound(endpoint, number)


def _bound_to(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


_Address = tuple[socket.AddressFamily, tuple[object, ...]]


def _resolved(endpoint: str, host: str, port: int) -> list[_Address]:
    """Return the addresses of a host. `*` is every address of both families, or of IPv4 alone."""
    if host == "*":
        return [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]
    try:
        flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:  # the latter for a label that is too long
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ClaimError(
            f"the broker cannot listen at {endpoint}: {reason}; write an address of this machine, or `*`"
        ) from None
    return [(family, address) for family, _, _, _, address in found]


def is_local(address: str) -> bool:
    """Return whether only this machine reaches a bound address."""
    with suppress(ValueError):
        found = ipaddress.ip_address(address.partition("%")[0])
        inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return (inner or found).is_loopback
    return False
