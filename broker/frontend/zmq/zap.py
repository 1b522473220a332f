"""Tells libzmq which clients may connect: the handler of ZAP (RFC 27), on trio.

libzmq asks at `inproc://zeromq.zap.01` about each connection whose handshake is done, and admits it if the
answer is 200. Without an answer the connection ends with the handshake's time limit, and without a handler
libzmq admits nobody (ZMQ_ZAP_ENFORCE_DOMAIN). So whatever fails here, nobody comes in by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio
import zmq
from zmq.utils import z85

from broker.base.metrics import Counters
from broker.base.rate_limit import LogLimit
from broker.frontend.zmq.descriptors import plain_address
from broker.frontend.zmq.options import LOCAL, NETWORK, fd_of, has_input

ADDRESS = "inproc://zeromq.zap.01"
_VERSION, _KEY_BYTES = b"1.0", 32
_REQUESTS_A_TURN = 64

logger = logging.getLogger("mcp-broker")


class ZapReply(NamedTuple):
    """An answer: the status by the RFC, the reason, and the public key of an admitted client (Z85)."""

    status: bytes
    text: bytes
    user: bytes = b""


def decide(fields: list[bytes], names: Mapping[str, str]) -> ZapReply:
    """Return the answer to a request, whose fields begin with the version.

    Args:
        names: the name of each client that may connect, by its public key.
    """
    if len(fields) < 6 or fields[0] != _VERSION:
        return ZapReply(b"500", b"not a request of ZAP 1.0")
    domain, mechanism, credentials = fields[2], fields[5], fields[6:]
    if domain == LOCAL and mechanism == b"NULL":
        return ZapReply(b"200", b"OK")
    if domain != NETWORK or mechanism != b"CURVE":
        return ZapReply(b"400", b"a key is needed here")
    if len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
        return ZapReply(b"500", b"not a key of CURVE")
    public = z85.encode(credentials[0])
    if public.decode() not in names:
        return ZapReply(b"400", b"the key is not known")
    return ZapReply(b"200", b"OK", public)


class ZapHandler:
    """Answers the requests of all sockets of a context.

    Args:
        context: the context of the ROUTER.
        names: returns the name of each client that may connect, by its public key.
        counters: counts the refused connections.
    """

    def __init__(
        self, context: zmq.SyncContext, names: Callable[[], Mapping[str, str]], counters: Counters
    ) -> None:
        self._names = names
        self._counters = counters
        self._socket = context.socket(zmq.ROUTER)  # a REP could not leave a request behind
        self._socket.LINGER = 0
        self._socket.bind(ADDRESS)
        self._log_limit = LogLimit()

    def close(self) -> None:
        """Close the socket; nobody is admitted any more."""
        self._socket.close(linger=0)

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            for _ in range(_REQUESTS_A_TURN):
                if not has_input(self._socket):
                    await trio.lowlevel.wait_readable(fd_of(self._socket))
                    break
                self._answer(self._socket.recv_multipart(zmq.NOBLOCK))
            await trio.lowlevel.checkpoint()

    def _answer(self, frames: list[bytes]) -> None:
        peer, fields = frames[0], frames[2:]
        try:
            reply = decide(fields, self._names())
        except Exception:  # whatever it is, nobody is admitted by it
            logger.exception("login.failed")
            reply = ZapReply(b"500", b"the broker could not decide; its log says why")
        if reply.status != b"200":
            self._refused(fields, reply)
        request_id = fields[1] if len(fields) > 1 else b""
        self._socket.send_multipart(
            [peer, b"", _VERSION, request_id, reply.status, reply.text, reply.user, b""], zmq.NOBLOCK
        )

    def _refused(self, fields: list[bytes], reply: ZapReply) -> None:
        """Count a refused connection, and log it unless too many were logged just now."""
        self._counters.add("login-refused")
        if count := self._log_limit.take(trio.current_time()):
            address = plain_address(fields[3].decode(errors="replace")) if len(fields) > 3 else None
            facts = {"address": address, "reason": reply.text.decode(), "count": count}
            logger.warning("login.refused", extra=facts)
