"""One DEALER socket and the `ClientState` behind it: non-blocking, for any event loop or none.

A socket that came back by itself would be a new peer to the broker, without a hello, and nobody here would
know: so one socket is one connection, and when it is lost it is thrown away. Its two usual guards are left
out on purpose. ``RECONNECT_IVL=-1`` and ``IMMEDIATE=1`` each make libzmq throw away, at a loss, what it has
received and nobody has read yet (measured with 4.3.5: 500 results of 500). No stale call can leave all the
same: nothing but the hello is sent before the welcome, the next attempt of libzmq's own is an hour away, and
by then the socket is closed, without lingering.

``zmq.FD`` is edge-triggered and any send or receive may swallow the edge: whoever waits on `filenos` asks
`has_work` after every call into a dealer, and comes back without waiting while it says yes.
"""

from __future__ import annotations

import os
import struct

import zmq

from client_shim import log
from client_shim.errors import InvalidEndpoint
from client_shim.protocol.events import Event
from client_shim.protocol.state import ClientState, Phase

AT_MOST = 64
"""Messages read in one go. Reading until there is nothing left would starve a loop under a flood."""

HEARTBEAT_MS = 1000
LEASE_MS = 10_000
"""Heartbeats run in libzmq's thread, so a blocked event loop keeps its lease and a dead peer loses it."""

NEVER_MS = 3_600_000
"""When libzmq would reconnect by itself, if the socket lived."""

FAREWELL_MS = 100
"""How long libzmq may go on sending the goodbye of a socket that was closed on purpose; nobody waits."""

_LOSSES: dict[int, str] = {
    zmq.EVENT_DISCONNECTED: "it ended, or nothing was heard of it for too long",
    zmq.EVENT_CLOSED: "it stopped listening",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "what listens there does not speak ZeroMQ",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "what listens there does not speak ZeroMQ as a broker does",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "what listens there wants a login",
}

# As plain numbers: pyzmq's are enumerations, and each `|` or `&` of those makes a new one.
_EVENTS, _POLLIN, _POLLOUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)
_RCVMORE = int(zmq.RCVMORE)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """The ZeroMQ context of this process. A forked child gets its own and leaves its parent's alone.

    It is never terminated: with a socket that somebody forgot, that is what hangs at exit.
    """
    pid = os.getpid()
    if pid not in _contexts:
        fresh: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        if _contexts.setdefault(pid, fresh) is not fresh:
            fresh.term()  # another thread was faster
    return _contexts[pid]


class Dealer:
    """A connection under way, up or lost: what `state.phase` says.

    Raises:
        InvalidEndpoint: libzmq cannot make anything of the endpoint.
    """

    def __init__(self, endpoint: str, state: ClientState) -> None:
        self.state = state
        self._loss: str | None = None
        self._quiet = False
        """Whether there was nothing to read when that was tried last, and nothing was sent since."""
        self._socket = _dealer()
        self._send_frame = super(zmq.Socket, self._socket).send  # without pyzmq's options, which cost a call
        self._monitor = _watch(self._socket)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise InvalidEndpoint(f"{endpoint}: {error.strerror}") from None

    @property
    def filenos(self) -> tuple[int, int]:
        """What to wait on until it is readable: the socket's, and its monitor's."""
        return int(self._socket.getsockopt(zmq.FD)), int(self._monitor.getsockopt(zmq.FD))

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """The same for a `zmq.Poller`."""
        return self._socket, self._monitor

    def receive(self) -> list[Event]:
        """Read at most `AT_MOST` messages and send what they ask for.

        The monitor is only read when no message is there: its FD stays readable until then. What arrived
        before a loss is read before the loss is told, so that a result on its way is not lost.
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
            events += self._take(frames)
        self.flush()
        return events

    def _next_frames(self) -> list[bytes] | None:
        socket = self._socket
        try:
            frames = [socket.recv(_NOBLOCK)]
        except zmq.Again:
            return None
        while socket.getsockopt(_RCVMORE):
            frames.append(socket.recv(_NOBLOCK))
        return frames

    def _take(self, frames: list[bytes]) -> list[Event]:
        """Pass a message on. A fault of this package's own ends the connection, and so every call of it: an
        exception that went further would leave them without an end.
        """
        try:
            return self.state.receive(frames)
        except Exception as fault:
            log.warn(f"a message of the broker could not be handled: {fault!r}; report this", fault)
            return self.state.lose("the client shim could not handle a message; its log says why")

    def flush(self) -> None:
        """Send what waits to be sent, as far as libzmq takes it."""
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
        """Whether `receive` would find something to do now."""
        if self.state.phase is Phase.ENDED:
            return False
        if self._quiet and _events(self._socket) & _POLLIN:  # it came since
            return True
        return self.swallowed() or bool(_events(self._monitor) & _POLLIN)

    def swallowed(self) -> bool:
        """Whether something is to be done of which no FD tells any more.

        Nothing is ever sent on the monitor: its FD tells of everything, and it need not be asked.
        """
        if self._quiet or self.state.phase is Phase.ENDED:
            return False
        ready = _events(self._socket)
        waiting = ready & _POLLOUT and self.state.next_message() is not None
        return bool(waiting or ready & _POLLIN or self._loss)

    def close(self, linger_ms: int = 0) -> None:
        """Let go of the sockets, at once; libzmq may go on sending what it has for `linger_ms`."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(linger_ms)

    def _read_monitor(self) -> None:
        while self._loss is None and _events(self._monitor) & _POLLIN:
            event, _ = self._monitor.recv_multipart(_NOBLOCK)
            self._loss = _LOSSES.get(struct.unpack_from("=H", event)[0])


def _events(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(_EVENTS))


def _dealer() -> zmq.Socket[bytes]:
    socket = context().socket(zmq.DEALER)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.RECONNECT_IVL, NEVER_MS),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, LEASE_MS),
        (zmq.HEARTBEAT_TTL, LEASE_MS),
    ):
        socket.setsockopt(option, value)
    return socket


def _watch(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """The monitor of a socket. (pyzmq's own helper gives one too, and imports asyncio for it.)"""
    address = f"inproc://client-shim-{os.urandom(8).hex()}"
    losses = 0
    for event in _LOSSES:
        losses |= event
    socket.monitor(address, losses)
    monitor = context().socket(zmq.PAIR)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    _events(monitor)  # who was never found empty is not woken: its FD would not tell of the first event
    return monitor
