"""The channels of clients of 2026-07-28, whose requests are conversations of their own.

The broker is fair by channel. So all requests that one client has under way share one: a client that makes
many at once waits for itself, and not the others for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.gateway import eras
from broker.gateway.jsonrpc import ClientRequest
from client_shim import BrokerClient

Key = tuple[str, str]
"""The name of a token, and what a client says that it is called."""

_MAX_NAME = 100


def key_of(token: str, request: ClientRequest) -> Key:
    """Return which client a request is of, as far as that can be known."""
    info = request.meta.get(eras.CLIENT_INFO)
    name = info.get("name") if isinstance(info, dict) else None
    return token, name[:_MAX_NAME] if isinstance(name, str) else ""


class Channels:
    """The channels that are in use.

    Args:
        endpoint: where the broker listens; `None`: where the shim finds it.
        reconnect_s: how long a request waits for a broker that is gone.
    """

    def __init__(self, endpoint: str | None, reconnect_s: float) -> None:
        self._endpoint = endpoint
        self._reconnect_s = reconnect_s
        self._channels: dict[Key, tuple[BrokerClient, list[None]]] = {}

    @asynccontextmanager
    async def channel(self, key: Key) -> AsyncIterator[BrokerClient]:
        """Give the channel of a client for the length of a request; the last one releases it."""
        if key not in self._channels:
            broker = BrokerClient(f"gateway: {key[0]}", self._endpoint, reconnect_s=self._reconnect_s)
            self._channels[key] = broker, []
        broker, users = self._channels[key]
        users.append(None)
        try:
            yield broker
        finally:
            users.pop()
            if not users:
                del self._channels[key]
                await broker.aclose()
