"""washing-machine: starts a washer, and first asks the person in front of it which programme to run.

It asks in the middle of the call (elicitation of MCP 2025-11-25), and at no other time. broker.toml declares
that with `asks_within_calls`. The washers and their programmes are those of laundry.json beside this file.
No washer is connected: the result only says what was started. It runs on both lines of the SDK, 1.x and 2.x.
"""

# The checker sees the 2.x line of the SDK only.
# mypy: disable-error-code="attr-defined,import-not-found,no-redef"

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

try:
    from mcp import MCPError
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError:  # the 1.x line has the same under other names
    from mcp import McpError as MCPError
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.server.fastmcp.exceptions import ToolError

LAUNDRY = json.loads(Path(__file__).with_name("laundry.json").read_text(encoding="utf-8"))
WASHERS = {key: machine for key, machine in LAUNDRY["machines"].items() if machine["kind"] == "washer"}
PROGRAMMES = {key: cycle for key, cycle in LAUNDRY["cycles"].items() if cycle["kind"] == "washer"}

MachineId = Annotated[str, Field(description=f"The washer: {', '.join(WASHERS)}.")]

server = MCPServer("washing-machine", instructions="Starts a washer of this laundromat.", log_level="WARNING")


class Choice(BaseModel):
    """What to wash with."""

    programme: str = Field(
        "standard", title="Programme", description="程序 / コース", json_schema_extra={"enum": [*PROGRAMMES]}
    )


def question(machine_id: str) -> str:
    """The question as the person reads it, with the names and prices that this washer has."""
    size = WASHERS[machine_id]["size"]
    lines = (
        f"{key}: {cycle['name']['zh']} / {cycle['name']['ja']}, "
        f"{cycle['minutes']} min, {cycle['price_yen'][size]} yen"
        for key, cycle in PROGRAMMES.items()
    )
    return "\n".join([f"Which programme shall {machine_id} run?", *lines])


@server.tool()
async def start_wash(ctx: Context, machine_id: MachineId) -> str:
    """Start a washer. The person in front of it is asked which programme to run, and may decline."""
    if machine_id not in WASHERS:
        raise ToolError(f"No washer {machine_id!r}. There are {', '.join(WASHERS)}.")
    try:
        answer = await ctx.elicit(question(machine_id), Choice)
    except MCPError as error:
        raise ToolError(f"{machine_id} was not started, because nobody could be asked: {error}") from error
    if answer.action == "decline":
        return f"{machine_id} was not started: the person declined."
    if answer.action == "cancel":
        return f"{machine_id} was not started: the person closed the question without an answer."
    cycle = PROGRAMMES.get(answer.data.programme)
    if cycle is None:  # the answer is a client's, and the schema binds nobody
        raise ToolError(f"{machine_id} was not started: there is no programme {answer.data.programme!r}.")
    price = cycle["price_yen"][WASHERS[machine_id]["size"]]
    return f"{machine_id} was started: {answer.data.programme}, {cycle['minutes']} minutes, {price} yen."


if __name__ == "__main__":
    server.run()
