"""The ROUTER socket on trio: the only place that speaks ZeroMQ.

One task owns the socket. Its file descriptor is edge-triggered, and any send or receive may take the edge. So
the task waits for the descriptor only when it has found nothing to read and has sent nothing since
(zmq_getsockopt(3), ZMQ_FD).
"""

from __future__ import annotations

import logging
import math
import struct
from contextlib import suppress
from time import perf_counter

import trio
import zmq

from broker.config.schema import LimitsConfig
from broker.core.clients.connections import Peer, Send
from broker.core.clients.throttle import Turns
from broker.frontend.address import not_bound
from broker.frontend.zmq.descriptors import (
    Descriptors,
    first_reserved,
    hung_up,
    is_routers_own,
    peer_at,
    shut,
)
from broker.frontend.zmq.options import configure, descriptor_of, fd_of, has_input
from broker.hub import Hub
from broker.service.claims import ClaimError

MESSAGES_A_TURN = 64
"""After so many messages other tasks get their turn, so that a flooding client stops nobody."""

TURN_S = 0.001
"""After so many seconds too: a refusal takes longer than a body that passes."""

_TOO_MANY_FRAMES = "a message has one frame or two, and this one has more"
_ZERO_COPY_BYTES = 65_536
# Plain numbers: pyzmq's constants are enumerations, and each `|` or `&` of them makes a new one.
_RCVMORE = int(zmq.RCVMORE)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

logger = logging.getLogger("mcp-broker")


