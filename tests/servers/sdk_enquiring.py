"""A small server that asks during its call, on either line of the SDK: its tool is that of `enquiring.py`.

python tests/servers/sdk_enquiring.py RECORD
"""

# The checker sees the 2.x line of the SDK only.
# mypy: disable-error-code="attr-defined,import-not-found,no-redef"

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

try:
    from mcp import MCPError
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:  # the 1.x line has the same under other names
    from mcp import McpError as MCPError
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.servers.faulty import record_start

server = MCPServer("enquiring", log_level="ERROR")


class Form(BaseModel):
    """Who answers, and to what."""

    token: str = ""
    by: str = ""


@server.tool()
async def enquire(ctx: Context, token: str, questions: int = 1) -> str:
    """Asks for the call with this token."""
    told: list[dict[str, object]] = []
    for _ in range(questions):
        try:
            answer = await ctx.elicit(token, Form)
        except MCPError as error:
            told.append({"error": {"message": str(error)}})
        else:
            content = answer.data.model_dump() if answer.action == "accept" else None
            told.append({"result": {"action": answer.action, "content": content}})
    return json.dumps({"token": token, "told": told})


if __name__ == "__main__":
    record_start(sys.argv[1])
    server.run()
