"""The `_meta` of a request: what its client may say there, and what only the broker says.

A server of 2026-07-28 is told with every request who asks and by which revision, an older one at the start.
"""

from __future__ import annotations

from typing import Any

from broker.core.mcp.methods import MODERN_VERSION, Era, in_effect

_META = "io.modelcontextprotocol/"
PROTOCOL_VERSION = _META + "protocolVersion"
CLIENT_INFO = _META + "clientInfo"
CAPABILITIES = _META + "clientCapabilities"
LOG_LEVEL = _META + "logLevel"
SUBSCRIPTION_ID = _META + "subscriptionId"

_RESERVED = frozenset({"progressToken", PROTOCOL_VERSION, SUBSCRIPTION_ID})
_MODERN_ONLY = frozenset({CLIENT_INFO, CAPABILITIES, LOG_LEVEL})


def own_meta(client_info: dict[str, str]) -> dict[str, Any]:
    """That of a request of the broker's own to a server of 2026-07-28."""
    return {PROTOCOL_VERSION: MODERN_VERSION, CLIENT_INFO: client_info, CAPABILITIES: {}}


def client_meta(
    given: dict[str, Any] | None, token: int | None, era: Era | None, client_info: dict[str, str]
) -> dict[str, Any] | None:
    """That of a request of a client: its own, less what only the broker may say.

    Args:
        given: what the client says; it stays as it is.
        token: the broker's for the progress of this call, if there is to be any.
        era: the server's.
        client_info: what the broker calls itself, for clients that do not say who they are.
    """
    modern = era is Era.MODERN
    if not (given or modern) and token is None:
        return None
    dropped = _RESERVED if modern else _RESERVED | _MODERN_ONLY
    meta = {key: value for key, value in given.items() if key not in dropped} if given else {}
    if modern:
        if CAPABILITIES in meta:
            meta[CAPABILITIES] = in_effect(meta[CAPABILITIES])
        meta[PROTOCOL_VERSION] = MODERN_VERSION
        meta.setdefault(CLIENT_INFO, client_info)
        meta.setdefault(CAPABILITIES, {})
    if token is not None:
        meta["progressToken"] = token
    return meta or None
