"""For all tests: they send Ctrl-C to programs they start, which must not have inherited to ignore it."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Undo what `nohup` and a shell's `&` have set, for an ignored signal is ignored in every child too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
