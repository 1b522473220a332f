"""One MCP client, of either era, in conversation with one server. Sans-io: messages in, effects out.

A *legacy* client opens a session by `initialize`; a *modern* one (2026-07-28) says its version and its
capabilities in the `_meta` of each request. Both may use one conversation: each request says what it is.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from broker.gateway.effects import Effect, Outcome, RequestId
from broker.gateway.jsonrpc import Incoming


class ClientSession(Struct, frozen=True):
    """What a legacy client agreed on at `initialize`. A door may keep it and open the conversation again."""

    version: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any]


class Conversation:
    """The conversation of one client with one server.

    Each method returns the effects for its shell to carry out, in order. For every request that `received`
    takes in there is exactly one `FinishRequest`, and before it one answer, unless the client cancelled it.

    Args:
        server: the name of the server in `broker.toml`.
        nonce: makes the ids of the requests to this client unlike those of any other conversation, so that a
            stray answer to another conversation's question finds none here. It must not be guessable.
        session: a legacy session that was opened earlier, such as before the gateway was restarted.
    """

    def __init__(self, server: str, nonce: str, session: ClientSession | None = None) -> None:
        self.server = server
        self.session = session
        """The legacy session; `None` until `initialize` came. Set before the answer to it is sent."""
        self._nonce = nonce

    def received(self, message: Incoming) -> list[Effect]:
        """Take a message of the client in, as `jsonrpc.read` read it.

        A request under the id of an open one is refused with an error whose id is null and which belongs to
        no request. A door with a stream for each request asks `is_open` before.
        """
        raise NotImplementedError

    def is_open(self, request: RequestId) -> bool:
        """Return whether a request of this id has not been finished."""
        raise NotImplementedError

    def cancelled(self, request: RequestId) -> list[Effect]:
        """The client no longer wants the answer to a request: its stream was cut. Unknown ids do nothing."""
        raise NotImplementedError

    def stream_opened(self) -> list[Effect]:
        """There is a stream for messages that belong to no request: the pipe, or the first GET stream.

        Until then the server's notifications are not listened to for a legacy client.
        """
        raise NotImplementedError

    def stream_closed(self) -> list[Effect]:
        """The last stream for messages of no request is gone."""
        raise NotImplementedError

    def replied(self, call: int, outcome: Outcome) -> list[Effect]:
        """A call, or a `ListenTo`, has ended."""
        raise NotImplementedError

    def progressed(self, call: int, params: bytes) -> list[Effect]:
        """The server told of progress of a call; `params` are those of `notifications/progress`."""
        raise NotImplementedError

    def logged(self, call: int, params: bytes) -> list[Effect]:
        """The server logged something during a call; `params` are those of `notifications/message`."""
        raise NotImplementedError

    def notified(self, method: str, params: bytes) -> list[Effect]:
        """The server said something that belongs to no call."""
        raise NotImplementedError

    def ended(self, reason: str) -> list[Effect]:
        """The gateway ends: open requests are answered, subscriptions closed, calls cancelled."""
        raise NotImplementedError

    def closed(self) -> list[Effect]:
        """The client is gone: cancel its calls. The conversation holds nothing afterwards."""
        raise NotImplementedError
