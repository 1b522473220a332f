"""The client's side of the wire protocol as a state machine: no socket, no event loop, no clock.

One `ClientState` is one connection: a hello, a welcome, calls, and an end. Its methods (`receive`, `request`,
`cancel`, `expire`, `lose`, …) return events. The messages to send wait in its outbox, where the shell that
owns the socket takes them (`next_message`, `sent`).

Every call ends in exactly one `Ended`, and no event about it follows. Ids are never used twice, so a message
about an id that is no longer in the table is late; it is counted.

A server may ask questions during a call. Each gets at most one answer, and none after its withdrawal or after
the end of its call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from client_shim import errors, wire
from client_shim.protocol import reasons
from client_shim.protocol.calls import GRACE_S, ClientCall, ClientCalls
from client_shim.protocol.events import (
    Dropped,
    Ended,
    Event,
    Logged,
    Lost,
    Notified,
    Progressed,
    Welcomed,
)
from client_shim.protocol.outbox import Frames, Outbox
from client_shim.protocol.payload import PreparedRequest
from client_shim.protocol.questions import ClientQuestions

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"


class ConnectionPhase(Enum):
    """The phases of a connection. While it is draining, the broker takes no new requests."""

    GREETING = "greeting"
    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


_UP = (ConnectionPhase.OPEN, ConnectionPhase.DRAINING)


class ClientState:
    """One connection to a broker, from the hello to the end.

    Args:
        client: `name`, `version` and `pid` of this program, for the broker's `status`.
        now: the time of any monotonic clock, in seconds; every other `now` is of the same clock.
        hello_timeout_s: how long the broker may take to answer the hello.
    """

    def __init__(self, client: dict[str, Any], now: float, *, hello_timeout_s: float = 5.0) -> None:
        self.phase = ConnectionPhase.GREETING
        self.instance = ""
        self.broker_version = ""
        self.max_message_bytes: int | None = None
        self.counts: dict[str, int] = {}
        self._credit_bytes = 0
        self._read_bytes = 0
        self._calls = ClientCalls()
        self._outbox = Outbox()
        self.questions = ClientQuestions(self._calls, self._outbox)
        self._hello_timeout_s = hello_timeout_s
        self._hello_expires = now + hello_timeout_s
        self._queue(wire.Hello(0, 0, [wire.VERSION], client))

    def __repr__(self) -> str:
        return f"<ClientState {self.phase.value} calls={len(self._calls)} outbox={len(self._outbox)}>"

    @property
    def in_flight(self) -> int:
        """The number of calls that have not ended."""
        return len(self._calls)

    # --- messages to send ------------------------------------------------------------------------

    def next_message(self) -> Frames | None:
        """Return the frames to send next, or `None`. They stay the next ones until `sent` is called."""
        return self._outbox.first()

    def sent(self) -> None:
        """Remove the frames of `next_message`: the transport has taken them."""
        self._outbox.pop()

    def _queue(self, message: wire.Message, *body: bytes) -> None:
        self._outbox.add(wire.encode(message), *body)

    # --- calls of the client ----------------------------------------------------------------------

    def request(self, channel: int, request: PreparedRequest, now: float) -> int:
        """Queue a request and return the id of the call.

        Raises:
            TooLarge: the body is above the limit that the broker has announced.
            InvalidRequest: msgpack cannot carry its `meta`.
            Busy: the outbox is full.
        """
        if self.phase is not ConnectionPhase.OPEN:
            raise RuntimeError(f"a request needs an open connection, and this one is {self.phase.value}")
        reasons.check_size(request.subject, request.body, self.max_message_bytes)
        id = self._calls.last_id + 1
        header = reasons.encode_request(request.message(channel, id, self.instance), request.subject)
        if not self._outbox.add_request(id, (header,) if request.body is None else (header, request.body)):
            raise reasons.outbox_full(request.subject, self._outbox.requests, self._outbox.requests_bytes)
        self._calls.add(id, channel, request, now)
        return id

    def cancel(self, id: int, reason: str | None = None) -> None:
        """End a call, without an event: its caller no longer wants the answer. A second time does nothing."""
        call = self._remove(id)
        if call is not None and not self._outbox.take_back({id}):
            self._queue(wire.Cancel(call.channel, id, reason))

    def close_channel(self, channel: int, reason: str) -> list[Event]:
        """End the calls of a channel, and tell the broker that the channel is closed."""
        return self._close(channel, self._calls.of_channel(channel), reason)

    def close(self, reason: str) -> list[Event]:
        """End the connection on purpose. The outbox may still be sent; its last message is a goodbye."""
        ends = self._close(0, list(self._calls), reason)
        self.phase = ConnectionPhase.ENDED
        return ends

    def _close(self, channel: int, ids: list[int], reason: str) -> list[Event]:
        self._outbox.take_back(set(ids))
        if self.phase in _UP:
            self._queue(wire.Goodbye(channel, 0, reason))
        return [self._end(id, reasons.closed(self._calls[id].subject, reason)) for id in ids]

    # --- time and loss ----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return the time of the next call to `expire`, or `None` if nothing has a deadline."""
        if self.phase is ConnectionPhase.GREETING:
            return self._hello_expires
        return self._calls.next_deadline()

    def expire(self, now: float) -> list[Event]:
        """End what is overdue: the greeting, or calls that the broker itself should have ended.

        Read the messages that have arrived before that: in a busy process they may have waited in the socket.
        """
        if self.phase is ConnectionPhase.GREETING:
            return self._lose(reasons.silent(self._hello_timeout_s)) if now >= self._hello_expires else []
        return [self._expire(id) for id in self._calls.overdue(now)]

    def _expire(self, id: int) -> Ended:
        call = self._calls[id]
        self.cancel(id, "deadline")
        return Ended(id, reasons.overdue(call.subject, call.timeout_s or 0.0, GRACE_S))

    def lose(self, reason: str | errors.Unavailable) -> list[Event]:
        """End the connection and every call: the transport has lost the broker."""
        return self._lose(reasons.cut_off(reason) if isinstance(reason, str) else reason)

    def _lose(
        self, error: errors.Unavailable, last_id: int | None = None, *, announced: bool = False
    ) -> list[Event]:
        """End the connection and its calls. The broker has begun no call above `last_id` or in the outbox."""
        if self.phase is ConnectionPhase.ENDED:
            return []
        announced, self.phase = announced or self.phase is ConnectionPhase.DRAINING, ConnectionPhase.ENDED
        unsent = self._outbox.take_back(set(self._calls))
        self._outbox.clear()
        last_id = self._calls.last_id if last_id is None else last_id
        ends = [self._cut(id, error, id <= last_id and id not in unsent) for id in list(self._calls)]
        return [*ends, Lost(error, announced)]

    def _cut(self, id: int, error: errors.Unavailable, begun: bool) -> Ended:
        """End a call whose channel or connection was lost; `begun`: the broker may have begun it."""
        call = self._calls[id]
        return self._end(id, reasons.lost(call.subject, error, begun, call.only_reads))

    # --- messages of the broker --------------------------------------------------------------------

    def receive(self, frames: Sequence[bytes], now: float) -> list[Event]:
        """Handle one message of the broker."""
        if self.phase is ConnectionPhase.ENDED:
            return []
        header, *bodies = frames
        body = bodies[0] if bodies else None
        self._give_back(wire.cost(header, body))
        try:
            message = wire.decode(header)
            wire.check_body(message, body)
        except wire.WireError as error:
            if error.code is wire.Code.WIRE_VERSION:
                return self._lose(reasons.wrong_version(reasons.version_of(header)))
            return self._unusable(error.channel, error.id, f"a frame that cannot be read: {error}")
        if len(bodies) > 1:
            return self._unusable(message.channel, message.id, f"a {_name(message)} of {len(frames)} frames")
        handle = _HANDLERS.get(type(message))
        if handle is not None:
            return handle(self, message, body)
        if isinstance(message, wire.Question):
            return [self._count(self.questions.asked(message, body or b"", now))]
        if isinstance(message, wire.Cancel):
            return [self._count(self.questions.withdrawn(message, now))]
        return [self._drop("stray", f"a {_name(message)}, which only a client may send")]

    def _give_back(self, cost: int) -> None:
        """Return credit to the broker, each time that a quarter of the window was read."""
        self._read_bytes += cost
        if self.phase in _UP and self._read_bytes >= self._credit_bytes // 4:
            self._queue(wire.Credit(0, 0, self._read_bytes))
            self._read_bytes = 0

    def _unusable(self, channel: int, id: int, what: str) -> list[Event]:
        """Drop a malformed message. If it is about a call, the call ends: no other answer will come."""
        dropped, call = self._drop("unreadable", what), self._calls.find(channel, id)
        return [dropped] if call is None else [dropped, self._end(id, reasons.unusable(call.subject, what))]

    def _end(self, id: int, outcome: bytes | errors.BrokerError) -> Ended:
        """End a call. Its outcome is made before that: if making it raises, the call stays in the table."""
        self._remove(id)
        return Ended(id, outcome)

    def _remove(self, id: int) -> ClientCall | None:
        """Remove a call from the table, with its questions."""
        if self.questions:
            self.questions.call_ended(id)
        return self._calls.pop(id)

    def _drop(self, why: str, what: str) -> Dropped:
        dropped = Dropped(why, what)
        self._count(dropped)
        return dropped

    def _count(self, event: Event) -> Event:
        """Count an event if it is the drop of a message; return it."""
        if isinstance(event, Dropped):
            self.counts[event.why] = self.counts.get(event.why, 0) + 1
        return event

    def _not_under_way(self, message: wire.Message, why: str = "late") -> list[Event]:
        about = f"a {_name(message)} for call {message.id} of channel {message.channel}"
        return [self._drop(why if self._calls.has_ended(message.id) else "stray", about)]

    def _on_welcome(self, message: wire.Welcome, _: bytes | None) -> list[Event]:
        if self.phase is not ConnectionPhase.GREETING:
            return [self._drop("stray", "a second welcome")]
        self.phase = ConnectionPhase.OPEN
        self.instance, self.broker_version = message.instance, message.broker_version
        limits = {name: value for name, value in message.limits.items() if type(value) is int and value > 0}
        self.max_message_bytes = self.questions.max_bytes = limits.get("max_message_bytes")
        self._credit_bytes = limits.get("credit_bytes", 0)
        self._outbox.open(limits.get("request_credit_bytes", math.inf))
        return [Welcomed(message.instance, message.broker_version)]

    def _on_credit(self, message: wire.Credit, _: bytes | None) -> list[Event]:
        self._outbox.refill(message.read_bytes)
        return []

    def _on_answer(self, message: wire.Result | wire.Error, body: bytes) -> list[Event]:
        call = self._calls.find(message.channel, message.id)
        if call is None:
            return self._not_under_way(message)
        is_result = type(message) is wire.Result
        return [self._end(message.id, body if is_result else reasons.server_error(call.subject, body))]

    def _on_fault(self, message: wire.Fault, _: bytes | None) -> list[Event]:
        if message.code == wire.Code.HELLO_FIRST:  # the broker refuses all messages that follow
            last_id = message.id - 1 if message.id else None
            return self._lose(reasons.parted("it no longer knows this client"), last_id)
        if message.id == 0:
            return self._on_complaint(message)
        if message.code == wire.Code.SHUTTING_DOWN and self.phase is ConnectionPhase.OPEN:
            self.phase = ConnectionPhase.DRAINING
        if self._calls.find(message.channel, message.id) is None:
            why = "cancelled" if message.code == wire.Code.CANCELLED else "late"
            return self._not_under_way(message, why)
        ended = self._end(message.id, errors.from_fault(message))
        if message.code != wire.Code.WRONG_INSTANCE:
            return [ended]
        return [ended, *self._lose(reasons.parted("it is another one by now"), message.id)]

    def _on_complaint(self, fault: wire.Fault) -> list[Event]:
        if fault.code == wire.Code.WIRE_VERSION:
            return self._lose(reasons.wrong_version(fault.data.get("versions")))
        if self.phase is ConnectionPhase.GREETING:
            announced = fault.code == wire.Code.SHUTTING_DOWN
            return self._lose(reasons.refused(fault), announced=announced)
        return [
            self._drop("complaints", f"the broker refused a frame of ours: {fault.message} ({fault.code})")
        ]

    def _on_notification(self, message: wire.Notification, body: bytes) -> list[Event]:
        if message.id == 0 or message.method not in (PROGRESS, MESSAGE):
            return [Notified(message.channel, message.service, message.method, body)]
        call = self._calls.find(message.channel, message.id)
        if call is None:
            return self._not_under_way(message)
        if message.method == MESSAGE:
            return [Logged(message.id, body)]
        self._calls.progressed(message.id)
        return [Progressed(message.id, body)]

    def _on_goodbye(self, message: wire.Goodbye, _: bytes | None) -> list[Event]:
        error = reasons.parted(message.reason)
        if message.channel == 0:
            return self._lose(error, message.last_id, announced=True)
        return [self._cut(id, error, True) for id in self._calls.of_channel(message.channel)]


_HANDLERS: dict[type[Any], Callable[[ClientState, Any, Any], list[Event]]] = {
    wire.Welcome: ClientState._on_welcome,
    wire.Result: ClientState._on_answer,
    wire.Error: ClientState._on_answer,
    wire.Fault: ClientState._on_fault,
    wire.Notification: ClientState._on_notification,
    wire.Goodbye: ClientState._on_goodbye,
    wire.Credit: ClientState._on_credit,
}


def _name(message: wire.Message) -> str:
    return type(message).__name__.lower()
