"""The example backend of compose.yaml: asks the broker beside it for the time, and ends."""

from __future__ import annotations

import asyncio

from client_shim import BrokerClient


async def main() -> None:
    """List the tools of one server and call one."""
    async with BrokerClient(
        "compose backend", timeout=300
    ) as broker:  # the server's first start downloads it
        print("tools:", ", ".join(tool.name for tool in await broker.list_tools("time")))
        result = await broker.call_tool("time", "get_current_time", {"timezone": "Asia/Tokyo"})
        print(result.content[0].text)


asyncio.run(main())
