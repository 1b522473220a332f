"""One MCP client, of either era, in conversation with one server. Sans-io: messages in, effects out.

A *legacy* client opens a session by `initialize`; a *modern* one (2026-07-28) says its version and its
capabilities in the `_meta` of each request. Both may use one conversation: each request says what it is.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from broker.base.text import clip
from broker.gateway.conversation import eras, jsonrpc, questions, subscriptions
from broker.gateway.conversation.client_session import (
    NO_PREFERENCES,
    ClientSession,
    Preferences,
    session_of,
)
from broker.gateway.conversation.effects import (
    BrokerFault,
    Effect,
    FinishRequest,
    MakeCall,
    Outcome,
    RequestId,
    SendMessage,
    ServerResult,
)
from broker.gateway.conversation.eras import Objection
from broker.gateway.conversation.jsonrpc import (
    ClientNotification,
    ClientRequest,
    ClientResponse,
    Incoming,
    InvalidMessage,
)
from broker.gateway.conversation.parked_calls import ParkedCalls
from broker.gateway.conversation.questions import CANCELLED, InputQuestion, OpenQuestions
from broker.gateway.conversation.requests import OpenRequest, OpenRequests, discovered, refusal
from broker.gateway.conversation.server_questions import ServerQuestions
from broker.gateway.conversation.subscribing import Subscriber
from broker.gateway.conversation.subscriptions import Interests

MAX_OPEN = 1024
"""Requests of one client that may be open at once."""

_MESSAGE, _PROGRESS = "notifications/message", "notifications/progress"


class Conversation:
    """The conversation of one client with one server.

    Each method returns the effects for its shell to carry out, in order. For every request that `received`
    takes in there is exactly one `FinishRequest`, and before it one answer, unless the client cancelled it.

    Args:
        server: the name of the server in `broker.toml`.
        new_nonce: returns a text that makes the ids of the requests to this client unlike those of any other
            conversation, so that a stray answer to another conversation's question finds none here. It must
            not be guessable. Called at the first such request.
        session: a legacy session that was opened earlier, such as before the gateway was restarted.
        preferences: what its client has set.
        parked: the parked calls of its owner, which the client may resume.
    """

    def __init__(
        self,
        server: str,
        new_nonce: Callable[[], str],
        parked: ParkedCalls,
        session: ClientSession | None = None,
        preferences: Preferences = NO_PREFERENCES,
    ) -> None:
        self.server = server
        self.session = session
        """The legacy session; `None` until `initialize` came. Set before the answer to it is sent."""
        self.dropped = parked.dropped
        """The numbers of messages that were dropped, by their kind; the owner of `parked` has one count."""
        self._questions = OpenQuestions(new_nonce)
        self._interests = Interests(preferences.uris)
        self._interests.has_session = session is not None
        self._requests = OpenRequests(self._questions, self._interests)
        self._subscriber = Subscriber(self._requests, self._interests)
        self._asking = ServerQuestions(
            server, self._requests, self._questions, parked, self._make_call, self._passed
        )
        self._log_level = preferences.level
        self._may_log = False
        """Whether the server declared `logging` to the legacy client."""

    @property
    def holds(self) -> int:
        """The number of open requests, calls, questions and subscriptions."""
        return len(self._requests) + self._requests.calls + len(self._questions) + len(self._interests)

    @property
    def preferences(self) -> Preferences:
        """The log level and the subscriptions of the legacy client."""
        return Preferences(self._log_level, self._interests.uris)

    # --- what the client says ----------------------------------------------------------------------------

    def received(self, message: Incoming) -> list[Effect]:
        """Take a message of the client in, as `jsonrpc.read` read it.

        A request under the id of an open one is refused with an error whose id is null and which belongs to
        no request. A door with a stream for each request asks `is_open` before.
        """
        match message:
            case ClientRequest():
                return self._requested(message)
            case ClientNotification():
                return self._told(message)
            case ClientResponse():
                return self._answered(message)
            case InvalidMessage(id=id, code=code, message=why):
                self.dropped["invalid"] += 1
                if id == jsonrpc.NO_ID or id in self._requests:
                    return [SendMessage(jsonrpc.error_message(jsonrpc.NO_ID, code, why), None, code)]
                return [refusal(id, code, why), FinishRequest(id)]

    def is_open(self, request: RequestId) -> bool:
        """Return whether a request of this id has not been finished."""
        return request in self._requests

    def cancelled(self, request: RequestId, reason: str | None = None) -> list[Effect]:
        """Cancel a request whose stream was cut. Unknown ids do nothing."""
        entry = self._requests.get(request)
        return [] if entry is None else [*self._requests.let_go(entry, reason), *self._requests.finish(entry)]

    def stream_opened(self) -> list[Effect]:
        """Note the first stream for messages that belong to no request: the pipe, or a GET stream.

        Until then the server's notifications are not listened to for a legacy client.
        """
        self._interests.has_stream = True
        return [*self._requests.listen(), *self._interests.missed()]

    def stream_closed(self) -> list[Effect]:
        """Note that the last stream for messages of no request has ended."""
        self._interests.stream_closed()
        return self._requests.listen()

    def _requested(self, request: ClientRequest) -> list[Effect]:
        if request.id in self._requests:
            why = f"the id {clip(request.id.decode())} is that of a request that is still open"
            message = jsonrpc.error_message(jsonrpc.NO_ID, jsonrpc.INVALID_REQUEST, why)
            return [SendMessage(message, None, jsonrpc.INVALID_REQUEST)]
        entry = OpenRequest(request, is_modern=eras.PROTOCOL_VERSION in request.meta)
        if len(self._requests) >= MAX_OPEN:
            return self._requests.refuse(entry, f"more than {MAX_OPEN} requests are open; wait for answers")
        self._requests.add(entry)
        try:
            return self._modern(entry) if entry.is_modern else self._legacy(entry)
        except Objection as objection:
            return self._requests.refuse(entry, str(objection), objection.code, objection.data)
        except ValueError as error:
            return self._requests.refuse(entry, clip(str(error), 300), jsonrpc.INVALID_PARAMS)

    def _modern(self, entry: OpenRequest) -> list[Effect]:
        request = entry.request
        eras.check_modern(request.meta)
        if request.method == "server/discover":
            return self._requests.discover(entry, self._discovered)
        if request.method == "subscriptions/listen":
            return self._subscriber.modern(entry)
        if request.method in eras.REMOVED:
            why = f"MCP {eras.MODERN_VERSION} has no method `{request.method}`"
            raise Objection(jsonrpc.METHOD_NOT_FOUND, why)
        entry.capabilities = request.meta[eras.CAPABILITIES]
        if request.has_answers and request.method in eras.MAY_ASK:
            return self._asking.repeated(entry)
        return self._make_call(entry, request.params)

    def _legacy(self, entry: OpenRequest) -> list[Effect]:
        request, method = entry.request, entry.request.method
        if method == "initialize":
            return self._initialize(entry)
        if method == "ping":
            return self._requests.answer(entry, b"{}")
        if self.session is None:
            why = f"there was no `initialize`, and `_meta` has no `{eras.PROTOCOL_VERSION}`"
            raise Objection(jsonrpc.INVALID_PARAMS, why)
        if method == "logging/setLevel":
            return self._set_level(entry)
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return self._subscriber.legacy(entry)
        if method in ("server/discover", "subscriptions/listen"):
            raise Objection(jsonrpc.METHOD_NOT_FOUND, f"MCP {self.session.version} has no method `{method}`")
        entry.capabilities = self.session.capabilities
        return self._make_call(entry, request.params)

    def _told(self, notification: ClientNotification) -> list[Effect]:
        if notification.method != CANCELLED:
            return []  # of `initialized` and `roots/list_changed` nothing follows here
        id = jsonrpc.cancelled_id(notification.params)
        if id is None or id not in self._requests:
            self.dropped["late cancellation"] += 1
            return []
        return self.cancelled(id)

    def _answered(self, response: ClientResponse) -> list[Effect]:
        effects = self._asking.answered(response)
        if effects is None:
            self.dropped["stray answer"] += 1
        return effects or []

    # --- opening a session -------------------------------------------------------------------------------

    def _initialize(self, entry: OpenRequest) -> list[Effect]:
        self.session = session_of(entry.request.params)
        self._interests.has_session = True
        return self._requests.discover(entry, self._discovered)

    def _discovered(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        """Answer `initialize`, and `server/discover`, also for a server that is not ready yet."""
        found = discovered(outcome)
        if found is None:
            return self._requests.fail(entry, outcome)
        if entry.is_modern or self.session is None:
            return self._requests.answer(entry, eras.discover_result(self.server, found))
        self._may_log = "logging" in found.capabilities
        answer = eras.initialize_result(self.server, self.session.version, found)
        return [*self._requests.answer(entry, answer), *self._requests.listen()]

    def _set_level(self, entry: OpenRequest) -> list[Effect]:
        self._log_level = eras.level_of(entry.request.params)
        return self._requests.answer(entry, b"{}")

    # --- calls -------------------------------------------------------------------------------------------

    def _make_call(self, entry: OpenRequest, params: bytes | None) -> list[Effect]:
        """Make the client's request to the server."""
        request, session = entry.request, self.session
        meta = request.meta
        if not entry.is_modern and session is not None:
            meta = eras.legacy_meta(meta, session.capabilities, session.client_info, self._log_level)
        call = self._requests.start_call(entry, self._passed)
        may_ask = not entry.is_modern or request.method in eras.MAY_ASK
        return [
            MakeCall(
                call,
                request.method,
                params,
                meta or None,
                wants_progress=request.token is not None,
                wants_log=eras.LOG_LEVEL in meta,
                takes_questions=may_ask and questions.answers_any(entry.capabilities),
            )
        ]

    def replied(self, call: int, outcome: Outcome) -> list[Effect]:
        """A call, or a `ListenTo`, has ended."""
        entry = self._requests.of_call(call)
        if entry is None or (replied := self._requests.end_call(entry)) is None:
            return self._subscriber.ended(call, outcome, self._takes_warnings)
        return replied(entry, outcome)

    def awaits(self, call: int) -> bool:
        """Return whether a request waits for a call; not if it was cancelled since."""
        return self._requests.of_call(call) is not None

    def refused_for_now(self, call: int, fault: BrokerFault) -> list[Effect]:
        """The broker refused a `ListenTo`, and is asked again later: the call goes on."""
        return self._subscriber.refused(call, fault, self._takes_warnings)

    @property
    def _takes_warnings(self) -> bool:
        return self._may_log and eras.is_logged("warning", self._log_level)

    def _passed(self, entry: OpenRequest, outcome: Outcome) -> list[Effect]:
        if not isinstance(outcome, ServerResult):
            return self._requests.fail(entry, outcome)
        method = entry.request.method
        if entry.is_modern:
            return self._requests.answer(entry, eras.modern_result(method, outcome.body))
        if method in eras.MAY_ASK and eras.is_input_required(outcome.body):
            return self._asking.ask(entry, outcome.body)
        return self._requests.answer(entry, outcome.body)

    def progressed(self, call: int, params: bytes) -> list[Effect]:
        """The server told of progress of a call; `params` are those of `notifications/progress`."""
        entry = self._requests.of_call(call)
        members: dict[str, Raw | bytes] = dict(jsonrpc.members_of(params) or {})
        if entry is None or entry.request.token is None or not members:
            return []
        said = jsonrpc.join({**members, "progressToken": entry.request.token})
        return [SendMessage(jsonrpc.notification_message(_PROGRESS, said), entry.id)]

    def logged(self, call: int, params: bytes) -> list[Effect]:
        """The server logged something during a call; `params` are those of `notifications/message`."""
        entry = self._requests.of_call(call)
        if entry is None or (entry.is_modern and eras.LOG_LEVEL not in entry.request.meta):
            return []  # one that resumed a call may want less than the one that made it
        return [SendMessage(jsonrpc.notification_message(_MESSAGE, params), entry.id)]

    # --- questions of a legacy server --------------------------------------------------------------------

    def asked(self, call: int, question: int, method: str, params: bytes) -> list[Effect]:
        """The server asks the client something during a call; the shell numbers its questions."""
        entry = self._requests.of_call(call)
        if entry is None:
            self.dropped["late question"] += 1
            return []
        asked = InputQuestion(f"question-{question}", method, params, question)
        return self._asking.asked(entry, call, asked)

    def withdrawn(self, call: int, question: int) -> list[Effect]:
        """A question is no longer open: it needs no answer."""
        entry = self._requests.of_call(call)
        return [] if entry is None else self._asking.withdrawn(entry, question)

    def collected(self, call: int) -> list[Effect]:
        """The moment of `CollectQuestions` is over."""
        entry = self._requests.of_call(call)
        return [] if entry is None else self._asking.collected(entry, call)

    def notified(self, method: str, params: bytes) -> list[Effect]:
        """The server said something that belongs to no call."""
        try:
            return self._interests.notified(method, params)
        except ValueError:
            self.dropped["unreadable notification"] += 1
            return []

    # --- the end of a request, and of the conversation -----------------------------------------------------

    def ended(self, reason: str, *, keeps_subscriptions: bool = False) -> list[Effect]:
        """The gateway ends: open requests are answered, subscriptions closed, calls cancelled.

        `keeps_subscriptions`: the client will make them again by itself, so nothing is said about them.
        """
        effects: list[Effect] = []
        for entry in self._requests.all():
            if entry.id not in self._interests:
                why = f"{reason}; whether the request was carried out is unknown"
                effects += [*self._requests.let_go(entry, reason), *self._requests.refuse(entry, why)]
            elif not keeps_subscriptions:
                end = subscriptions.end_of(entry.id)
                effects += [*self._requests.let_go(entry, reason), *self._requests.answer(entry, end)]
        return [*effects, *self.closed()]

    def closed(self) -> list[Effect]:
        """The client is gone: cancel its calls. The conversation holds nothing afterwards.

        What was listened to ends with the channel that the shell releases.
        """
        return self._requests.close()
