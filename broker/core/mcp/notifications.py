"""Reads the notifications of servers that the broker decodes: progress, a changed resource, a cancel."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from broker.core.mcp.ids import same_id
from broker.core.mcp.jsonrpc import Id

_encode = msgspec.json.Encoder().encode


class Progress(Struct):
    """The params of a progress notification: the token, and the other members as they came."""

    token: Id | None
    rest: dict[str, Raw]


def read_progress(params: memoryview | None) -> Progress:
    """Read a progress notification; an unreadable one has no token."""
    try:
        rest = msgspec.json.decode(params or b"{}", type=dict[str, Raw])
        token = rest.pop("progressToken", None)
        return Progress(same_id(token), rest)
    except msgspec.MsgspecError:
        return Progress(None, {})


class _UpdatedParams(Struct):
    uri: str


def read_uri(params: memoryview | None) -> str | None:
    """Return the resource that a notification names, if it is readable."""
    try:
        return msgspec.json.decode(params or b"{}", type=_UpdatedParams).uri
    except msgspec.MsgspecError:
        return None


class _CancelledParams(Struct, rename="camel"):
    request_id: int | str | float


def read_request_id(params: memoryview | None) -> int | str | float | None:
    """Return the id of the request that a server cancels, if it is readable."""
    try:
        return msgspec.json.decode(params or b"{}", type=_CancelledParams).request_id
    except msgspec.MsgspecError:
        return None


def progress_body(progress: Progress, token: Id) -> bytes:
    """Return the same params with the client's token."""
    return _encode({"progressToken": token, **progress.rest})
