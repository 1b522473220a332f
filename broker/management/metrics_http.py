"""Serves the metrics: `GET /metrics` on a loopback port or a Unix socket, and nothing else.

It runs in the broker's own loop, because the figures have one owner. So a connection has one request, few
bytes and little time, and there are few connections: a further one replaces the oldest.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import h11
import trio

from broker.config.schema import BrokerConfig
from broker.frontend.address import ListenAddress, folder_for
from broker.frontend.permissions import set_permissions
from broker.frontend.socket_file import ListenSocketFile
from broker.management.context import Context
from broker.management.scrape import render
from broker.service.claims import ClaimError

MAX_CONNECTIONS = 32
"""The number of connections; a further one replaces the oldest."""

MAX_ANSWERS = 4
"""The number of answers that are made at the same time."""

HOSTS = frozenset({b"127.0.0.1", b"localhost", b"[::1]"})
"""Hosts that a request on a loopback port may name. A web page whose name was pointed at this machine (DNS
rebinding) makes the browser name another host. RFC 9110, section 7.2."""

MAX_REQUEST_BYTES = 8192
PATIENCE_S = 5.0
"""The time limit of one connection."""

_READ_BYTES = 4096
_BACKLOG = 128
_UNIX = "unix:"
_ANOTHER = "give another address in [broker]"
_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[^:@/\s]+)(?::[0-9]{1,5})?")

logger = logging.getLogger("mcp-broker")


class MetricsServer:
    """The listening socket and its connections.

    Args:
        address: `host:port` of the loopback, or `unix:` and a path.
        config: the permissions of a Unix socket.

    Raises:
        ClaimError: the address cannot be used.
    """

    def __init__(self, address: str, config: BrokerConfig) -> None:
        self._address = address
        self._open: dict[trio.SocketStream, trio.CancelScope] = {}
        self._answering = trio.CapacityLimiter(MAX_ANSWERS)
        self._file: ListenSocketFile | None = None
        self._socket = self._bound(config)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        if self._file is not None:
            self._file.remove()

    def _bound(self, config: BrokerConfig) -> socket.socket:
        try:
            if self._address.startswith(_UNIX):
                return self._bound_path(Path(self._address.removeprefix(_UNIX)), config)
            host, _, port = self._address.rpartition(":")
            family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
            return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_BACKLOG)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            raise ClaimError(f"broker.metrics: {self._address} cannot be had: {why}; {_ANOTHER}") from None
        except ClaimError as error:
            raise ClaimError(f"broker.metrics: {error}") from None

    def _bound_path(self, path: Path, config: BrokerConfig) -> socket.socket:
        """Return a Unix socket with the group and mode of the broker's own socket."""
        folder_for(path, _ANOTHER).close()  # before the connection attempt
        _refuse_taken(path)
        address = ListenAddress(f"ipc://{path}")
        file = ListenSocketFile(address, _ANOTHER)
        listening = socket.socket(fileno=file.make())
        try:
            set_permissions(address, config)
        except BaseException:
            listening.close()
            file.remove()
            raise
        self._file = file
        return listening

    async def run(self, context: Context) -> None:
        """Answer until cancelled."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        logger.info("metrics.listening", extra={"address": self._address})
        async with trio.open_nursery() as nursery:
            while True:
                stream = await _accepted(listener)
                if len(self._open) >= MAX_CONNECTIONS:
                    self._open.pop(next(iter(self._open))).cancel()
                    context.hub.engine.counters.add("scrape-made-room")
                self._open[stream] = scope = trio.CancelScope()
                nursery.start_soon(self._attend, context, stream, scope)

    async def _attend(self, context: Context, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """Serve one connection, within the time limit."""
        scope.deadline = trio.current_time() + PATIENCE_S
        try:
            async with stream:
                with scope, suppress(trio.BrokenResourceError):
                    await self._answer(stream, context)
        except Exception:  # a scrape that fails must not end the broker
            logger.exception("metrics.failed")
        finally:
            self._open.pop(stream, None)

    async def _answer(self, stream: trio.SocketStream, context: Context) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        try:
            request = await _request(http, stream)
        except h11.RemoteProtocolError as error:
            await _send(http, stream, error.error_status_hint, str(error))
            return
        if request is None:
            return
        path = request.target.partition(b"?")[0]
        if not self._is_for_us(request):
            await _send(http, stream, 421, "the host of the request has to be 127.0.0.1, localhost or [::1]")
        elif path != b"/metrics":
            await _send(http, stream, 404, "the metrics are at /metrics")
        elif request.method != b"GET":
            await _send(http, stream, 405, "the metrics can only be read", allow="GET")
        else:
            accept = next((value for name, value in request.headers if name == b"accept"), b"")
            async with self._answering:
                content_type, text = await render(context, accept.decode("latin-1"))
            await _send(http, stream, 200, text, content_type=content_type)

    def _is_for_us(self, request: h11.Request) -> bool:
        """Return whether the request names a valid host. A browser cannot connect to a Unix socket."""
        if self._address.startswith(_UNIX):
            return True
        named = [_HOST.fullmatch(value) for name, value in request.headers if name == b"host"]
        return all(found is not None and found[1].lower() in HOSTS for found in named)


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    """Return the next connection. If the system refuses it, for lack of descriptors say, try again later."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            logger.warning("metrics.not_accepted", extra={"reason": error.strerror})
            await trio.sleep(PATIENCE_S)


async def _request(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """Return the head of the request; `None` if it does not come. A body is ignored."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        http.receive_data(await stream.receive_some(_READ_BYTES))


async def _send(
    http: h11.Connection,
    stream: trio.SocketStream,
    status: int,
    text: str | bytes,
    *,
    content_type: str = "text/plain; charset=utf-8",
    **headers: str,
) -> None:
    body = text if isinstance(text, bytes) else f"{text}\n".encode()
    head = {"content-type": content_type, "content-length": str(len(body)), "connection": "close", **headers}
    for event in (
        h11.Response(status_code=status, headers=[*head.items()]),
        h11.Data(data=body),
        h11.EndOfMessage(),
    ):
        await stream.send_all(http.send(event) or b"")


def _refuse_taken(path: Path) -> None:
    """Raise if a program listens at this socket. One that a killed broker left behind may be replaced.

    Raises:
        OSError: a program listens there.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise OSError("something listens there already")
