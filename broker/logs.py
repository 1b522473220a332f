"""Log lines: `level event key=value …`, one fact each, to stderr."""

from __future__ import annotations

import json
import logging
import sys

LOGGER = "mcp-broker"

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/@+%,$")


class KeyValueFormatter(logging.Formatter):
    """The event is the message; its facts are the record's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        facts = [f"{key}={_value(fact)}" for key, fact in record.__dict__.items() if key not in _STANDARD]
        line = " ".join([record.levelname.lower(), record.getMessage(), *facts])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return f"{self.formatTime(record)} {line}" if self._fmt == _TIMED else line


_TIMED = "%(asctime)s %(message)s"


def _value(fact: object) -> str:
    if fact is None:
        return "-"
    text = str(fact)
    if text and _PLAIN.issuperset(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def set_up(level: str, *, timed: bool) -> None:
    """Log to stderr.

    Args:
        level: the least level that is shown, by its name.
        timed: whether lines begin with the time; the journal has a time of its own.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter(_TIMED if timed else "%(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
