"""Finds the log level of a line that a server wrote for people."""

from __future__ import annotations

import logging
import re

_DAEMON = re.compile(r"^<([0-7])>")
_DAEMON_LEVELS = (*[logging.ERROR] * 4, logging.WARNING, logging.INFO, logging.INFO, logging.DEBUG)
"""sd-daemon(3): 0 to 3 are emergency to error, 5 is notice."""

_LEVELS = {
    **dict.fromkeys(
        ("fatal", "critical", "crit", "panic", "emergency", "alert", "error", "err"), logging.ERROR
    ),
    **dict.fromkeys(("warning", "warn"), logging.WARNING),
    **dict.fromkeys(("info", "notice", "success"), logging.INFO),
    **dict.fromkeys(("debug", "trace", "verbose", "silly"), logging.DEBUG),
}
_WORD = "|".join(_LEVELS)

_AT_START = re.compile(
    r"^(?:npm )?"
    r"(?:[\[(]?\d[\d\-/:.,TZ+ ]*[\])]?[\s|:-]*)?"  # a time, in brackets or not
    r"(?:- [\w.]+ - )?"  # the name of a logger
    rf"(?:[\[(<](?i:(?P<bracketed>{_WORD}))[\])>]"
    rf"|(?i:(?P<coloned>{_WORD}))(?:!|:)"
    rf"|(?P<shouted>{_WORD.upper()})\b)"
)
_AFTER_NPM = re.compile(rf"^npm (?P<level>{_WORD})\b")
_NAMED = re.compile(r'(?:"(?:level|levelname|severity|lvl)"\s*:\s*"?|\b(?:level|lvl|severity)=)(\w+)')
_PINO = {"10": logging.DEBUG, "20": logging.DEBUG, "30": logging.INFO, "40": logging.WARNING}
"""The numbers of pino; higher ones are error and fatal."""

_EXCEPTION = re.compile(r"^(?:Traceback \(|[\w.]*(?:Error|Exception)\b(?::|$)|panic: |Uncaught )")


_LOOK_AT = 200
"""The number of characters that are searched: the signs are at the start, and a long line takes time."""


def severity(text: str) -> tuple[int | None, str]:
    """Return the level of a line, if it tells one, and the line without a mark that is only for the level."""
    start = text[:_LOOK_AT]
    if daemon := _DAEMON.match(text):
        return _DAEMON_LEVELS[int(daemon[1])], text[daemon.end() :]
    if _EXCEPTION.match(start):
        return logging.ERROR, text
    found = _AT_START.match(start) or _AFTER_NPM.match(start)
    if found:
        word = next(word for word in found.groupdict().values() if word)
        return _LEVELS[word.lower()], text
    if text.startswith("{") or "level=" in text or "lvl=" in text or "severity=" in text:
        return _by_name(text), text
    return None, text


def _by_name(text: str) -> int | None:
    named = _NAMED.search(text)
    if named is None:
        return None
    word = named[1].lower()
    return _PINO.get(word, logging.ERROR) if word.isdecimal() else _LEVELS.get(word)
