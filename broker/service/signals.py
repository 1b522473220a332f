"""The meaning of signals: SIGTERM and SIGINT end the broker, SIGHUP reloads its config.

The kernel also sends SIGHUP when the broker's terminal closes. Then nobody can press Ctrl-C any more, so the
broker ends, unless nohup(1) started it.
"""

from __future__ import annotations

import os
import signal

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Tells which signals end the broker. Make it before a handler is set: it reads the inherited ones."""

    def __init__(self) -> None:
        self._in_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def ends(self, number: int) -> bool:
        """Return whether this signal, which has just come, ends the broker."""
        return number != signal.SIGHUP or (self._in_terminal and not _has_terminal())


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal. The kernel removes it before it sends
    SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
