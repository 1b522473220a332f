"""`MCPClient`, which replaces the class of this name in a backend, with the same interface.

The original starts a process for each server. This one is a channel in the connection of the process to the
broker: it costs nothing to make, any task may close it, and it leaves nothing behind when it is collected. It
never imports the `mcp` package, so any version of that may be installed, or none.

A call raises one of the three exceptions that such a backend catches:

* `ValueError`: the call is wrong: there is no such server or tool, or the arguments are not JSON. Retrying
  will not help.
* `ConnectionError`: the broker or the server was lost while it had the call, which may have been carried out.
* `RuntimeError`: everything else: the server or the broker cannot be reached, the call took too long, the
  server answered with an error. The `__cause__` is the error of the shim, with a class for every reason.
"""

from __future__ import annotations

import math
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Protocol

from client_shim import log
from client_shim.asyncio.client import BrokerClient
from client_shim.backend.content import content_items
from client_shim.backend.snippet import toml_table
from client_shim.errors import (
    BrokerError,
    BrokerLost,
    ClientClosed,
    DeadlineExceeded,
    InvalidRequest,
    ServerDied,
    ShuttingDown,
    Unavailable,
    UnknownServer,
    UnknownTool,
)
from client_shim.results import Tool

DEFAULT_TIMEOUT_S = 30.0
"""The timeout of a call if the registry's entry has none, as in the original."""

RECONNECT_S = 5.0
"""How long a call waits for a broker that is gone, or not there yet, before it says so."""


class ServerRegistry(Protocol):
    """The backend's registry. Its entries have `command`, `args`, `env`, `cwd` and `timeout`."""

    def get_server(self, server_name: str, /) -> Any: ...


class MCPClient:
    """The servers of a backend's registry, run by the broker::

        async with MCPClient(registry) as client:
            tools = await client.list_tools("time")
            answer = await client.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})

    `aclose` is optional: a client is also released when it is collected. A closed client may be used again.
    The broker is at the endpoint that `client_shim.transport.endpoint.default_endpoint` returns.

    Args:
        server_registery: any object with a `get_server(name)` that returns an entry or `None`.
        send_text: not used; the original takes it.
        client_uid: the id of the page that this client is for; the log lines name it.

    Raises:
        TypeError: the registry has no `get_server`.
    """

    def __init__(
        self,
        server_registery: ServerRegistry,
        send_text: Callable[..., Any] | None = None,
        client_uid: str | None = None,
    ) -> None:
        if not callable(getattr(server_registery, "get_server", None)):
            raise TypeError(
                f"a server registry needs a method get_server(name), and {server_registery!r:.100} has none"
            )
        self.server_registery = server_registery
        self.active_sessions: dict[str, ServerSession] = {}
        self.exit_stack = AsyncExitStack()
        self._list_tools_cache: dict[str, list[Tool]] = {}
        self._send_text = send_text
        self._client_uid = client_uid
        self._broker = _broker()

    def __repr__(self) -> str:
        return f"<MCPClient {self._client_uid or 'without uid'} servers={sorted(self.active_sessions)}>"

    async def __aenter__(self) -> MCPClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release everything that this client holds; its calls end. Any task may call it, repeatedly."""
        if self.active_sessions:
            self._tell("INFO", f"closes, with {', '.join(sorted(self.active_sessions))} in use")
        self.active_sessions.clear()
        self._list_tools_cache.clear()
        broker, self._broker = self._broker, _broker()
        await broker.aclose()
        stack, self.exit_stack = self.exit_stack, AsyncExitStack()
        await stack.aclose()  # the backend may have entered contexts in it

    async def list_tools(self, server_name: str) -> list[Tool]:
        """Return the tools of a server, as objects with `name`, `description` and `inputSchema`.

        Each call asks the broker, which answers from its catalogue and keeps that up to date: the list is
        never older than the server's own. `_list_tools_cache` has the last list.
        """
        timeout_s = _timeout_s(server_name, self._entry(server_name))
        try:
            tools = await self._broker.list_tools(server_name, timeout=timeout_s)
        except BrokerError as error:
            raise self._failure(server_name, error) from error
        self._use(server_name)
        self._list_tools_cache[server_name] = tools
        return tools

    async def call_tool(
        self, server_name: str, tool_name: str, tool_args: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Call a tool; return ``{"metadata": {…}, "content_items": [{"type": …, …}, …]}``.

        `metadata` is the field of this name in the server's result. For a tool that fails, the only item is
        ``{"type": "error", "text": …}``; there is always at least one item. See `content_items`.
        """
        timeout_s = _timeout_s(server_name, self._entry(server_name))
        subject = f"tool {tool_name!r} of server {server_name!r}"
        arguments = _arguments(subject, tool_args)
        self._tell("INFO", f"calls {subject}")
        try:
            result = await self._broker.call_tool(server_name, tool_name, arguments, timeout=timeout_s)
        except BrokerError as error:
            raise self._failure(server_name, error) from error
        self._use(server_name)
        items = content_items(subject, result)
        if items[0]["type"] == "error":
            self._tell("ERROR", f"{subject}: {items[0]['text']}")
        metadata = result.get("metadata")
        return {"metadata": metadata if isinstance(metadata, dict) else {}, "content_items": items}

    # --- one server --------------------------------------------------------------------------------------

    def _entry(self, server: str) -> Any:
        entry = self.server_registery.get_server(server)
        if entry is None:
            known = ", ".join(map(str, getattr(self.server_registery, "servers", ()))) or "none"
            raise ValueError(
                f"there is no server {server!r} in the registry of this backend; it has {known}. See "
                "mcp_servers.json; a registry may leave out servers whose npx, uvx or node is not installed "
                "where the backend runs, though the broker needs it only on its own side"
            )
        return entry

    def _use(self, server: str) -> None:
        if server not in self.active_sessions:
            self._tell("INFO", f"uses server {server!r} of the broker")
            self.active_sessions[server] = ServerSession(self, server)

    async def _ping(self, server: str) -> None:
        timeout_s = _timeout_s(server, self._entry(server))
        try:
            servers = await self._broker.servers(timeout=timeout_s)
        except BrokerError as error:
            raise self._failure(server, error) from error
        about = next((one for one in servers if one.get("name") == server), None)
        if about is None or about.get("state") != "ready":
            state = "not configured" if about is None else about.get("state")
            raise RuntimeError(
                f"server {server!r} is {state} at the broker; `mcp-broker status` shows more about it"
            )

    def _failure(self, server: str, error: BrokerError) -> Exception:
        """Return the exception for the backend in place of this error."""
        self._tell("ERROR", str(error))
        if isinstance(error, UnknownServer):
            table = toml_table(server, self._entry(server))
            mend = "put this into its broker.toml, then run `mcp-broker reload`"
            return ValueError(f"{error.message}; {mend}:\n\n{table}")
        if isinstance(error, DeadlineExceeded):
            given_s = _timeout_s(server, self._entry(server))
            where = f"the registry of this backend gives it {given_s:g} s: raise its `timeout` there"
            return RuntimeError(f"{error.message}; {where}")
        if isinstance(error, Unavailable) and not _was_under_way(error):
            return RuntimeError(f"server {server!r} cannot be reached: {error}")
        if isinstance(error, (UnknownTool, InvalidRequest)):
            return ValueError(str(error))
        return (ConnectionError if _was_under_way(error) else RuntimeError)(str(error))

    def _tell(self, level: str, text: str) -> None:
        page = f" {self._client_uid}" if self._client_uid else ""
        log.tell(level, f"MCPClient{page}: {' '.join(text.split()):.500}")


