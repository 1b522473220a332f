"""The client's side of the wire protocol as an automaton: no socket, no event loop, no clock.

One `ClientState` is one connection: one hello, one welcome, calls, one end. What it is told (`receive`,
`request`, `cancel`, `expire`, `lose`, …) it answers with events, small frozen values; what it wants sent
stands in its outbox, from where the shell that owns the socket takes it (`next_message`, `sent`).

Every call ends in exactly one `Ended`, and nothing is said about it after that: a number is never given
twice, so whatever arrives for one that is no longer in the table is late and is counted.

A broker that ends in order refuses new requests, answers what it has begun, and says GOODBYE with the highest
id that it has taken in (as HTTP/2 does: RFC 9113, section 6.8). So it is known which calls it has not begun:
`reasons.is_for_the_next` is true of their outcome, and the shell sends them to the next broker.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from client_shim import errors, wire
from client_shim.protocol import reasons
from client_shim.protocol.events import (
    Dropped,
    Ended,
    Event,
    Logged,
    Lost,
    Notified,
    Progressed,
    Questioned,
    Welcomed,
)
from client_shim.protocol.outbox import Frames, Outbox
from client_shim.protocol.payload import PreparedRequest

GRACE_S = 2.0
"""How much later than the broker this side enforces a deadline. The broker's answer is the better one."""

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"


class Phase(Enum):
    """Where a connection is in its life. While it is draining, the broker takes no new requests."""

    GREETING = "greeting"
    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


_UP = (Phase.OPEN, Phase.DRAINING)


class _Call(NamedTuple):
    """`moved`: progress that starts its time anew has come since `expires` was set."""

    channel: int
    subject: str
    timeout_s: float | None
    expires: float | None
    extends: bool
    only_reads: bool
    moved: bool = False


