"""A server on the 2.x line of the SDK that asks, logs, and tells of changes."""

from __future__ import annotations

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
)

server = MCPServer("talkative")

WHICH = ElicitRequestFormParams(
    message="Which size?",
    requested_schema={"type": "object", "properties": {"size": {"type": "string"}}, "required": ["size"]},
)


@server.tool()
async def order(ctx: Context, what: str) -> str | InputRequiredResult:
    """Asks for the size first."""
    if not ctx.input_responses:
        return InputRequiredResult(
            input_requests={"size": ElicitRequest(params=WHICH)}, request_state=f"an order of {what}"
        )
    answer = ctx.input_responses["size"]
    assert isinstance(answer, ElicitResult)
    size = (answer.content or {}).get("size")
    return f"{ctx.request_state}: {size}"


@server.tool()
async def grow(ctx: Context, name: str) -> str:
    """Adds a tool."""
    server.add_tool(lambda: name, name=name, description="A new one.")
    await ctx.notify_tools_changed()
    return name


@server.tool()
async def touch(ctx: Context, uri: str) -> str:
    """Tells that a resource has changed."""
    await ctx.notify_resource_updated(uri)
    return uri


@server.tool()
async def say(ctx: Context, text: str) -> str:
    """Logs a text."""
    params = LoggingMessageNotificationParams(level="warning", data=text)
    await ctx.session.send_notification(
        LoggingMessageNotification(params=params), related_request_id=ctx.request_id
    )
    return text


@server.resource("note://today")
def today() -> str:
    """A note."""
    return "buy milk"


if __name__ == "__main__":
    server.run()
