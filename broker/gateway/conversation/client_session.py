"""The content of a legacy session: with it the conversation can be opened again, after a restart too."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from broker.gateway.conversation.eras import DEFAULT_LOG_LEVEL


class ClientSession(Struct, frozen=True):
    """The results of `initialize` for a legacy client."""

    version: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any]


class Preferences(Struct, frozen=True):
    """The log level and the subscriptions that a legacy client has set since."""

    level: str = DEFAULT_LOG_LEVEL
    uris: frozenset[str] = frozenset()
    """The resources that it subscribed to."""


NO_PREFERENCES = Preferences()
