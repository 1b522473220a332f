"""The pipe of one server: lines in, lines out, both without waiting where that is possible."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from time import perf_counter

import trio

LINES_A_TURN = 64
"""After so many lines other tasks get their turn, so that a flooding server stops nobody."""

TURN_S = 0.001
"""After so many seconds too."""

CONGESTED_BYTES = 1024 * 1024
"""With more than this waiting for a server's stdin, it is given no further calls."""

_READ_BYTES = 65_536
_MAX_READ_BYTES = 1024 * 1024


_LOOK_S = 0.001


class LineTooLong(Exception):
    """A line without an end: the server cannot be understood any more."""


class Upstream:
    """stdin and stdout of one process.

    Args:
        stdin, stdout: non-blocking descriptors, which stay their owner's.
        max_line_bytes: the longest line that is read.
        congested: told when the server stops or begins again to read what is written.
    """

    def __init__(
        self, stdin: int, stdout: int, *, max_line_bytes: int, congested: Callable[[bool], None]
    ) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._max_line_bytes = max_line_bytes
        self._tell_congested = congested
        self._is_congested = False
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._reading = False
        self.broken = False

    def write(self, line: bytes) -> None:
        """Write a line at once as far as the pipe takes it; what is left waits for `flush`."""
        if self.broken:
            return
        rest = memoryview(line)
        if not self._queue:
            rest = rest[self._put(rest) :]
        if rest:
            self._queue.append(rest)
            self._queued_bytes += len(rest)
            self._work.set()
            self._note_congestion()

    def _put(self, data: memoryview) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            self.broken = True
            self._work.set()
            return len(data)

    def _note_congestion(self) -> None:
        congested = self._queued_bytes > CONGESTED_BYTES
        if congested is not self._is_congested:
            self._is_congested = congested
            self._tell_congested(congested)

    def close(self) -> None:
        """Write nothing more: stdin is about to be closed, and its number may be another's at once."""
        self.broken = True
        self._queue.clear()
        self._work.set()

    async def flush(self) -> None:
        """Write what waits, for as long as the server reads. Returns when it has closed its stdin."""
        while not self.broken:
            if not self._queue:
                self._work = trio.Event()
                await self._work.wait()
                continue
            try:
                await trio.lowlevel.wait_writable(self._stdin)
            except trio.ClosedResourceError:  # see `close`
                return
            taken = self._put(self._queue[0])
            self._queued_bytes -= taken
            rest = self._queue[0][taken:]
            if rest:
                self._queue[0] = rest
            else:
                self._queue.popleft()
            self._note_congestion()

    async def watch(self) -> None:
        """Notice that the server closes its stdin although nothing is written to it: `flush` returns then."""
        if self.broken:
            return
        try:
            closed = select.epoll()
        except OSError:
            return  # no descriptor is left: the next that is written tells
        with closed:
            closed.register(self._stdin, 0)  # an error is told unasked, epoll_ctl(2)
            await trio.lowlevel.wait_readable(closed.fileno())
        self.broken = True
        self._work.set()

    async def read(self, on_line: Callable[[bytes], None], settle: Callable[[], None]) -> None:
        """Hand over every line until the server closes its stdout.

        Args:
            on_line: is given each of them.
            settle: is called after the last of those that were there, and before others get their turn.

        Raises:
            LineTooLong: a line above `max_line_bytes`.
        """
        partial: list[bytes] = []
        size = 0
        want = _READ_BYTES
        while True:
            self._reading = False
            await trio.lowlevel.wait_readable(self._stdout)
            self._reading = True
            try:
                chunk = os.read(self._stdout, want)
            except BlockingIOError:
                continue
            if not chunk:
                self._reading = False
                return
            want = min(want * 4, _MAX_READ_BYTES) if len(chunk) == want else _READ_BYTES
            first, newline, rest = chunk.partition(b"\n")
            partial.append(first)
            size += len(first)
            if size > self._max_line_bytes:
                raise LineTooLong
            if newline:
                on_line(b"".join(partial))
                *lines, last = rest.split(b"\n")
                if lines:
                    await self._hand_over(lines, on_line, settle)
                settle()
                partial, size = [last], len(last)

    async def caught_up(self, *others: int) -> None:
        """Wait until all is read that was written so far, to stdout and to others that somebody reads.

        The end of a stream is no sign of that: what a process has left behind it may hold it open.
        """
        while self._reading or any(map(_has_data, (self._stdout, *others))):
            await trio.sleep(_LOOK_S)

    async def _hand_over(
        self, lines: list[bytes], on_line: Callable[[bytes], None], settle: Callable[[], None]
    ) -> None:
        until = perf_counter() + TURN_S
        for number, line in enumerate(lines, 1):
            on_line(line)
            if number % LINES_A_TURN == 0 or perf_counter() > until:
                settle()
                await trio.lowlevel.checkpoint()
                until = perf_counter() + TURN_S


def _has_data(fd: int) -> bool:
    """Whether there is something to read; not whether the end has come."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
