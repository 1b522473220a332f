"""One DEALER socket and its `ClientState`: non-blocking, for any event loop or none.

A socket that reconnects by itself would be a new peer without a hello for the broker, and the client would
not notice. So one socket is one connection, and is closed when that is lost. Two usual options are not set:
with ``RECONNECT_IVL=-1`` or ``IMMEDIATE=1``, libzmq drops the messages that it has received and that were not
read yet when the connection is lost (libzmq 4.3.5: 500 results of 500). No stale call can be sent anyway:
only the hello is sent before the welcome, libzmq would reconnect after an hour, and the socket is closed by
then, without lingering.

``zmq.FD`` is edge-triggered, and any send or receive may consume the edge. So a caller that waits on
`filenos` asks `has_work` after every call of a method here, and does not wait while it returns true.
"""

from __future__ import annotations

import os
import struct

import zmq

from client_shim import log
from client_shim.errors import InvalidEndpoint, Unavailable
from client_shim.keys import ClientKeys
from client_shim.lease import KEEPALIVE_S, LEASE_MS
from client_shim.protocol import reasons
from client_shim.protocol.events import Event
from client_shim.protocol.state import ClientState, ConnectionPhase

AT_MOST = 64
"""Messages read in one turn. To read until the socket is empty would starve a loop under a flood."""

HEARTBEAT_MS = 1000
"""Heartbeats run in libzmq's thread, so a blocked event loop keeps its lease and a dead peer loses it."""

MESSAGE_MS = 60_000
"""How long one message may take over a network: no heartbeat is heard before its end. There the lease is kept
by the kernel, which counts the bytes of a message on the way as a sign of life."""

NEVER_MS = 3_600_000
"""When libzmq would reconnect by itself if the socket were still open."""

FAREWELL_MS = 100
"""How long libzmq may go on sending the goodbye of a socket that was closed on purpose."""

_NO_HANDSHAKE = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
"""With the wrong key of the broker, the broker ends the handshake and gives no reason (ZeroMQ RFC 26). A
broker that has too many connections does the same; `probe_tcp` tells the two apart."""

_LOSSES: dict[int, str] = {
    zmq.EVENT_DISCONNECTED: "it ended, or nothing was heard of it for too long",
    zmq.EVENT_CLOSED: "it stopped listening",
    zmq.EVENT_CONNECT_RETRIED: "no connection could be made",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the other side ended it before the handshake was done: it has too "
    "many connections, or does not speak ZeroMQ",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "what listens there does not speak ZeroMQ as a broker does",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "what listens there wants a login",
}

