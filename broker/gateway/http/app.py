"""Streamable HTTP as an ASGI application: routes, who may come in, how many, and the end of it all.

`endpoint` serves those that are let in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from broker.base.rate_limit import LogLimit, RateLimit
from broker.gateway.audit import Audit
from broker.gateway.byte_budget import ByteBudget
from broker.gateway.http.catalogue import ServerNames
from broker.gateway.http.connection import Receive, Scope, Send
from broker.gateway.http.endpoint import Endpoint
from broker.gateway.http.exchange import ClientLeft, Exchange
from broker.gateway.http.guard import Guard, check_use, too_often
from broker.gateway.http.legacy_sessions import LegacySessions
from broker.gateway.http.metrics import FORMAT, metrics
from broker.gateway.http.page.history import EVERY_S, History
from broker.gateway.http.page.view import DATA, PAGE, Reply, StatusPage
from broker.gateway.http.refusals import Refused
from broker.gateway.http.state import StateFolder
from broker.gateway.http.turns import LoopTurns
from broker.gateway.settings import Settings
from broker.gateway.tokens import LOCAL, Token, digest_of
from client_shim import BrokerClient
from client_shim.errors import BrokerError

logger = logging.getLogger("mcp-broker")

LOGGED_AT_ONCE = 20
"""Refusals that are logged at once; beyond them one a second is."""

FULL_EVERY_S = 10.0
"""How often the log says that there is no room for bytes."""

PREFIX = "/mcp/"

ASK_S = 5.0
"""How long the status page waits for the broker."""


class HttpDoor:
    """The ASGI application.

    Args:
        settings: of `gateway.toml`.
        state: the open state directory.
        audit: the audit log, where there is one.
    """

    def __init__(self, settings: Settings, state: StateFolder, audit: Audit | None = None) -> None:
        door = settings.gateway
        own = Token("own", digest_of(state.token))
        self._limits = settings.limits
        self._guard = Guard([own, *settings.tokens], door.hosts, door.origins)
        limits = settings.limits
        self._budget = ByteBudget(
            max(limits.token_bytes, limits.body_bytes), max(limits.all_bytes, limits.body_bytes), self._full
        )
        self._sessions = LegacySessions(state, limits, self._budget, door.endpoint, audit)
        self._catalogue = ServerNames(door.endpoint)
        self._mcp = Endpoint(limits, self._budget, self._sessions, self._catalogue, door.endpoint, audit)
        self._watch = BrokerClient("status page", door.endpoint, timeout=ASK_S)
        self._page = StatusPage(self._watch.status, History())
        self._rates: dict[str, RateLimit] = {}
        self._open: Counter[str] = Counter()
        """Exchanges under way, by the name of their token."""
        self._turns = LoopTurns()
        self._refusals = LogLimit(LOGGED_AT_ONCE)
        self._bytes_full = LogLimit(1, FULL_EVERY_S)
        self.is_ending = False
        self.counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        """HTTP status → how many requests it refused."""
        self.bridges: Callable[[], int] = lambda: 0
        """Returns how many clients the Unix sockets have."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._serve(exchange)
        except Refused as refused:
            self.refused(refused, exchange.path)
            if not exchange.has_turn:
                await self._turn_of_nameless(exchange)
            await exchange.refuse(refused)
        except ClientLeft:
            self.counts["left"] += 1
            exchange.connection.cut()
        except Exception:  # a mistake here must not leave the client without an answer
            logger.exception("gateway.request_failed", extra={"path": exchange.path[:100]})
            await exchange.refuse(Refused(500, "The gateway made a mistake; its log has the traceback"))
        finally:
            exchange.close()

    async def _turn_of_nameless(self, exchange: Exchange) -> None:
        """Wait for a turn of the clients that show no token: together they have those of one holder."""
        if not self._turns.begin(""):
            await self._turns.wait("", "")
        exchange.has_turn = True

    def refused(self, refused: Refused, path: str = "") -> None:
        """Count a refusal, and log it unless there are many."""
        self._refused[str(refused.status)] += 1
        if count := self._refusals.take(asyncio.get_running_loop().time()):
            extra = {"status": refused.status, "path": path[:100], "reason": refused.message[:200]}
            extra["unlogged"] = count - 1
            logger.info("gateway.refused", extra=extra)

    def _full(self, limit: str, token: str) -> None:
        """Count the bodies and answers for which there is no room, and log them from time to time."""
        self.counts[f"full {limit}"] += 1
        if count := self._bytes_full.take(asyncio.get_running_loop().time()):
            extra = {"limit": limit, "token": token, "held": self._budget.held, "times": count}
            logger.warning("gateway.bytes_full", extra=extra)

    # -- routes -------------------------------------------------------------------------------------------

    async def _serve(self, exchange: Exchange) -> None:
        self._guard.check_host(exchange.headers)
        origin = self._guard.check_origin(exchange.headers)
        if origin is not None:
            exchange.extra += _cors(origin)
        if exchange.method == "OPTIONS" or exchange.path in ("/healthz", "/metrics", PAGE):
            await self._turn_of_nameless(exchange)
        if exchange.path == "/healthz":
            await self._healthz(exchange)
            return
        if exchange.path == "/metrics":
            await exchange.answer(200, metrics(self.figures(), self._refused), {"content-type": FORMAT})
            return
        if exchange.method == "OPTIONS":  # a browser asks before it sends the token
            await exchange.answer(204)
            return
        if exchange.path == PAGE and exchange.method == "GET":  # a browser cannot send the token with a link
            await _show(exchange, self._page.file())
            return
        if exchange.path.startswith("/.well-known/"):  # clients look for an authorization server here
            raise Refused(
                404, "There is no authorization server; send the header `Authorization: Bearer TOKEN`"
            )
        token = self._guard.identify(exchange.headers) if exchange.needs_token else LOCAL
        exchange.connection.known()
        if not self._turns.begin(token.name):
            await self._turns.wait(token.name, exchange.client)
        exchange.has_turn = True
        self._check_rate(token)
        if exchange.path in DATA and exchange.method == "GET":
            await self._page_data(exchange, token)
            return
        server = await self._server_of(exchange, token)
        self._check_open(token)
        self._open[token.name] += 1
        try:
            await self._speak(exchange, server, token)
        finally:
            self._open[token.name] -= 1

    async def _speak(self, exchange: Exchange, server: str, token: Token) -> None:
        """Serve an exchange at the MCP endpoint of a server."""
        match exchange.method:
            case "POST":
                await self._mcp.post(exchange, server, token)
            case "GET":
                await self._mcp.get(exchange, server, token)
            case "DELETE":
                await self._mcp.delete(exchange, server, token)
            case _:
                message = f"{exchange.method} means nothing here; use POST, GET or DELETE"
                raise Refused(405, message, headers={"allow": "POST, GET, DELETE, OPTIONS"})

    async def _healthz(self, exchange: Exchange) -> None:
        names = await self._catalogue.names()
        well = names is not None and not self.is_ending
        word = "ok" if well else "ending" if self.is_ending else "no broker answers"
        body = json.dumps({"status": word, **self.figures()}).encode()
        await exchange.answer(200 if well else 503, body)

    async def _page_data(self, exchange: Exchange, token: Token) -> None:
        try:
            reply = await self._page.data(exchange.path, token.may_use)
        except BrokerError as error:
            raise Refused(503, f"The broker does not answer: {error.message}") from error
        await _show(exchange, reply)

    async def _server_of(self, exchange: Exchange, token: Token) -> str:
        """The server that the path names."""
        path = exchange.path
        server = path.removeprefix(PREFIX).removesuffix("/") if path.startswith(PREFIX) else ""
        if server and "/" not in server:
            check_use(token, server)
            if await self._catalogue.knows(server):
                return server
        names = await self._catalogue.names()
        usable = [name for name in names or () if token.may_use(name)]
        raise Refused(
            404,
            f"There is no server at {path[:100]!r}; call {PREFIX}SERVER with one of `servers`",
            data={"servers": usable},
        )

    def _check_rate(self, token: Token) -> None:
        if not token.rate:
            return
        now = asyncio.get_running_loop().time()
        rate = self._rates.get(token.name)
        if rate is None:
            rate = self._rates[token.name] = RateLimit(max(1, math.ceil(token.rate)), 1 / token.rate)
        if not rate.take(now):
            raise too_often(token, rate.at() - now)

    def _check_open(self, token: Token) -> None:
        if self._open[token.name] >= self._limits.streams:
            raise Refused(
                429,
                f"The token {token.name!r} has {self._limits.streams} requests and streams open; close some, "
                "or raise `streams` in gateway.toml",
                headers={"retry-after": "1"},
            )

    # -- life ---------------------------------------------------------------------------------------------

    def comment(self) -> None:
        """Send a comment on every stream that was silent since the last time: proxies cut what is silent."""
        for stream in list(self._mcp.streams):
            stream.tick()

    def sweep(self) -> None:
        """Put away the sessions and streams that are over."""
        self._sessions.sweep(asyncio.get_running_loop().time())

    async def sample(self) -> None:
        """Take samples for the plot of the status page, until it is cancelled."""
        while True:
            with suppress(BrokerError):  # the plot has a gap for it
                await self._page.sample()
            await asyncio.sleep(EVERY_S)

    def figures(self) -> Mapping[str, int]:
        """What is open, for the status and for tests."""
        return {
            "sessions": len(self._sessions),
            "streams": len(self._mcp.streams),
            "exchanges": self._open.total(),
            "modern": len(self._mcp.modern),
            "held_bytes": self._budget.held,
            "parked": self._mcp.parked,
            "dropped": self._sessions.dropped.total(),
            "listen_refused": self._sessions.refusals.count,
            "bridges": self.bridges(),
        }

    def end_streams(self, reason: str) -> None:
        """End the streams that only listen, for the gateway ends; their clients come back to the next one."""
        self.is_ending = True
        for session in self._sessions:
            session.end_listening()
        for listening in list(self._mcp.listening):
            listening.ended(reason)

    def end_calls(self, reason: str) -> None:
        """Answer the requests that are still under way."""
        for session in list(self._mcp.modern):
            session.ended(reason)
        for legacy in self._sessions:
            legacy.ended(reason)

    async def aclose(self) -> None:
        """Release everything."""
        await self._sessions.aclose()
        await self._mcp.aclose()
        await self._catalogue.aclose()
        await self._watch.aclose()


async def _show(exchange: Exchange, reply: Reply) -> None:
    """Send a file of the status page."""
    await exchange.answer(reply.status, reply.body, reply.headers)


def _cors(origin: str) -> list[tuple[bytes, bytes]]:
    """What a browser's page needs to be told (Fetch, "CORS protocol")."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"origin"),
        (b"access-control-allow-methods", b"POST, GET, DELETE"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-expose-headers", b"mcp-session-id"),
    ]
