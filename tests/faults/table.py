"""The fault matrix: every fault, and what must have become of the server at each moment."""

from __future__ import annotations

import re
import shutil
from enum import Enum
from typing import Any, NamedTuple


class Moment(str, Enum):
    """When a fault happens."""

    IDLE = "idle"  # the server is ready and has nothing to do
    CALLS = "calls in flight"  # two calls are at the server, one of them of a read-only tool
    START = "during start"  # the broker has started it, and a call waits for it
    RESTART = "during restart"  # somebody restarts it, and a call waits for it


class Means(str, Enum):
    """How a fault is brought about in a server that runs."""

    SIGNAL = "signal"  # the server has it at SIGUSR1
    DEATH = "death"  # the server is killed, and the next start has it
    LEADER = "leader"  # the leader of the tree alone is killed: the wrapper, not what it wraps
    STOP = "stop"  # the server is stopped, and started again
    DISK = "disk"  # what it is started from is spoiled, and mended later


class End(str, Enum):
    """What has become of the server: one process tree, or none while it cannot be or is not to be."""

    STAYS = "stays"
    REPLACED = "replaced"
    NONE = "none until mended"
    STOPPED = "none until started"


class Call(str, Enum):
    """How a call ended."""

    ANSWERED = "answered"
    UNKNOWN = "outcome unknown"
    OVERDUE = "deadline"


class Expected(NamedTuple):
    """What must be seen. `cause` is a part of what `status` tells, `None` where there is nothing to tell."""

    end: End
    call: Call | None = None
    safe_call: Call | None = None
    cause: str | None = None


class Fault(NamedTuple):
    """One row: the fault, how it comes about, and what must be seen at each moment."""

    name: str
    means: Means
    expected: dict[Moment, Expected]
    fault: str = "none"
    flags: tuple[str, ...] = ()
    keys: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it
    wrapper: str = ""

    @property
    def slug(self) -> str:
        """Its name as a part of a server's."""
        return re.sub(r"\W+", "-", self.name).strip("-")

    @property
    def whole(self) -> tuple[int, ...]:
        """How many processes its tree may have when nothing is wrong: some shells become what they run."""
        return {"": (1,), "sh": (2,), "npx": (2, 3)}[self.wrapper]


LEGACY = {"protocol": "legacy"}
WATCHED = {"protocol": "legacy", "watchdog_sec": 1.5}
IMPATIENT = {"protocol": "legacy", "timeout_start_sec": 3.0}


def dies(cause: str, at_start: str | None = None) -> dict[Moment, Expected]:
    """It is replaced, whenever it happens; a safe call is sent again, of another nobody knows."""
    at_start = at_start or cause
    return {
        Moment.IDLE: Expected(End.REPLACED, cause=cause),
        Moment.CALLS: Expected(End.REPLACED, Call.UNKNOWN, Call.ANSWERED, cause),
        Moment.START: Expected(End.REPLACED, Call.ANSWERED, cause=at_start),
        Moment.RESTART: Expected(End.REPLACED, Call.ANSWERED, cause=at_start),
    }


def stays() -> dict[Moment, Expected]:
    """It goes on, and every call is answered."""
    return {
        Moment.IDLE: Expected(End.STAYS),
        Moment.CALLS: Expected(End.STAYS, Call.ANSWERED, Call.ANSWERED),
        Moment.START: Expected(End.STAYS, Call.ANSWERED),
        Moment.RESTART: Expected(End.REPLACED, Call.ANSWERED),
    }


def missing(cause: str) -> dict[Moment, Expected]:
    """A running server needs no program; one that starts does, and starts once the program is back."""
    return {
        Moment.IDLE: Expected(End.STAYS),
        Moment.CALLS: Expected(End.STAYS, Call.ANSWERED, Call.ANSWERED),
        Moment.START: Expected(End.NONE, Call.ANSWERED, cause=cause),
        Moment.RESTART: Expected(End.NONE, Call.ANSWERED, cause=cause),
    }


