"""MCP as lines of JSON on Unix sockets, one for each server: what `mcp-broker connect` relays to.

The sockets lie in one folder. Their mode and their group are those of the broker's socket: who may use the
one may use the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, cast

from broker.gateway.audit import Audit
from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import FinishRequest, SendMessage
from broker.gateway.conversation.listen_refusals import ListenRefusals
from broker.gateway.conversation.session import Deliver, Session
from broker.gateway.stdio.lines import LineSplitter
from broker.gateway.stdio.socket_folder import SocketFile, SocketFolder
from client_shim import BrokerClient
from client_shim.errors import BrokerError
from client_shim.trusted import Untrusted

logger = logging.getLogger("mcp-broker")

LOOK_S = 2.0
"""How often the broker is asked which servers there are: a reload may have changed it."""

LAST_WORDS_S = 1.0
"""How long a client may take to read what it is told when the gateway ends."""

MAX_CLIENTS = 4096
"""Clients of all sockets together. One more is turned away, and its bridge holds the conversation itself."""

PAUSE_BYTES = 1_048_576
"""What may wait for a client before no more of its requests are read."""

MAX_WAITING_BYTES = 134_217_728
"""What may wait for a client that does not read; beyond it the client is cut off."""

LINES_A_TURN = 4
"""The lines of a client that are taken in one turn of the event loop: then the others have theirs (law 5)."""

TOO_LONG = jsonrpc.InvalidMessage(jsonrpc.NO_ID, jsonrpc.INVALID_REQUEST, "the message is too long")


class LinesProtocol(asyncio.Protocol):
    """One client on a byte stream: its lines go into a session, and what that sends comes out as lines.

    Args:
        open_session: makes the session of a client, given who it is and what takes its messages.
        closed: is called with this protocol once the client is gone.
        is_welcome: whether it is served; else it is cut off at once.
    """

    def __init__(
        self,
        open_session: Callable[[str, Deliver], Session],
        closed: Callable[[LinesProtocol], None],
        *,
        is_welcome: bool = True,
    ) -> None:
        self._is_welcome = is_welcome
        self._open_session = open_session
        self._session: Session
        self._closed = closed
        self._lines = LineSplitter()
        self._unread: Iterator[bytes | None] = iter(())
        self._is_busy = False
        """Whether there may be lines that arrived and were not taken."""
        self._next: asyncio.Handle | None = None
        """Takes the next of them."""
        self._transport: asyncio.Transport | None = None
        self._is_slow = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes
        self._transport = transport = cast("asyncio.Transport", transport)
        self._session = self._open_session(_user_at(transport), self._deliver)
        if not self._is_welcome:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=PAUSE_BYTES)
        self._session.stream_opened()

    def data_received(self, data: bytes) -> None:
        self._unread = (
            chain(self._unread, self._lines.feed(data)) if self._is_busy else self._lines.feed(data)
        )
        if not self._is_busy:
            self._take()

    def _take(self) -> None:
        """Take some lines in, and the next ones in the next turn; nothing is read meanwhile."""
        was_busy, self._is_busy, self._next, taken = self._is_busy, False, None, 0
        for line in islice(self._unread, LINES_A_TURN):
            if self._transport is None or self._transport.is_closing():
                return
            self._session.received(TOO_LONG if line is None else jsonrpc.read(line))
            if line is None:
                self.end("a message was too long")
                return
            taken += 1
        self._is_busy = taken == LINES_A_TURN
        if self._is_busy and not was_busy and self._transport is not None:
            self._transport.pause_reading()
        if self._is_busy or was_busy:
            self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._closed(self)

    def pause_writing(self) -> None:
        """The client does not read: neither are its requests, until it does."""
        self._is_slow = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_slow = False
        self._go_on()

    def _go_on(self) -> None:
        """Take the next lines, or read more where there are none, unless the client does not read."""
        if self._is_slow or self._transport is None or self._transport.is_closing():
            return
        if not self._is_busy:
            self._transport.resume_reading()
        elif self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._take)

    def _deliver(self, effect: SendMessage | FinishRequest) -> None:
        transport = self._transport
        if transport is None or isinstance(effect, FinishRequest):
            return
        if transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            logger.warning("gateway.client_slow", extra={"server": self._session.conversation.server})
            transport.abort()
            return
        transport.write(effect.message + b"\n")

    def end(self, reason: str) -> None:
        """Answer what is open, and close the connection once that is written."""
        self._session.ended(reason, keeps_subscriptions=True)
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Close the connection, whatever still waits to be written."""
        if self._transport is not None:
            self._transport.abort()

    async def release(self) -> None:
        """Cancel what is open for a client that is gone, and tell what came from it and was of no use."""
        await self._session.aclose()
        server = self._session.conversation.server
        if counts := self._session.dropped:
            dropped = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            logger.info("gateway.client_closed", extra={"server": server, "dropped": dropped})


