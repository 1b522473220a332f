"""Where Prometheus reads the metrics: `GET /metrics` on a loopback port or a Unix socket, and nothing else.

In the broker's own loop, for the figures have one owner; so a connection has one request, few bytes and
little time, and there are few connections.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from pathlib import Path

import h11
import trio

from broker.admin import Office
from broker.core.config import BrokerConfig
from broker.exposition import render
from broker.place import Place, PlaceError, closed_umask, open_to

MAX_CONNECTIONS = 8
"""So many are attended to at once."""

MAX_REQUEST_BYTES = 8192
PATIENCE_S = 5.0
"""For the whole of one connection."""

_READ_BYTES = 4096
_UNIX = "unix:"

logger = logging.getLogger("mcp-broker")


class Scraping:
    """The listening socket, and those who ask there.

    Args:
        address: `host:port` of the loopback, or `unix:` and a path.
        config: who may open a Unix socket.

    Raises:
        PlaceError: the address cannot be had.
    """

    def __init__(self, address: str, config: BrokerConfig) -> None:
        self._address = address
        self._free = trio.Semaphore(MAX_CONNECTIONS)
        self._socket = _bound(address, config)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        if self._address.startswith(_UNIX):
            Path(self._address.removeprefix(_UNIX)).unlink(missing_ok=True)

    async def run(self, office: Office) -> None:
        """Answer until cancelled. Who comes while there are enough waits in the kernel's line."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        logger.info("metrics.listening", extra={"address": self._address})
        async with trio.open_nursery() as nursery:
            while True:
                await self._free.acquire()
                nursery.start_soon(self._attend, office, await _accepted(listener))

    async def _attend(self, office: Office, stream: trio.SocketStream) -> None:
        """One connection. Whatever its client does, it ends soon."""
        try:
            async with stream:
                with trio.move_on_after(PATIENCE_S), suppress(trio.BrokenResourceError):
                    await _answer(stream, office)
        except Exception:  # a scrape that fails must not take the calls of everybody with it
            logger.exception("metrics.failed")
        finally:
            self._free.release()


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    """The next connection. That it cannot be had for now, for want of descriptors say, is waited out."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            logger.warning("metrics.not_accepted", extra={"reason": error.strerror})
            await trio.sleep(PATIENCE_S)


async def _answer(stream: trio.SocketStream, office: Office) -> None:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
    try:
        request = await _request(http, stream)
    except h11.RemoteProtocolError as error:
        await _send(http, stream, error.error_status_hint, str(error))
        return
    if request is None:
        return
    path = request.target.partition(b"?")[0]
    if path != b"/metrics":
        await _send(http, stream, 404, "the metrics are at /metrics")
    elif request.method != b"GET":
        await _send(http, stream, 405, "the metrics can only be read", allow="GET")
    else:
        accept = next((value for name, value in request.headers if name == b"accept"), b"")
        content_type, text = await render(office, accept.decode("latin-1"))
        await _send(http, stream, 200, text, content_type=content_type)


async def _request(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The head of the request; its body, if it has one, is of no interest."""
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


def _bound(address: str, config: BrokerConfig) -> socket.socket:
    try:
        if address.startswith(_UNIX):
            return _bound_path(Path(address.removeprefix(_UNIX)), config)
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise PlaceError(
            f"broker.metrics: {address} cannot be had: {error}; give another address in [broker]"
        ) from None


def _bound_path(path: Path, config: BrokerConfig) -> socket.socket:
    """A Unix socket with the owner, group and mode of the broker's own."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(path)
        with closed_umask():
            listening.bind(str(path))
        open_to(Place(f"ipc://{path}"), config)
        listening.listen(MAX_CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    return listening


def _make_room(path: Path) -> None:
    """Remove a socket that a killed broker left behind; one that is in use stays.

    Raises:
        OSError: somebody listens there, or it is no socket.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError("something listens there already")
