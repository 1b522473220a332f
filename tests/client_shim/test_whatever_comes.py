"""Law 2 on the client's side: whatever a broker or a server says, a call ends once and nothing raises.

The values are arbitrary everywhere: in the frames, in the bodies of every kind, and in what a tool answers.
An exception in a handler of an event loop would leave the caller waiting for ever: that is what a reply with
the error code 1e999 did.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client_shim import errors, results, wire
from client_shim.asyncio import call as calls
from client_shim.asyncio.channel import Channel, ListenCall, ListenSet
from client_shim.asyncio.connection import BrokerConnection
from client_shim.backend.content import content_items
from client_shim.protocol.events import Ended
from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.text import printable, shown
from client_shim.transport.address import BrokerAddress
from client_shim.transport.dealer import Dealer
from tests.client_shim.talk import ECHO, LIMITS, WHO, hear, opened

# What is nested deeply ends at Python's limit of recursion. Hypothesis's own callback of the garbage
# collector may be what meets it, and complains.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DEEP = 990
ODD_JSON = (
    b'{"code": 1e999, "message": "m"}',
    b'{"code": -1e999, "message": "m"}',
    b'{"code": NaN, "message": "m"}',
    b'{"code": [1], "message": "m"}',
    b'{"code": 1, "message": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"code": ' + b"1" * 5000 + b', "message": "m"}',
    b'{"code": 1, "message": "\\ud800"}',
    b'{"progress": 1e999}',
    b'{"progress": ' + b"1" * 400 + b"}",
    b'{"level": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"servers": 5}',
    b'{"uri": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b"[" * 100_000,
    b"\xff\xfe",
    b"",
    b"null",
)

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, -1])
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "\x1b]0;t\x07", "complete", "text", "resource_link", "resource", "image"])
)
KEYS = st.text(max_size=4) | st.sampled_from(
    ["code", "message", "data", "progress", "total", "level", "logger", "servers", "uri", "reason", "hint"]
)
ANY = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)
BODIES = (
    st.sampled_from(ODD_JSON)
    | st.binary(max_size=40)
    | ANY.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(KEYS, ANY).map(lambda value: json.dumps(value).encode())
)


def packed(value: object) -> bytes:
    """The value in msgpack, with whatever msgpack has no form for as null."""
    try:
        frame: bytes = msgpack.packb(value)
    except (ValueError, OverflowError, TypeError):
        frame = msgpack.packb(None)
    return frame


NUMBERS = st.sampled_from([0, 1, 2, 3, 2**63, -1]) | ANY
FIELDS = st.lists(ANY | st.sampled_from(["notifications/progress", "notifications/message"]), max_size=6)
HEADERS = (
    st.builds(
        lambda kind, channel, id, fields: packed([wire.VERSION, kind, channel, id, *fields]),
        st.integers(0, 14) | ANY,
        NUMBERS,
        NUMBERS,
        FIELDS,
    )
    | st.sampled_from(
        [
            packed([wire.VERSION, kind, channel, id, *fields])
            for kind, fields in (
                (wire.Kind.RESULT, ()),
                (wire.Kind.ERROR, ()),
                (wire.Kind.FAULT, ("busy", "m", {"hint": [1], "retry_after_s": 10**18})),
                (wire.Kind.NOTIFICATION, ("s", "notifications/progress")),
                (wire.Kind.NOTIFICATION, ("s", "notifications/message")),
                (wire.Kind.NOTIFICATION, ("s", "$broker/not_subscribed")),
                (wire.Kind.QUESTION, (1, "s", "roots/list")),
                (wire.Kind.GOODBYE, ("bye",)),
                (wire.Kind.GOODBYE, ("bye", 1)),
                (wire.Kind.GOODBYE, ("bye", -(2**63))),
            )
            for channel in (0, 1)
            for id in (0, 1, 2)
        ]
    )
    | ANY.map(packed)
    | st.binary(max_size=40)
)
MESSAGES = st.tuples(HEADERS, st.lists(BODIES, max_size=2)).map(lambda both: [both[0], *both[1]])


def messages_of_every_kind(body: bytes) -> list[list[bytes]]:
    """One message of each kind that has a body, about the first call."""
    kinds: list[wire.Message] = [wire.Result(1, 1), wire.Error(1, 1), wire.Question(1, 1, 1, "s", "m")]
    for method in ("notifications/progress", "notifications/message"):
        kinds.append(wire.Notification(1, 1, "s", method))
    return [[wire.encode(message), body] for message in kinds]


@given(st.lists(MESSAGES, max_size=8), st.booleans())
@settings(max_examples=300)
def test_every_call_of_a_connection_ends_exactly_once(messages: list[list[bytes]], greeted: bool) -> None:
    """In the pure part: the table and what it says agree, and nothing raises."""
    state = opened() if greeted else ClientState(WHO, 0.0)
    ids = [state.request(1, ECHO, 0.0) for _ in range(2)] if greeted else []
    ended: list[int] = []
    for message in messages:
        events = state.receive(message, 0.0)
        for event in events:
            str(event)
            if isinstance(event, Ended):
                ended.append(event.id)
                str(event.outcome)
                repr(event.outcome)
    ended += [event.id for event in state.lose("the test is over") if isinstance(event, Ended)]
    assert sorted(ended) == ids


@pytest.mark.parametrize("body", ODD_JSON)
def test_an_odd_body_of_any_kind_ends_a_call_or_is_dropped(body: bytes) -> None:
    """The bodies that were found to do harm, and their like, in every kind of message."""
    for message in messages_of_every_kind(body):
        state = opened()
        id = state.request(1, ECHO, 0.0)
        ends = [event for event in state.receive(message, 0.0) if isinstance(event, Ended)]
        ends += [event for event in state.lose("the test is over") if isinstance(event, Ended)]
        assert [event.id for event in ends] == [id]


class StandIn:
    """A link of a connection without a socket: what `BrokerConnection` uses of a `LoopDealer`."""

    def __init__(self, state: ClientState) -> None:
        self.state = state

    def settle(self) -> None:
        while self.state.next_message() is not None:
            self.state.sent()

    def wake_by(self, when: float | None) -> None: ...

    def close(self, linger_ms: int = 0) -> None: ...


class Listener:
    """A client object that only notes what it is told."""

    def __init__(self, news: list[object]) -> None:
        self.news = news

    def notified(self, server: str, method: str, params: bytes) -> None:
        self.news.append((server, method, params))

    def connection_changed(self, connected: bool) -> None:
        self.news.append(connected)


@given(st.lists(MESSAGES, max_size=8))
@settings(max_examples=150, deadline=None)
def test_no_event_makes_the_handlers_of_a_connection_raise(messages: list[list[bytes]]) -> None:
    """The shell: each caller's future gets its one end, and the loop's exception handler is never called."""
    raised: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context))
        connection = BrokerConnection(loop, BrokerAddress("ipc:///nowhere"), WHO, 5.0, lambda _: None)
        state = opened()
        connection._dealer = StandIn(state)  # type: ignore[assignment]
        news: list[object] = []
        channel = connection.open_channel(lambda: Listener(news), ListenSet(servers=None))
        calls = [connection.call(channel, ECHO) for _ in range(2)]
        for message in messages:
            if connection._dealer is None:
                break
            for event in state.receive(message, 0.0):
                connection._on_event(event)
        connection.close("the test is over")
        await asyncio.sleep(0)
        assert all(call.outcome is not None for call in calls)

    asyncio.run(main())
    assert not raised


def test_a_fault_of_the_shim_itself_ends_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort: a message that makes the automaton raise ends the connection, and so every call."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    state = opened()
    id = state.request(1, ECHO, 0.0)
    dealer = object.__new__(Dealer)
    dealer.state = state
    monkeypatch.setattr(ClientState, "receive", broken)
    events = dealer._take([b""], 0.0)
    assert [event.id for event in events if isinstance(event, Ended)] == [id]
    assert state.phase is ConnectionPhase.ENDED


@given(BODIES)
@example(b'{"servers": [' + b"[" * DEEP + b"]" * DEEP + b"]}")
def test_the_answer_to_a_listen_may_be_anything(body: bytes) -> None:
    """It is the connection itself that reads it, in a handler of the loop."""

    async def main() -> None:
        told: list[object] = []
        channel = Channel(1, lambda: None, ListenSet(servers=None))
        channel.listened = True
        ListenCall(channel, lambda *news: told.append(news), lambda *_: None).end(body)

    asyncio.run(main())


@given(BODIES)
def test_what_a_callback_is_told_can_be_formatted(body: bytes) -> None:
    """`mcp-broker call` writes progress with `:g`, which raises OverflowError for an integer above 1e308."""

    def on_progress(progress: float, total: float | None, _: str | None) -> None:
        assert f"{progress:g}"
        assert total is None or f"{total:g}"

    def on_log(level: str, *_: object) -> None:
        assert isinstance(level, str)

    for reader in (calls.progress_reader(on_progress), calls.log_reader(on_log)):
        assert reader is not None
        reader(body)


ITEMS = st.dictionaries(
    st.sampled_from(
        [
            "type",
            "text",
            "data",
            "mimeType",
            "url",
            "altText",
            "resource",
            "uri",
            "title",
            "name",
            "blob",
            "description",
        ]
    ),
    ANY | st.dictionaries(st.sampled_from(["text", "blob", "uri", "mimeType"]), ANY),
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.lists(ITEMS) | ANY,
        "structuredContent": ANY,
        "isError": ANY,
        "resultType": ANY,
        "metadata": ANY,
    },
)


@given(RESULTS)
@example({"content": [{"type": "resource_link", "uri": "u", "description": 5}]})
@example({"content": [{"type": 5, "text": [1]}]})
@example({"content": [{"type": "resource", "resource": {"text": {"a": "\ud800"}, "uri": 1}}]})
@settings(max_examples=300)
def test_the_items_of_a_backend_are_strings_whatever_a_tool_answers(raw: dict[str, Any]) -> None:
    """A backend encodes them, joins them and sends them on; a `resource_link` could raise TypeError here."""
    try:
        items = content_items("tool 't' of server 's'", results.CallResult(raw))
    except RuntimeError:
        assert not isinstance(raw["content"], list) or not all(
            isinstance(one, dict) for one in raw["content"]
        )
        return
    assert items
    for item in items:
        assert all(isinstance(value, str) for value in item.values())
        json.dumps(item, ensure_ascii=False).encode("utf-8")


@given(ANY)
def test_reading_a_result_raises_what_a_call_raises(value: object) -> None:
    """Attributes are read in the caller's code, which catches `CallError`."""
    for kind, field in (
        (results.CallResult, "content"),
        (results.ReadResult, "contents"),
        (results.PromptResult, "messages"),
        (results.PromptMessage, "content"),
    ):
        with suppress(errors.InvalidReply):
            getattr(kind({field: value}), field)
    assert isinstance(results.Tool({"name": "t", "inputSchema": value}).inputSchema, dict)


