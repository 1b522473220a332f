"""The one arbiter of a server's process: what the operator, a reload and the end of the broker want of it.

An intent may come while another one is carried out. So every intent goes through one table: the phase and the
intent give the next phase and the step; `supervisors` takes the steps. What befalls the process itself (it
fails, is idle, or is called again) is no intent: `core.servers.lifecycle` decides that.

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
    """How far an intent has been carried out."""

    SETTLED = "settled"  # no intent is under way
    DRAINING = "draining"  # its calls may end; `start` takes the intent back
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
    """What `supervisors` does about an intent."""

    NOTHING = "nothing"
    START = "start"  # start it, unless it runs
    RETRY = "retry"  # start it, if it waits after a failure
    RESUME = "resume"  # give it calls again
    DRAIN = "drain"  # give it no calls, and its calls the time that there is
    END = "end"  # end its process, by the goal
    STOP = "stop"  # start no other after the process that is being ended


_I, _P, _S = Intent, Phase, Step

TABLE: dict[Phase, dict[Intent, tuple[Phase, Step]]] = {
    _P.SETTLED: {
        _I.START: (_P.SETTLED, _S.START),
        _I.STOP: (_P.DRAINING, _S.DRAIN),
        _I.RESTART: (_P.DRAINING, _S.DRAIN),
        _I.REPLACE: (_P.COMMITTED, _S.DRAIN),
        _I.RETRY: (_P.SETTLED, _S.RETRY),
        _I.REMOVE: (_P.COMMITTED, _S.DRAIN),
        _I.SHUTDOWN: (_P.ENDING, _S.END),
    },
    _P.DRAINING: {
        _I.START: (_P.SETTLED, _S.RESUME),
        _I.STOP: (_P.DRAINING, _S.NOTHING),
        _I.RESTART: (_P.DRAINING, _S.NOTHING),
        _I.REPLACE: (_P.COMMITTED, _S.NOTHING),
        _I.RETRY: (_P.DRAINING, _S.NOTHING),
        _I.REMOVE: (_P.COMMITTED, _S.NOTHING),
        _I.SHUTDOWN: (_P.ENDING, _S.END),
        _I.DRAINED: (_P.ENDING, _S.END),
    },
    _P.COMMITTED: {
        _I.START: (_P.COMMITTED, _S.NOTHING),
        _I.STOP: (_P.COMMITTED, _S.NOTHING),
        _I.RESTART: (_P.COMMITTED, _S.NOTHING),
        _I.REPLACE: (_P.COMMITTED, _S.NOTHING),
        _I.RETRY: (_P.COMMITTED, _S.NOTHING),
        _I.REMOVE: (_P.COMMITTED, _S.NOTHING),
        _I.SHUTDOWN: (_P.ENDING, _S.END),
        _I.DRAINED: (_P.ENDING, _S.END),
    },
    _P.ENDING: {
        _I.START: (_P.ENDING, _S.START),
        _I.STOP: (_P.ENDING, _S.STOP),
        _I.RESTART: (_P.ENDING, _S.START),
        _I.REPLACE: (_P.ENDING, _S.NOTHING),
        _I.RETRY: (_P.ENDING, _S.NOTHING),
        _I.REMOVE: (_P.ENDING, _S.STOP),
        _I.SHUTDOWN: (_P.ENDING, _S.STOP),
        _I.ENDED: (_P.SETTLED, _S.NOTHING),
    },
}
"""phase → intent → the next phase and the step. A server that has left takes no intent."""

_GOALS = {
    Intent.START: Goal.RUN,
    Intent.STOP: Goal.REST,
    Intent.RESTART: Goal.RUN,
    Intent.REMOVE: Goal.LEAVE,
    Intent.SHUTDOWN: Goal.LEAVE,
}
"""What the newest intent wants in the end. A replacement keeps the goal of an intent that is under way."""


class Control:
    """The arbiter of one server."""

    def __init__(self) -> None:
        self.phase = Phase.SETTLED
        self.goal = Goal.SAME

    def __repr__(self) -> str:
        return f"<Control {self.phase.value} goal={self.goal.value}>"

    @property
    def settled(self) -> bool:
        """Whether no intent is under way."""
        return self.phase in (Phase.SETTLED, Phase.LEFT)

    def on(self, intent: Intent) -> Step:
        """Take an intent in, and return the step to take."""
        if self.phase is Phase.LEFT or (self.goal is Goal.LEAVE and intent in _OF_OPERATOR):
            return Step.NOTHING
        if self.phase is Phase.SETTLED:
            self.goal = Goal.SAME
        if self.goal is not Goal.LEAVE:
            self.goal = _GOALS.get(intent, self.goal)
        self.phase, step = TABLE[self.phase][intent]
        if self.phase is Phase.SETTLED and self.goal is Goal.LEAVE:
            self.phase = Phase.LEFT
        return step


_OF_OPERATOR = frozenset({Intent.START, Intent.STOP, Intent.RESTART})
