"""A broker that clients reach over TCP with keys, and the keys."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from broker.service.keys import AUTHORIZED_KEYS, SERVER_KEY
from client_shim.key_file import PUBLIC, KeyFile, text_of
from client_shim.transport.curve import new_pair
from tests.e2e.harness import RunningBroker, Table, running


class Keys:
    """The broker's pair and those of its clients, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = KeyFile("mcp-broker", *new_pair())
        self._clients: dict[str, KeyFile] = {}
        self._write(SERVER_KEY, self.server)
        (folder / AUTHORIZED_KEYS).mkdir(mode=0o700)

    def table(self) -> dict[str, str]:
        """What `[broker]` says of them."""
        return {
            "server_key": str(self._folder / SERVER_KEY),
            "authorized_keys": str(self._folder / AUTHORIZED_KEYS),
        }

    def stranger(self, **other: str) -> KeyFile:
        """The keys of a client that the broker does not know; `server` is another key of the broker."""
        return KeyFile("stranger", *new_pair(), other.get("server", self.server.public))

    def new(self, name: str) -> KeyFile:
        """A new client."""
        keys = self._clients[name] = self.stranger()._replace(name=name)
        self._write(f"{AUTHORIZED_KEYS}/{name}{PUBLIC}", keys._replace(secret=None, server=None))
        return keys

    def of(self, name: str) -> KeyFile:
        """The keys of a client that was made."""
        return self._clients[name]

    def revoke(self, name: str) -> None:
        """Take a client's key away; a reload follows."""
        (self._folder / AUTHORIZED_KEYS / f"{name}{PUBLIC}").unlink()

    def _write(self, name: str, keys: KeyFile) -> None:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text_of(keys))


def free_port() -> int:
    """A port that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@contextmanager
def reachable(
    keys: Keys, servers: dict[str, Table], host: str = "127.0.0.1", **how: Any
) -> Iterator[tuple[RunningBroker, str]]:
    """A broker on a path and a port, and the address of the port."""
    address = f"tcp://{host}:{free_port()}"
    with running(servers, ports=[address], broker=keys.table(), **how) as broker:
        yield broker, address
