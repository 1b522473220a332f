"""A `Peer` that takes clients with keys only, as a broker with `server_key` does, and keys for both sides."""

from __future__ import annotations

import threading
from pathlib import Path

import zmq
from zmq.utils import z85

from client_shim.key_file import KeyFile, text_of
from client_shim.keys import ClientKeys
from client_shim.transport.curve import new_pair
from tests.client_shim.peer import Peer

ANY_PORT = "tcp://127.0.0.1:*"


class KeyedPeer(Peer):
    """It takes the clients whose public keys are in `authorized`, which a test may change."""

    def __init__(
        self, endpoint: str = ANY_PORT, instance: str = "i1", *, pair: tuple[str, str] | None = None
    ) -> None:
        self.pair = pair or new_pair()
        self.public, self._secret = self.pair
        self.authorized: set[str] = set()
        super().__init__(endpoint, instance)

    def new_client(self) -> ClientKeys:
        """Keys of one more client that it takes."""
        public, secret = new_pair()
        self.authorized.add(public)
        return ClientKeys(self.public, public, secret)

    def _configure(self) -> None:
        zap = self._context.socket(zmq.REP)
        zap.bind("inproc://zeromq.zap.01")
        threading.Thread(target=self._authorize, args=(zap,), daemon=True).start()
        self._router.setsockopt(zmq.CURVE_SERVER, 1)
        self._router.setsockopt(zmq.CURVE_SECRETKEY, self._secret.encode())
        self._router.setsockopt(zmq.ZAP_DOMAIN, b"test")

    def _authorize(self, zap: zmq.Socket[bytes]) -> None:
        """Answer as ZAP (ZeroMQ RFC 27) until the context ends."""
        try:
            while True:
                version, request, *_, key = zap.recv_multipart()
                status = b"200" if z85.encode(key).decode() in self.authorized else b"400"
                zap.send_multipart([version, request, status, b"", b"", b""])
        except zmq.ContextTerminated:
            zap.close()


def write_keys(path: Path, keys: ClientKeys) -> str:
    """Write a file of keys as `mcp-broker keys new` does; return its path."""
    path.write_text(text_of(KeyFile("backend", keys.public, keys.secret, keys.server)), encoding="utf-8")
    path.chmod(0o600)
    return str(path)
