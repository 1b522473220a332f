"""Opening a page as a backend does: a client, every server's tools, a harmless call to each, and away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from broker.base.text import clip
from broker.command.doctor.evidence import Fault, Server, Visit
from client_shim import BrokerClient
from client_shim.errors import CallError, ServerDied, ServerError

CALL_TIMEOUT_S = 30.0
_TOLD_CHARS = 2000


class Wish(NamedTuple):
    """The tool to call at a server, and who chose it."""

    tool: str
    arguments: dict[str, Any]
    chosen: Literal["config", "doctor"]


class Opened(NamedTuple):
    """What came of one page."""

    open_s: float
    took_s: float
    visits: tuple[Visit, ...]


def harmless(tools: Sequence[Mapping[str, Any]]) -> Wish | None:
    """A tool that can be called without arguments and says that it only reads; `None` where there is none.

    Names prove nothing, and MCP takes a tool that says nothing to be destructive (2025-06-18, schema,
    `ToolAnnotations`).
    """
    free = (tool for tool in tools if isinstance(tool.get("name"), str) and not _needs_arguments(tool))
    return next((Wish(tool["name"], {}, "doctor") for tool in free if _only_reads(tool)), None)


def _needs_arguments(tool: Mapping[str, Any]) -> bool:
    """Whether it cannot be called without any, or its schema is not one that says so."""
    schema = tool.get("inputSchema")
    return schema is not None and (not isinstance(schema, dict) or bool(schema.get("required")))


def _only_reads(tool: Mapping[str, Any]) -> bool:
    notes = tool.get("annotations")
    return (
        isinstance(notes, dict)
        and notes.get("readOnlyHint") is True
        and notes.get("destructiveHint") is not True
    )


async def open_page(name: str, endpoint: str, *, close: bool) -> Opened:
    """Open a page, use it and leave it.

    Args:
        name: what the broker's `status` calls its client.
        close: whether the client is closed at the end, or dropped as backends do that lose it.

    Raises:
        Unavailable: there is no broker.
    """
    began = monotonic()
    client = BrokerClient(name, endpoint, timeout=CALL_TIMEOUT_S)
    servers = [server for server in await client.servers() if server["state"] == "ready"]
    lists = [await _list(client, server["name"]) for server in servers]
    opened = monotonic()
    visits = [
        await _use(client, listed, wish_for(server, listed.tools))
        for server, listed in zip(servers, lists, strict=True)
    ]
    answered = monotonic()
    if close:
        await client.aclose()
    return Opened(opened - began, answered - began, tuple(visits))


class _Listed(NamedTuple):
    server: str
    tools: list[dict[str, Any]]
    took_s: float
    fault: Fault | None


async def _list(client: BrokerClient, server: str) -> _Listed:
    began = monotonic()
    tools, fault = [], None
    try:
        tools = [tool.raw for tool in await client.list_tools(server)]
    except CallError as error:
        fault = Fault("list", _told(error), isinstance(error, ServerDied))
    return _Listed(server, tools, monotonic() - began, fault)


def wish_for(server: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Wish | None:
    """The tool that the config names for this, else a harmless one.

    Args:
        server: as the management call `servers` has it.
    """
    configured = server.get("doctor")
    if configured:
        return Wish(configured["tool"], configured["arguments"], "config")
    return harmless(tools)


async def _use(client: BrokerClient, listed: _Listed, wish: Wish | None) -> Visit:
    began = monotonic()
    fault = listed.fault
    if fault is None and wish is not None:
        fault = await _call(client, listed.server, wish)
    return Visit(
        server=listed.server,
        tools=len(listed.tools),
        tool=wish.tool if wish else None,
        chosen=wish.chosen if wish else "none",
        list_s=round(listed.took_s, 4),
        call_s=round(monotonic() - began, 4),
        fault=fault,
    )


async def _call(client: BrokerClient, server: str, wish: Wish) -> Fault | None:
    try:
        result = await client.call_tool(server, wish.tool, wish.arguments)
    except ServerError as error:
        return Fault("tool", _told(error))
    except CallError as error:
        return Fault("call", _told(error), isinstance(error, ServerDied))
    if not result.isError:
        return None
    return Fault("tool", " ".join(_texts(result.get("content")))[:200] or "it says no more")


def _told(error: CallError) -> str:
    """What an error says, short enough for a report: a server may write megabytes."""
    return clip(str(error), _TOLD_CHARS)


def _texts(content: object) -> list[str]:
    """The texts of a result, whatever else the server put there."""
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    return [item["text"] for item in items if isinstance(item.get("text"), str)]


def server_of(row: Mapping[str, Any]) -> Server:
    """A server from its row of the broker's `status`."""
    return Server(**{field: row[field] for field in Server.__struct_fields__})
