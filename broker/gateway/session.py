"""Runs a conversation on one channel of the broker: the asyncio shell around `conversation`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from broker.gateway.client_session import NO_PREFERENCES, ClientSession, Preferences
from broker.gateway.conversation import Conversation
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

Run = Callable[[], Coroutine[Any, Any, Outcome]]
OnCall = Callable[[Conversation, MakeCall, "Outcome | None", float], None]
"""Takes a call that ended: its outcome (`None` if it was cancelled), and the seconds that it took."""

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
        preferences: what its client has set.
        reconnect_s: how long a request waits for a broker that is gone.
        on_call: takes each call that ended, for the audit log.
        channel: one that the session shares and must not listen on, in place of one of its own.
    """

    def __init__(
        self,
        server: str,
        deliver: Deliver,
        *,
        name: str = "gateway",
        endpoint: str | None = None,
        opened: ClientSession | None = None,
        preferences: Preferences = NO_PREFERENCES,
        reconnect_s: float = RECONNECT_S,
        on_call: OnCall | None = None,
        channel: BrokerClient | None = None,
    ) -> None:
        self.conversation = Conversation(server, secrets.token_hex(8), opened, preferences)
        self._deliver = deliver
        self._on_call = on_call
        self._shares = channel is not None
        self._broker = channel or BrokerClient(
            name, endpoint, reconnect_s=reconnect_s, on_raw_notification=self._notified
        )
        self._reconnect_s = reconnect_s
        self._calls: dict[int, asyncio.Task[object]] = {}
        self._listening = asyncio.Lock()
        """Held while `listen` is under way: the last one that was asked for must come last."""

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

    def ended(self, reason: str, *, keeps_subscriptions: bool = False) -> None:
        """Answer what is open, for the gateway ends. `aclose` comes after it."""
        self._run(self.conversation.ended(reason, keeps_subscriptions=keeps_subscriptions))

    async def aclose(self) -> None:
        """The client is gone: cancel its calls, and release the channel."""
        self._run(self.conversation.closed())
        if tasks := list(self._calls.values()):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._shares:
            await self._broker.aclose()

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage() | FinishRequest():
                    self._deliver(effect)
                case MakeCall():
                    self._start(effect.call, self._follow_call(effect))
                case ListenTo():
                    self._start(effect.call, self._follow(effect.call, partial(self._listen, effect)))
                case CancelCall(call=call):
                    if (task := self._calls.get(call)) is not None:
                        task.cancel()

    def _start(self, call: int, run: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(run)
        self._calls[call] = task
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _follow_call(self, call: MakeCall) -> None:
        begun, outcome = time.monotonic(), None
        try:
            outcome = await self._follow(call.call, partial(self._request, call))
        finally:
            if self._on_call is not None:
                self._on_call(self.conversation, call, outcome, time.monotonic() - begun)

    async def _follow(self, call: int, run: Run) -> Outcome:
        """Wait for the outcome of a call, tell the conversation, and return it."""
        try:
            outcome = await run()
        except ServerError as error:
            outcome = ServerRefusal(error.raw)
        except BrokerError as error:
            outcome = fault_of(error)
        except Exception:  # a mistake here must not leave the client without an answer
            logger.exception("gateway.call_failed", extra={"server": self.conversation.server})
            outcome = BrokerFault("internal", "the gateway made a mistake", "its log has the traceback")
        self._run(self.conversation.replied(call, outcome))
        return outcome

    async def _request(self, call: MakeCall) -> Outcome:
        def progressed(params: bytes) -> None:
            self._run(self.conversation.progressed(call.call, params))

        def logged(params: bytes) -> None:
            self._run(self.conversation.logged(call.call, params))

        if call.timeout_s is not None and not self._broker.connected:
            await self._broker.ping(timeout=self._reconnect_s)  # that time is the server's, not the broker's
        result = await self._broker.request_raw(
            self.conversation.server,
            call.method,
            call.params,
            timeout=call.timeout_s,
            on_progress=progressed if call.wants_progress else None,
            on_log=logged if call.wants_log else None,
            progress_extends=call.wants_progress,
            meta=call.meta,
        )
        return ServerResult(result)

    async def _listen(self, wanted: ListenTo) -> Outcome:
        async with self._listening:
            server = self.conversation.server
            resources = {server: wanted.uris} if wanted.uris else {}
            refused = await self._broker.listen([server] if wanted.lists else [], resources)
        return ServerResult(b"{}") if server not in refused else fault_of(refused[server])

    def _notified(self, server: str, method: str, params: bytes) -> None:
        if server == self.conversation.server:
            self._run(self.conversation.notified(method, params))


def fault_of(error: BrokerError) -> BrokerFault:
    """Return an error of the shim as the conversation knows it."""
    unknown = {"outcome": "unknown"} if error.outcome_unknown else {}
    return BrokerFault(error.code, error.message, error.hint, {**error.data, **unknown})
