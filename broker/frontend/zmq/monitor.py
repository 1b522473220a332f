"""libzmq's monitor of the ROUTER: which descriptors got and lost a connection."""

from __future__ import annotations

import logging
import struct
from contextlib import suppress

import trio
import zmq

from broker.base.metrics import Counters
from broker.base.rate_limit import LogLimit
from broker.config.limits import LimitsConfig
from broker.frontend.zmq.descriptors import Descriptors, address_at, first_reserved, shut
from broker.frontend.zmq.options import fd_of, has_input
from broker.frontend.zmq.silent import SilentConnections

MIN_SILENT, MAX_SILENT = 16, 1024
"""The bounds of the number of TCP connections that may have sent nothing yet; less if descriptors are few."""

logger = logging.getLogger("mcp-broker")


class Monitor:
    """Keeps the table of descriptors by what libzmq tells, and turns away what is too much.

    Args:
        router: the socket; `close` comes before its own.
        descriptors: the table.
        counters: counts the connections that were turned away.
    """

    def __init__(
        self, router: zmq.SyncSocket, descriptors: Descriptors, limits: LimitsConfig, counters: Counters
    ) -> None:
        self._router = router
        self._socket = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._descriptors = descriptors
        self._counters = counters
        self._most = 2 * limits.connections  # so that a client beyond the limit is told so
        self._reserved = first_reserved()
        self._log_limit = LogLimit()
        self._most_silent = min(max(limits.connections // 4, MIN_SILENT), MAX_SILENT, self._reserved / 4)
        self.silent = SilentConnections(self._most_silent)

    def close(self) -> None:
        """Stop listening to libzmq."""
        self._router.disable_monitor()
        self._socket.close(linger=0)

    async def wait(self) -> None:
        """Return when there may be something to read."""
        if not has_input(self._socket):
            await trio.lowlevel.wait_readable(fd_of(self._socket))
        await trio.lowlevel.checkpoint()

    def drain(self) -> None:
        """Read all events, in libzmq's order.

        libzmq tells of a loss, and gives the descriptor back, only after everything that was sent before has
        been read: up to a socket buffer, so tens of thousands of tiny frames may come after a death.
        """
        accepted: dict[int, bool] = {}
        with suppress(zmq.Again):
            while True:
                event, endpoint = self._socket.recv_multipart(zmq.NOBLOCK)
                kind, fd = struct.unpack("=Hi", event)  # zmq_socket_monitor(3)
                self.silent.remove(fd)
                if kind == zmq.EVENT_ACCEPTED:
                    self._descriptors.accepted(fd)
                    accepted[fd] = endpoint.startswith(b"tcp:")
                else:
                    self._descriptors.ended(fd)
                    accepted.pop(fd, None)
        for fd, is_port in tuple(accepted.items()):
            if is_port and (oldest := self.silent.add(fd, address_at(fd))) is not None:
                accepted.pop(oldest, None)
                self._turn_away(oldest, "silent", self._most_silent)
        for fd in reversed(accepted):  # without descriptors libzmq would abort the process
            if fd >= self._reserved:
                self._turn_away(fd, "descriptors", self._reserved)
            elif len(self._descriptors) - len(self.silent) > self._most:  # those have a limit of their own
                self._turn_away(fd, "connections", self._most)

    def _turn_away(self, fd: int, limit: str, most: float) -> None:
        self.silent.remove(fd)
        self._descriptors.turn_away(fd)
        address = address_at(fd)
        shut(fd)
        self._counters.add("turned-away")
        if count := self._log_limit.take(trio.current_time()):
            facts = {"limit": limit, "most": int(most), "address": address or None, "count": count}
            logger.warning("connection.turned_away", extra=facts)
