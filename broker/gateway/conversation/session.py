"""Runs a conversation on one channel of the broker: the asyncio shell around `conversation`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

from broker.gateway.conversation.client_session import NO_PREFERENCES, ClientSession, Preferences
from broker.gateway.conversation.conversation import Conversation
from broker.gateway.conversation.effects import (
    AnswerQuestion,
    BrokerFault,
    CancelCall,
    CollectQuestions,
    Effect,
    FinishRequest,
    ListenTo,
    MakeCall,
    Outcome,
    ParkCall,
    RequestId,
    ResumeCall,
    SendMessage,
    ServerRefusal,
    ServerResult,
)
from broker.gateway.conversation.eras import LISTS, error_code
from broker.gateway.conversation.jsonrpc import Incoming, encode
from broker.gateway.conversation.listen_refusals import ListenRefusals
from broker.gateway.conversation.running_calls import CallHolder, Parking, RunningCall
from broker.gateway.conversation.subscriptions import UPDATED
from client_shim import BrokerClient
from client_shim.errors import BrokerError, CallError, ServerError, Unavailable
from client_shim.questions import QuestionRefused, RawQuestion

logger = logging.getLogger("mcp-broker")

RECONNECT_S = 20.0
"""How long a request waits for a broker that is gone: hosts give up on `initialize` after 30 s."""

LISTENS_SOON_S = 1.0
"""How long a stream waits for the broker to tell of changes. Where it tells later, all may have changed."""

LISTEN_AGAIN_S = 2.0
"""How long after a `listen` that reached no broker, or was refused for now, the next one is made at the
earliest for a stream that stays open."""

LISTEN_MOST_S = 60.0
"""The longest such time: it doubles with each refusal, because thousands of streams may be refused."""

LIST_CHANGES = tuple(f"notifications/{name}/list_changed" for name in LISTS)

COLLECT_S = 0.05
"""How long a modern client's request waits for further questions, once its server has asked one."""

C = TypeVar("C", MakeCall, ListenTo)
Run = Callable[[RunningCall, C], Coroutine[Any, Any, Outcome]]
OnCall = Callable[[Conversation, MakeCall, "Outcome | None", float], None]
"""Takes a call that ended: its outcome (`None` if it was cancelled), and the seconds that it took."""

Deliver = Callable[[SendMessage | FinishRequest], None]

Channel = Callable[[], AbstractContextManager[BrokerClient]]
"""Gives a channel for the length of a call."""


