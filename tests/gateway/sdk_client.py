"""An MCP host on the Python SDK, of either line: `sdk_client.py MODE COMMAND [ARGUMENT …]`.

It starts the command as a server, uses what every test server has, and prints what it saw as a line of JSON.
The mode is `legacy`, or, on the 2.x line, `auto` or a version.
"""

# The checker sees the 2.x SDK.
# mypy: disable-error-code="attr-defined,import-not-found,union-attr"

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client

PATIENCE_S = 60


async def answer(context: Any, params: Any) -> Any:
    """What the user says to every question."""
    return types.ElicitResult(action="accept", content={"name": "Ann"})


async def seen(session: Any, is_line_1: bool) -> dict[str, Any]:
    """Use what every server has. Both lines give the same."""
    found: dict[str, Any] = {}
    tools = (await session.list_tools()).tools
    found["tools"] = sorted(tool.name for tool in tools)
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    if "add" in found["tools"]:
        result = await session.call_tool("add", {"a": 2, "b": 3})
        found["sum"] = result.content[0].text
        await session.call_tool("slow", {"steps": 3}, progress_callback=on_progress)
        found["progress"] = progress
        broken = await session.call_tool("broken", {})
        found["is_error"] = broken.isError if is_line_1 else broken.is_error
        found["note"] = (await session.read_resource("note://hello")).contents[0].text
        found["prompt"] = (await session.get_prompt("greet", {"name": "Bo"})).messages[0].content.text
        try:
            await session.call_tool("no-such-tool", {})
        except Exception as error:
            found["unknown"] = str(error)
    if "test_input_required_result_elicitation" in found["tools"]:
        result = await session.call_tool("test_input_required_result_elicitation", {})
        found["asked"] = result.content[0].text
    return found


async def main(mode: str, command: str, *arguments: str) -> None:
    server = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    try:
        from mcp.client import Client
    except ImportError:
        async with (
            stdio_client(server) as streams,
            ClientSession(*streams, elicitation_callback=answer) as session,
        ):
            agreed = await session.initialize()
            found = await seen(session, is_line_1=True)
            found["version"], found["server"] = agreed.protocolVersion, agreed.serverInfo.name
    else:
        async with Client(server, mode=mode, elicitation_callback=answer) as client:
            found = await seen(client, is_line_1=False)
            found["version"], found["server"] = client.protocol_version, client.server_info.name
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), PATIENCE_S))
