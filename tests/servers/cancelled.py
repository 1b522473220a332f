"""A server on either line of the Python SDK whose calls are cancelled; its files tell how far each is."""

# The checker sees the 2.x SDK, which has no FastMCP.
# mypy: disable-error-code="attr-defined,import-not-found,no-redef,untyped-decorator,misc"

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import anyio

if version("mcp").startswith("1."):
    from mcp.server.fastmcp import FastMCP as MCPServer
else:
    from mcp.server.mcpserver import MCPServer

server = MCPServer("cancelled")


@server.tool()
async def waits(folder: str, seconds: float) -> str:
    """Waits for a file, as a handler does that awaits something."""
    return await _wait(Path(folder))


@server.tool()
async def ignores(folder: str, seconds: float) -> str:
    """Waits for a file, and ignores the cancellation."""
    with anyio.CancelScope(shield=True):
        return await _wait(Path(folder))
    return ""


@server.tool()
def blocks(folder: str, seconds: float) -> str:
    """Waits for a file, as a handler does that is no coroutine, for so long at most."""
    (Path(folder) / "begun").touch()
    until = time.monotonic() + seconds
    while not (Path(folder) / "go").exists() and time.monotonic() < until:
        time.sleep(0.01)
    (Path(folder) / "over").touch()
    return "done"


async def _wait(folder: Path) -> str:
    (folder / "begun").touch()
    try:
        while not (folder / "go").exists():
            await anyio.sleep(0.01)
    finally:
        (folder / "over").touch()
    return "done"


if __name__ == "__main__":
    server.run()
