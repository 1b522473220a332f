"""The ROUTER socket on trio: the only place that speaks ZeroMQ.

One task owns the socket. Its file descriptor is edge-triggered, and any send or receive may take the edge. So
the task waits for the descriptor only when it has found nothing to read and has sent nothing since
(zmq_getsockopt(3), ZMQ_FD).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from time import perf_counter

import trio
import zmq

from broker.config.limits import LimitsConfig
from broker.core.clients.connections import Peer, Send
from broker.frontend.address import ListenAddress
from broker.frontend.port import not_bound
from broker.frontend.zmq.descriptors import (
    Descriptors,
    hung_up,
    is_routers_own,
    peer_at,
    plain_address,
    shut,
)
from broker.frontend.zmq.monitor import Monitor
from broker.frontend.zmq.options import configure, descriptor_of, fd_of, has_input, set_login, user_of
from broker.frontend.zmq.turns import Turns
from broker.frontend.zmq.zap import ZapHandler
from broker.hub import Hub
from broker.service.claims import ClaimError

MESSAGES_A_TURN = 64
"""After so many messages other tasks get their turn, so that a flooding client stops nobody."""

TURN_S = 0.001
"""After so many seconds too: a refusal takes longer than a body that passes."""

_TOO_MANY_FRAMES = "a message has one frame or two, and this one has more"
_ZERO_COPY_BYTES = 65_536
# Plain numbers: pyzmq's constants are enumerations, and each `|` or `&` of them makes a new one.
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)


class Router:
    """The bound ROUTER socket.

    Args:
        limits: the `[limits]` of the config.
        hub: handles the messages. The config of its engine has the keys of clients.
        addresses: where to listen. The caller has claimed them, and removes the files of sockets at the end.
        secret_key: the broker's own (Z85), if clients need keys at an address.

    Raises:
        ClaimError: an address cannot be used.
    """

    def __init__(
        self, limits: LimitsConfig, hub: Hub, addresses: Iterable[ListenAddress], secret_key: str = ""
    ) -> None:
        self._hub, self._clients = hub, hub.engine.clients
        self._context = zmq.Context(io_threads=2 if secret_key else 1)
        self._router = self._context.socket(zmq.ROUTER)
        configure(self._router, limits)
        self._send_frame = super(zmq.Socket, self._router).send  # without pyzmq's options, which cost a call
        self._descriptors = Descriptors()
        self._monitor = Monitor(self._router, self._descriptors, limits, hub.engine.counters)
        self._telling = False
        self._turns = Turns()
        self._fd = fd_of(self._router)
        self._parked = False
        self._quiet = False
        """True if the last look found nothing to read, and nothing was sent since."""
        self._pulsing = trio.lowlevel.ParkingLot()
        self._secret_key = secret_key
        self._zap = ZapHandler(self._context, self._client_names, hub.engine.counters) if secret_key else None
        try:
            for address in addresses:
                self.listen(address)
        except ClaimError:
            self.close()
            raise

    def listen(self, address: ListenAddress) -> None:
        """Listen at an address, with its listening socket if it has one, beside those of before.

        Raises:
            ClaimError: the address cannot be used.
        """
        if self._secret_key:
            set_login(self._router, self._secret_key, with_keys=address.with_keys)
        elif address.with_keys:
            raise ClaimError(
                f"{address.endpoint} needs keys, and the broker has no key of its own; make it with "
                "`mcp-broker keys new NAME`"
            )
        self._router.USE_FD = -1 if address.listener is None else address.listener
        try:
            self._router.bind(address.endpoint)
        except zmq.ZMQError as error:
            raise not_bound(address.endpoint, error.errno or 0) from None

    def close(self) -> None:
        """Stop listening. Messages that were sent have a moment to leave."""
        self._monitor.close()
        if self._zap is not None:
            self._zap.close()
        self._router.close(linger=200)
        self._context.term()

    async def run(self) -> None:
        """Own the socket and receive messages, in turns with other tasks, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_connections)
            if self._zap is not None:
                nursery.start_soon(self._zap.run)
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
        header = self._router.recv(_NOBLOCK, copy=False)
        body, has_more = self._read_body(header)
        if has_more:
            self._malformed(key, _TOO_MANY_FRAMES)
        else:
            self._hub.step(self._clients.received, key, peer, header.bytes, body)

    def _receive_first(self, key: bytes) -> None:
        first = self._router.recv(_NOBLOCK, copy=False)
        body, has_more = self._read_body(first)
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

    def _read_body(self, first: zmq.Frame) -> tuple[bytes | None, bool]:
        """Return the second frame, if there is one, and whether further frames came, which are dropped."""
        if not first.more:  # to ask the socket for it takes longer
            return None, False
        second = last = self._router.recv(_NOBLOCK, copy=False)
        while last.more:
            last = self._router.recv(_NOBLOCK, copy=False)
        return second.bytes, second.more

    def _malformed(self, key: bytes, why: str) -> None:
        self._hub.run(self._clients.malformed, key, why)

    def _greet(self, key: bytes, fd: int | None, frame: zmq.Frame) -> Peer | None:
        """Return the client of a first message; `None` if its connection has ended or was not admitted."""
        self._drain_monitor()
        admitted = self._descriptors.admit(key, fd)
        self._tell_lost()
        if fd is None or not admitted:
            return None
        self._monitor.silent.remove(fd)
        peer = self._peer_of(frame)
        self._descriptors.greet(key, fd, peer)
        return peer

    def _peer_of(self, frame: zmq.Frame) -> Peer:
        """Return the client that a frame came from, by its key if it needed one.

        Without a handler of ZAP, libzmq reports the User-Id that the client itself has put into its READY.
        """
        address = str(frame.get("Peer-Address"))
        public = "" if self._zap is None else user_of(frame)
        if not public:
            return peer_at(address)
        name = self._client_names().get(public, public)  # it may have been revoked after the handshake
        return Peer(key=name, public=public, address=plain_address(address))

    def _client_names(self) -> Mapping[str, str]:
        """Return the name of each client that may connect with a key, by its public key."""
        return self._hub.engine.config.authorized.names

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
            await self._monitor.wait()

    def _drain_monitor(self) -> None:
        self._monitor.drain()
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
