"""Where the shim's own lines go: through loguru where the backend uses it, else through `logging`."""

from __future__ import annotations

import sys

from client_shim.text import printable


def warn(text: str, error: BaseException | None = None) -> None:
    """Log a warning, with the traceback of `error` where there is one."""
    tell("WARNING", text, error)


def tell(level: str, text: str, error: BaseException | None = None) -> None:
    """Log a line at one of the levels that loguru and `logging` share, such as `INFO`.

    A backend that logs with loguru bridges nothing from `logging`: the lines would be lost there.
    """
    text = printable(text)  # words of servers may be in it, and a log is read on a terminal
    loguru = sys.modules.get("loguru")
    if loguru is not None:
        loguru.logger.opt(exception=error).log(level, text)
        return
    import logging  # 5 ms that a command which warns of nothing need not pay

    logging.getLogger("client_shim").log(logging.getLevelName(level), "%s", text, exc_info=error)
