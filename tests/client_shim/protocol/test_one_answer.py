"""One answer, no crosstalk, no residue: the client's automaton against everything that can happen to it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client_shim import wire
from client_shim.protocol.events import Ended, Event, Progressed
from client_shim.protocol.reasons import is_for_the_next
from client_shim.protocol.state import ConnectionPhase
from tests.client_shim.talk import ECHO, flush, hear, opened

KINDS = ["result", "error", "fault", "progress", "cancelled", "drains"]


class OneAnswer(RuleBasedStateMachine):
    """Laws 2 and 3 against everything that callers, a broker and time can do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = opened()
        self.now = 0.0
        self.waiting: dict[int, int] = {}
        self.known: dict[int, int] = {}
        self.taken: set[int] = set()
        """The requests that the transport has taken."""

    def absorb(self, events: list[Event]) -> set[int]:
        """Check events against the calls that wait; the calls that they end."""
        ended = [event.id for event in events if isinstance(event, Ended)]
        assert len(ended) == len(set(ended))
        assert set(ended) <= self.waiting.keys(), "a call ended twice, or one that nobody made"
        assert all(event.id in self.waiting for event in events if isinstance(event, Progressed))
        for id in ended:
            del self.waiting[id]
        return set(ended)

    @rule(channel=st.integers(1, 3), timeout_s=st.none() | st.integers(1, 9), send=st.booleans())
    @precondition(lambda self: self.state.phase is ConnectionPhase.OPEN)
    def call(self, channel: int, timeout_s: float | None, send: bool) -> None:
        id = self.state.request(channel, ECHO._replace(timeout_s=timeout_s), self.now)
        assert id not in self.known
        self.known[id] = self.waiting[id] = channel
        if send:
            self.transport_takes()

    def transport_takes(self) -> None:
        self.taken |= {message.id for message in flush(self.state)}

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
        self.waiting.pop(id, None)

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
        luck=st.integers(0, 9),
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

    def teardown(self) -> None:
        """Whatever happened: at the end every table is empty."""
        self.connection_ends("lose")
        flush(self.state)
        assert self.state.next_deadline() is None
        assert (self.state.in_flight, self.state.next_message()) == (0, None)


TestOneAnswer = OneAnswer.TestCase