class ClientState:
    """One connection to a broker, from the hello to the end.

    Args:
        client: who this is: `name`, `version` and `pid`; the broker shows it in `status`.
        now: any monotonic clock, in seconds; the same one for every other `now`.
        hello_timeout_s: how long the broker may take to answer the hello.
    """

    def __init__(self, client: dict[str, Any], now: float, *, hello_timeout_s: float = 5.0) -> None:
        self.phase = Phase.GREETING
        self.instance = ""
        self.broker_version = ""
        self.max_message_bytes: int | None = None
        self.counts: dict[str, int] = {}
        self._credit_bytes = 0
        self._read_bytes = 0
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._outbox = Outbox()
        self._hello_timeout_s = hello_timeout_s
        self._hello_expires = now + hello_timeout_s
        self._queue(wire.Hello(0, 0, [wire.VERSION], client))

    def __repr__(self) -> str:
        return f"<ClientState {self.phase.value} calls={len(self._calls)} outbox={len(self._outbox)}>"

    @property
    def in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    # --- what is to be sent ---------------------------------------------------------------------

    def next_message(self) -> Frames | None:
        """The frames to send next, or `None`. They stay the next ones until `sent` is called."""
        return self._outbox.first()

    def sent(self) -> None:
        """The transport has taken the frames of `next_message`."""
        self._outbox.pop()

    def _queue(self, message: wire.Message, *body: bytes) -> None:
        self._outbox.add(wire.encode(message), *body)

    # --- what the caller wants ------------------------------------------------------------------

    def request(self, channel: int, request: PreparedRequest, now: float) -> int:
        """Queue a request and return the number of the call.

        The timeout is sent to the broker, which enforces it; this side does too, `GRACE_S` later.

        Raises:
            TooLarge: the body is above the limit that the broker told.
            InvalidRequest: a `meta` that msgpack cannot carry.
            Busy: the outbox is full.
        """
        if self.phase is not Phase.OPEN:
            raise RuntimeError(f"a request needs an open connection, and this one is {self.phase.value}")
        reasons.check_size(request.subject, request.body, self.max_message_bytes)
        id = self._last_id + 1
        header = reasons.encode_request(_request(channel, id, self.instance, request), request.subject)
        if not self._outbox.add_request(id, (header,) if request.body is None else (header, request.body)):
            raise reasons.outbox_full(request.subject, self._outbox.requests, self._outbox.requests_bytes)
        self._last_id = id
        expires = None if request.timeout_s is None else now + request.timeout_s + GRACE_S
        extends = bool(request.flags & wire.PROGRESS_EXTENDS)
        self._calls[id] = _Call(
            channel, request.subject, request.timeout_s, expires, extends, request.only_reads
        )
        return id

    def cancel(self, id: int, reason: str | None = None) -> None:
        """The caller no longer wants the answer: the call is over here, at once and without an event.

        One that has ended already is left alone.
        """
        call = self._calls.pop(id, None)
        if call is not None and not self._outbox.take_back({id}):
            self._queue(wire.Cancel(call.channel, id, reason))

    def close_channel(self, channel: int, reason: str) -> list[Event]:
        """End the calls of a channel and tell the broker that the channel is no more."""
        ids = {id for id, call in self._calls.items() if call.channel == channel}
        self._outbox.take_back(ids)
        if self.phase in _UP:
            self._queue(wire.Goodbye(channel, 0, reason))
        return [Ended(id, reasons.closed(self._calls.pop(id).subject, reason)) for id in sorted(ids)]

    def close(self, reason: str) -> list[Event]:
        """End the connection on purpose. What is in the outbox may still be sent, and ends in a goodbye."""
        ids = sorted(self._calls)
        self._outbox.take_back(set(ids))
        if self.phase in _UP:
            self._queue(wire.Goodbye(0, 0, reason))
        self.phase = Phase.ENDED
        return [Ended(id, reasons.closed(self._calls.pop(id).subject, reason)) for id in ids]

    def refuse(self, question: Questioned) -> None:
        """Answer a server's question with "there is nobody here who could say"."""
        error = {"code": -32601, "message": f"this client does not answer {question.method}"}
        self._queue(wire.Answer(question.channel, question.id, False), json.dumps(error).encode())

    # --- time and loss ----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` will have something to do, unless something else happens before."""
        if self.phase is Phase.GREETING:
            return self._hello_expires
        return min((call.expires for call in self._calls.values() if call.expires is not None), default=None)

    def expire(self, now: float) -> list[Event]:
        """What is overdue ends: the greeting, or calls that the broker itself should have ended.

        Read what has arrived before calling this, or a busy process takes its own delay for the broker's.
        """
        if self.phase is Phase.GREETING:
            return self._lose(reasons.silent(self._hello_timeout_s)) if now >= self._hello_expires else []
        overdue = [i for i, call in self._calls.items() if call.expires is not None and now >= call.expires]
        return [ended for id in overdue if (ended := self._expire(id, now)) is not None]

    def _expire(self, id: int, now: float) -> Ended | None:
        call = self._calls[id]
        if call.moved and call.timeout_s is not None:
            self._calls[id] = call._replace(moved=False, expires=now + call.timeout_s + GRACE_S)
            return None
        self.cancel(id, "deadline")
        return Ended(id, reasons.overdue(call.subject, call.timeout_s or 0.0, GRACE_S))

    def lose(self, reason: str) -> list[Event]:
        """The transport has lost the broker. Every call ends here and now."""
        return self._lose(reasons.cut_off(reason))

    def _lose(
        self, error: errors.Unavailable, last_id: int | None = None, *, announced: bool = False
    ) -> list[Event]:
        """End the connection and its calls. The broker has begun none above `last_id` or in the outbox."""
        if self.phase is Phase.ENDED:
            return []
        announced, self.phase = announced or self.phase is Phase.DRAINING, Phase.ENDED
        unsent = self._outbox.take_back(set(self._calls))
        self._outbox.clear()
        calls, self._calls = self._calls, {}
        begun = {i for i in calls if i not in unsent and (last_id is None or i <= last_id)}
        ends = (Ended(i, reasons.lost(c.subject, error, i in begun, c.only_reads)) for i, c in calls.items())
        return [*ends, Lost(error, announced)]

    # --- what the broker says ---------------------------------------------------------------------

    def receive(self, frames: Sequence[bytes]) -> list[Event]:
        """Take one message of the broker's and say what it means."""
        if self.phase is Phase.ENDED:
            return []
        header, *bodies = frames
        body = bodies[0] if bodies else None
        self._give_back(wire.cost(header, body))
        try:
            message = wire.decode(header)
            wire.check_body(message, body)
        except wire.WireError as error:
            return self._unreadable(header, error)
        if len(bodies) > 1:
            return self._unusable(message.channel, message.id, f"a {_name(message)} of {len(frames)} frames")
        handle = _HANDLERS.get(type(message))
        if handle is None:
            return [self._drop("stray", f"a {_name(message)}, which only a client may send")]
        return handle(self, message, body)

    def _give_back(self, cost: int) -> None:
        """Credit is given back once a quarter of the window was read: often enough, and not each time."""
        self._read_bytes += cost
        if self.phase in _UP and self._read_bytes >= self._credit_bytes // 4:
            self._queue(wire.Credit(0, 0, self._read_bytes))
            self._read_bytes = 0

    def _unreadable(self, header: bytes, error: wire.WireError) -> list[Event]:
        if error.code is wire.Code.WIRE_VERSION:
            return self._lose(reasons.wrong_version(reasons.version_of(header)))
        return self._unusable(error.channel, error.id, f"a frame that cannot be read: {error}")

    def _unusable(self, channel: int, id: int, what: str) -> list[Event]:
        """A frame that makes no sense. If it was about a call, waiting on would be in vain."""
        dropped = self._drop("unreadable", what)
        call = self._find(channel, id)
        if call is None:
            return [dropped]
        return [dropped, self._end(id, reasons.unusable(call.subject, what))]

    def _find(self, channel: int, id: int) -> _Call | None:
        call = self._calls.get(id)
        return call if call is not None and call.channel == channel else None

    def _end(self, id: int, outcome: bytes | errors.BrokerError) -> Ended:
        """End a call. Its outcome is made before the call leaves the table: what fails then is not lost."""
        del self._calls[id]
        return Ended(id, outcome)

    def _drop(self, why: str, what: str) -> Dropped:
        self.counts[why] = self.counts.get(why, 0) + 1
        return Dropped(why, what)

    def _not_under_way(self, message: wire.Message, why: str = "late") -> list[Event]:
        known = 0 < message.id <= self._last_id and message.id not in self._calls
        about = f"a {_name(message)} for call {message.id} of channel {message.channel}"
        return [self._drop(why if known else "stray", about)]

    def _on_welcome(self, message: wire.Welcome, _: bytes | None) -> list[Event]:
        if self.phase is not Phase.GREETING:
            return [self._drop("stray", "a second welcome")]
        self.phase = Phase.OPEN
        self.instance, self.broker_version = message.instance, message.broker_version
        limits = {name: value for name, value in message.limits.items() if type(value) is int and value > 0}
        self.max_message_bytes = limits.get("max_message_bytes")
        self._credit_bytes = limits.get("credit_bytes", 0)
        self._outbox.open(limits.get("request_credit_bytes", math.inf))
        return [Welcomed(message.instance, message.broker_version)]

    def _on_credit(self, message: wire.Credit, _: bytes | None) -> list[Event]:
        self._outbox.refill(message.read_bytes)
        return []

    def _on_result(self, message: wire.Result, body: bytes) -> list[Event]:
        if self._find(message.channel, message.id) is None:
            return self._not_under_way(message)
        return [self._end(message.id, body)]

    def _on_error(self, message: wire.Error, body: bytes) -> list[Event]:
        call = self._find(message.channel, message.id)
        if call is None:
            return self._not_under_way(message)
        return [self._end(message.id, reasons.server_error(call.subject, body))]

    def _on_fault(self, message: wire.Fault, _: bytes | None) -> list[Event]:
        if message.code == wire.Code.HELLO_FIRST:  # it reads in order, and refuses all that follows
            last_id = message.id - 1 if message.id else None
            return self._lose(reasons.parted("it no longer knows this client"), last_id)
        if message.id == 0:
            return self._on_complaint(message)
        if message.code == wire.Code.SHUTTING_DOWN and self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
        if self._find(message.channel, message.id) is None:
            why = "cancelled" if message.code == wire.Code.CANCELLED else "late"
            return self._not_under_way(message, why)
        ended = self._end(message.id, errors.from_fault(message))
        if message.code != wire.Code.WRONG_INSTANCE:
            return [ended]
        return [ended, *self._lose(reasons.parted("it is another one by now"), message.id)]

    def _on_complaint(self, fault: wire.Fault) -> list[Event]:
        if fault.code == wire.Code.WIRE_VERSION:
            return self._lose(reasons.wrong_version(fault.data.get("versions")))
        if self.phase is Phase.GREETING:
            announced = fault.code == wire.Code.SHUTTING_DOWN
            return self._lose(reasons.refused(fault), announced=announced)
        what = f"the broker refused a frame of ours: {fault.message} ({fault.code})"
        return [self._drop("complaints", what)]

    def _on_notification(self, message: wire.Notification, body: bytes) -> list[Event]:
        if message.id == 0 or message.method not in (PROGRESS, MESSAGE):
            return [Notified(message.channel, message.service, message.method, body)]
        call = self._find(message.channel, message.id)
        if call is None:
            return self._not_under_way(message)
        if message.method == MESSAGE:
            return [Logged(message.id, body)]
        if call.extends:
            self._calls[message.id] = call._replace(moved=True)
        return [Progressed(message.id, body)]

    def _on_question(self, message: wire.Question, body: bytes) -> list[Event]:
        return [Questioned(*message, body)]

    def _on_goodbye(self, message: wire.Goodbye, _: bytes | None) -> list[Event]:
        if message.channel == 0:
            return self._lose(reasons.parted(message.reason), message.last_id, announced=True)
        error = reasons.parted(message.reason)
        gone = {id: call for id, call in self._calls.items() if call.channel == message.channel}
        self._calls = {id: call for id, call in self._calls.items() if id not in gone}
        return [Ended(i, reasons.lost(c.subject, error, True, c.only_reads)) for i, c in gone.items()]


_HANDLERS: dict[type[Any], Callable[[ClientState, Any, Any], list[Event]]] = {
    wire.Welcome: ClientState._on_welcome,
    wire.Result: ClientState._on_result,
    wire.Error: ClientState._on_error,
    wire.Fault: ClientState._on_fault,
    wire.Notification: ClientState._on_notification,
    wire.Question: ClientState._on_question,
    wire.Goodbye: ClientState._on_goodbye,
    wire.Credit: ClientState._on_credit,
}


def _request(channel: int, id: int, instance: str, request: PreparedRequest) -> wire.Request:
    # What is left of 30 s may be 30.000000000001 s in floating point: that is no millisecond more.
    timeout_ms = None if request.timeout_s is None else max(1, math.ceil(round(request.timeout_s * 1000, 3)))
    return wire.Request(
        channel, id, instance, request.service, request.method, timeout_ms, request.flags, request.meta
    )


def _name(message: wire.Message) -> str:
    return type(message).__name__.lower()