class Router:
    """The bound ROUTER socket.

    Args:
        address: where to listen. The caller has claimed it.
        limits: the `[limits]` of the config.
        hub: handles the messages.
        listener: a socket that listens at `address` already. Its file is not removed at the end.

    Raises:
        ClaimError: the address cannot be used.
    """

    def __init__(self, address: str, limits: LimitsConfig, hub: Hub, listener: int | None = None) -> None:
        self._hub, self._clients = hub, hub.engine.clients
        self._context = zmq.Context(io_threads=1)
        self._router = self._context.socket(zmq.ROUTER)
        configure(self._router, limits)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._send_frame = super(zmq.Socket, self._router).send  # without pyzmq's options, which cost a call
        self._descriptors = Descriptors()
        self._telling = False
        self._turns = Turns()
        self._most = 2 * limits.connections  # so that a client beyond the limit is told so
        self._reserved = first_reserved()
        self._fd = fd_of(self._router)
        self._parked = False
        self._quiet = False
        """True if the last look found nothing to read, and nothing was sent since."""
        self._pulsing = trio.lowlevel.ParkingLot()
        self._address = address
        try:
            self.listen(listener)
        except ClaimError:
            self.close()
            raise

    def listen(self, listener: int | None) -> None:
        """Listen, with this listening socket if there is one, beside those of before.

        Raises:
            ClaimError: the address cannot be used.
        """
        if listener is not None:
            self._router.USE_FD = listener
        try:
            self._router.bind(self._address)
        except zmq.ZMQError as error:
            raise not_bound(self._address, error.errno or 0) from None

    def close(self) -> None:
        """Stop listening. Messages that were sent have a moment to leave."""
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._router.close(linger=200)
        self._context.term()

    async def run(self) -> None:
        """Own the socket and receive messages, in turns with other tasks, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_connections)
            while True:
                until = self._turn()
                if self._pulsing:
                    self._pulsing.unpark_all()
                if until == math.inf:
                    await self._park()
                elif until:
                    await self._rest(until)
                else:
                    await trio.lowlevel.checkpoint()

    async def pulse(self) -> None:
        """Return after the next turn of the task that owns the socket, which shows that it runs."""
        self._wake()
        await self._pulsing.park()

    def _turn(self) -> float:
        """Take messages, up to the limits of a turn. Return until when the rest can wait (0: not at all)."""
        end, rest = perf_counter() + TURN_S, 0.0
        self._quiet = False
        if self._turns.held and self._turns.begin(trio.current_time()):
            has_input(
                self._router
            )  # libzmq learns which connections have sent something: a round has all of them
        for taken in range(MESSAGES_A_TURN):
            # Most turns take one message. To look for a second costs a fifth of an empty `recv`.
            key = None if taken == 1 and not has_input(self._router) else self._next_key()
            if key is None:
                self._quiet = True
                if self._turns.exhausted:
                    self._refill(self._turns.quiet())
                break
            self._receive(key)
            if self._turns.exhausted:
                self._refill(self._turns.turn())
            if self._turns.held:
                rest = self._turns.rest(key, trio.current_time())
            if rest or perf_counter() > end:
                break
        self._hub.settle()
        return math.inf if self._quiet else rest

    def _next_key(self) -> bytes | None:
        try:
            return self._router.recv(_NOBLOCK)
        except zmq.Again:
            return None

    def _refill(self, keys: list[bytes]) -> None:
        for key in keys:
            self._hub.step(self._clients.flow.refill, key)

    async def _park(self) -> None:
        self._parked = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            pass  # nothing was closed: `_wake` says so to end the wait
        finally:
            self._parked = False

    async def _rest(self, until: float) -> None:
        """Wait until the held connections may be read. A message of another connection ends the wait.

        A send may have taken the edge of that message: then it waits with them, so the wait is short.
        """
        self._lose_hung_up()
        with trio.CancelScope(deadline=until):
            await self._park()

    def _wake(self) -> None:
        if self._parked:
            trio.lowlevel.notify_closing(self._fd)

    def _receive(self, key: bytes) -> None:
        peer = self._descriptors.peers.get(key)
        if peer is None:
            self._receive_first(key)
            return
        header = self._router.recv(_NOBLOCK)
        body, has_more = self._read_body()
        if has_more:
            self._malformed(key, _TOO_MANY_FRAMES)
        else:
            self._hub.step(self._clients.received, key, peer, header, body)

    def _receive_first(self, key: bytes) -> None:
        first = self._router.recv(_NOBLOCK, copy=False)
        body, has_more = self._read_body()
        fd = descriptor_of(first)
        peer = self._greet(key, fd, first)
        if not is_routers_own(key):
            self._malformed(key, "a client must not set a routing id, the broker gives it one")
        elif fd is None:
            self._malformed(key, "a client must speak version 3 of ZMTP, as libzmq does from 4.0 on")
        elif peer is None:
            self._hub.engine.counters.add("late.frame")  # its connection had broken before
        elif has_more:
            self._malformed(key, _TOO_MANY_FRAMES)
        else:
            self._hub.step(self._clients.received, key, peer, first.bytes, body)

    def _read_body(self) -> tuple[bytes | None, bool]:
        """Return the second frame, if there is one, and whether further frames came, which are dropped."""
        if not self._router.getsockopt(_RCVMORE):
            return None, False
        body, has_more = self._router.recv(_NOBLOCK), False
        while self._router.getsockopt(_RCVMORE):
            self._router.recv(_NOBLOCK)
            has_more = True
        return body, has_more

    def _malformed(self, key: bytes, why: str) -> None:
        self._hub.run(self._clients.malformed, key, why)

    def _greet(self, key: bytes, fd: int | None, frame: zmq.Frame) -> Peer | None:
        """Return the client of a first message; `None` if its connection has ended or was not admitted."""
        self._drain_monitor()
        admitted = self._descriptors.admit(key, fd)
        self._tell_lost()
        if fd is None or not admitted:
            return None
        peer = peer_at(str(frame.get("Peer-Address")))
        self._descriptors.greet(key, fd, peer)
        return peer

    # -- the hub's transport ----------------------------------------------------------------------

    def send(self, post: Send) -> bool:
        """Send a message. Return False if its connection is gone. `settle` must follow the last of
        several."""
        self._quiet = False
        send_frame = self._send_frame
        try:
            send_frame(post.connection, _SNDMORE)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        if post.body is None:
            send_frame(post.header, _NOBLOCK)
        else:
            send_frame(post.header, _SNDMORE)
            if len(post.body) < _ZERO_COPY_BYTES:
                send_frame(post.body, _NOBLOCK)
            else:
                send_frame(post.body, _NOBLOCK, copy=False)
        return True

    def settle(self) -> None:
        """Wake the waiting task if a send has taken the edge that it waits for."""
        if self._parked and not self._quiet:
            self._quiet = not has_input(self._router)
            if not self._quiet:
                self._wake()

    def credit_exhausted(self, connection: bytes) -> None:
        """Refill this connection when nothing of it is left to be read."""
        self._turns.wait(connection, len(self._descriptors))

    def hold(self, connection: bytes, until: float) -> None:
        """Read the next messages of this connection later: at this time."""
        self._turns.hold(connection, until)

    def forget(self, connection: bytes) -> None:
        """Forget this connection: its client has been told of the end."""
        self._turns.forget(connection)
        self._descriptors.forget(connection)

    def cut(self, connection: bytes) -> None:
        """Forget this connection, and break it if it is not broken yet: its client learns of the end in no
        other way."""
        self._drain_monitor()
        fd = self._descriptors.descriptor_of(connection)
        if fd is not None:
            self._turns.forget(connection)
            self._descriptors.end(connection)
            shut(fd)

    # -- connections that break -------------------------------------------------------------------

    async def _watch_connections(self) -> None:
        while True:
            self._drain_monitor()
            if not has_input(self._monitor):
                await trio.lowlevel.wait_readable(fd_of(self._monitor))
            await trio.lowlevel.checkpoint()

    def _drain_monitor(self) -> None:
        """Read which descriptors got and lost a connection, in libzmq's order.

        libzmq tells of a loss, and gives the descriptor back, only after everything that was sent before has
        been read: up to a socket buffer, so tens of thousands of tiny frames may come after a death.
        """
        accepted: dict[int, None] = {}
        with suppress(zmq.Again):
            while True:
                event, _ = self._monitor.recv_multipart(zmq.NOBLOCK)
                kind, fd = struct.unpack("=Hi", event)  # zmq_socket_monitor(3)
                if kind == zmq.EVENT_ACCEPTED:
                    self._descriptors.accepted(fd)
                    accepted[fd] = None
                else:
                    self._descriptors.ended(fd)
                    accepted.pop(fd, None)
        for fd in reversed(accepted):
            if fd >= self._reserved or len(self._descriptors) > self._most:
                self._descriptors.turn_away(fd)
                shut(fd)  # without descriptors libzmq would abort the process
                self._hub.engine.counters.add("turned-away")
                logger.warning("connection.turned_away", extra={"most": len(self._descriptors)})
        self._tell_lost()

    def _lose_hung_up(self) -> None:
        """Find held connections whose client is gone: libzmq tells of it only after it has read all they
        sent."""
        sits = ((self._descriptors.descriptor_of(key), key) for key in tuple(self._turns.held))
        held = {fd: key for fd, key in sits if fd is not None}
        for fd in hung_up(held):
            self.cut(held[fd])
            self._hub.run(self._clients.lost, held[fd])

    def _tell_lost(self) -> None:
        """Tell the hub of each lost connection. The hub may call this again meanwhile."""
        if self._telling:
            return
        self._telling = True
        try:
            while self._descriptors.lost:
                key = self._descriptors.lost.popleft()
                self._turns.forget(key)
                self._hub.run(self._clients.lost, key)
        finally:
            self._telling = False