@given(ANY)
def test_any_value_can_be_shown(value: object) -> None:
    """`repr` raises for what is nested deeply and for very long numbers; this does not."""
    deep: object = value
    for _ in range(2000):
        deep = [deep]
    assert len(shown(deep)) <= 100
    assert len(shown(value)) <= 100


@given(st.text())
@example("\x1b]52;c;AAAA\x07 \x9b31m \x7f \u202e \u200b \u2028 \ud800 \r")
def test_nothing_printable_moves_a_cursor(text: str) -> None:
    """What is escaped can be encoded, and a second pass changes nothing."""
    safe = printable(text)
    safe.encode("utf-8")
    assert all(char in "\n\t" or not 0 <= ord(char) < 32 for char in safe)
    assert not set(safe) & {"\x7f", "\x9b", "\u202e", "\u200b", "\u2066", "\u2028"}
    assert printable(safe) == safe


def test_ordinary_text_stays_as_it_is() -> None:
    """Chinese and Japanese with ideographic spaces, accents, emoji with a variation selector."""
    for text in ("福岡\u3000の天気", "café\u00a0!", "☀️ 21 °C", "a\n\tb"):
        assert printable(text) == text


def test_a_fault_with_odd_data_is_an_error_like_any_other() -> None:
    """A hint that is not text is left out, and an impossible time to wait is not given."""
    state = opened(**LIMITS)
    deep: object = "x"
    for _ in range(400):
        deep = [deep]
    id = state.request(1, ECHO, 0.0)
    (ended,) = hear(state, wire.Fault(1, id, "busy", "m", {"hint": deep, "retry_after_s": float("inf")}))
    assert isinstance(ended, Ended)
    assert isinstance(ended.outcome, errors.CallError)
    assert (str(ended.outcome), ended.outcome.retry_after_s) == ("m", None)
