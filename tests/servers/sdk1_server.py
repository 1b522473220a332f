"""A small server on the 1.x line of the SDK (FastMCP). `sdk2_server.py` is the same one on 2.x."""

# The checker sees the 2.x SDK, which has no FastMCP.
# mypy: disable-error-code="attr-defined,import-not-found,untyped-decorator,misc"

from __future__ import annotations

import anyio
from mcp.server.fastmcp import Context, FastMCP, Image
from mcp.server.fastmcp.exceptions import ToolError

PIXEL = b"\x89PNG\r\n\x1a\n"

server = FastMCP("sdk1")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Returns the text, and one that is not ASCII."""
    return f"{text} 漢字 ü 🙂"


@server.tool()
async def slow(ctx: Context, steps: int = 3, delay_s: float = 0.0) -> str:
    """Reports its progress at every step."""
    for step in range(1, steps + 1):
        await anyio.sleep(delay_s)
        await ctx.report_progress(step, steps, f"step {step}")
    return f"{steps} steps"


@server.tool()
def picture() -> Image:
    """Returns an image."""
    return Image(data=PIXEL, format="png")


@server.tool()
def broken() -> str:
    """Always fails."""
    raise ToolError("it is broken")


@server.resource("note://hello")
def hello() -> str:
    """A note."""
    return "hello"


@server.prompt()
def greet(name: str) -> str:
    """Greets somebody."""
    return f"Hello, {name}!"


if __name__ == "__main__":
    server.run()
