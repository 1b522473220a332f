"""The options of the ROUTER socket, and what libzmq says of sockets and frames."""

from __future__ import annotations

import zmq

from broker.config.limits import LimitsConfig
from client_shim import wire
from client_shim.lease import KEEPALIVE_S, LEASE_MS

RECEIVE_HWM = 8
"""The number of messages of one connection that libzmq reads ahead. Of a connection that keeps to its credit
one of them may be large; of another one all of them, until it is cut off."""

HANDSHAKE_MS = 10_000
"""The time limit of a handshake."""

NETWORK, LOCAL = b"network", b"local"
"""The domains of ZAP: of addresses at which clients need a key, and of the others."""

_ZAP_ENFORCE_DOMAIN = 93

# Plain numbers: pyzmq's constants are enumerations, and each `&` of them makes a new one.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def configure(router: zmq.SyncSocket, limits: LimitsConfig) -> None:
    """Set the options of the ROUTER."""
    router.ROUTER_MANDATORY = 1
    router.LINGER = 0
    router.RCVHWM = RECEIVE_HWM
    # Credit bounds the bytes of a connection; this bounds what goes to connections without a hello.
    router.SNDHWM = limits.credit_bytes // wire.MESSAGE_OVERHEAD_BYTES + 8
    # Above our own limit, so that a message above that one gets an answer.
    router.MAXMSGSIZE = 2 * limits.max_message_bytes
    # Heartbeats are the clients': with their TTL in them, libzmq ends the lease of a silent client. Of its
    # own, libzmq 4.3.5 would send them even to the dead it has stopped reading from, and abort (its #4364).
    router.HEARTBEAT_IVL = 0
    router.HANDSHAKE_IVL = HANDSHAKE_MS
    # A client whose first heartbeat has not come has no lease yet: the kernel finds out that it is gone.
    router.TCP_KEEPALIVE, router.TCP_KEEPALIVE_CNT = 1, 3
    router.TCP_KEEPALIVE_IDLE, router.TCP_KEEPALIVE_INTVL = KEEPALIVE_S, KEEPALIVE_S
    router.TCP_MAXRT = LEASE_MS


def set_login(router: zmq.SyncSocket, secret_key: str, *, with_keys: bool) -> None:
    """Set whether clients need a key at the addresses that are bound from now on.

    Clients with keys get a thread of libzmq's own: handshakes take time there, also of those without a key.
    """
    if with_keys:
        router.CURVE_SECRETKEY = secret_key.encode()
        router.CURVE_SERVER = 1
        router.ZAP_DOMAIN = NETWORK
    else:
        router.CURVE_SERVER = 0
        router.ZAP_DOMAIN = LOCAL
    router.setsockopt(_ZAP_ENFORCE_DOMAIN, 1)
    router.AFFINITY = 2 if with_keys else 1


def user_of(frame: zmq.Frame) -> str:
    """Return the public key of the client that a frame came from; an empty text if it needed none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def has_input(socket: zmq.SyncSocket) -> bool:
    """Return whether a message can be read."""
    return bool(int(socket.getsockopt(_EVENTS)) & _POLLIN)


def fd_of(socket: zmq.SyncSocket) -> int:
    """Return the descriptor that tells of changes (ZMQ_FD)."""
    return int(socket.getsockopt(zmq.FD))


def descriptor_of(frame: zmq.Frame) -> int | None:
    """Return the descriptor that a frame came in on; `None` if libzmq takes the peer for one of ZMTP 1."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None
