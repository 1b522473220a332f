"""Opens a page as a backend does: connects, lists every server's tools, makes a harmless call to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from broker.base.text import clip
from broker.command.doctor.evidence import ServerSample, Visit, VisitError
from client_shim import BrokerClient
from client_shim.errors import CallError, ServerDied, ServerError

CALL_TIMEOUT_S = 30.0
_TOLD_CHARS = 2000


class Wish(NamedTuple):
    """The tool to call at a server, and the source of this choice."""

    tool: str
    arguments: dict[str, Any]
    chosen: Literal["config", "doctor"]


class PageLoad(NamedTuple):
    """The result of one page."""

    open_s: float
    took_s: float
    visits: tuple[Visit, ...]


def harmless(tools: Sequence[Mapping[str, Any]]) -> Wish | None:
    """Return a tool that needs no arguments and is annotated as read-only; `None` without one.

    A tool's name proves nothing, and MCP treats a tool without annotations as destructive (2025-06-18,
    schema, `ToolAnnotations`).
    """
    free = (tool for tool in tools if isinstance(tool.get("name"), str) and not _needs_arguments(tool))
    return next((Wish(tool["name"], {}, "doctor") for tool in free if _only_reads(tool)), None)


def _needs_arguments(tool: Mapping[str, Any]) -> bool:
    """Return whether a tool requires arguments. A malformed schema counts as requiring some."""
    schema = tool.get("inputSchema")
    return schema is not None and (not isinstance(schema, dict) or bool(schema.get("required")))


def _only_reads(tool: Mapping[str, Any]) -> bool:
    notes = tool.get("annotations")
    return (
        isinstance(notes, dict)
        and notes.get("readOnlyHint") is True
        and notes.get("destructiveHint") is not True
    )


async def open_page(name: str, endpoint: str, *, close: bool) -> PageLoad:
    """Open a page, use it and leave it.

    Args:
        name: the name of its client in the broker's `status`.
        close: whether the client is closed at the end; otherwise it is dropped, as by a backend that leaks.

    Raises:
        Unavailable: no broker answers.
    """
    began = monotonic()
    client = BrokerClient(name, endpoint, timeout=CALL_TIMEOUT_S)
    servers = [server for server in await client.servers() if server["state"] in ("ready", "idle")]
    lists = [await _list(client, server["name"]) for server in servers]
    opened = monotonic()
    visits = [
        await _use(client, listed, wish_for(server, listed.tools))
        for server, listed in zip(servers, lists, strict=True)
    ]
    answered = monotonic()
    if close:
        await client.aclose()
    return PageLoad(opened - began, answered - began, tuple(visits))


class _Listed(NamedTuple):
    server: str
    tools: list[dict[str, Any]]
    took_s: float
    fault: VisitError | None


async def _list(client: BrokerClient, server: str) -> _Listed:
    began = monotonic()
    tools, fault = [], None
    try:
        tools = [tool.raw for tool in await client.list_tools(server)]
    except CallError as error:
        fault = VisitError("list", _told(error), isinstance(error, ServerDied))
    return _Listed(server, tools, monotonic() - began, fault)


def wish_for(server: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Wish | None:
    """Return the tool that the config names for the doctor, else a harmless one.

    Args:
        server: an item of the management request `servers`.
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


async def _call(client: BrokerClient, server: str, wish: Wish) -> VisitError | None:
    try:
        result = await client.call_tool(server, wish.tool, wish.arguments)
    except ServerError as error:
        return VisitError("tool", _told(error))
    except CallError as error:
        return VisitError("call", _told(error), isinstance(error, ServerDied))
    if not result.isError:
        return None
    return VisitError("tool", " ".join(_texts(result.get("content")))[:200] or "it says no more")


def _told(error: CallError) -> str:
    """Return an error's text, clipped for the report: a server may write megabytes."""
    return clip(str(error), _TOLD_CHARS)


def _texts(content: object) -> list[str]:
    """Return the texts of a result; malformed content is skipped."""
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    return [item["text"] for item in items if isinstance(item.get("text"), str)]


def server_of(row: Mapping[str, Any]) -> ServerSample:
    """Return a server's sample from its row of the broker's `status`."""
    return ServerSample(**{field: row[field] for field in ServerSample.__struct_fields__})
