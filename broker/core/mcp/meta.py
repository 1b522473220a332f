"""The `_meta` of a request: the client's members, and those that only the broker may set.

A server of 2026-07-28 gets the client's identity and the protocol version with every request.
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
    """Return the `_meta` of a request of the broker's own to a server of 2026-07-28."""
    return {PROTOCOL_VERSION: MODERN_VERSION, CLIENT_INFO: client_info, CAPABILITIES: {}}


def client_meta(
    given: dict[str, Any] | None, token: int | None, era: Era | None, client_info: dict[str, str]
) -> dict[str, Any] | None:
    """Return the `_meta` of a client's request: its own, with the broker's members in place.

    Args:
        given: the `_meta` of the client; it is not changed.
        token: the broker's progress token of this call, if the client wants progress.
        era: the era of the server.
        client_info: the broker's name and version, for clients without an identity.
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
