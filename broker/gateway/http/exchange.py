"""One HTTP request and its response, over ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from broker.gateway.byte_budget import Share
from broker.gateway.http.connection import HttpConnection, Receive, Scope, Send
from broker.gateway.http.headers import SESSION_ID, Headers
from broker.gateway.http.refusals import JSON, Refused
from broker.gateway.http.sse import HEADERS
from broker.gateway.http.streams import Stream


class ClientLeft(Exception):
    """The client closed its connection."""


class Exchange:
    """One HTTP request, and what is answered.

    Args:
        scope, receive, send: as ASGI has them.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path = unquote(scope["raw_path"].decode("ascii"), errors="replace")
        self.headers = Headers(scope["headers"])
        self.needs_token: bool = scope["state"]["needs_token"]
        self.is_begun = False
        self.has_turn = False
        """Whether it has waited for a turn of its client."""
        self.extra: list[tuple[bytes, bytes]] = []
        """Headers of the response that do not depend on what it says."""
        self.connection: HttpConnection = scope["state"]["connection"]
        self._receive = receive
        self._send = send
        self._is_read = False
        self._share: Share | None = None
        self._held = 0
        """The bytes of the body that are counted."""

    @property
    def client(self) -> str:
        """Which of the clients with its token it comes from, as far as its headers and connection show that:
        the id of a session, or what the client of the connection's last request is called.

        Raises:
            Refused: it names several sessions.
        """
        return self.headers.get(SESSION_ID) or self.connection.client_name

    async def body(self, limit: int, within_s: float, share: Share) -> bytes:
        """Return the body of the request. Its bytes are counted until the exchange is over, or by a stream.

        Raises:
            Refused: it is too large, takes too long, or finds no room.
            ClientLeft: its end will not come.
        """
        length = self.headers.get("content-length") or ""
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        pieces, self._share = list[bytes](), share
        while True:
            event = await self._receive()
            if event["type"] != "http.request":
                raise ClientLeft
            if full := share.take(len(event["body"])):
                raise no_room(full, share.token)
            pieces.append(event["body"])
            self._held += len(event["body"])
            if self._held > limit:
                raise _too_large(limit)
            if not event["more_body"]:
                self._is_read = True
                self.connection.hear()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self.connection.is_late:
                raise Refused(408, f"The body took longer than {within_s:g} s; send it at once")

    async def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response; JSON, where it has a body and the headers name no other type."""
        if body and not headers and not self.extra and self.connection.answer(status, body):
            self.is_begun = True
            return
        told = {"content-type": JSON, **(headers or {})} if body else headers or {}
        pairs = [*self.extra, (b"content-length", b"%d" % len(body))]
        pairs += [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refused: Refused) -> None:
        """Send a refusal. If it comes before the end of the request, the connection ends with it."""
        if self.is_begun:
            self.connection.cut()
            return
        await self.answer(refused.status, refused.body(), refused.headers)
        if self.method == "POST" and not self._is_read:
            self.connection.end_soon()

    def hand_over(self, stream: Stream) -> None:
        """Let the bytes of the body be held until the request is answered that a stream is for."""
        stream.hold(self._held)
        self._held = 0

    def attach(self, stream: Stream) -> int:
        """Make this client the reader of a stream. Return its number."""
        reader = stream.attach(self.connection.cut)
        self.connection.on_lost = lambda: stream.lost(reader)
        return reader

    async def stream(self, stream: Stream, reader: int, first: bytes = b"") -> None:
        """Send the events of a stream until its end.

        Args:
            reader: the number of this client.
            first: sent before everything else.

        Raises:
            ClientLeft: the client is gone, did not keep up, or reads the stream by another connection.
        """
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *self.extra]})
        if first:
            await self._send({"type": "http.response.body", "body": first, "more_body": True})
        while stream.is_read_by(reader):
            events = stream.take()
            if events:
                await self._send({"type": "http.response.body", "body": events, "more_body": True})
                await self.sent(stream)
            elif not stream.has_more:
                await self._send({"type": "http.response.body", "body": b""})
                return
            else:
                await stream.something()
        raise ClientLeft

    async def sent(self, stream: Stream) -> None:
        """Wait until the client has read most of what a stream gave; that is no longer held then."""
        if self.connection.flow.write_paused:
            await self.connection.flow.drain()
        stream.sent()

    def close(self) -> None:
        """The exchange is over: the connection may be used for another one."""
        self.connection.on_lost = None
        if self._share is not None:
            self._share.give(self._held)
            self._held = 0


def no_room(limit: str, token: str) -> Refused:
    """Return the refusal of a body for which there is no room."""
    what = f"the token {token!r}" if limit == "token_bytes" else "all tokens together"
    message = f"The gateway holds as much for {what} as it may; wait for answers, or raise `{limit}`"
    status = 429 if limit == "token_bytes" else 503
    return Refused(status, f"{message} in gateway.toml", headers={"retry-after": "1"})


def _too_large(limit: int) -> Refused:
    return Refused(
        413, f"The body has more than {limit} bytes; send less, or raise `body_bytes` in gateway.toml"
    )