# As plain numbers: pyzmq's are enumerations, and each `|` or `&` of those makes a new one.
_EVENTS, _POLLIN, _POLLOUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the ZeroMQ context of this process. A forked child gets its own.

    The context is never terminated: that hangs at exit if a socket was not closed.
    """
    pid = os.getpid()
    if pid not in _contexts:
        fresh: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        if _contexts.setdefault(pid, fresh) is not fresh:
            fresh.term()  # another thread has made one meanwhile
    return _contexts[pid]


class Dealer:
    """The socket of one connection, whose phase is `state.phase`.

    Args:
        keys: makes the connection an encrypted one, to the broker that has this key.

    Raises:
        InvalidEndpoint: libzmq does not accept the endpoint.
    """

    def __init__(self, endpoint: str, state: ClientState, keys: ClientKeys | None = None) -> None:
        self.state = state
        self._keys = keys
        self._loss: str | Unavailable | None = None
        self._quiet = False
        """Whether there was nothing to read at the last attempt, and nothing was sent since."""
        self._socket = _dealer(endpoint, keys)
        self._send_frame = super(zmq.Socket, self._socket).send  # without pyzmq's options, which cost a call
        self._monitor = _watch(self._socket)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise InvalidEndpoint(
                f"{endpoint}: {error.strerror}", hint="write ipc:///path/to/broker.sock or tcp://host:port"
            ) from None

    @property
    def filenos(self) -> tuple[int, int]:
        """The descriptors to wait on until one is readable: the socket's and its monitor's."""
        return int(self._socket.getsockopt(zmq.FD)), int(self._monitor.getsockopt(zmq.FD))

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """The socket and its monitor, for a `zmq.Poller`."""
        return self._socket, self._monitor

    def receive(self, now: float) -> list[Event]:
        """Read at most `AT_MOST` messages, send what waits, and return the events.

        Args:
            now: the time, by the clock of `state`.

        The messages that arrived before a loss come before the event of the loss: no result is dropped. The
        monitor is read only when there is no message; its descriptor stays readable until then.
        """
        events: list[Event] = []
        self._quiet = False
        for taken in range(AT_MOST):
            # Mostly there is one message. To look for a second costs a fifth of an empty `recv`.
            frames = None if taken == 1 and not _events(self._socket) & _POLLIN else self._next_frames()
            if frames is None and taken == 0:
                self._read_monitor()
                frames = None if self._loss is None else self._next_frames()
            if frames is None:
                self._quiet = True
                if self._loss is not None:
                    events += self.state.lose(self._loss)
                break
            events += self._take(frames, now)
        self.flush()
        return events

    def _next_frames(self) -> list[bytes] | None:
        socket = self._socket
        try:
            frame = socket.recv(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        frames = [frame.bytes]
        while frame.more:  # to ask the socket for it takes longer
            frame = socket.recv(_NOBLOCK, copy=False)
            frames.append(frame.bytes)
        return frames

    def _take(self, frames: list[bytes], now: float) -> list[Event]:
        """Handle a message. A fault of this package ends the connection, for its calls would never end."""
        try:
            return self.state.receive(frames, now)
        except Exception as fault:
            log.warn(f"a message of the broker could not be handled: {fault!r}; report this", fault)
            return self.state.lose("the client shim could not handle a message; its log says why")

    def flush(self) -> None:
        """Send the messages that wait, as far as libzmq takes them."""
        while (frames := self.state.next_message()) is not None:
            self._quiet = False
            try:
                for frame in frames[:-1]:
                    self._send_frame(frame, _SNDMORE)
                self._send_frame(frames[-1], _NOBLOCK)
            except zmq.Again:
                return
            self.state.sent()

    def has_work(self) -> bool:
        """Return whether `receive` has something to do now."""
        if self.state.phase is ConnectionPhase.ENDED:
            return False
        if self._quiet and _events(self._socket) & _POLLIN:  # it came since
            return True
        return self.swallowed() or bool(_events(self._monitor) & _POLLIN)

    def swallowed(self) -> bool:
        """Return whether there is something to do that the socket's descriptor no longer signals.

        The monitor need not be asked: nothing is sent on it, so its descriptor signals every event.
        """
        if self._quiet or self.state.phase is ConnectionPhase.ENDED:
            return False
        ready = _events(self._socket)
        waiting = ready & _POLLOUT and self.state.next_message() is not None
        return bool(waiting or ready & _POLLIN or self._loss)

    def close(self, linger_ms: int = 0) -> None:
        """Close the sockets at once; libzmq may go on sending for `linger_ms`."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(linger_ms)

    def _read_monitor(self) -> None:
        while self._loss is None and _events(self._monitor) & _POLLIN:
            event, _ = self._monitor.recv_multipart(_NOBLOCK)
            self._loss = self._reason(struct.unpack_from("=H", event)[0])

    def _reason(self, event: int) -> str | Unavailable | None:
        """Return why the connection is lost by an event of the monitor; `None` if it is not."""
        if self._keys is not None and event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return reasons.key_refused(self._keys.public)
        if self._keys is not None and event in _NO_HANDSHAKE:
            return reasons.wrong_broker_key(self._keys.server)
        return _LOSSES.get(event)


def _events(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(_EVENTS))


def _dealer(endpoint: str, keys: ClientKeys | None) -> zmq.Socket[bytes]:
    socket = context().socket(zmq.DEALER)
    heard_ms = MESSAGE_MS if endpoint.startswith("tcp://") else LEASE_MS
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.RECONNECT_IVL, NEVER_MS),
        # Credit bounds what waits here. With a limit of its own, libzmq would stop to read while the event
        # loop is blocked, and miss the answers to its heartbeats.
        (zmq.RCVHWM, 0),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, heard_ms),
        (zmq.HEARTBEAT_TTL, heard_ms),
        (zmq.IPV6, 1),
        (zmq.TCP_MAXRT, LEASE_MS),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_CNT, 1),
        (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S),
        (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S),
    ):
        socket.setsockopt(option, value)
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    return socket


def _watch(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Return the monitor of a socket. (pyzmq has a helper for this, which imports asyncio.)"""
    address = f"inproc://client-shim-{os.urandom(8).hex()}"
    losses = 0
    for event in _LOSSES:
        losses |= event
    socket.monitor(address, losses)
    monitor = context().socket(zmq.PAIR)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    _events(monitor)  # the descriptor of a socket that was never found empty does not signal the first event
    return monitor
