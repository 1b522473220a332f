"""The one arbiter of a server's process: what the operator, a reload and the end of the broker want of it.

A wish may come while another one is carried out. So every wish goes through one table: the phase and the wish
give the next phase and the step. `supervisors` takes the steps; nothing else drains, stops, restarts or
replaces a server.

    SETTLED ── stop, restart ──► DRAINING ──┐ its calls have ended, or their time is over
       │                            │       ├──► ENDING ── its process is gone ──► SETTLED, or LEFT
       └──── replace, remove ──► COMMITTED ─┘
"""

from __future__ import annotations

from enum import Enum


class Intent(str, Enum):
    """What somebody wants of a server's process, or what has happened to it on the way there."""

    START = "start"  # the operator: run it
    STOP = "stop"  # the operator: end it, and keep it ended
    RESTART = "restart"  # the operator: end it, and start another
    REPLACE = "replace"  # a reload: this process must end, because the config describes another
    RETRY = "retry"  # a reload: the table changed, so that a server that is down is tried at once
    REMOVE = "remove"  # a reload: end it, and let the supervisor go
    SHUTDOWN = "shutdown"  # the broker ends
    DRAINED = "drained"  # its calls have ended, or their time is over
    ENDED = "ended"  # its process is gone


class Phase(str, Enum):
    """How far a wish has been carried out."""

    SETTLED = "settled"  # no wish is under way
    DRAINING = "draining"  # its calls may end; `start` takes the wish back
    COMMITTED = "committed"  # its calls may end; then its process ends, whatever the operator wants meanwhile
    ENDING = "ending"  # its process is being ended
    LEFT = "left"  # its process is gone, and no other is started


class Goal(str, Enum):
    """What follows once the process is gone."""

    RUN = "run"  # a new process
    SAME = "same"  # a new process, unless the server was at rest
    REST = "rest"  # none
    LEAVE = "leave"  # none, ever


class Step(str, Enum):
    """What `supervisors` does about a wish."""

    NOTHING = "nothing"
    START = "start"  # start it, unless it runs
    RETRY = "retry"  # start it, if it waits after a failure
    RESUME = "resume"  # give it calls again
    DRAIN = "drain"  # give it no calls, and its calls the time that there is
    END = "end"  # end its process, by the goal
    STOP = "stop"  # start no other after the process that is being ended


_W, _P, _S = Intent, Phase, Step

TABLE: dict[Phase, dict[Intent, tuple[Phase, Step]]] = {
    _P.SETTLED: {
        _W.START: (_P.SETTLED, _S.START),
        _W.STOP: (_P.DRAINING, _S.DRAIN),
        _W.RESTART: (_P.DRAINING, _S.DRAIN),
        _W.REPLACE: (_P.COMMITTED, _S.DRAIN),
        _W.RETRY: (_P.SETTLED, _S.RETRY),
        _W.REMOVE: (_P.COMMITTED, _S.DRAIN),
        _W.SHUTDOWN: (_P.ENDING, _S.END),
    },
    _P.DRAINING: {
        _W.START: (_P.SETTLED, _S.RESUME),
        _W.STOP: (_P.DRAINING, _S.NOTHING),
        _W.RESTART: (_P.DRAINING, _S.NOTHING),
        _W.REPLACE: (_P.COMMITTED, _S.NOTHING),
        _W.RETRY: (_P.DRAINING, _S.NOTHING),
        _W.REMOVE: (_P.COMMITTED, _S.NOTHING),
        _W.SHUTDOWN: (_P.ENDING, _S.END),
        _W.DRAINED: (_P.ENDING, _S.END),
    },
    _P.COMMITTED: {
        _W.START: (_P.COMMITTED, _S.NOTHING),
        _W.STOP: (_P.COMMITTED, _S.NOTHING),
        _W.RESTART: (_P.COMMITTED, _S.NOTHING),
        _W.REPLACE: (_P.COMMITTED, _S.NOTHING),
        _W.RETRY: (_P.COMMITTED, _S.NOTHING),
        _W.REMOVE: (_P.COMMITTED, _S.NOTHING),
        _W.SHUTDOWN: (_P.ENDING, _S.END),
        _W.DRAINED: (_P.ENDING, _S.END),
    },
    _P.ENDING: {
        _W.START: (_P.ENDING, _S.START),
        _W.STOP: (_P.ENDING, _S.STOP),
        _W.RESTART: (_P.ENDING, _S.START),
        _W.REPLACE: (_P.ENDING, _S.NOTHING),
        _W.RETRY: (_P.ENDING, _S.NOTHING),
        _W.REMOVE: (_P.ENDING, _S.STOP),
        _W.SHUTDOWN: (_P.ENDING, _S.STOP),
        _W.ENDED: (_P.SETTLED, _S.NOTHING),
    },
}
"""phase → wish → the next phase and the step. A server that has left takes no wish."""

_GOALS = {
    Intent.START: Goal.RUN,
    Intent.STOP: Goal.REST,
    Intent.RESTART: Goal.RUN,
    Intent.REMOVE: Goal.LEAVE,
    Intent.SHUTDOWN: Goal.LEAVE,
}
"""What the newest wish wants in the end. A replacement keeps the goal of a wish that is under way."""


class Control:
    """The arbiter of one server."""

    def __init__(self) -> None:
        self.phase = Phase.SETTLED
        self.goal = Goal.SAME

    def __repr__(self) -> str:
        return f"<Control {self.phase.value} goal={self.goal.value}>"

    @property
    def settled(self) -> bool:
        """Whether no wish is under way."""
        return self.phase in (Phase.SETTLED, Phase.LEFT)

    def on(self, wish: Intent) -> Step:
        """Take a wish in, and return the step to take."""
        if self.phase is Phase.LEFT or (self.goal is Goal.LEAVE and wish in _OF_OPERATOR):
            return Step.NOTHING
        if self.phase is Phase.SETTLED:
            self.goal = Goal.SAME
        if self.goal is not Goal.LEAVE:
            self.goal = _GOALS.get(wish, self.goal)
        self.phase, step = TABLE[self.phase][wish]
        if self.phase is Phase.SETTLED and self.goal is Goal.LEAVE:
            self.phase = Phase.LEFT
        return step


_OF_OPERATOR = frozenset({Intent.START, Intent.STOP, Intent.RESTART})
