"""`BrokerClient`: the MCP servers of a broker, for asyncio."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from client_shim import __version__, log, payload
from client_shim.call import OnProgress
from client_shim.connection import Channel, Listener
from client_shim.endpoint import default_endpoint, probe
from client_shim.errors import ClientClosed, InvalidReply, Unavailable
from client_shim.payload import Ask
from client_shim.registry import registry
from client_shim.results import (
    CallResult,
    Completion,
    Data,
    Prompt,
    PromptResult,
    ReadResult,
    Resource,
    ResourceTemplate,
    Tool,
)
from client_shim.wire import MANAGEMENT

OnNotification = Callable[[str, str, Any], object]
D = TypeVar("D", bound=Data)


class BrokerClient:
    """A client of the broker's servers::

        async with BrokerClient("my backend") as broker:
            tools = await broker.list_tools("time")
            result = await broker.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})

    Make as many as is convenient: all clients of an event loop share one connection, and one that is
    forgotten without being closed is released when it is collected. One may be made anywhere, also before a
    fork; it belongs to the loop it is first used in, and finds a new connection in another process or after
    that loop.

    Args:
        name: what the broker's `status` calls this program.
        endpoint: where the broker listens; `client_shim.endpoint.default_endpoint` where it is not given.
        timeout: the deadline of a call that is given none, in seconds; `None` leaves it to the broker.
        hello_timeout_s: how long a broker may take to greet.
        reconnect_s: how long a call waits for a broker that was there and is gone, within its own deadline.
            One that is gone for longer, and still is, is not waited for.
        on_notification: called with server, method and params of what a server says unasked.

    Every method that talks to the broker connects where that has not been done, and raises:

    * `Unavailable` (a `ConnectionError`): there is no broker to talk to, or it was lost meanwhile;
    * `CallError`: the call ended badly, with a class for every reason; `ServerError` is the server's own.
    """

    def __init__(
        self,
        name: str = "client",
        endpoint: str | None = None,
        *,
        timeout: float | None = None,
        hello_timeout_s: float = 5.0,
        reconnect_s: float = 5.0,
        on_notification: OnNotification | None = None,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.timeout = timeout
        self._hello_timeout_s = hello_timeout_s
        self._reconnect_s = reconnect_s
        self._on_notification = on_notification
        self._channel: Channel | None = None
        self._release: weakref.finalize[Any, Any] | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._channel and self._channel.connection
        return f"<BrokerClient {self.name!r} {state}>"

    async def __aenter__(self) -> BrokerClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def connected(self) -> bool:
        """Whether a call could be sent this moment."""
        return (
            self._channel is not None
            and self._channel.connection.is_ours
            and self._channel.connection.is_open
        )

    async def connect(self) -> None:
        """Connect now, and raise `Unavailable` now where that does not work. Calls do it by themselves."""
        await self._connected(self.timeout)

    async def aclose(self) -> None:
        """Release what this client holds; its calls end. From any task, and as often as you like."""
        self._closed = True
        self._leave("closed")

    # --- calls -----------------------------------------------------------------------------------------

    async def request(
        self,
        server: str,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make any MCP request and return its result as plain data.

        Args:
            timeout: in seconds. The broker ends the call then; this side does so itself 2 s later.
            on_progress: called, and awaited where it is asynchronous, with progress, total and message.
                What it raises is logged.
            meta: the `_meta` of the request. Progress tokens and protocol versions are the broker's own.
        """
        ask = payload.ask(
            server,
            method,
            params,
            timeout_s=self.timeout if timeout is None else timeout,
            wants_progress=on_progress is not None,
            meta=meta,
        )
        return payload.decode(ask.subject, await self._call(ask, on_progress))

    async def call_tool(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> CallResult:
        """Call a tool. A tool that fails returns a result with `isError`; see `request` for the rest."""
        params = {"name": tool, "arguments": {} if arguments is None else arguments}
        method = "tools/call"
        raw = await self.request(server, method, params, timeout=timeout, on_progress=on_progress, meta=meta)
        return _wrap(CallResult, raw, server, method)

    async def list_tools(self, server: str, *, timeout: float | None = None) -> list[Tool]:
        """The tools of a server, all of them, from the broker's catalogue where that is fresh."""
        return await self._list(Tool, server, "tools/list", "tools", timeout)

    async def list_resources(self, server: str, *, timeout: float | None = None) -> list[Resource]:
        """The resources of a server."""
        return await self._list(Resource, server, "resources/list", "resources", timeout)

    async def list_resource_templates(
        self, server: str, *, timeout: float | None = None
    ) -> list[ResourceTemplate]:
        """The resource templates of a server."""
        method = "resources/templates/list"
        return await self._list(ResourceTemplate, server, method, "resourceTemplates", timeout)

    async def list_prompts(self, server: str, *, timeout: float | None = None) -> list[Prompt]:
        """The prompts of a server."""
        return await self._list(Prompt, server, "prompts/list", "prompts", timeout)

    async def read_resource(self, server: str, uri: str, *, timeout: float | None = None) -> ReadResult:
        """What is in a resource."""
        method = "resources/read"
        raw = await self.request(server, method, {"uri": str(uri)}, timeout=timeout)
        return _wrap(ReadResult, raw, server, method)

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> PromptResult:
        """A prompt, filled in with the arguments."""
        method, params = "prompts/get", {"name": name, "arguments": {} if arguments is None else arguments}
        return _wrap(
            PromptResult, await self.request(server, method, params, timeout=timeout), server, method
        )

    async def complete(
        self,
        server: str,
        ref: dict[str, Any],
        argument: dict[str, str],
        *,
        timeout: float | None = None,
    ) -> Completion:
        """Proposals for an argument of a prompt or a resource template.

        Args:
            ref: ``{"type": "ref/prompt", "name": …}`` or ``{"type": "ref/resource", "uri": …}``.
            argument: ``{"name": …, "value": what is typed so far}``.
        """
        method, params = "completion/complete", {"ref": ref, "argument": argument}
        raw = await self.request(server, method, params, timeout=timeout)
        return _wrap(Completion, _field(raw, "completion", server, method), server, method)

    async def ping(self, *, timeout: float | None = None) -> None:
        """Return if the broker answers."""
        await self.request(MANAGEMENT, "ping", timeout=timeout)

    async def servers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The configured servers: name, state, era, protocol, tools, last_error, …"""
        raw = await self.request(MANAGEMENT, "servers", timeout=timeout)
        servers: list[dict[str, Any]] = _field(raw, "servers", MANAGEMENT, "servers")
        return servers

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What ``mcp-broker status --json`` prints."""
        status: dict[str, Any] = await self.request(MANAGEMENT, "status", timeout=timeout)
        return status

    async def _list(
        self, kind: type[D], server: str, method: str, field: str, timeout: float | None
    ) -> list[D]:
        entries = _field(await self.request(server, method, timeout=timeout), field, server, method)
        if not isinstance(entries, list):
            raise _unusable(server, method, f"`{field}` is no list")
        return [_wrap(kind, entry, server, method) for entry in entries]

    # --- the channel -----------------------------------------------------------------------------------

    async def _call(self, ask: Ask, on_progress: OnProgress | None) -> bytes:
        loop = asyncio.get_running_loop()
        expires = None if ask.timeout_s is None else loop.time() + ask.timeout_s
        channel = await self._connected(ask.timeout_s)
        if expires is not None:
            ask = ask._replace(timeout_s=max(expires - loop.time(), 0.001))
        connection = channel.connection
        call = connection.call(channel, ask)
        try:
            return await call.follow(on_progress)
        finally:
            connection.drop(call, "cancelled by the caller")

    async def _connected(self, timeout_s: float | None) -> Channel:
        channel = self._join()
        connection = channel.connection
        if connection.is_open:
            return channel
        if connection.loop.time() - connection.lost_at > self._reconnect_s:
            probe(connection.endpoint)  # not every call has to wait again for a broker that stays away
        patience_s = self._reconnect_s if connection.came_up else self._reconnect_s + self._hello_timeout_s
        until = connection.loop.time() + (patience_s if timeout_s is None else min(patience_s, timeout_s))
        try:
            await connection.ready(channel, until)
        except Unavailable:
            if not connection.came_up and self._channel is channel:
                self._leave("no broker")  # so that the next try looks for the endpoint again
            raise
        return channel

    def _join(self) -> Channel:
        """The channel of this client in the running loop of this process."""
        if self._closed:
            raise ClientClosed(f"the client {self.name!r} was closed", hint="make another one")
        loop = asyncio.get_running_loop()
        if self._channel is not None and self._channel.connection.is_ours:
            if self._channel.connection.loop is loop:
                return self._channel
            if not self._channel.connection.loop.is_closed():
                raise RuntimeError(
                    f"the client {self.name!r} belongs to another event loop; make one for each loop"
                )
        who = {"name": self.name, "version": __version__, "pid": os.getpid()}
        endpoint = self.endpoint or default_endpoint()
        connection = registry().connection(loop, endpoint, who, self._hello_timeout_s)
        self._channel = channel = connection.join(_listener(self))
        self._release = weakref.finalize(self, connection.leave_soon, channel, "forgotten")
        self._release.atexit = False
        return channel

    def _leave(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        if self._release is not None:
            self._release.detach()
        if channel is None:
            return
        try:
            here = asyncio.get_running_loop() is channel.connection.loop
        except RuntimeError:
            here = False
        leave = channel.connection.leave if here else channel.connection.leave_soon
        leave(channel, reason)

    def _hear(self, server: str, method: str, body: bytes) -> None:
        if self._on_notification is None:
            return
        try:
            self._on_notification(server, method, payload.decode(f"`{method}` of server {server!r}", body))
        except Exception as error:
            log.warn(f"the notification callback of {self.name!r} failed: {error}", error)


def _listener(client: BrokerClient) -> Callable[[], Listener | None]:
    """The connection must not keep its clients alive: that is how it learns that one was forgotten."""
    method = weakref.WeakMethod(client._hear)
    return lambda: method()


def _field(raw: Any, field: str, server: str, method: str) -> Any:
    if not isinstance(raw, dict) or field not in raw:
        raise _unusable(server, method, f"it has no `{field}`")
    return raw[field]


def _wrap(kind: type[D], raw: Any, server: str, method: str) -> D:
    if not isinstance(raw, dict):
        raise _unusable(server, method, f"{raw!r:.100} is no object")
    return kind(raw)


def _unusable(server: str, method: str, why: str) -> InvalidReply:
    return InvalidReply(
        f"`{method}` of server {server!r}: the result cannot be used: {why}",
        hint="this is the server's mistake: report it to its authors",
    )
