"""The exit status of a process, in words."""

from __future__ import annotations

import signal
from typing import NamedTuple

from broker.core.servers.lifecycle import Cause
from broker.processes import stub


class ExitStatus(NamedTuple):
    """The exit status of a process, or the signal that ended it."""

    number: int
    by_signal: bool

    @property
    def failure(self) -> bool:
        """Whether the process failed: a signal ended it, or its status is not 0."""
        return self.by_signal or self.number != 0

    @property
    def never_ran(self) -> bool:
        """Whether the stub could not become the program."""
        return self == ExitStatus(stub.CANNOT_RUN, by_signal=False)

    @property
    def killed(self) -> bool:
        """Whether the signal is one that other processes send, rather than one that a fault raises."""
        return self.by_signal and self.number in _SENT

    def __str__(self) -> str:
        if not self.by_signal:
            return f"it exited with status {self.number}"
        return f"it was killed by {self._signal} ({signal.strsignal(self.number)})"

    @property
    def cause(self) -> Cause:
        """The same, for programs to read."""
        if self.by_signal:
            return Cause("killed", {"signal": self._signal})
        return Cause("exited", {"status": self.number})

    @property
    def _signal(self) -> str:
        return signal.Signals(self.number).name if self.number in _SIGNALS else f"signal {self.number}"


_SENT = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_SIGNALS = frozenset(int(number) for number in signal.Signals)
