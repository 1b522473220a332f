"""A client on the 2.x line of the SDK: does what every client of these tests does, and prints it as JSON.

    sdk2.py URL TOKEN MODE

MODE is `legacy`, `auto` or a version.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ElicitResult


async def main(url: str, token: str, mode: str) -> dict[str, Any]:
    """Everything that is asked of a client."""
    steps: list[float] = []

    async def answer(context: Any, params: Any) -> Any:
        return ElicitResult(action="accept", content={"size": "large"})

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
    async with http:
        async with Client(streamable_http_client(f"{url}/plain", http_client=http), mode=mode) as client:
            tools = await client.list_tools()
            total = await client.call_tool("add", {"a": 2, "b": 3})
            await client.call_tool("slow", {"steps": 3, "delay_s": 0.05}, progress_callback=progress)
            failed = await client.call_tool("broken", {})
            note = await client.read_resource("note://hello")
            prompt = await client.get_prompt("greet", {"name": "Ann"})
            version = client.protocol_version
        asking = streamable_http_client(f"{url}/asking", http_client=http)
        async with Client(asking, mode=mode, elicitation_callback=answer) as client:
            order = await client.call_tool("order", {"what": "tea"})
    return {
        "version": version,
        "tools": sorted(tool.name for tool in tools.tools),
        "sum": _text(total.content),
        "progress": steps,
        "failed": failed.is_error,
        "note": note.contents[0].text,  # type: ignore[union-attr]
        "prompt": _text([prompt.messages[0].content]),
        "order": _text(order.content),
    }


def _text(content: Any) -> str:
    return str(content[0].text)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
