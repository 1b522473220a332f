"""The life of one server as a table: the events of each state, the next state and the action.

The automaton has no process and no clock. Its supervisor passes it events with their time, carries out the
actions, and wakes it at `wake_at`.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from msgspec import Struct

from broker.core.servers.backoff import RETRY_S, SETTLED_S, Backoff
from broker.core.servers.start import Start


class State(str, Enum):
    """Where a server is in its life. `DRAINING` is the one way out of every state that has a process."""

    STOPPED = "stopped"
    STARTING = "starting"
    HANDSHAKE = "handshake"
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "backoff"
    BROKEN = "broken"
    IDLE = "idle"


class Event(str, Enum):
    """What can happen to a server."""

    START = "start"  # an operator, or the config, wants it to run
    STOP = "stop"  # an operator, or the config, wants it to end
    DEMAND = "demand"  # a client calls it, and has the time to wait for a try
    IDLE = "idle"  # nobody uses it: it has no process until it is called
    SPAWNED = "spawned"  # its process exists
    OPENED = "opened"  # the handshake is done and its lists are read
    FAILED = "failed"  # it could not be spawned, or the handshake went wrong
    LEGACY = "legacy"  # it exited at the era probe: it is started again without the probe
    EXITED = "exited"  # its process ended by itself, or closed its output
    GONE = "gone"  # nothing is left of its process tree
    TIMEOUT = "timeout"  # `wake_at` has come


class Action(str, Enum):
    """What the supervisor has to do next."""

    NONE = "none"
    SPAWN = "spawn"
    GREET = "greet"
    SERVE = "serve"
    END = "end"
    REST = "rest"


class Then(str, Enum):
    """What follows once the process of a draining server is gone."""

    STOP = "stop"
    FAIL = "fail"  # count the failure, and wait for the next try
    RESTART = "restart"  # an operator asked for it
    RESPAWN = "respawn"  # it exited at the era probe: start it again without a delay
    IDLE = "idle"  # wait for a call
    WAKE = "wake"  # it was called while its idle process ended: start it again without a delay


_S, _E, _A = State, Event, Action

TABLE: dict[State, dict[Event, tuple[State, Action]]] = {
    _S.STOPPED: {
        _E.START: (_S.STARTING, _A.SPAWN),
        _E.STOP: (_S.STOPPED, _A.NONE),
        _E.IDLE: (_S.IDLE, _A.REST),
    },
    _S.STARTING: {
        _E.START: (_S.STARTING, _A.NONE),
        _E.STOP: (_S.STOPPED, _A.REST),
        _E.IDLE: (_S.IDLE, _A.REST),  # there is no room for it, and nobody uses it
        _E.SPAWNED: (_S.HANDSHAKE, _A.GREET),
        _E.FAILED: (_S.DRAINING, _A.END),
    },
    _S.HANDSHAKE: {
        _E.START: (_S.HANDSHAKE, _A.NONE),
        _E.STOP: (_S.DRAINING, _A.END),
        _E.OPENED: (_S.READY, _A.SERVE),
        _E.FAILED: (_S.DRAINING, _A.END),
        _E.LEGACY: (_S.DRAINING, _A.END),
        _E.EXITED: (_S.DRAINING, _A.END),
        _E.TIMEOUT: (_S.DRAINING, _A.END),  # or more time, where it is being installed
    },
    _S.READY: {
        _E.START: (_S.READY, _A.NONE),
        _E.STOP: (_S.DRAINING, _A.END),
        _E.FAILED: (_S.DRAINING, _A.END),
        _E.EXITED: (_S.DRAINING, _A.END),
        _E.IDLE: (_S.DRAINING, _A.END),
        _E.TIMEOUT: (_S.READY, _A.NONE),
    },
    _S.DRAINING: {
        _E.START: (_S.DRAINING, _A.NONE),
        _E.STOP: (_S.DRAINING, _A.NONE),
        _E.DEMAND: (_S.DRAINING, _A.NONE),
        _E.OPENED: (_S.DRAINING, _A.NONE),
        _E.FAILED: (_S.DRAINING, _A.NONE),
        _E.LEGACY: (_S.DRAINING, _A.NONE),
        _E.EXITED: (_S.DRAINING, _A.NONE),
        _E.GONE: (_S.STOPPED, _A.REST),  # or what `then` says
    },
    _S.BACKOFF: {
        _E.START: (_S.STARTING, _A.SPAWN),
        _E.STOP: (_S.STOPPED, _A.REST),
        _E.TIMEOUT: (_S.STARTING, _A.SPAWN),
    },
    _S.BROKEN: {
        _E.START: (_S.STARTING, _A.SPAWN),
        _E.STOP: (_S.STOPPED, _A.REST),
        _E.DEMAND: (_S.STARTING, _A.SPAWN),
        _E.TIMEOUT: (_S.STARTING, _A.SPAWN),
    },
    _S.IDLE: {
        _E.START: (_S.STARTING, _A.SPAWN),
        _E.STOP: (_S.STOPPED, _A.REST),
        _E.DEMAND: (_S.STARTING, _A.SPAWN),
    },
}
"""state → event → the next state and the action. Any other event raises `IllegalEvent`."""


class IllegalEvent(Exception):
    """An event that the table does not have in this state: a fault of the broker itself."""


class Cause(Struct, frozen=True):
    """The cause of an end, for programs: `exited` with `status`, `killed` by `signal`, `no-command` for
    `command`, `not-ready` within `within_s`.
    """

    word: str
    facts: dict[str, str | int | float]


class Ending(Struct, frozen=True):
    """How a server's process ended, or why it was ended, in words, and whether that is a failure.

    `cause` has the same for programs, if it is one of the frequent causes.
    """

    reason: str
    failure: bool = True
    cause: Cause | None = None


class Lifecycle:
    """The automaton of one server. Only its supervisor passes it events; everybody may read it.

    Args:
        restart: when the server is started again after it exited by itself.
        start_s: the seconds that a start may take (`timeout_start_sec`).
        backoff: the delays after failures.
        runner: the package runner that starts it, which may download first; see `runners`.
    """

    def __init__(
        self,
        *,
        restart: Literal["always", "on-failure", "never"],
        start_s: float,
        backoff: Backoff,
        runner: str | None = None,
    ) -> None:
        self.retune(restart=restart, start_s=start_s, backoff=backoff, runner=runner)
        self._start: Start | None = None
        self._then = Then.STOP
        self._ending: Ending | None = None
        self.state = State.STOPPED
        self.since_s = 0.0
        self.wake_at: float | None = None
        self.restarts = 0
        self.last_error: str | None = None
        self.last_cause: Cause | None = None

    def retune(
        self,
        *,
        restart: Literal["always", "on-failure", "never"],
        start_s: float,
        backoff: Backoff,
        runner: str | None = None,
    ) -> None:
        """Follow the changed table of the config. Earlier failures are forgotten.

        A start that is under way keeps its time.
        """
        self._restart = restart
        self._runner = runner
        self._start_s = start_s
        self._backoff = backoff

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.value} wake_at={self.wake_at} last_error={self.last_error!r}>"

    @property
    def stopping(self) -> bool:
        """Whether it is draining, and will not be started again by itself."""
        return self.state is State.DRAINING and self._then is Then.STOP

    @property
    def respawning(self) -> bool:
        """Whether it exited at the era probe, and will be started again without it."""
        return self.state is State.DRAINING and self._then is Then.RESPAWN

    @property
    def keeps_place(self) -> bool:
        """Whether another process follows at once the one that ends, or has just ended."""
        return self._then in (Then.RESTART, Then.RESPAWN)

    @property
    def failing(self) -> bool:
        """Whether it is draining because of a failure."""
        return self.state is State.DRAINING and self._then is Then.FAIL

    @property
    def idle(self) -> bool:
        """Whether it waits for a call, without a process or with one that is being ended."""
        return self.state is State.IDLE or (self.state is State.DRAINING and self._then is Then.IDLE)

    @property
    def stopped(self) -> bool:
        """Whether an operator has stopped it, or is stopping it."""
        return self.stopping or (self.state is State.STOPPED and not self.given_up)

    @property
    def given_up(self) -> bool:
        """Whether it exited by itself, and `restart` does not start it again."""
        return self.state is State.STOPPED and self._then is Then.FAIL

    @property
    def reason(self) -> str:
        """The reason for which its process is ended, in words."""
        if self._then is Then.FAIL and self._ending:
            return self._ending.reason
        if self._then in (Then.IDLE, Then.WAKE):
            return "nobody used it"
        return "it was restarted" if self._then is Then.RESTART else "it was stopped"

    @property
    def start(self) -> Start | None:
        """The start under way: the process runs, and is not ready yet."""
        return self._start if self.state is State.HANDSHAKE else None

    def alive(self, now: float, *, spoke: bool = False) -> None:
        """Note a sign of life of the process: it wrote something, or its tree is active.

        Args:
            spoke: it wrote to its stdout, so that nothing is left to be downloaded.
        """
        if self._start is not None:
            self._start.alive(now, spoke=spoke)

    def demand_at(self) -> float | None:
        """Return from when on a call may start it; `None` if no call may."""
        if self.idle:
            return self.since_s
        return self.since_s + self._backoff.demand_s if self.state is State.BROKEN else None

    def on(self, event: Event, now: float, ending: Ending | None = None) -> Action:
        """Take in an event; return the action.

        Args:
            ending: how the process ended, for FAILED, LEGACY and EXITED.

        Raises:
            IllegalEvent: the table has no such event in this state.
        """
        if event not in TABLE[self.state]:
            raise IllegalEvent(f"{event.value} in state {self.state.value}")
        before = self.state
        if event is Event.TIMEOUT and self.start is not None and self.start.has_more_time(now):
            self.wake_at = self.start.due  # the process is active, and gets more time
            return Action.NONE
        after, action = TABLE[before][event]
        self._decide(before, event, ending, now)
        if event is Event.GONE:
            return self._gone(now)
        if after is not before:
            self._enter(after, now)
        elif event is Event.TIMEOUT:
            self.wake_at = None
        return action

    def overdue(self, now: float) -> Ending:
        """Return the ending of a start that has run out of time."""
        assert self._start is not None
        cause = Cause("not-ready", {"within_s": round(max(now, self._start.due) - self._start.began, 1)})
        return Ending(self._start.overdue(now, self._start_s), cause=cause)

    def _decide(self, before: State, event: Event, ending: Ending | None, now: float) -> None:
        """Decide what follows once the process is gone."""
        if event is Event.START or (event is Event.TIMEOUT and before is State.READY):
            self._backoff.settled()
        if event is Event.STOP:
            self._then = Then.STOP
        elif event is Event.IDLE:
            self._then = Then.IDLE
        elif event is Event.DEMAND and self.idle:
            self._then = Then.WAKE
        elif event is Event.START and before is State.DRAINING:
            self._then = Then.RESTART
        elif event is Event.LEGACY and before is State.HANDSHAKE:
            self._then = Then.RESPAWN
        elif event in _ENDINGS and before in _RUNNING:
            self._then = Then.FAIL
            self._ending = ending or (self.overdue(now) if event is Event.TIMEOUT else Ending("it failed"))

    def _gone(self, now: float) -> Action:
        if self._then is Then.FAIL and self._ending is not None:
            return self._failed(self._ending, now)
        if self._then in (Then.STOP, Then.IDLE):
            self._enter(State.STOPPED if self._then is Then.STOP else State.IDLE, now)
            return Action.REST
        self._enter(State.STARTING, now)
        self.restarts += self._then is Then.RESTART
        return Action.SPAWN

    def _failed(self, ending: Ending, now: float) -> Action:
        self.last_error, self.last_cause = ending.reason, ending.cause
        if self._restart == "never" or (self._restart == "on-failure" and not ending.failure):
            self._enter(State.STOPPED, now)
            return Action.REST
        delay_s = self._backoff.failed(now)
        self._enter(State.BROKEN if delay_s is None else State.BACKOFF, now)
        self.wake_at = now + (RETRY_S if delay_s is None else delay_s)
        return Action.REST

    def _enter(self, state: State, now: float) -> None:
        self.restarts += state is State.STARTING and self.state in (State.BACKOFF, State.BROKEN)
        self.wake_at = None
        if state is State.HANDSHAKE:
            self._start = Start(now, self._start_s, self._runner, now)
            self.wake_at = now + self._start_s
        elif state is State.READY:
            self.wake_at = now + SETTLED_S
        self.state = state
        self.since_s = now


_RUNNING = frozenset({State.STARTING, State.HANDSHAKE, State.READY})
_ENDINGS = frozenset({Event.FAILED, Event.EXITED, Event.TIMEOUT})
