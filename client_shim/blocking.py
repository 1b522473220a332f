"""A client without an event loop, for commands and scripts: one connection, one call at a time.

It starts fast: no asyncio, and nothing of the asyncio client.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from time import monotonic, sleep
from typing import Any

import zmq

from client_shim import log
from client_shim.errors import BrokerError, ClientClosed, TooLarge, Unavailable, WrongBrokerKey
from client_shim.keys import Keys, keys_source
from client_shim.protocol import input_required, payload, question_bodies, reasons
from client_shim.protocol.backoff import HASTE_S, NEVER, ReconnectBackoff
from client_shim.protocol.events import Ended, Event, Lost, Progressed, Questioned, Welcomed
from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.questions import Question, QuestionRefused, RawQuestion
from client_shim.transport.address import BrokerAddress, find_broker
from client_shim.transport.dealer import FAREWELL_MS, Dealer
from client_shim.transport.endpoint import default_endpoint
from client_shim.version import __version__
from client_shim.wire import MANAGEMENT, TAKES_QUESTIONS, WANTS_PROGRESS

OnProgress = Callable[[float, "float | None", "str | None"], object]
OnBlockingQuestion = Callable[[Question], Mapping[str, Any]]
_CHANNEL = 1

_MAX_READINGS = 16
"""How often arrived messages are read before a call: a flood must not delay it without end."""


class BlockingClient:
    """A client of the broker for synchronous code::

        with BlockingClient() as broker:
            print(broker.request("$broker", "status"))

    Args:
        endpoint: where the broker listens; `None`: `default_endpoint`.
        keys: the keys for ``tcp://``, as `ClientKeys` or the path of a file that ``mcp-broker keys new`` has
            made; `None`: the file that `$MCP_BROKER_KEYS` names, if any.
        timeout_s: the deadline of a call without its own; `None`: the broker's default.
        hello_timeout_s: how long the broker may take to answer the hello.
        reconnect_s: how long a call waits, within its deadline, for a broker that is gone or not there yet;
            0: not at all. After a shutdown in order a call waits until its deadline.
        name: the name of this client in the broker's `status`.
        on_question: called with a `Question` of a server that asks before it goes on with a call; returns
            the answer, or raises `QuestionRefused`. It runs in the thread that makes the call, between two
            messages: progress waits meanwhile, and a withdrawal is noticed when it returns.

    Entering, and `connect`, raise `Unavailable` at once: `NoBroker`, `NotAllowed`, `BrokerSilent`,
    `WrongWireVersion`, … A call connects by itself, and waits for the broker.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        keys: Keys | None = None,
        timeout_s: float | None = None,
        hello_timeout_s: float = 5.0,
        reconnect_s: float = 5.0,
        name: str = "mcp-broker",
        on_question: OnBlockingQuestion | None = None,
    ) -> None:
        self.endpoint = endpoint or default_endpoint()
        self._address = BrokerAddress(self.endpoint, keys_source(self.endpoint, keys))
        self.timeout_s = timeout_s
        self._hello_timeout_s = hello_timeout_s
        self._reconnect_s = reconnect_s
        self._on_question = on_question
        self._backoff = ReconnectBackoff(lambda: 0.5)
        self._closed = False
        self._who = {"name": name, "version": __version__, "pid": os.getpid()}
        self._dealer: Dealer | None = None

    def __enter__(self) -> BlockingClient:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def broker_version(self) -> str:
        """The version of the broker that answered the hello."""
        return self._open_dealer(NEVER).state.broker_version

    def connect(self) -> None:
        """Connect, unless that is done already."""
        self._closed = False
        self._reach(NEVER, only_try=True)

    def _reach(self, expires: float, *, only_try: bool = False) -> Dealer:
        """Return the open socket; connect to the broker, and wait for it, if that is needed.

        Args:
            only_try: do not wait for a broker that was never reached.
        """
        while True:
            if self._dealer is not None and self._dealer.state.phase is ConnectionPhase.OPEN:
                return self._dealer
            try:
                self._greet_twice(expires)
            except Unavailable as error:
                if not self._may_wait(error, expires, only_try):
                    raise
                sleep(HASTE_S)

    def _greet_twice(self, expires: float) -> None:
        """Connect. A broker with another key, and one that ends or turns a client away, look the same at
        first."""
        try:
            self._greet(expires)
        except WrongBrokerKey:
            self._greet(expires, self._backoff.hold_s(monotonic()))

    def _greet(self, expires: float, hold_s: float = 0.0) -> None:
        self._leave()
        self._backoff.tried(monotonic())
        found = find_broker(self._address, self._hello_s(expires), hold_s)
        state = ClientState(self._who, monotonic(), hello_timeout_s=self._hello_s(expires))
        self._dealer = dealer = Dealer(found.endpoint, state, found.keys)
        dealer.flush()
        while state.phase is ConnectionPhase.GREETING:
            for event in self._wait(dealer):
                if isinstance(event, Lost):
                    self._leave()
                    raise reasons.at(self.endpoint, event.error)
        if state.phase is not ConnectionPhase.OPEN:
            raise reasons.at(self.endpoint, reasons.draining())

    def _hello_s(self, expires: float) -> float:
        return max(min(self._hello_timeout_s, expires - monotonic()), HASTE_S)

    def _may_wait(self, error: Unavailable, expires: float, only_try: bool) -> bool:
        was_reached = self._backoff.was_reached
        if not self._reconnect_s or (only_try and not was_reached) or reasons.is_hopeless(error, was_reached):
            return False
        return monotonic() + HASTE_S < self._backoff.wait_until(-NEVER, self._reconnect_s, expires)

    def close(self) -> None:
        """Send a goodbye and close. Closing twice is fine."""
        self._closed = True
        self._leave()

    def _leave(self) -> None:
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            dealer.state.close("closed")
            dealer.flush()
            dealer.close(FAREWELL_MS)

    def request(
        self,
        server: str,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
        on_question: OnBlockingQuestion | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Any:
        """Make a call and return its result as plain data.

        A call that the broker has not begun before it ended is made again at the next broker. A call whose
        result asks questions is made again with the answers of `on_question`.

        Raises:
            CallError: the call failed.
            Unavailable: the connection was lost meanwhile.
            QuestionRefused: a question in the result was refused.
        """
        callback = on_question or self._on_question
        asks = callback is not None and server != MANAGEMENT
        if asks:
            meta = {question_bodies.CAPABILITIES: {"elicitation": {}}, **(meta or {})}
        asker = None if callback is None else BlockingAsker(callback, question_bodies.capabilities_of(meta))
        flags = (WANTS_PROGRESS if on_progress is not None else 0) | (TAKES_QUESTIONS if asks else 0)
        left_s, given = self.timeout_s if timeout_s is None else timeout_s, dict[str, Any]()
        for rounds in count():
            began = monotonic()
            request = payload.prepare(
                server,
                method,
                {**(params or {}), **given} if given else params,
                timeout_s=left_s,
                flags=flags,
                meta=meta,
            )
            result = payload.decode(request.subject, self._make(request, on_progress, asker))
            if asker is None:
                return result
            asked = input_required.read(server, request.subject, result, rounds)
            if asked is None:
                return result
            if left_s is not None:
                left_s = max(left_s - (monotonic() - began), 0.001)
            given = asked.params({name: asker.answer(one) for name, one in asked.questions.items()})

    def _make(
        self, request: payload.PreparedRequest, on_progress: OnProgress | None, asker: BlockingAsker | None
    ) -> bytes:
        """Make a call, at the next broker if the first one has not begun it; return its result."""
        expires = NEVER if request.timeout_s is None else monotonic() + request.timeout_s
        dealer = self._open_dealer(expires)
        while True:
            if expires < NEVER:
                request = request._replace(timeout_s=max(expires - monotonic(), 0.001))
            try:
                return self._call(dealer, request, on_progress, asker)
            except BrokerError as error:
                if not self._reconnect_s or not reasons.is_for_the_next(error):
                    raise
            dealer = self._reach(expires)

    def _open_dealer(self, expires: float) -> Dealer:
        """Return the open socket. A loss is noticed before the request is sent, and mended."""
        if self._closed:
            raise ClientClosed("this client was closed", hint="call connect(), or make another one")
        for _ in range(_MAX_READINGS):
            if self._dealer is None or not self._dealer.has_work():
                break
            self._hear(self._dealer, self._dealer.receive(monotonic()))
        return self._reach(expires)

    def _call(
        self,
        dealer: Dealer,
        request: payload.PreparedRequest,
        on_progress: OnProgress | None,
        asker: BlockingAsker | None,
    ) -> bytes:
        id = dealer.state.request(_CHANNEL, request, monotonic())
        dealer.flush()
        events = deque[Event]()
        try:
            while True:
                while not events:
                    events.extend(self._wait(dealer))
                event = events.popleft()
                if isinstance(event, Ended):
                    return _bytes_of(event)
                if isinstance(event, Progressed) and on_progress is not None:
                    _report(event, on_progress)
                elif isinstance(event, Questioned):
                    events.extend(self._answer(dealer, request.subject, event, asker))
        finally:
            dealer.state.cancel(id, "interrupted")  # does nothing if it has ended
            dealer.flush()

    def _answer(
        self, dealer: Dealer, subject: str, event: Questioned, asker: BlockingAsker | None
    ) -> list[Event]:
        """Answer a question, unless it was withdrawn; return the events that came meanwhile."""
        questions, came = dealer.state.questions, list[Event]()
        if asker is None:
            questions.refuse(event, monotonic())
        elif event.id in questions:
            ok, body = asker.outcome(subject, RawQuestion(event.service, event.method, event.body))
            came = self._hear(dealer, dealer.receive(monotonic()))  # a withdrawal may be among them
            try:
                questions.answer(event.id, ok, body, monotonic())
            except TooLarge as error:
                log.warn(f"{subject}: {error}")
                questions.answer(event.id, False, question_bodies.FAILED, monotonic())
        dealer.flush()
        return came

    def _wait(self, dealer: Dealer) -> list[Event]:
        """Wait for the next events, or for a deadline."""
        if not dealer.has_work():
            self._poll(dealer)
        events = dealer.receive(monotonic())
        if not dealer.has_work():
            events += dealer.state.expire(monotonic())
        return self._hear(dealer, events)

    def _hear(self, dealer: Dealer, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, Welcomed):
                self._backoff.welcomed(monotonic())
            elif isinstance(event, Lost):
                self._backoff.failed(monotonic(), announced=event.announced)
        if dealer.state.phase is ConnectionPhase.DRAINING:  # one call at a time: nothing else is under way
            self._backoff.failed(monotonic(), announced=True)
        return events

    def _poll(self, dealer: Dealer) -> None:
        poller, deadline = zmq.Poller(), dealer.state.next_deadline()
        socket, monitor = dealer.sockets
        poller.register(
            socket, zmq.POLLIN if dealer.state.next_message() is None else zmq.POLLIN | zmq.POLLOUT
        )
        poller.register(monitor, zmq.POLLIN)
        poller.poll(None if deadline is None else max(0, int((deadline - monotonic()) * 1000) + 1))


class BlockingAsker:
    """Asks a callback questions.

    Args:
        capabilities: what the request has declared. It must cover the question.
    """

    def __init__(self, callback: OnBlockingQuestion, capabilities: Mapping[str, Any]) -> None:
        self._callback = callback
        self._capabilities = capabilities

    def answer(self, question: Question) -> Mapping[str, Any]:
        """Return the answer, or raise `QuestionRefused`, or `TypeError` if it is not an object."""
        question_bodies.check_covered(question, self._capabilities)
        return question_bodies.checked_answer(question, self._callback(question))

    def outcome(self, subject: str, raw: RawQuestion) -> tuple[bool, bytes]:
        """Return whether a question in the middle of a call was answered, and the answer or the error."""
        try:
            try:
                question = question_bodies.read(raw)
                return True, question_bodies.answer_body(question, self.answer(question))
            except QuestionRefused as refused:
                return False, question_bodies.error_body(refused)
        except Exception as error:
            log.warn(f"{subject}: the question callback failed: {error}", error)
            return False, question_bodies.FAILED


def _bytes_of(ended: Ended) -> bytes:
    if isinstance(ended.outcome, bytes):
        return ended.outcome
    raise ended.outcome


def _report(progressed: Progressed, on_progress: OnProgress) -> None:
    if (progress := payload.progress(progressed.body)) is not None:
        on_progress(*progress)
