"""The same two tools on the MCP SDK."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("sdk", log_level="ERROR")


@server.tool(structured_output=False)
def echo(text: str) -> str:
    """Return the text."""
    return text


@server.tool(structured_output=False)
def blob(size: int) -> str:
    """Return a text of this size."""
    return "x" * size


if __name__ == "__main__":
    server.run()
