"""Lists of tools for the holder of a token that may call some of them only."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw

from broker.gateway.conversation import jsonrpc

_tools = msgspec.json.Decoder(list[Raw])


def only_visible(message: bytes, may_call: Callable[[str], bool]) -> bytes:
    """Return the answer to a `tools/list` without the tools that may not be called; others stay as they are.

    What stays keeps its bytes.
    """
    envelope = jsonrpc.members_of(message) or {}
    result = jsonrpc.members_of(bytes(envelope.get("result", b"")))
    if result is None or "tools" not in result:
        return message
    try:
        tools = _tools.decode(result["tools"])
    except (msgspec.MsgspecError, RecursionError):
        return message
    kept = [tool for tool in tools if may_call(jsonrpc.name_of(bytes(tool)) or "")]
    listed = jsonrpc.join({**result, "tools": b"[%b]" % b",".join(map(bytes, kept))})
    return jsonrpc.join({**envelope, "result": listed})
