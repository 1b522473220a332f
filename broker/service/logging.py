"""Writes log lines to stderr: one line for each event with its facts, for people, the journal or a program.

The event is the message of a record; its facts are the record's `extra`. docs/messages.md explains every
event from `warning` up; docs/generate.py collects the facts from the calls.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TextIO

from broker.base.secrets import redact
from client_shim.text import escape_json

LOGGER = "mcp-broker"

Form = Literal["text", "json"]

MAX_VALUE_CHARS = 4096
"""The longest fact. A longer one loses its end; a traceback loses its beginning."""

STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes that `logging` itself sets on a record: facts have other names."""

RESERVED = frozenset({"time", "level", "event", "traceback"})
"""Keys that every line has: facts have other names."""

_PIECE_CHARS = select.PIPE_BUF // 10
"""The number of characters that a pipe takes atomically, however they are encoded or escaped."""

_PATIENCE_MS = 20
"""The time that a line waits for a slow reader."""

logger = logging.getLogger(LOGGER)

if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler  # a generic only from Python 3.11 on

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/@+%,$")

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
"""The lowest level of each priority of the journal (sd-daemon(3))."""


def under_journal(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Return whether this descriptor leads to the journal. The variable alone proves nothing: it is
    inherited."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class LineFormatter(logging.Formatter):
    """Formats a record as one line, whatever it contains.

    Args:
        form: `text` is `level event key=value …`; `json` is an object with the same keys.
        journal: whether the line begins with a priority for the journal. Then `text` has no time, because the
            journal adds it.
    """

    def __init__(self, form: Form = "text", *, journal: bool = False) -> None:
        super().__init__()
        self._line = _object if form == "json" else _text
        self._journal = journal
        self.mask: Callable[[str], str] = redact
        """The mask for the secrets in every fact."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        facts = dict(self._facts(record))
        line = self._line(record, facts, timed=not self._journal)
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line

    def _facts(self, record: logging.LogRecord) -> Iterator[tuple[str, object]]:
        for key, fact in record.__dict__.items():
            if key not in STANDARD:
                yield key, self._fit(fact) if isinstance(fact, str) else fact
        if record.exc_info:
            end = self.formatException(record.exc_info)[-2 * MAX_VALUE_CHARS :]
            yield "traceback", self.mask(end)[-MAX_VALUE_CHARS:]

    def _fit(self, fact: str) -> str:
        """Mask a fact, then cut it: the mask would not recognise half a secret."""
        if len(fact) <= 2 * MAX_VALUE_CHARS:
            return clip(self.mask(fact))
        return self.mask(fact[: 2 * MAX_VALUE_CHARS])[:MAX_VALUE_CHARS] + "…"


def clip(text: str) -> str:
    """Cut a text to the length of a fact."""
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def _text(record: logging.LogRecord, facts: Mapping[str, object], *, timed: bool) -> str:
    time = [datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")]
    words = [record.levelname.lower(), _word(record.getMessage())]
    return " ".join(
        [*(time if timed else ()), *words, *(f"{key}={_word(fact)}" for key, fact in facts.items())]
    )


def _object(record: logging.LogRecord, facts: Mapping[str, object], *, timed: bool) -> str:
    time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
    head = {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
    }
    return _quoted({**head, **{key: _plain(fact) for key, fact in facts.items()}})


def _word(fact: object) -> str:
    if fact is None:
        return "-"
    text = str(fact)
    return text if text and text != "-" and _PLAIN.issuperset(text) else _quoted(text)


def _plain(fact: object) -> object:
    """Return a fact as a JSON scalar; infinities become text."""
    is_plain = (
        fact is None or isinstance(fact, (bool, int, str)) or (isinstance(fact, float) and fact - fact == 0)
    )
    return fact if is_plain else str(fact)


def _quoted(value: object) -> str:
    """Return the value as JSON. Characters that could end a line or move a cursor are escaped too."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else escape_json(c) for c in text)


def _priority(level: int) -> int:
    return next((number for least, number in _PRIORITIES if level >= least), 7)


class StderrHandler(_Handler):
    """Writes to stderr without blocking. It drops and counts lines that would have to wait.

    Otherwise a terminal that is stopped by Ctrl-S, or a pipe with a hung reader, would block the broker.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._poll, self._is_pollable = select.poll(), False
        with suppress(AttributeError, OSError, ValueError):  # a stream without a descriptor never blocks
            self._poll.register(stream.fileno(), select.POLLOUT)
            self._is_pollable = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record in pieces that a pipe takes atomically (pipe(7), PIPE_BUF)."""
        if self._lost and self._has_room():
            lost, self._lost = self._lost, 0
            logger.warning("log.lines_lost", extra={"lines": lost})
            if self._lost:  # this line could not be written either
                self._lost = lost
        try:
            line = self.format(record) + self.terminator
            for at in range(0, len(line), _PIECE_CHARS):
                if not self._has_room():
                    self._lost += 1
                    return
                self.stream.write(line[at : at + _PIECE_CHARS])
                self.stream.flush()
        except OSError:  # the disk is full, or the reader is gone
            self._lost += 1
        except Exception:
            self.handleError(record)

    def _has_room(self) -> bool:
        """Return whether the stream can be written now or very soon. After a dropped line it must be at
        once."""
        return not self._is_pollable or bool(self._poll.poll(0 if self._lost else _PATIENCE_MS))


def mask_by(mask: Callable[[str], str]) -> None:
    """Mask the secrets in every line with this function."""
    for handler in logger.handlers:
        if isinstance(handler.formatter, LineFormatter):
            handler.formatter.mask = mask


def set_up(level: str, form: Form = "text", *, journal: bool = False) -> None:
    """Log to stderr.

    Args:
        level: the name of the lowest level that is logged.
        form: the form of the lines.
        journal: whether the lines go to the journal.
    """
    handler = StderrHandler(sys.stderr)
    handler.setFormatter(LineFormatter(form, journal=journal))
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
