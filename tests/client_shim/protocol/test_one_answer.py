"""One answer, no crosstalk, no residue: the client's automaton against everything that can happen to it.

That is so for calls, and for the questions of their servers the other way round.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client_shim import wire
from client_shim.protocol.events import Ended, Event, Progressed, Questioned, Withdrawn
from client_shim.protocol.reasons import is_for_the_next
from client_shim.protocol.state import ConnectionPhase
from tests.client_shim.talk import ECHO, flush, hear, opened


class OneAnswer(RuleBasedStateMachine):
    """Laws 2, 3 and 8 against everything that callers, a broker and time can do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = opened()
        self.now = 0.0
        self.waiting: dict[int, int] = {}
        self.known: dict[int, int] = {}
        self.taken: set[int] = set()
        """The requests that the transport has taken."""
        self.asked: dict[int, int] = {}
        """The call of each open question."""
        self.last_question = 0
        self.to_answer: set[int] = set()
        """The questions that were answered and whose answer the transport has not taken yet."""

    def absorb(self, events: list[Event]) -> set[int]:
        """Check events against the calls that wait; the calls that they end."""
        ended = [event.id for event in events if isinstance(event, Ended)]
        assert len(ended) == len(set(ended))
        assert set(ended) <= self.waiting.keys(), "a call ended twice, or one that nobody made"
        assert all(event.id in self.waiting for event in events if isinstance(event, Progressed))
        for id in ended:
            self.call_ends(id)
        return set(ended)

    def call_ends(self, id: int) -> None:
        """Forget a call; its questions end with it."""
        self.waiting.pop(id, None)
        self.asked = {question: call for question, call in self.asked.items() if call != id}

    @rule(channel=st.integers(1, 3), timeout_s=st.none() | st.integers(1, 9), send=st.booleans())
    @precondition(lambda self: self.state.phase is ConnectionPhase.OPEN)
    def call(self, channel: int, timeout_s: float | None, send: bool) -> None:
        id = self.state.request(channel, ECHO._replace(timeout_s=timeout_s), self.now)
        assert id not in self.known
        self.known[id] = self.waiting[id] = channel
        if send:
            self.transport_takes()

    @rule()
    def transport_takes(self) -> None:
        for message in flush(self.state):
            if isinstance(message, wire.Request):
                self.taken.add(message.id)
            elif isinstance(message, wire.Answer):
                assert message.id in self.to_answer, "an answer that nobody gave, or a second one"
                self.to_answer.remove(message.id)

    @rule(
        data=st.data(), kind=st.sampled_from(["result", "error", "fault", "progress", "cancelled", "drains"])
    )
    def broker_speaks(self, data: Any, kind: str) -> None:
        id = data.draw(st.sampled_from([*self.known, 999]))
        channel = data.draw(st.sampled_from([self.known.get(id, 1), 1, 2, 3]))
        fits = self.waiting.get(id) == channel and self.state.phase is not ConnectionPhase.ENDED
        say: dict[str, tuple[wire.Message, bytes | None]] = {
            "result": (wire.Result(channel, id), b"{}"),
            "error": (wire.Error(channel, id), b'{"code":1,"message":"m"}'),
            "fault": (wire.Fault(channel, id, "busy", "m", {}), None),
            "cancelled": (wire.Fault(channel, id, "cancelled", "m", {}), None),
            "drains": (wire.Fault(channel, id, "shutting-down", "m", {}), None),
            "progress": (wire.Notification(channel, id, "s", "notifications/progress"), b"{}"),
        }
        ended = self.absorb(hear(self.state, *say[kind]))
        assert ended == ({id} if fits and kind != "progress" else set())
        assert not (kind == "drains" and self.state.phase is ConnectionPhase.OPEN)

    @rule(data=st.data())
    def caller_cancels(self, data: Any) -> None:
        id = data.draw(st.sampled_from([*self.known, 999]))
        self.state.cancel(id)
        self.call_ends(id)

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def broker_asks(self, data: Any) -> None:
        """Ask about an open call, as a good broker does."""
        call = data.draw(st.sampled_from(sorted(self.waiting)))
        self.last_question += 1
        question = wire.Question(self.waiting[call], self.last_question, call, "s", "m")
        assert hear(self.state, question, b"{}", self.now) == [Questioned(*question, b"{}")]
        self.asked[question.id] = call

    @rule(data=st.data(), again=st.booleans())
    def broker_asks_astray(self, data: Any, again: bool) -> None:
        """Ask about any call, on any channel, perhaps under an id that is open."""
        call = data.draw(st.sampled_from([*self.known, 999]))
        channel = data.draw(st.integers(1, 3))
        again = again and bool(self.asked)
        id = data.draw(st.sampled_from(sorted(self.asked))) if again else self.last_question + 1
        self.last_question = max(self.last_question, id)
        is_up = self.state.phase is not ConnectionPhase.ENDED
        fits = not again and self.waiting.get(call) == channel
        if not again and is_up and self.waiting.get(call) != channel and not self.has_ended(call):
            self.to_answer.add(id)  # an error at once: there is no such call
        events = hear(self.state, wire.Question(channel, id, call, "s", "m"), b"{}", self.now)
        assert [event for event in events if isinstance(event, Questioned)] == (
            [Questioned(channel, id, call, "s", "m", b"{}")] if fits and is_up else []
        )
        if fits:
            self.asked[id] = call

    def has_ended(self, call: int) -> bool:
        return call in self.known and call not in self.waiting

    @rule(data=st.data(), ok=st.booleans())
    @precondition(lambda self: self.last_question)
    def client_answers(self, data: Any, ok: bool) -> None:
        id = data.draw(st.sampled_from([*self.asked, *range(1, self.last_question + 1)]))
        was_open = self.asked.pop(id, None) is not None
        assert self.state.questions.answer(id, ok, b"{}", self.now) is was_open
        if was_open:
            self.to_answer.add(id)

    @rule(data=st.data(), channel=st.none() | st.integers(1, 3))
    def broker_withdraws(self, data: Any, channel: int | None) -> None:
        id = data.draw(st.sampled_from([*self.asked, *range(1, self.last_question + 2)]))
        owner = self.known.get(self.asked.get(id, 0))
        events = hear(self.state, wire.Cancel(channel or owner or 1, id, None), None, self.now)
        fits = owner is not None and channel in (None, owner)
        assert [event for event in events if isinstance(event, Withdrawn)] == (
            [Withdrawn(id, self.asked[id], None)] if fits else []
        )
        if fits:
            del self.asked[id]

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.absorb(self.state.expire(self.now))
        deadline = self.state.next_deadline()
        assert deadline is None or deadline > self.now, "nothing overdue is left"

    @rule(channel=st.integers(1, 4))
    def client_closes(self, channel: int) -> None:
        ended = self.absorb(self.state.close_channel(channel, "closed"))
        assert channel not in self.waiting.values()
        assert all(self.known[id] == channel for id in ended)

    @rule(
        how=st.sampled_from(["lose", "goodbye", "close"]),
        luck=st.integers(0, 19),
        last_id=st.none() | st.integers(0, 12),
    )
    def connection_ends(self, how: str, luck: int = 0, last_id: int | None = None) -> None:
        if luck:
            return  # or most lives would be over before anything happened in them
        ends = {
            "lose": lambda: self.state.lose("gone"),
            "goodbye": lambda: hear(self.state, wire.Goodbye(0, 0, "gone", last_id)),
            "close": lambda: self.state.close("gone"),
        }
        events = ends[how]()
        self.absorb(events)
        assert not self.waiting
        for event in events:
            if isinstance(event, Ended) and is_for_the_next(event.outcome):
                known = last_id is not None and how == "goodbye" and event.id > last_id
                assert known or event.id not in self.taken, "it may have been begun"

    @invariant()
    def the_table_holds_what_waits(self) -> None:
        assert self.state.in_flight == len(self.waiting)
        assert {id for id in range(self.last_question + 1) if id in self.state.questions} == self.asked.keys()

    def teardown(self) -> None:
        """Whatever happened: at the end every table is empty."""
        self.connection_ends("lose")
        flush(self.state)
        assert self.state.next_deadline() is None
        assert (self.state.in_flight, self.state.next_message()) == (0, None)
        assert len(self.state.questions) == 0


TestOneAnswer = OneAnswer.TestCase
TestOneAnswer.settings = settings(stateful_step_count=80)