FAULTS = (
    Fault("exit 0", Means.SIGNAL, dies("it exited with status 0"), "exit-0", keys=LEGACY),
    Fault("exit 1", Means.SIGNAL, dies("it exited with status 1"), "exit-1", keys=LEGACY),
    Fault("SIGSEGV", Means.SIGNAL, dies("it was killed by SIGSEGV"), "sigsegv", keys=LEGACY),
    Fault("SIGKILL", Means.SIGNAL, dies("it was killed by SIGKILL"), "sigkill", keys=LEGACY),
    Fault("SIGSTOP", Means.SIGNAL, dies("it was stopped by SIGSTOP"), "sigstop", keys=WATCHED),
    Fault("closes stdout only", Means.SIGNAL, dies("it closed its output"), "closes-stdout", keys=LEGACY),
    Fault(
        "closes stdin only",
        Means.SIGNAL,
        {
            **dies("it closed its input"),
            Moment.CALLS: Expected(End.REPLACED, Call.ANSWERED, Call.ANSWERED, "it closed its input"),
        },
        "closes-stdin",
        keys=LEGACY,
    ),
    Fault(
        "ignores SIGTERM and end of input",
        Means.STOP,
        {
            Moment.IDLE: Expected(End.STOPPED),
            Moment.CALLS: Expected(End.STOPPED, Call.UNKNOWN, Call.UNKNOWN),
            Moment.START: Expected(End.STOPPED, Call.ANSWERED),
            Moment.RESTART: Expected(End.REPLACED, Call.ANSWERED),
        },
        flags=("--ignore-sigterm", "--ignore-eof"),
        keys=LEGACY,
    ),
    Fault("floods stderr", Means.SIGNAL, stays(), "floods-stderr", keys=LEGACY),
    Fault("floods stdout with garbage", Means.SIGNAL, stays(), "floods-stdout", keys=LEGACY),
    Fault(
        "a 200 MiB line without an end",
        Means.SIGNAL,
        dies("it wrote a line above max_message_bytes = "),
        "endless-line",
        keys=LEGACY,
    ),
    Fault(
        "never answers initialize",
        Means.DEATH,
        dies("it was not ready within 3 s"),
        "silent",
        keys=IMPATIENT,
    ),
    Fault(
        "exits on server/discover",
        Means.DEATH,
        {
            **dies("it was killed by SIGKILL"),
            Moment.START: Expected(End.REPLACED, Call.ANSWERED),
            Moment.RESTART: Expected(End.REPLACED, Call.ANSWERED),
        },
        flags=("--exit-on-discover", "2"),
    ),
    Fault(
        "answers with a wrong id",
        Means.SIGNAL,
        {
            Moment.IDLE: Expected(End.STAYS),
            Moment.CALLS: Expected(End.STAYS, Call.OVERDUE, Call.OVERDUE),
            Moment.START: Expected(End.REPLACED, Call.ANSWERED, cause="it was not ready within 3 s"),
            Moment.RESTART: Expected(End.REPLACED, Call.ANSWERED, cause="it was not ready within 3 s"),
        },
        "wrong-id",
        keys=IMPATIENT,
    ),
    Fault("answers twice", Means.SIGNAL, stays(), "twice", keys=LEGACY),
    Fault(
        "dies in the handshake",
        Means.DEATH,
        dies("it exited with status 1 before it was ready"),
        "exit-1",
        keys=LEGACY,
    ),
    Fault("forks twice and detaches", Means.SIGNAL, dies("it exited with status 0"), "detaches", keys=LEGACY),
    Fault(
        "`sh -c` wrapper killed",
        Means.LEADER,
        dies("it was killed by SIGKILL"),
        "silent",
        keys=LEGACY,
        wrapper="sh",
    ),
    Fault(
        "`npx` wrapper killed",
        Means.LEADER,
        dies("it was killed by SIGKILL"),
        "silent",
        keys=LEGACY,
        wrapper="npx",
    ),
    Fault("no such command", Means.DISK, missing("there is no file"), keys=LEGACY),
    Fault("no permission", Means.DISK, missing("may not be run"), keys=LEGACY),
    Fault("wrong cwd", Means.DISK, missing("is not a folder"), keys=LEGACY),
)


class Seen(NamedTuple):
    """What became of one cell."""

    end: End
    call: Call | None
    safe_call: Call | None
    cause: str | None
    processes: int
    beside: list[str]
    """Starts that found an earlier process of the server still there."""
    begun: float
    """When the fault came, by `time.monotonic`."""
    seconds: float
    """From then until there was what there should be."""


class Cell(NamedTuple):
    """One fault at one moment: a server of its own."""

    fault: Fault
    moment: Moment

    @property
    def name(self) -> str:
        """The server's."""
        return f"{self.fault.slug}_{self.moment.name.lower()}"

    @property
    def can_be_played(self) -> bool:
        """Whether there is what it needs."""
        return self.fault.wrapper != "npx" or shutil.which("npx") is not None

    @property
    def expected(self) -> Expected:
        """What must be seen."""
        return self.fault.expected[self.moment]

    def is_as_expected(self, seen: Seen) -> bool:
        """Whether that is what must be seen: one whole tree, never two at once, and the cause in words."""
        said = self.expected.cause
        return (
            seen[:3] == self.expected[:3]
            and seen.beside == []
            and seen.processes in self.fault.whole
            and (said is None) == (seen.cause is None)
            and (said or "") in (seen.cause or "")
        )

    def in_general(self, cause: str) -> str:
        """A cause as it would be for any server."""
        return re.sub(f"/[^']*?/{self.name}", "/srv", cause).replace(self.name, "NAME")

    @property
    def faulty_start(self) -> int:
        """The number of the start in whose handshake the fault happens; 0: no start."""
        if self.moment is Moment.START:
            return 1
        if self.moment is not Moment.RESTART and self.fault.means is not Means.DEATH:
            return 0
        return 3 if "--exit-on-discover" in self.fault.flags else 2  # its first start ends at the probe


def cells(*moments: Moment) -> list[Cell]:
    """All faults at these moments."""
    return [Cell(fault, moment) for moment in moments for fault in FAULTS]
