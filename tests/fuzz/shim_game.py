"""Games of the shim's automaton: a broken or hostile broker says anything, at any time.

What must hold: no exception escapes, and each call ends exactly once, no later than its deadline (law 2). To
read a body (an error, progress, the drop-in's content items) raises only the shim's own errors.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from client_shim import wire
from client_shim.backend.content import content_items
from client_shim.errors import BrokerError, Busy, TooLarge
from client_shim.protocol import payload
from client_shim.protocol.calls import GRACE_S
from client_shim.protocol.events import Ended, Event, Logged, Progressed, Questioned, Withdrawn
from client_shim.protocol.payload import PreparedRequest
from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.results import CallResult
from tests.client_shim.talk import LIMITS, WHO
from tests.fuzz.odd import Odd
from tests.fuzz.talk import Frames

STEPS = 120
TIMEOUT_S = 20.0


class ShimGame:
    """One game: a connection, what a broker says on it, and an end.

    Args:
        seed: names the game; the same seed plays the same game.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.inputs = 0
        self._frames = Frames(Odd(self.rng), "i", ["time"])
        self._now = 0.0
        self._state = ClientState(WHO, self._now)
        self._open: dict[int, float] = {}
        self._questions: set[int] = set()
        if self.rng.randrange(10):
            self._absorb(self._state.receive([wire.encode(wire.Welcome(0, 0, "i", "1", LIMITS))], self._now))

    def play(self) -> None:
        """The whole game.

        Raises:
            AssertionError: something that must hold did not.
        """
        steps = (self._call, self._turn_away, self._send, self._pass_time, self._answer, *[self._hear] * 3)
        for _ in range(STEPS):
            self.rng.choice(steps)()
            if self._state.phase is ConnectionPhase.ENDED:
                break
        for question in self._questions:  # the time of their calls stands still
            self._state.questions.answer(question, True, b"{}", self._now)
        for _ in range(2):  # progress may have started a call's time anew, once
            self._now += TIMEOUT_S + 2 * GRACE_S
            self._absorb(self._state.expire(self._now))
        assert not self._open, f"calls without an end: {self._open}"
        assert self._state.in_flight == 0

    def _call(self) -> None:
        if self._state.phase is not ConnectionPhase.OPEN:
            return
        flags = self.rng.randrange(4)
        ask = PreparedRequest(
            "`echo` of server 'time'", "time", "echo", b"{}", timeout_s=TIMEOUT_S, flags=flags
        )
        with suppress(TooLarge, Busy):  # nothing was sent
            self._open[self._state.request(self.rng.randrange(1, 3), ask, self._now)] = self._now + TIMEOUT_S

    def _hear(self) -> None:
        header, body = self._frames.of_broker(list(self._open))
        self.inputs += 1
        bodies = [] if body is None else [body] * (1 + (not self.rng.randrange(30)))
        self._absorb(self._state.receive([header, *bodies], self._now))

    def _turn_away(self) -> None:
        if self._open and not self.rng.randrange(3):
            id = self.rng.choice(list(self._open))
            del self._open[id]
            self._state.cancel(id, "turned away")
        elif not self.rng.randrange(30):
            self._absorb(self._state.close_channel(self.rng.randrange(1, 3), "done"))

    def _answer(self) -> None:
        """Answer a question, which may have ended with its call."""
        if self._questions:
            id = self.rng.choice(sorted(self._questions))
            is_open = id in self._state.questions
            assert self._state.questions.answer(id, True, b"{}", self._now) is is_open
            self._questions.remove(id)

    def _send(self) -> None:
        while (frames := self._state.next_message()) is not None:
            wire.check_body(wire.decode(frames[0]), frames[1] if len(frames) > 1 else None)
            self._state.sent()

    def _pass_time(self) -> None:
        self._now += self.rng.choice((0.0, 0.5, 3.0, 21.0))
        self._absorb(self._state.expire(self._now))

    def _absorb(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Ended):
                assert event.id in self._open, f"a second ending of call {event.id}"
                del self._open[event.id]
                self._look_into(event.outcome)
            elif isinstance(event, Progressed):
                payload.progress(event.body)
            elif isinstance(event, Logged):
                payload.log_message(event.body)
            elif isinstance(event, Questioned):
                assert event.request_id in self._open, f"a question about call {event.request_id}"
                self._questions.add(event.id)
            elif isinstance(event, Withdrawn):
                self._questions.remove(event.id)

    def _look_into(self, outcome: object) -> None:
        """As a caller does: an error is printed, a result is read."""
        if isinstance(outcome, BrokerError):
            assert str(outcome)
            return
        assert isinstance(outcome, bytes)
        try:
            result = payload.decode("it", outcome)
        except BrokerError:  # its words say whose mistake it is
            return
        if isinstance(result, dict):
            with suppress(RuntimeError):  # its words say whose mistake it is
                items = content_items("it", CallResult(result))
                assert all(isinstance(value, str) for item in items for value in item.values())
