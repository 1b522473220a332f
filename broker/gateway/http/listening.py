"""The sockets at which the gateway speaks HTTP: of systemd, or bound to the addresses of `listen`."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from broker.gateway.addresses import Address, address_of
from broker.service.claims import ClaimError
from broker.service.systemd import ServiceManager


def sockets_at(listen: Iterable[str], manager: ServiceManager) -> Iterator[tuple[Address, socket.socket]]:
    """Yield the sockets to serve at: those that systemd hands over, and the others of `listen`.

    Raises:
        ClaimError: one cannot be had, or systemd hands over one that the settings do not name.
    """
    given = {}
    for fd in manager.sockets.values():
        plug = socket.socket(fileno=fd)
        address = _address_at(plug)
        if address is None or (not address.is_loopback and str(address) not in listen):
            raise ClaimError(
                f"systemd hands over a socket at {plug.getsockname()!r}; name the address in `listen` of "
                "gateway.toml, or change ListenStream= of mcp-broker-gateway.socket"
            )
        given[address] = plug
    yield from given.items()
    for text in listen:
        address = address_of(text)
        if address is not None and address not in given and _named(address) not in given:
            plug = _bound(address)
            port = address.port if address.path else plug.getsockname()[1]  # 0 asks for any free one
            yield address._replace(port=port), plug


def _named(address: Address) -> Address:
    return address._replace(host="127.0.0.1") if address.host == "localhost" else address


def _address_at(plug: socket.socket) -> Address | None:
    name = plug.getsockname()
    if plug.family == socket.AF_UNIX:
        return Address(name, "", 0) if isinstance(name, str) and name.startswith("/") else None
    return Address("", name[0], name[1])


def _bound(address: Address) -> socket.socket:
    """Return a socket that is bound to an address of `listen`; a Unix socket for its user and group."""
    try:
        return _bound_path(address.path) if address.path else _bound_port(address)
    except OSError as error:
        mend = "stop the program that listens there, or change `listen` in gateway.toml"
        if error.errno != errno.EADDRINUSE:
            mend = "change `listen` in gateway.toml"
        raise ClaimError(f"cannot listen at {address}: {error.strerror}; {mend}") from None


def _bound_port(address: Address) -> socket.socket:
    host = "127.0.0.1" if address.host == "localhost" else address.host
    plug = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plug.bind((host, address.port))
    except BaseException:
        plug.close()
        raise
    return plug


def _bound_path(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise OSError(errno.EEXIST, "there is something else at this path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(ConnectionRefusedError):
            probe.connect(path)
            raise OSError(errno.EADDRINUSE, "another program listens at this path")
        os.unlink(path)
    plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        plug.bind(path)
    except BaseException:
        plug.close()
        raise
    finally:
        os.umask(old)
    return plug
