"""A server on the 1.x line of the SDK that asks during a call. `sdk2_talkative.py` asks in its result."""

# The checker sees the 2.x SDK, which has no FastMCP.
# mypy: disable-error-code="attr-defined,import-not-found,untyped-decorator,misc"

from __future__ import annotations

from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

server = FastMCP("asking")


class Wish(BaseModel):
    """What is asked."""

    size: str


@server.tool()
async def order(ctx: Context, what: str) -> str:
    """Asks for the size first."""
    answer = await ctx.elicit("Which size?", Wish)
    return f"an order of {what}: {answer.data.size}"


if __name__ == "__main__":
    server.run()
