"""What a legacy session is made of: a door that keeps it can open the conversation again."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from broker.gateway.conversation.eras import DEFAULT_LOG_LEVEL


class ClientSession(Struct, frozen=True):
    """What a legacy client agreed on at `initialize`."""

    version: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any]


class Preferences(Struct, frozen=True):
    """What a legacy client has set since."""

    level: str = DEFAULT_LOG_LEVEL
    uris: frozenset[str] = frozenset()
    """The resources that it subscribed to."""


NO_PREFERENCES = Preferences()
