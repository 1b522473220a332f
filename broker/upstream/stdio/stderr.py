"""Reads the stderr of a server, keeps its last lines and passes them to the log at a limited rate."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import deque
from collections.abc import Callable
from time import perf_counter

import trio

from broker.base.secrets import Mask
from broker.base.text import clip
from broker.upstream.stdio.diagnosis import cause_in, last_line
from broker.upstream.stdio.severity import severity

LINES = 200
LINE_BYTES = 4096
_READ_BYTES = 16_384
_BURST = 200
_PER_S = 20.0
_REST = 2.0
"""After a full read, other tasks run for this multiple of the time that its lines took."""

_TOLD_EVERY_S = 1.0
"""The interval at which the number of lines that were left out is logged."""

_LINE_END = re.compile(rb"[\r\n]")
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Escape sequences that move a cursor, set a colour or a title (ECMA-48)."""

logger = logging.getLogger("mcp-broker")


class StderrLog:
    """The last lines of one server, from all of its processes.

    Args:
        server: the name of the server, for the log.
        clock: seconds that only go forward.
    """

    def __init__(self, server: str, clock: Callable[[], float] = trio.current_time) -> None:
        self._server = server
        self._clock = clock
        self.lines: deque[str] = deque(maxlen=LINES)
        self.written = 0
        """The number of lines so far, which is also the number of the last line in `lines`."""
        self.left_out = 0
        self.mask = Mask()
        """The mask for the secrets of the current process."""
        self._level = logging.INFO
        self._told_at = -math.inf
        self._begun = 0
        self._allowance = float(_BURST)
        self._seen_at: float | None = None

    async def drain(self, fd: int, heard: Callable[[], None]) -> None:
        """Read the pipe of a new process until its end. A full pipe would block the process."""
        self._begun = self.written
        self._level = logging.INFO
        lines = _Lines()
        try:
            while chunk := await self._read(fd):
                heard()
                began = perf_counter()
                self._take(lines.take(chunk, LINE_BYTES + self.mask.reach))
                if len(chunk) == _READ_BYTES:
                    await trio.sleep(_REST * (perf_counter() - began))
            self._take(lines.end())
        finally:
            self._tell_left_out(at_once=True)

    async def _read(self, fd: int) -> bytes:
        """Return what can be read, or nothing at the end. Log the lines that were left out meanwhile."""
        while True:
            with trio.move_on_after(_TOLD_EVERY_S if self.left_out else math.inf) as patience:
                await trio.lowlevel.wait_readable(fd)
            if patience.cancelled_caught:
                self._tell_left_out(at_once=True)
                continue
            try:
                return os.read(fd, _READ_BYTES)
            except BlockingIOError:
                continue

    def _take(self, lines: list[bytes]) -> None:
        """Keep the lines of one read. If there are very many, those in the middle are only counted: to look
        at each would block the other tasks."""
        shown = lines[:_BURST], lines[_BURST:][-LINES:]
        passed_over = sum(not line.isspace() for line in lines[_BURST : len(lines) - len(shown[1])] if line)
        for line in shown[0]:
            self.keep(line)
        self.written += passed_over
        self.left_out += passed_over
        if passed_over:
            self.lines.clear()  # the kept lines are consecutive
        for line in shown[1]:
            self.keep(line)

    def tail(self, most: int) -> list[str]:
        """Return the last lines of the current process, or of the last one."""
        own = min(most, self.written - self._begun)
        return list(self.lines)[-own:] if own else []

    def why(self, *, killed: bool = False) -> str:
        """Return the cause that the process reported, to follow the words on how it ended, or "".

        Args:
            killed: whether a signal from outside ended it, so that its earlier lines are no cause.
        """
        lines = self.tail(LINES)
        last = last_line(lines)
        cause = last if killed else cause_in(lines)
        if not cause:
            return ""
        return f"; its last line was: {cause}" if cause == last else f"; it reported: {cause}"

    def keep(self, line: bytes, stream: str = "stderr") -> None:
        """Keep one line, and log it unless the rate is too high."""
        cut = self.mask.reach if len(line) > LINE_BYTES + self.mask.reach else 0
        whole = line[: LINE_BYTES + 1 + cut]  # beyond the limit, enough to recognise a whole secret
        shown = self.mask(_SEQUENCE.sub("", whole.decode(errors="replace")).expandtabs(4))
        level, text = severity((shown[:-cut] if cut else shown).rstrip())
        if not text.strip():
            return
        if level is not None or not text.startswith(" "):  # an indented line continues the one before
            self._level = level or logging.INFO
        text = clip(text, LINE_BYTES)
        self.lines.append(text)
        self.written += 1
        if not self._allowed():
            self.left_out += 1
            self._tell_left_out()
            return
        self._tell_left_out()
        self._log(stream, text)

    def _log(self, stream: str, text: str) -> None:
        facts = {"server": self._server, "text": text}
        if self._level >= logging.ERROR:
            logger.error(f"server.{stream}", extra=facts)
        elif self._level == logging.WARNING:
            logger.warning(f"server.{stream}", extra=facts)
        elif self._level == logging.DEBUG:
            logger.debug(f"server.{stream}", extra=facts)
        else:
            logger.info(f"server.{stream}", extra=facts)

    def _tell_left_out(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if self.left_out and (at_once or now - self._told_at >= _TOLD_EVERY_S):
            logger.warning("server.lines_left_out", extra={"server": self._server, "lines": self.left_out})
            self.left_out = 0
            self._told_at = now

    def _allowed(self) -> bool:
        now = self._clock()
        if self._seen_at is not None:
            self._allowance = min(_BURST, self._allowance + (now - self._seen_at) * _PER_S)
        self._seen_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class _Lines:
    """Splits chunks into lines. Of a line that is too long, only the beginning is kept."""

    def __init__(self) -> None:
        self._partial = b""
        self._passing_over = False

    def take(self, chunk: bytes, longest: int) -> list[bytes]:
        """Return the lines that end in this chunk; a line above `longest` bytes is cut."""
        *lines, self._partial = _LINE_END.split(self._partial + chunk)
        if lines and self._passing_over:
            del lines[0]
            self._passing_over = False
        if len(self._partial) > longest:
            lines += self.end()
            self._partial, self._passing_over = b"", True
        return lines

    def end(self) -> list[bytes]:
        """Return the last line, which has no end."""
        return [] if self._passing_over else [self._partial]