class ServerSession:
    """A server that a client has used. All clients share it, so it cannot be closed here."""

    def __init__(self, client: MCPClient, server: str) -> None:
        self.server = server
        self._client = weakref.ref(client)  # a client must not need the garbage collector to be released

    def __repr__(self) -> str:
        return f"<Session of {self.server!r}>"

    async def ping(self) -> None:
        """Return if the server is ready; raise as calls do if it is not."""
        client = self._client()
        if client is None or client.active_sessions.get(self.server) is not self:
            raise RuntimeError(f"{self!r} was closed; the next call of its client makes another one")
        await client._ping(self.server)

    async def close(self) -> None:
        """Forget that the client has used the server. The broker keeps the server running."""
        client = self._client()
        if client is not None and client.active_sessions.get(self.server) is self:
            del client.active_sessions[self.server]
            client._list_tools_cache.pop(self.server, None)


# --- arguments -----------------------------------------------------------------------------------------


def _timeout_s(server: str, entry: Any) -> float:
    given: object = getattr(entry, "timeout", None)
    if not given:  # 0 too, as in the original
        return DEFAULT_TIMEOUT_S
    timeout_s = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(timeout_s, (int, float)) and timeout_s is not True and 0 < timeout_s < math.inf:
        return float(timeout_s)
    raise ValueError(
        f"server {server!r}: the timeout {given!r} in the registry is not valid; "
        f"give a timedelta, a positive number of seconds, or nothing for {DEFAULT_TIMEOUT_S:g} s"
    )


def _arguments(subject: str, given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    raise ValueError(f"{subject}: its arguments must be an object, and this is a {type(given).__name__}")


# --- errors --------------------------------------------------------------------------------------------


def _was_under_way(error: BrokerError) -> bool:
    """Return whether the broker or the server was lost while it had the call."""
    if isinstance(error, BrokerLost):
        return bool(error.data.get("begun"))
    if isinstance(error, ShuttingDown):
        return error.outcome_unknown
    return isinstance(error, (ClientClosed, ServerDied))


def _broker() -> BrokerClient:
    return BrokerClient(_program(), reconnect_s=RECONNECT_S)


def _program() -> str:
    """Return the name of this process in the broker's `status`: its script, or the module that runs."""
    folder, script = os.path.split(sys.argv[0] if sys.argv else "")
    return os.path.basename(folder) if script == "__main__.py" else script or "python"
