"""Logs the lines of the shim: through loguru if the backend uses it, else through `logging`."""

from __future__ import annotations

import sys

from client_shim.text import printable


def warn(text: str, error: BaseException | None = None) -> None:
    """Log a warning, with the traceback of `error` if it is given."""
    tell("WARNING", text, error)


def tell(level: str, text: str, error: BaseException | None = None) -> None:
    """Log a line at one of the levels that loguru and `logging` share, such as `INFO`.

    A backend that logs with loguru does not show the lines of `logging`.
    """
    text = printable(text)  # servers may have written parts of it, and logs are read on terminals
    loguru = sys.modules.get("loguru")
    if loguru is not None:
        loguru.logger.opt(exception=error).log(level, text)
        return
    import logging  # 5 ms, saved in commands that log nothing

    logging.getLogger("client_shim").log(logging.getLevelName(level), "%s", text, exc_info=error)
