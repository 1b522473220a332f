"""The content of a legacy session: with it the conversation can be opened again, after a restart too."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from broker.gateway.conversation.eras import DEFAULT_LOG_LEVEL, agreed_version


class ClientSession(Struct, frozen=True):
    """The results of `initialize` for a legacy client."""

    version: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any]


class _Initialize(Struct):
    version: Any = msgspec.field(default=None, name="protocolVersion")
    capabilities: dict[str, Any] = {}
    client_info: dict[str, Any] = msgspec.field(default_factory=dict, name="clientInfo")


def session_of(params: bytes | None) -> ClientSession:
    """Return the session that the params of `initialize` open.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        seen = msgspec.json.decode(params or b"{}", type=_Initialize)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"the params of `initialize` cannot be read: {error}") from None
    return ClientSession(agreed_version(seen.version), seen.capabilities, seen.client_info)


class Preferences(Struct, frozen=True):
    """The log level and the subscriptions that a legacy client has set since."""

    level: str = DEFAULT_LOG_LEVEL
    uris: frozenset[str] = frozenset()
    """The resources that it subscribed to."""


NO_PREFERENCES = Preferences()