class Session:
    """One client's conversation, and the calls that are under way for it.

    Everything happens in the event loop, and nothing here waits for the client: `deliver` takes a message at
    once, and a door whose client does not read ends the session.

    Args:
        server: the name of the server in `broker.toml`.
        deliver: takes each message to the client, and the end of each of its requests.
        name: what the broker's `status` calls the client; sessions of one name share a connection.
        endpoint: where the broker listens; `None`: where the shim finds it.
        opened: a legacy session that was opened earlier.
        preferences: what its client has set.
        reconnect_s: how long a request waits for a broker that is gone.
        on_call: takes each call that ended, for the audit log.
        channel: gives one that the session shares and must not listen on, in place of one of its own.
        parking: where its calls wait for answers of a modern client; `None`: in the session itself.
        refusals: counts the refusals of the broker to tell it of changes.
        dropped: counts the messages that are dropped, unless `parking` does; `None`: a counter of its own.
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
        channel: Channel | None = None,
        parking: Parking | None = None,
        refusals: ListenRefusals | None = None,
        dropped: Counter[str] | None = None,
    ) -> None:
        self._name = name
        self._refusals = refusals or ListenRefusals()
        self._parking = parking or Parking(dropped=dropped)
        self._own_parking = self._parking if parking is None else None
        self.conversation = Conversation(server, _new_nonce, self._parking.calls, opened, preferences)
        self._deliver = deliver
        self._on_call = on_call
        self._own: BrokerClient | None = None
        if channel is None:
            self._own = own = BrokerClient(
                name,
                endpoint,
                reconnect_s=reconnect_s,
                connection=name,
                on_raw_notification=self._notified,
            )
            self._channel: Channel = lambda: nullcontext(own)
        else:
            self._channel = channel
        self._reconnect_s = reconnect_s
        self._calls: dict[int, RunningCall] = {}
        self._holder = CallHolder(self.conversation, self._run, self._calls)
        self._listening = asyncio.Lock()
        """Held while `listen` is under way: the last one that was asked for must come last."""
        self._last_listen = 0
        """The call of that one."""
        self._not_told: BrokerFault | None = None
        """Why the broker does not tell of what was asked for last."""

    @property
    def is_idle(self) -> bool:
        """Whether no request of the client is under way."""
        return not self._calls

    @property
    def dropped(self) -> Counter[str]:
        """The numbers of messages that were dropped, by their kind."""
        return self.conversation.dropped

    def received(self, message: Incoming) -> None:
        """Take a message of the client in."""
        self._run(self.conversation.received(message))

    def cancelled(self, request: RequestId) -> None:
        """Cancel a request whose answer the client no longer wants."""
        self._run(self.conversation.cancelled(request))

    def stream_opened(self) -> None:
        """Note the first stream for messages that belong to no request."""
        self._run(self.conversation.stream_opened())

    def stream_closed(self) -> None:
        """Note that the last such stream has ended."""
        self._run(self.conversation.stream_closed())

    def ended(self, reason: str, *, keeps_subscriptions: bool = False) -> None:
        """Answer what is open, for the gateway ends. `aclose` comes after it."""
        self._run(self.conversation.ended(reason, keeps_subscriptions=keeps_subscriptions))

    async def aclose(self) -> None:
        """The client is gone: cancel its calls, and release the channel."""
        self._run(self.conversation.closed())
        if calls := list(self._calls.values()):
            for call in calls:
                call.cancel()
            await asyncio.gather(*(call.ended() for call in calls))
        if self._own_parking is not None:
            await self._own_parking.aclose()
        if self._own is not None:
            await self._own.aclose()

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage() | FinishRequest():
                    self._deliver(effect)
                case MakeCall():
                    running = RunningCall(self._holder, effect.call)
                    follow = self._follow if self._on_call is None else self._audited
                    running.start(follow(running, self._request, effect))
                case ListenTo():
                    self._last_listen, self._not_told = effect.call, None
                    running = RunningCall(self._holder, effect.call)
                    running.start(self._follow(running, self._listen, effect))
                case _:
                    self._change(effect)

    def _change(self, effect: CancelCall | AnswerQuestion | CollectQuestions | ParkCall | ResumeCall) -> None:
        """Do something with a call that is under way."""
        match effect:
            case CancelCall(call=call) if call in self._calls:
                self._calls[call].cancel()
            case AnswerQuestion(call=call) if call in self._calls:
                self._calls[call].answer(effect)
            case CollectQuestions(call=call):
                loop = asyncio.get_running_loop()
                loop.call_later(COLLECT_S, lambda: self._run(self.conversation.collected(call)))
            case ParkCall(call=call, parked=parked):
                self._parking.park(parked, self._calls[call])
            case ResumeCall(parked=parked, call=call):
                self._parking.resume(parked, self._holder, call)

    async def _audited(self, running: RunningCall, run: Run[MakeCall], call: MakeCall) -> None:
        """Do the same as `_follow`, and tell the audit log of the call."""
        assert self._on_call is not None
        begun, outcome = time.monotonic(), None
        try:
            outcome = await self._follow(running, run, call)
        finally:
            self._on_call(self.conversation, call, outcome, time.monotonic() - begun)

    async def _follow(self, running: RunningCall, run: Run[C], call: C) -> Outcome:
        """Wait for the outcome of a call, tell the conversation, and return it."""
        try:
            outcome = await run(running, call)
        except ServerError as error:
            outcome = ServerRefusal(error.raw)
        except BrokerError as error:
            outcome = fault_of(error)
        except Exception:  # a mistake here must not leave the client without an answer
            logger.exception("gateway.call_failed", extra={"server": self.conversation.server})
            outcome = BrokerFault("internal", "the gateway made a mistake", "its log has the traceback")
        running.replied(outcome)
        return outcome

    async def _request(self, running: RunningCall, call: MakeCall) -> Outcome:
        async def asked(question: RawQuestion) -> bytes:
            answer = await running.asked(question.method, question.params)
            if answer.ok:
                return answer.body
            raise QuestionRefused(error_code(answer.body), "the client gave no answer", raw=answer.body)

        with self._channel() as broker:
            if call.timeout_s is not None and not broker.connected:
                await broker.ping(timeout=self._reconnect_s)  # that time is the server's, not the broker's
            result = await broker.request_raw(
                self.conversation.server,
                call.method,
                call.params,
                timeout=call.timeout_s,
                on_progress=running.progressed if call.wants_progress else None,
                on_log=running.logged if call.wants_log else None,
                on_question=asked if call.takes_questions else None,
                progress_extends=call.wants_progress,
                meta=call.meta,
            )
        return ServerResult(result)

    async def listening(self) -> BrokerFault | None:
        """Wait until the broker tells of what is listened to, but no longer than `LISTENS_SOON_S`.

        Return why it does not, if it has refused.
        """

        async def last_one() -> None:
            await asyncio.sleep(0)  # a `listen` that was asked for just now takes the lock first
            async with self._listening:
                pass

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(last_one(), LISTENS_SOON_S)
        return self._not_told

    async def _listen(self, _: RunningCall, wanted: ListenTo) -> Outcome:
        begun, server, again_s = time.monotonic(), self.conversation.server, 0.0
        while True:
            try:
                refused = await self._listen_once(server, wanted)
                break
            except Unavailable:
                if not self._is_wanted(wanted):
                    raise
                again_s = LISTEN_AGAIN_S
            except BrokerError as error:  # what was listened to before still is
                advised_s = self._listen_refused(wanted, error)
                if advised_s is None:
                    raise
                again_s = pause_s(advised_s, again_s)
            await asyncio.sleep(again_s)  # a stream that stays open must not stay deaf
            if not self._is_wanted(wanted):  # nor must what is wanted by now be replaced
                return ServerResult(b"{}")
        if wanted.call == self._last_listen:
            self._not_told = None
        if time.monotonic() - begun > LISTENS_SOON_S:
            self._all_may_have_changed(wanted)
        if wanted.is_awaited and server in refused:
            return fault_of(refused[server])
        return ServerResult(b"{}")  # a server that is not heard for now is heard as soon as that is possible

    def _is_wanted(self, wanted: ListenTo) -> bool:
        """Return whether this is the last `listen` that was asked for, and no request waits for it."""
        is_awaited = wanted.is_awaited and self.conversation.awaits(wanted.call)
        return not is_awaited and wanted.call == self._last_listen

    def _listen_refused(self, wanted: ListenTo, error: BrokerError) -> float | None:
        """Note a refusal. Return after how many seconds `listen` is repeated; `None` if it is not."""
        again_s, is_first = None, self._not_told is None
        if self._is_wanted(wanted):
            self._not_told = fault_of(error)
            if wanted.lists and isinstance(error, CallError):  # a legacy client has a stream, then
                again_s = error.retry_after_s
            if is_first and again_s is not None:
                self._run(self.conversation.refused_for_now(wanted.call, self._not_told))
        if is_first or again_s is None:
            self._refusals.add(self._name, self.conversation.server, error)
        return again_s

    def _all_may_have_changed(self, wanted: ListenTo) -> None:
        """Tell the client that what it listens to may have changed before the broker told of it."""
        for method in LIST_CHANGES:
            self._run(self.conversation.notified(method, b"{}"))
        for uri in sorted(wanted.uris):
            self._run(self.conversation.notified(UPDATED, encode({"uri": uri})))

    async def _listen_once(self, server: str, wanted: ListenTo) -> dict[str, CallError]:
        async with self._listening:
            with self._channel() as broker:
                resources = {server: wanted.uris} if wanted.uris else {}
                return await broker.listen([server] if wanted.lists else [], resources)

    def _notified(self, server: str, method: str, params: bytes) -> None:
        if server == self.conversation.server:
            self._run(self.conversation.notified(method, params))


def _new_nonce() -> str:
    return secrets.token_hex(8)


def fault_of(error: BrokerError) -> BrokerFault:
    """Return an error of the shim as the conversation knows it."""
    unknown = {"outcome": "unknown"} if error.outcome_unknown else {}
    return BrokerFault(error.code, error.message, error.hint, {**error.data, **unknown})


def pause_s(advised_s: float, before_s: float) -> float:
    """Return how long to wait after a refused `listen`, if the wait before it was so long."""
    return min(max(advised_s, LISTEN_AGAIN_S, 2 * before_s), LISTEN_MOST_S)
