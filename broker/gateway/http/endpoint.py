"""The MCP endpoint `/mcp/SERVER`: POST, GET and DELETE of clients of both eras.

Theory of operation. A POST of 2026-07-28 is a conversation of its own: it ends with its stream, and a client
that leaves cancels it. A POST of a legacy client belongs to the session that its `Mcp-Session-Id` names, and
goes on when the client leaves. Either is answered with JSON where the answer is there within a second and
nothing came before it, and with an event stream otherwise. Nothing here waits for a client that does not
read.

Sources: 2026-07-28, Streamable HTTP; 2025-11-25, Transports, "Streamable HTTP".
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw, Struct, UnsetType

from broker.gateway.audit import Audit
from broker.gateway.byte_budget import ByteBudget
from broker.gateway.conversation import eras, faults, jsonrpc
from broker.gateway.conversation.effects import FinishRequest, SendMessage
from broker.gateway.conversation.jsonrpc import ClientRequest, ClientResponse, Incoming, InvalidMessage
from broker.gateway.conversation.running_calls import Parking
from broker.gateway.conversation.session import RECONNECT_S, Session
from broker.gateway.http import headers, sse
from broker.gateway.http.catalogue import ServerNames
from broker.gateway.http.channels import Channels, client_name, key_of
from broker.gateway.http.exchange import ClientLeft, Exchange
from broker.gateway.http.guard import check_call
from broker.gateway.http.legacy_session import LegacySession
from broker.gateway.http.legacy_sessions import LegacySessions
from broker.gateway.http.refusals import HEADER_MISMATCH, INVALID_REQUEST, UNSUPPORTED_VERSION, Refused
from broker.gateway.http.streams import Edit, Stream
from broker.gateway.http.tool_lists import only_visible
from broker.gateway.settings import GatewayLimits
from broker.gateway.tokens import Token

SOON_S = 1.0
"""How long a request is waited for before its answer becomes an event stream, which no proxy times out."""

STATUS = {
    jsonrpc.PARSE_ERROR: 400,
    jsonrpc.INVALID_REQUEST: 400,
    jsonrpc.INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    jsonrpc.MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    jsonrpc.METHOD_NOT_FOUND: 404,
}
"""Code of a JSON-RPC error → HTTP status for a client of 2026-07-28. A legacy client gets 200."""

PRIMED = "2025-11-25"
"""The version of the clients that take an event without data."""


class _Named(Struct, gc=False):
    name: Any = None
    uri: Any = None
    arguments: Raw | UnsetType = msgspec.UNSET


class Endpoint:
    """Serves the exchanges of admitted clients.

    Args:
        budget: counts the bytes that are held for clients.
        sessions: the legacy ones.
        catalogue: what is known of the servers.
        endpoint: where the broker listens; `None`: where the shim finds it.
        audit: the audit log, where there is one.
    """

    def __init__(
        self,
        limits: GatewayLimits,
        budget: ByteBudget,
        sessions: LegacySessions,
        catalogue: ServerNames,
        endpoint: str | None,
        audit: Audit | None = None,
    ) -> None:
        self.streams: set[Stream] = set()
        """The streams that are being sent."""
        self.modern: set[Session] = set()
        """The conversations of clients of 2026-07-28, each with one request."""
        self.listening: set[Session] = set()
        """Those of them whose request is `subscriptions/listen`."""
        self._limits = limits
        self._budget = budget
        self._sessions = sessions
        self._catalogue = catalogue
        self._endpoint = endpoint
        self._channels = Channels(endpoint, RECONNECT_S)
        self._parking: dict[str, Parking] = {}
        """The parked calls by the name of the token."""
        self._audit = audit

    @property
    def parked(self) -> int:
        """How many calls wait for clients of 2026-07-28 to repeat their requests with answers."""
        return sum(len(one.calls) for one in self._parking.values())

    async def aclose(self) -> None:
        """Cancel the parked calls, and release the channels of the clients of 2026-07-28."""
        for one in self._parking.values():
            await one.aclose()
        await self._channels.aclose()

    # -- POST ---------------------------------------------------------------------------------------------

    async def post(self, exchange: Exchange, server: str, token: Token) -> None:
        headers.check_content_type(exchange.headers)
        headers.check_accept(exchange.headers, headers.JSON, headers.EVENT_STREAM)
        share = self._budget.share(token.name)
        body = await exchange.body(self._limits.body_bytes, self._limits.body_sec, share)
        message = jsonrpc.read(body)
        if isinstance(message, InvalidMessage):
            refused = Refused(400, message.message, code=message.code)
            refused.request_id = None if message.id == jsonrpc.NO_ID else message.id
            raise refused
        if isinstance(message, ClientRequest):
            try:
                await self._request(exchange, server, token, message)
            except Refused as refused:
                refused.request_id = message.id
                raise
            return
        if not _is_modern(exchange.headers, message):
            self._session(exchange, server, token).tell(message)
        elif isinstance(message, ClientResponse):
            raise Refused(400, "A client of 2026-07-28 sends no responses", code=INVALID_REQUEST)
        await exchange.answer(202)

    async def _request(self, exchange: Exchange, server: str, token: Token, request: ClientRequest) -> None:
        if request.method == "tools/call" and not token.may_call_all:
            check_call(token, _named(request).name)
            request = msgspec.structs.replace(request, params=jsonrpc.with_one_name(request.params))
        if _is_modern(exchange.headers, request):
            await self._check_modern(exchange, server, request)
            await self._modern_request(exchange, server, token, request)
        elif request.method == "initialize":
            await self._initialize(exchange, server, token, request)
        else:
            session = self._session(exchange, server, token)
            await self._send(exchange, session, session.ask(request, _edit(token, request)))

    async def _check_modern(self, exchange: Exchange, server: str, request: ClientRequest) -> None:
        """Check the headers of a request of 2026-07-28 against its body."""
        version = request.meta.get(eras.PROTOCOL_VERSION)
        if version is None:
            given = exchange.headers.get(headers.VERSION) or ""
            if given != eras.MODERN_VERSION:
                raise headers.unsupported_version(given, [eras.MODERN_VERSION, *eras.LEGACY_VERSIONS])
            message = f"`_meta` has no `{eras.PROTOCOL_VERSION}`; send the request metadata of {given}"
            raise Refused(400, message, code=jsonrpc.INVALID_PARAMS)
        params = _named(request)
        headers.check_version(exchange.headers, version if isinstance(version, str) else "")
        headers.check_standard(exchange.headers, request.method, {"name": params.name, "uri": params.uri})
        if request.method == "tools/call" and isinstance(params.name, str):
            repeated = await self._catalogue.params(server, params.name)
            if repeated:
                headers.check_params(exchange.headers, repeated, _decoded(params.arguments))

    async def _modern_request(
        self, exchange: Exchange, server: str, token: Token, request: ClientRequest
    ) -> None:
        share = self._budget.share(token.name)
        stream = Stream(request.id, self._limits.stream_bytes, edit=_edit(token, request), share=share)

        def deliver(effect: SendMessage | FinishRequest) -> None:
            if isinstance(effect, FinishRequest):
                stream.finish()
                return
            if effect.code is not None:
                stream.status = STATUS.get(effect.code, 200)
            stream.add(effect.message)

        on_call = self._audit.caller(token.name, "http") if self._audit else None
        if request.method == "subscriptions/listen":
            name = client_name(token.name)
            session = Session(
                server,
                deliver,
                name=name,
                endpoint=self._endpoint,
                on_call=on_call,
                refusals=self._sessions.refusals,
                dropped=self._sessions.dropped,
            )
            self.listening.add(session)
            await self._converse(exchange, session, request, stream)
            return
        key = key_of(token.name, request)
        exchange.connection.client_name = key[1]
        channel = partial(self._channels.channel, key)
        if (parking := self._parking.get(token.name)) is None:
            parking = self._parking[token.name] = Parking(share, dropped=self._sessions.dropped)
        session = Session(server, deliver, on_call=on_call, channel=channel, parking=parking)
        await self._converse(exchange, session, request, stream)

    async def _converse(
        self, exchange: Exchange, session: Session, request: ClientRequest, stream: Stream
    ) -> None:
        """Have one request answered, unless its client leaves before."""
        self.modern.add(session)
        try:
            session.received(request)
            await self._answer(exchange, stream)
        except ClientLeft:  # 2026-07-28, "Cancellation"
            session.cancelled(request.id)
            raise
        finally:
            self.modern.discard(session)
            self.listening.discard(session)
            await session.aclose()

    async def _answer(self, exchange: Exchange, stream: Stream, *, is_primed: bool = False) -> None:
        """Answer a request with JSON or a stream.

        Args:
            is_primed: whether a stream begins with an event without data.
        """
        exchange.hand_over(stream)
        reader = exchange.attach(stream)
        self.streams.add(stream)
        try:
            await stream.something(SOON_S)
            if not stream.is_read_by(reader):
                raise ClientLeft
            message = stream.only_message()
            if message is None:
                primer = sse.primer(stream.replay.here) if is_primed and stream.replay else b""
                await exchange.stream(stream, reader, primer)
            else:
                await exchange.answer(stream.status, message)
                await exchange.sent(stream)
        finally:
            self.streams.discard(stream)
            stream.leave(reader, asyncio.get_running_loop().time())

    # -- legacy sessions ----------------------------------------------------------------------------------

    def _session(self, exchange: Exchange, server: str, token: Token) -> LegacySession:
        """The session that the request names."""
        version = exchange.headers.get(headers.VERSION)
        if version is not None and version not in eras.LEGACY_VERSIONS:
            raise headers.unsupported_version(version, [eras.MODERN_VERSION, *eras.LEGACY_VERSIONS])
        session_id = headers.session_id(exchange.headers)
        if session_id is None:
            raise headers.session_missing()
        now = asyncio.get_running_loop().time()
        return self._sessions.find(token, server, session_id, now, time.time())

    async def _initialize(
        self, exchange: Exchange, server: str, token: Token, request: ClientRequest
    ) -> None:
        session = self._sessions.begin(token, server, asyncio.get_running_loop().time(), time.time())
        stream = session.ask(request)
        try:
            self._sessions.keep(token, session)
        except Refused:
            await session.aclose()
            raise
        if session.id:
            exchange.extra.append((headers.SESSION_ID.encode(), session.id.encode()))
        await self._send(exchange, session, stream)

    async def _send(self, exchange: Exchange, session: LegacySession, stream: Stream) -> None:
        """Send a stream of a session. A client that leaves cancels nothing."""
        opened = session.session.conversation.session
        await self._answer(exchange, stream, is_primed=opened is not None and opened.version >= PRIMED)
        self._sessions.remember(session, stream)

    async def get(self, exchange: Exchange, server: str, token: Token) -> None:
        headers.check_accept(exchange.headers, headers.EVENT_STREAM)
        if exchange.headers.get(headers.VERSION) == eras.MODERN_VERSION:
            message = f"{eras.MODERN_VERSION} has no GET; use `subscriptions/listen`"
            raise Refused(405, message, headers={"allow": "POST"})
        session = self._session(exchange, server, token)
        place = sse.place_of(exchange.headers.get(headers.LAST_EVENT_ID) or "")
        stream = session.resume(place) if place is not None else None
        if stream is None and place is not None and place.request:
            stream = _lost(place)
        stream = stream or session.listen()
        reader = exchange.attach(stream)
        self.streams.add(stream)
        try:
            # a GET stream hears what changes after the response begins; an answer needs nothing of the broker
            if not stream.request and (refusal := await session.listening()):
                raise headers.not_listening(faults.message_of(refusal))
            await exchange.stream(stream, reader)
        finally:
            now = asyncio.get_running_loop().time()
            self.streams.discard(stream)
            stream.leave(reader, now)
            self._sessions.remember(session, stream)

    async def delete(self, exchange: Exchange, server: str, token: Token) -> None:
        session = self._session(exchange, server, token)
        await self._sessions.end(token, session, time.time())
        await exchange.answer(204)


def _edit(token: Token, request: ClientRequest) -> Edit | None:
    """What takes those tools out of a list that the holder of a token may not call."""
    if token.may_call_all or request.method != "tools/list":
        return None
    return lambda message: only_visible(message, token.may_call)


def _is_modern(given: headers.Headers, message: Incoming) -> bool:
    """Whether a message is of 2026-07-28: it says so in its `_meta`, or in its header."""
    if isinstance(message, ClientRequest) and eras.PROTOCOL_VERSION in message.meta:
        return True
    version = given.get(headers.VERSION)
    return version is not None and version not in eras.LEGACY_VERSIONS


def _named(request: ClientRequest) -> _Named:
    """What the headers repeat of the params."""
    if request.method not in headers.NAMED_BY or request.params is None:
        return _Named()
    try:
        return msgspec.json.decode(request.params, type=_Named)
    except (msgspec.MsgspecError, RecursionError):
        return _Named()


def _decoded(raw: Raw | UnsetType) -> object:
    try:
        return None if isinstance(raw, UnsetType) else msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _lost(place: sse.EventPosition) -> Stream:
    """A stream that tells a client that the answer it waits for will not come."""
    message = "the answer was lost in a restart, is too old, or was too large; the call may have happened"
    stream = Stream(place.request, 65_536)
    stream.add(jsonrpc.error_message(place.request, jsonrpc.INTERNAL_ERROR, message))
    stream.finish()
    return stream
