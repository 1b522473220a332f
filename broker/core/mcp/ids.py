"""The ids of JSON-RPC as servers write them: a string or a float of the same value is the same id."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, UnsetType

from broker.core.mcp.jsonrpc import Id

_WHOLE = re.compile(r"\s*[+-]?\d{1,19}\s*")


def echo(raw: Raw | UnsetType) -> int | str | float | None:
    """Return an id as it came; `None` if it is neither a string nor a number."""
    try:
        id = msgspec.json.decode(memoryview(raw), type=int | str | float) if raw is not UNSET else None
    except msgspec.MsgspecError:
        return None
    return id


def same(id: int | str | float | None) -> Id | None:
    """Return the whole number that an id stands for, another string, or `None`."""
    if isinstance(id, str):
        return int(id) if _WHOLE.fullmatch(id) else id
    if isinstance(id, float):
        return int(id) if id.is_integer() and abs(id) < 2**63 else None
    return id


def same_id(raw: Raw | None) -> Id | None:
    """Return an id or token in a message by the same rule; `None` if it can be neither."""
    return None if raw is None else same(echo(raw))
