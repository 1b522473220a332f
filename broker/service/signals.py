"""What signals mean to the broker: SIGTERM and SIGINT end it, SIGHUP has it reload its config.

A SIGHUP also comes when the terminal closes that the broker was started in. Then nobody is left who could
see it or press Ctrl-C, so it ends, unless it was told by nohup(1) to stay.
"""

from __future__ import annotations

import os
import signal

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """To be made before a handler is set: it looks at what whoever started the broker has set."""

    def __init__(self) -> None:
        self._in_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def ends(self, number: int) -> bool:
        """Whether this signal, which has just come, ends the broker."""
        return number != signal.SIGHUP or (self._in_terminal and not _has_terminal())


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal. The kernel takes it away before SIGHUP is sent."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
