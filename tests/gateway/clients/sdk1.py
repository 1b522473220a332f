"""A client on the 1.x line of the SDK: does what every client of these tests does, and prints it as JSON.

    sdk1.py URL TOKEN

It is run by the Python of `.venv-mcp1`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client  # type: ignore[attr-defined]


async def main(url: str, token: str) -> dict[str, Any]:
    """Everything that is asked of a client."""
    headers = {"Authorization": f"Bearer {token}"}
    steps: list[float] = []

    async def answer(context: Any, params: Any) -> Any:
        return types.ElicitResult(action="accept", content={"size": "large"})

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with (
        streamablehttp_client(f"{url}/plain", headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        opened = await session.initialize()
        tools = await session.list_tools()
        total = await session.call_tool("add", {"a": 2, "b": 3})
        await session.call_tool("slow", {"steps": 3, "delay_s": 0.05}, progress_callback=progress)
        failed = await session.call_tool("broken", {})
        note = await session.read_resource("note://hello")
        prompt = await session.get_prompt("greet", {"name": "Ann"})
    async with (
        streamablehttp_client(f"{url}/asking", headers) as (read, write, _),
        ClientSession(read, write, elicitation_callback=answer) as session,
    ):
        await session.initialize()
        order = await session.call_tool("order", {"what": "tea"})
    return {
        "version": opened.protocolVersion,  # type: ignore[attr-defined]
        "tools": sorted(tool.name for tool in tools.tools),
        "sum": _text(total.content),
        "progress": steps,
        "failed": failed.isError,  # type: ignore[attr-defined]
        "note": note.contents[0].text,  # type: ignore[union-attr]
        "prompt": _text([prompt.messages[0].content]),
        "order": _text(order.content),
    }


def _text(content: Any) -> str:
    return str(content[0].text)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
