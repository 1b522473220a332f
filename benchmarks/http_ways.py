"""MCP over HTTP for the gateways, ours and others: three dialects over the one client of `http_client`."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from benchmarks.http_client import ANSWER_S, Http, answer, fail
from benchmarks.ways import text_of

LEGACY, MODERN = "2025-06-18", "2026-07-28"

Message = dict[str, Any]

_START_S = 40.0
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "bench", "version": "1"}
INITIALIZE: Message = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
_INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_ID = re.compile(rb'"id": ?([0-9]+)')
_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def _request(id: int, method: str, params: Message) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


class Streamable:
    """A session of Streamable HTTP up to 2025-11-25.

    Args:
        http: its connections.
        path: of the endpoint.
        headers: sent with every request.
    """

    def __init__(self, http: Http, path: str, headers: Mapping[str, str]) -> None:
        self._http, self._path, self._headers = http, path, {**_HEADERS, **headers}
        self._head = http.head("POST", path, self._headers)
        self._ids = itertools.count(1)
        self._names: dict[str, str] = {}

    async def open(self) -> None:
        """Send `initialize`, and find out what the two tools are called here."""
        _, connection = await self._http.exchange(self._head, _request(0, "initialize", INITIALIZE))
        headers = {**self._headers, "mcp-protocol-version": LEGACY}
        if session := connection.headers.get(b"mcp-session-id"):
            headers["mcp-session-id"] = session.decode()
        self._head = self._http.head("POST", self._path, headers)
        await self._http.exchange(self._head, _INITIALIZED)
        self._names = await _names(self.request)

    async def request(self, id: int, method: str, params: Message) -> bytes:
        """Return the answer to a request."""
        return (await self._http.exchange(self._head, _request(id, method, params)))[0]

    async def call(self, tool: str, arguments: Message) -> str:
        """Make any number of calls at a time."""
        id = next(self._ids)
        params = {"name": self._names[tool], "arguments": arguments}
        return text_of(await self.request(id, "tools/call", params), id)


class Modern:
    """A client of 2026-07-28, which has no session. The arguments are those of `Streamable`."""

    def __init__(self, http: Http, path: str, headers: Mapping[str, str]) -> None:
        self._http = http
        told = {**_HEADERS, **headers, "mcp-protocol-version": MODERN, "mcp-method": "tools/call"}
        self._heads = {tool: http.head("POST", path, {**told, "mcp-name": tool}) for tool in ("echo", "blob")}
        self._meta = {
            f"{_META}protocolVersion": MODERN,
            f"{_META}clientInfo": _CLIENT,
            f"{_META}clientCapabilities": {},
        }
        self._ids = itertools.count(1)

    async def call(self, tool: str, arguments: Message) -> str:
        """Make any number of calls at a time."""
        id = next(self._ids)
        params = {"name": tool, "arguments": arguments, "_meta": self._meta}
        message, _ = await self._http.exchange(self._heads[tool], _request(id, "tools/call", params))
        return text_of(message, id)


class OldSse(Streamable):
    """A session of HTTP with SSE, the transport of 2024-11-05: all answers come by one stream."""

    async def open(self) -> None:
        """Open the stream, send `initialize`, and find out what the two tools are called here."""
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        endpoint: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def take(data: bytes) -> None:
            if not endpoint.done():
                endpoint.set_result(data)
            elif (waiting := self._waiting.get(id_of(data))) is not None:
                answer(waiting, data)

        def failed(why: str) -> None:
            for waiting in (endpoint, *self._waiting.values()):
                fail(waiting, why)

        stream = await self._http.free_connection()
        get = {**self._headers, "accept": "text/event-stream"}
        stream.send(self._http.head("GET", self._path, get) + b"0\r\n\r\n", take, failed)
        self._path = (await asyncio.wait_for(endpoint, ANSWER_S)).decode()
        self._head = self._http.head("POST", self._path, self._headers)
        await self.request(0, "initialize", INITIALIZE)
        await self._http.exchange(self._head, _INITIALIZED)
        self._names = await _names(self.request)

    async def request(self, id: int, method: str, params: Message) -> bytes:
        """Return the answer to a request."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bytes] = loop.create_future()
        self._waiting[id] = waiting
        timer = loop.call_later(ANSWER_S, fail, waiting, "it did not answer")
        try:
            await self._http.exchange(self._head, _request(id, method, params))
            return await waiting
        finally:
            timer.cancel()
            del self._waiting[id]


def id_of(message: bytes) -> int:
    """Return the id of an answer: it stands in front of the result, or behind it."""
    found = _ID.search(message[:60]) or _ID.search(message[-60:])
    return int(found[1]) if found else -1


async def _names(request: Callable[[int, str, Message], Awaitable[bytes]]) -> dict[str, str]:
    """Return the gateway's names of the two tools. Some gateways connect before they know any."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_S
    while True:
        listed = json.loads(await request(0, "tools/list", {}))
        known = [tool["name"] for tool in listed.get("result", {}).get("tools", ())]
        names = {tool: name for name in known for tool in ("echo", "blob") if name.endswith(tool)}
        if len(names) == 2:
            return names
        if loop.time() > deadline:
            raise RuntimeError(f"the tools that it offers are {known}")
        await asyncio.sleep(0.2)
