"""No history of events breaks the laws: one process, its deadlines, and a stop that ends in rest."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.servers.backoff import Backoff
from broker.core.servers.lifecycle import Action, Ending, Event, Lifecycle, State

CRASH = Ending("it exited with status 1")
CLEAN = Ending("it exited with status 0", failure=False)
_TIMED = {State.HANDSHAKE, State.READY, State.BACKOFF, State.BROKEN}


class AnyHistory(RuleBasedStateMachine):
    """A supervisor that carries out what the automaton says, and a world that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.has_process = False
        self.ending = False
        self.wants_spawn = False
        self.wanted = False
        backoff = Backoff(first_delay_s=1.0, burst=3, interval_s=60.0, rng=lambda: 0.5)
        self.server = Lifecycle(restart="always", start_s=20.0, backoff=backoff, runner="npx")

    def feed(self, event: Event, ending: Ending | None = None) -> None:
        action = self.server.on(event, self.now, ending)
        if action is Action.SPAWN:
            assert not self.has_process
            self.wants_spawn = True
        elif action is Action.END:
            assert not self.ending
            self.ending, self.wants_spawn = True, False
        elif action is Action.REST:
            assert not self.has_process
            self.wants_spawn = False

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.feed(Event.START)

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.feed(Event.STOP)

    @precondition(lambda self: self.server.state in (State.STOPPED, State.STARTING, State.READY))
    @rule()
    def idle(self) -> None:
        self.wanted = True
        self.feed(Event.IDLE)

    @precondition(lambda self: self.server.demand_at() is not None)
    @rule()
    def demand(self) -> None:
        self.feed(Event.DEMAND)

    @precondition(lambda self: self.wants_spawn)
    @rule(works=st.booleans())
    def spawn(self, works: bool) -> None:
        self.wants_spawn = False
        if works:
            self.has_process = True
            self.feed(Event.SPAWNED)
        else:
            self.feed(Event.FAILED, CRASH)

    @precondition(lambda self: self.has_process and self.server.state is State.HANDSHAKE)
    @rule(event=st.sampled_from([Event.OPENED, Event.FAILED, Event.LEGACY]))
    def handshake(self, event: Event) -> None:
        self.feed(event, None if event is Event.OPENED else CRASH)

    @precondition(lambda self: self.has_process and self.server.state is not State.STARTING)
    @rule(ending=st.sampled_from([CRASH, CLEAN]))
    def exit(self, ending: Ending) -> None:
        self.feed(Event.EXITED, ending)

    @precondition(lambda self: self.ending)
    @rule()
    def gone(self) -> None:
        self.ending = self.has_process = False
        self.feed(Event.GONE)

    @precondition(lambda self: self.server.wake_at is not None)
    @rule()
    def timeout(self) -> None:
        assert self.server.wake_at is not None
        self.now = max(self.now, self.server.wake_at)
        self.feed(Event.TIMEOUT)

    @rule(spoke=st.booleans())
    def alive(self, spoke: bool) -> None:
        self.server.alive(self.now, spoke=spoke)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        self.now = until if self.server.wake_at is None else min(until, self.server.wake_at)

    @invariant()
    def only_states_with_a_deadline_have_one(self) -> None:
        assert self.server.wake_at is None or self.server.state in _TIMED
        if self.server.state in _TIMED - {State.READY}:
            assert self.server.wake_at is not None

    @invariant()
    def every_start_has_an_end(self) -> None:
        start = self.server.start
        if start is not None:
            assert self.server.wake_at is not None
            assert start.began + 20.0 <= start.due <= start.latest == start.began + 200.0
            assert self.now <= self.server.wake_at <= start.latest

    @invariant()
    def the_state_knows_of_the_process(self) -> None:
        assert self.has_process or self.server.state not in (State.HANDSHAKE, State.READY)
        assert self.ending is (self.server.state is State.DRAINING)
        assert self.wants_spawn is (self.server.state is State.STARTING)

    @invariant()
    def what_is_not_wanted_is_not_started(self) -> None:
        if not self.wanted:
            assert self.server.state is State.STOPPED or self.server.stopping

    def teardown(self) -> None:
        """Whatever came before, a stop ends in rest."""
        self.stop()
        if self.ending:
            self.gone()
        assert self.server.state is State.STOPPED
        assert not self.has_process
        assert not self.wants_spawn


TestAnyHistory = AnyHistory.TestCase
