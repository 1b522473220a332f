"""What a server writes for people: always read, its last lines kept, passed to the log at a bounded rate."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable

import trio

from broker.core.texts import clip

LINES = 200
LINE_BYTES = 4096
_READ_BYTES = 65_536
_BURST = 200
_PER_S = 20.0

logger = logging.getLogger("mcp-broker")


class StderrLog:
    """The last lines of one server, over all of its processes.

    Args:
        server: its name, for the log.
        clock: seconds that only go forward.
    """

    def __init__(self, server: str, clock: Callable[[], float] = trio.current_time) -> None:
        self._server = server
        self._clock = clock
        self.lines: deque[str] = deque(maxlen=LINES)
        self.written = 0
        """How many lines there were so far; the last of `lines` has this number."""
        self.left_out = 0
        self.last: str | None = None
        """The last line of the process that runs now; `None` while it has written nothing."""
        self._begun = 0
        self._allowance = float(_BURST)
        self._seen_at: float | None = None

    async def drain(self, fd: int, heard: Callable[[], None]) -> None:
        """Read a new process's pipe until the end. One that nobody reads fills, and hangs its writer."""
        self.last = None
        self._begun = self.written
        partial = b""
        while True:
            await trio.lowlevel.wait_readable(fd)
            try:
                chunk = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                break
            heard()
            *lines, partial = (partial + chunk).split(b"\n")
            for line in lines:
                self.keep(line)
            if len(partial) > LINE_BYTES:
                self.keep(partial)
                partial = b""
        if partial:
            self.keep(partial)

    def tail(self, most: int) -> list[str]:
        """The last lines of the process that runs now, or of the last one that ran."""
        own = min(most, self.written - self._begun)
        return list(self.lines)[-own:] if own else []

    def keep(self, line: bytes, stream: str = "stderr") -> None:
        """Keep one line, and log it unless there were too many of late."""
        text = clip(line[:LINE_BYTES].decode(errors="replace").strip(), LINE_BYTES)
        if not text:
            return
        self.lines.append(text)
        self.written += 1
        self.last = text
        if not self._allowed():
            self.left_out += 1
            return
        if self.left_out:
            logger.warning("server.lines_left_out", extra={"server": self._server, "lines": self.left_out})
            self.left_out = 0
        logger.info(f"server.{stream}", extra={"server": self._server, "text": text})

    def _allowed(self) -> bool:
        now = self._clock()
        if self._seen_at is not None:
            self._allowance = min(_BURST, self._allowance + (now - self._seen_at) * _PER_S)
        self._seen_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
