"""The channels of clients of 2026-07-28, whose requests are conversations of their own.

The broker is fair by channel. So all requests that one client has under way share one: a client that makes
many at once waits for itself, and not the others for it. A channel stays for a while after its last request:
it may have the lease of a server, and the client has no session that would tell when it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from broker.gateway.conversation import eras
from broker.gateway.conversation.jsonrpc import ClientRequest
from client_shim import BrokerClient

Key = tuple[str, str]
"""The name of a token, and what a client says that it is called."""

KEPT_S = 600.0
"""How long a channel stays that no request uses; `lease_sec` of a server usually ends its lease before."""

MOST_KEPT = 256
"""Above so many channels, one that no request uses is released at once."""

_MAX_NAME = 100


def client_name(token: str) -> str:
    """Return what the broker's `status` calls the clients with this token. They share a connection of this
    name: the broker limits calls, subscriptions and refused requests by connection, and so by token."""
    return f"gateway: {token}"


def key_of(token: str, request: ClientRequest) -> Key:
    """Return which client a request is of, as far as that can be known."""
    info = request.meta.get(eras.CLIENT_INFO)
    name = info.get("name") if isinstance(info, dict) else None
    return token, name[:_MAX_NAME] if isinstance(name, str) else ""


class _Shared:
    """A channel. As a context manager, it gives the channel for the length of a request."""

    def __init__(self, broker: BrokerClient, unused: Callable[[], None]) -> None:
        self.broker = broker
        self.alarm: asyncio.TimerHandle | None = None
        """Releases the channel; it is set while no request uses it."""
        self._users = 0
        self._unused = unused

    def __enter__(self) -> BrokerClient:
        self._users += 1
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None
        return self.broker

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._unused()


class Channels:
    """The channels that are in use, or were in use lately.

    Args:
        endpoint: where the broker listens; `None`: where the shim finds it.
        reconnect_s: how long a request waits for a broker that is gone.
    """

    def __init__(self, endpoint: str | None, reconnect_s: float) -> None:
        self._endpoint = endpoint
        self._reconnect_s = reconnect_s
        self._channels: dict[Key, _Shared] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._channels)

    def channel(self, key: Key) -> AbstractContextManager[BrokerClient]:
        """Return what gives the channel of a client for the length of a request."""
        shared = self._channels.get(key)
        if shared is None:
            name = client_name(key[0])
            broker = BrokerClient(name, self._endpoint, reconnect_s=self._reconnect_s, connection=name)
            shared = self._channels[key] = _Shared(broker, partial(self._unused, key))
        return shared

    def _unused(self, key: Key) -> None:
        """Keep a channel for the next request of its client, unless there are many."""
        if len(self._channels) > MOST_KEPT:
            self._release(key)
        else:
            self._channels[key].alarm = asyncio.get_running_loop().call_later(KEPT_S, self._release, key)

    def _release(self, key: Key) -> None:
        task = asyncio.get_running_loop().create_task(self._channels.pop(key).broker.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Release the channels that no request uses."""
        for key, shared in list(self._channels.items()):
            if shared.alarm is not None:
                shared.alarm.cancel()
                self._release(key)
        await asyncio.gather(*self._closing)