class ServerSocket(NamedTuple):
    """The listening socket of one server."""

    made: SocketFile
    listener: asyncio.Server


class Sockets:
    """All sockets of a gateway: kept in step with the servers that the broker has.

    Args:
        folder: where they lie; made with mode 0700 where it is missing.
        endpoint: of the broker; `None`: where the shim finds it.
        audit: the audit log, where there is one.
    """

    def __init__(self, folder: Path, endpoint: str | None = None, audit: Audit | None = None) -> None:
        self._audit = audit
        self._folder = SocketFolder(folder, endpoint)
        self._endpoint = endpoint
        self._sockets: dict[str, ServerSocket] = {}
        self._clients: dict[LinesProtocol, str] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._problem = ""
        self._refusals = ListenRefusals()

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    @property
    def servers(self) -> list[str]:
        """The servers that have a socket."""
        return sorted(self._sockets)

    async def run(self) -> None:
        """Keep the sockets in step with the broker's servers, until it is cancelled."""
        broker = BrokerClient("gateway", self._endpoint)
        try:
            while True:
                with suppress(BrokerError):  # a broker that is away keeps its sockets: clients wait for it
                    await self.adjust([str(one["name"]) for one in await broker.servers(timeout=10)])
                await asyncio.sleep(LOOK_S)
        finally:
            await broker.aclose()

    async def adjust(self, servers: list[str]) -> None:
        """Make the sockets of new servers, and remove those of servers that are gone."""
        for name in [name for name in self._sockets if name not in servers]:
            self._remove(name, f"the server {name!r} is no longer configured")
        try:
            self._folder.claim()
        except (OSError, Untrusted) as error:
            if self._is_new(str(error)):
                folder = str(self._folder.path)
                logger.error("gateway.no_sockets", extra={"folder": folder, "reason": str(error)})  # noqa: TRY400 - it is no fault
            return
        for name in servers:
            if name not in self._sockets or not self._sockets[name].made.is_there:
                await self._make(name)

    async def aclose(self, reason: str = "the gateway is stopped") -> None:
        """Remove all sockets, answer what is open, and release the clients."""
        for name in list(self._sockets):
            self._remove(name, reason)
        until = asyncio.get_running_loop().time() + LAST_WORDS_S
        while self._clients and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)  # what was written last leaves
        for client in list(self._clients):
            client.cut()
        while self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)
        self._folder.release()

    # --- one socket --------------------------------------------------------------------------------------

    async def _make(self, name: str) -> None:
        try:
            made = self._folder.make(name)
        except (OSError, Untrusted) as error:
            if self._is_new(str(error)):
                logger.error("gateway.no_socket", extra={"server": name, "reason": str(error)})  # noqa: TRY400 - it is no fault
            return
        if (before := self._sockets.pop(name, None)) is not None:
            before.listener.close()
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(lambda: self._welcome(name), sock=made.plug)
        self._sockets[name] = ServerSocket(made, listener)
        self._problem = ""

    def _remove(self, name: str, reason: str) -> None:
        one = self._sockets.pop(name)
        one.listener.close()
        self._folder.remove(one.made)
        for client in [client for client, server in self._clients.items() if server == name]:
            client.end(reason)

    def _is_new(self, problem: str) -> bool:
        """Return whether a problem is another than the last one: each is logged once."""
        before, self._problem = self._problem, problem
        return before != problem

    def _welcome(self, name: str) -> LinesProtocol:
        def session(who: str, deliver: Deliver) -> Session:
            on_call = self._audit.caller(who, "socket") if self._audit else None
            owner = f"gateway socket: {who}"
            return Session(
                name,
                deliver,
                name=owner,
                endpoint=self._endpoint,
                on_call=on_call,
                refusals=self._refusals,
            )

        is_full = len(self._clients) >= MAX_CLIENTS
        if is_full:
            reason = f"{MAX_CLIENTS} clients are connected"
            if self._is_new(reason):
                logger.error("gateway.sockets_full", extra={"server": name, "reason": reason})
        client = LinesProtocol(session, self._gone, is_welcome=not is_full)
        self._clients[client] = name
        return client

    def _gone(self, client: LinesProtocol) -> None:
        self._clients.pop(client, None)
        task = asyncio.get_running_loop().create_task(client.release())
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)


def _user_at(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end of a socket, from the kernel (unix(7), SO_PEERCRED)."""
    fd = os.dup(transport.get_extra_info("socket").fileno())  # uvloop's own object has no getsockopt
    with socket.socket(fileno=fd) as plug:
        _, uid, _ = struct.unpack("3i", plug.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"uid:{uid}"
