"""Where the broker listens: the claim on its addresses, and the ROUTER with all their sockets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from broker.config.schema import BrokerConfig
from broker.frontend.address import ListenAddress, claim
from broker.frontend.permissions import set_permissions
from broker.frontend.port import listen, open_port
from broker.frontend.socket_file import ListenSocketFile
from broker.frontend.zmq.router import Router
from broker.hub import Hub
from broker.service.keys import places_of, read_server

logger = logging.getLogger("mcp-broker")


@contextmanager
def claimed(addresses: Iterable[ListenAddress]) -> Iterator[None]:
    """Hold the addresses as `claim` does.

    Raises:
        ClaimError: another program holds one of them, or its folder cannot be used.
    """
    with ExitStack() as claims:
        for address in addresses:
            claims.enter_context(claim(address))
        yield


def secret_key_of(config: BrokerConfig, path: Path, addresses: Iterable[ListenAddress]) -> str:
    """Return the broker's own secret key, if clients need keys at one of the addresses; else nothing.

    Raises:
        ConfigError: it cannot be read.
    """
    if not any(address.with_keys for address in addresses):
        return ""
    return read_server(places_of(config, path).server).secret or ""


@contextmanager
def listening(
    addresses: tuple[ListenAddress, ...], secret_key: str, hub: Hub
) -> Iterator[tuple[Router, Callable[[], None]]]:
    """Listen at claimed addresses. Yield the ROUTER, and a function that makes missing socket files anew.

    Raises:
        ClaimError: an address cannot be used.
    """
    config = hub.engine.config
    files = {address: ListenSocketFile(address) for address in addresses if address.is_file}
    with ExitStack() as made:
        for file in files.values():
            made.callback(file.remove)
        opened = (_opened(address, files.get(address)) for address in addresses)
        transport = Router(config.limits, hub, opened, secret_key)
        made.callback(transport.close)
        set_all_permissions(addresses, config.broker)

        def listen_again(address: ListenAddress, file: ListenSocketFile) -> None:
            transport.listen(_opened(address, file))
            set_permissions(address, hub.engine.config.broker)

        def look() -> None:
            for address, file in files.items():
                file.look(partial(listen_again, address, file))

        yield transport, look


def _opened(address: ListenAddress, file: ListenSocketFile | None) -> ListenAddress:
    """Return the address with the descriptor of a listening socket.

    Raises:
        ClaimError: the socket cannot be made.
    """
    if file is not None:
        return address._replace(listener=file.make())
    if address.is_port:
        made = open_port(address.endpoint, with_keys=address.with_keys)
        return address._replace(listener=listen(address.endpoint, made))
    return address


def set_all_permissions(addresses: Iterable[ListenAddress], config: BrokerConfig) -> None:
    """Set who may open the sockets, as the config has it."""
    for address in addresses:
        set_permissions(address, config)


def log_addresses(addresses: Iterable[ListenAddress]) -> None:
    """Log where the broker listens, and where every program of this machine may connect."""
    for address in addresses:
        logger.info("broker.listening", extra={"endpoint": address.endpoint, "pid": os.getpid()})
        if address.is_port and not address.with_keys:
            logger.warning("endpoint.without_keys", extra={"endpoint": address.endpoint})
