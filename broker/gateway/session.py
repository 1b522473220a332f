"""Runs a conversation on one channel of the broker: the asyncio shell around `conversation`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from broker.gateway.conversation import ClientSession, Conversation
from broker.gateway.effects import (
    BrokerFault,
    CancelCall,
    Effect,
    FinishRequest,
    ListenTo,
    MakeCall,
    Outcome,
    RequestId,
    SendMessage,
    ServerRefusal,
    ServerResult,
)
from broker.gateway.jsonrpc import Incoming
from client_shim import BrokerClient
from client_shim.errors import BrokerError, ServerError

logger = logging.getLogger("mcp-broker")

RECONNECT_S = 20.0
"""How long a request waits for a broker that is gone: hosts give up on `initialize` after 30 s."""

Deliver = Callable[[SendMessage | FinishRequest], None]


class Session:
    """One client's conversation, and the calls that are under way for it.

    Everything happens in the event loop, and nothing here waits for the client: `deliver` takes a message at
    once, and a door whose client does not read ends the session.

    Args:
        server: the name of the server in `broker.toml`.
        deliver: takes each message to the client, and the end of each of its requests.
        name: what the broker's `status` calls the client.
        endpoint: where the broker listens; `None`: where the shim finds it.
        opened: a legacy session that was opened earlier.
        reconnect_s: how long a request waits for a broker that is gone.
    """

    def __init__(
        self,
        server: str,
        deliver: Deliver,
        *,
        name: str = "gateway",
        endpoint: str | None = None,
        opened: ClientSession | None = None,
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        self.conversation = Conversation(server, secrets.token_hex(8), opened)
        self._deliver = deliver
        self._broker = BrokerClient(
            name, endpoint, reconnect_s=reconnect_s, on_raw_notification=self._notified
        )
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._ready: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no request of the client is under way."""
        return not self._calls

    def received(self, message: Incoming) -> None:
        """Take a message of the client in."""
        self._run(self.conversation.received(message))

    def cancelled(self, request: RequestId) -> None:
        """The client no longer wants the answer to a request."""
        self._run(self.conversation.cancelled(request))

    def stream_opened(self) -> None:
        """There is a stream for messages that belong to no request."""
        self._run(self.conversation.stream_opened())

    def stream_closed(self) -> None:
        """The last such stream is gone."""
        self._run(self.conversation.stream_closed())

    def ended(self, reason: str) -> None:
        """Answer what is open, for the gateway ends. `aclose` comes after it."""
        self._run(self.conversation.ended(reason))

    async def aclose(self) -> None:
        """The client is gone: cancel its calls, and release the channel."""
        self._run(self.conversation.closed())
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._broker.aclose()

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage() | FinishRequest():
                    self._deliver(effect)
                case MakeCall():
                    self._start(effect.call, self._request(effect))
                case ListenTo():
                    self._start(effect.call, self._listen(effect))
                case CancelCall(call=call):
                    if (task := self._calls.get(call)) is not None:
                        task.cancel()
