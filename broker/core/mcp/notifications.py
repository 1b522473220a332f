"""The notifications of servers that the broker takes apart: of progress, and of a resource."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from broker.core.mcp.jsonrpc import Id
from broker.core.mcp.lines import same_id

_encode = msgspec.json.Encoder().encode


class Progress(Struct):
    """The params of a progress notification: whose it is, and the rest of it as it came."""

    token: Id | None
    rest: dict[str, Raw]


def read_progress(params: memoryview | None) -> Progress:
    """Take a progress notification apart; one that cannot be read is nobody's."""
    try:
        rest = msgspec.json.decode(params or b"{}", type=dict[str, Raw])
        token = rest.pop("progressToken", None)
        return Progress(same_id(token), rest)
    except msgspec.MsgspecError:
        return Progress(None, {})


class _Uri(Struct):
    uri: str


def read_uri(params: memoryview | None) -> str | None:
    """The resource that a notification is about, if it can be read."""
    try:
        return msgspec.json.decode(params or b"{}", type=_Uri).uri
    except msgspec.MsgspecError:
        return None


def progress_body(progress: Progress, token: Id) -> bytes:
    """The same for the client, under the token that the client knows."""
    return _encode({"progressToken": token, **progress.rest})
