"""What the HTTP door knows of the broker's servers: their names, and the parameters that headers repeat."""

from __future__ import annotations

import asyncio
import logging

import msgspec
from msgspec import Struct

from broker.gateway.http.headers import Param, params_of
from client_shim import BrokerClient
from client_shim.errors import BrokerError

logger = logging.getLogger("mcp-broker")

ASK_S = 5.0
AGAIN_S = 1.0
"""How often the broker is asked for its servers, whatever names clients call."""


class _Tool(Struct):
    name: str
    schema: object = msgspec.field(default=None, name="inputSchema")


class _Tools(Struct):
    tools: list[_Tool] = []


class ServerNames:
    """Asks the broker, and remembers the answers until they change.

    Args:
        endpoint: where the broker listens; `None`: where the shim finds it.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._broker = BrokerClient("gateway", endpoint, timeout=ASK_S, on_list_changed=self._changed)
        self._names: frozenset[str] | None = None
        self._asked = float("-inf")
        self._asking = asyncio.Lock()
        self._params: dict[str, dict[str, tuple[Param, ...]]] = {}

    async def aclose(self) -> None:
        """Release its channel."""
        await self._broker.aclose()

    async def knows(self, server: str) -> bool:
        """Return whether there is such a server. While no broker answers, there may be."""
        if self._names is not None and server in self._names:
            return True
        async with self._asking:
            names = self._names
            if names is None or server not in names:
                names = await self._ask()
        return names is None or server in names

    async def names(self) -> list[str] | None:
        """Return the names of the servers; `None` while no broker answers."""
        async with self._asking:
            names = await self._ask()
        return None if names is None else sorted(names)

    async def _ask(self) -> frozenset[str] | None:
        now = asyncio.get_running_loop().time()
        if now - self._asked < AGAIN_S:
            return self._names
        self._asked = now
        try:
            servers = await self._broker.servers()
        except BrokerError as error:
            logger.info("gateway.no_broker", extra={"reason": str(error)})
            self._names = None
        else:
            self._names = frozenset(str(server["name"]) for server in servers)
        return self._names

    async def params(self, server: str, tool: str) -> tuple[Param, ...]:
        """Return the parameters of a tool that `Mcp-Param-…` headers repeat.

        While the list of tools cannot be read there are none: nor can the tool be called then.
        """
        known = self._params.get(server)
        if known is None:
            try:
                body = await self._broker.request_raw(server, "tools/list")
                tools = msgspec.json.decode(body, type=_Tools).tools
            except (BrokerError, msgspec.MsgspecError, RecursionError):
                return ()
            found = {tool.name: params_of(tool.schema) for tool in tools}
            known = self._params[server] = {name: params for name, params in found.items() if params}
        return known.get(tool, ())

    def _changed(self, server: str, kind: str) -> None:
        if kind == "tools":
            self._params.pop(server, None)
