"""A backend: whoever connects has a page, and each page a client that nobody closes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from .mcp_client import MCPClient

PORT = 12393


class Registry:
    """The servers of `mcp_servers.json`."""

    def __init__(self) -> None:
        self.servers = json.loads(Path("mcp_servers.json").read_text(encoding="utf-8"))["mcp_servers"]

    def get_server(self, name: str) -> object:
        """The entry of a server."""
        return self.servers.get(name)


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say what the servers offer and what the weather is, and stay open until the other end closes."""
    registry = Registry()
    client = MCPClient(registry, writer.write, "page")
    said: dict[str, object] = {}
    for server in registry.servers:
        try:
            said[server] = sorted(tool.name for tool in await client.list_tools(server))
        except (OSError, RuntimeError, ValueError) as error:
            said[server] = str(error)
    try:
        result = await client.call_tool("天气", "now", {})
        said["now"] = result["content_items"][0].get("text")
    except (OSError, RuntimeError, ValueError) as error:
        said["now"] = str(error)
    writer.write(json.dumps(said).encode() + b"\n")
    await reader.read()
    writer.close()


async def main() -> None:
    """Serve until the end."""
    async with await asyncio.start_server(page, "127.0.0.1", PORT) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
