"""The backend's own client, with its leak: each one starts every server that it is asked for."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

STARTED: list[asyncio.subprocess.Process] = []
"""Held as the SDK's tasks hold them: a page that forgets its client ends none of them."""


class Tool:
    """What a server offers."""

    def __init__(self, name: str) -> None:
        self.name = name


class MCPClient:
    """One for each page, with processes of its own."""

    def __init__(self, registry: Any, send_text: object = None, client_uid: str = "") -> None:
        self._registry = registry
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def list_tools(self, server: str) -> list[Tool]:
        """The tools of a server, which is started for it."""
        result = await self._request(server, "tools/list", {})
        return [Tool(tool["name"]) for tool in result["tools"]]

    async def call_tool(self, server: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer of a tool."""
        result = await self._request(server, "tools/call", {"name": tool, "arguments": arguments})
        return {"content_items": result["content"]}

    async def _request(self, server: str, method: str, params: dict[str, Any]) -> Any:
        if server not in self._running:
            entry = self._registry.servers[server]
            self._running[server] = await asyncio.create_subprocess_exec(
                entry["command"],
                *entry["args"],
                env={**os.environ, **entry.get("env", {})},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            STARTED.append(self._running[server])
        process = self._running[server]
        assert process.stdin is not None
        assert process.stdout is not None
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        process.stdin.write(json.dumps(message).encode() + b"\n")
        return json.loads(await process.stdout.readline())["result"]
