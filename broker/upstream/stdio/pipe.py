"""Reads and writes the lines of one process, without waiting where that is possible."""

from __future__ import annotations

import fcntl
import math
import os
import select
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter

import trio

LINES_A_TURN = 64
"""The number of lines after which other tasks run, so that a flooding server does not block them."""

TURN_S = 0.001
"""The time after which other tasks run, in seconds."""

CONGESTED_BYTES = 1024 * 1024
"""Above this number of waiting bytes, the server gets no further calls."""

_READ_BYTES = 65_536
_MAX_READ_BYTES = 1024 * 1024


_LOOK_S = 0.001


class LineTooLong(Exception):
    """The server wrote a line above the limit."""


class Pipe:
    """stdin and stdout of one process.

    Args:
        stdin, stdout: non-blocking descriptors, which their owner closes.
        max_line_bytes: the longest line that is read.
        congested: called when the server stops reading its stdin, and when it reads again.
        max_waiting_bytes: the limit for bytes that wait for the stdin. Above it nothing more is written.
        overfull: called once, when that limit is exceeded.
    """

    def __init__(
        self,
        stdin: int,
        stdout: int,
        *,
        max_line_bytes: int,
        congested: Callable[[bool], None],
        max_waiting_bytes: float = math.inf,
        overfull: Callable[[], None] = lambda: None,
    ) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._max_line_bytes = max_line_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._tell_congested = congested
        self._tell_overfull = overfull
        self._is_congested = False
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._reading = False
        self.broken = False

    def write(self, line: bytes) -> None:
        """Write as much of a line as the pipe takes now; `flush` writes the rest."""
        if self.broken:
            return
        rest = memoryview(line)
        if not self._queue:
            rest = rest[self._put(rest) :]
        if rest:
            self._queue.append(rest)
            self._queued_bytes += len(rest)
            self._work.set()
            if self._queued_bytes > self._max_waiting_bytes:
                self.close()
                self._tell_overfull()
            else:
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

    def unread(self) -> bool:
        """Return whether the server has not read everything that was written to it."""
        if self._queue or self.broken:
            return True
        waiting = fcntl.ioctl(self._stdin, termios.FIONREAD, bytes(4))  # of either end: pipe(7)
        return int.from_bytes(waiting, sys.byteorder) > 0

    def close(self) -> None:
        """Write nothing more: stdin is about to be closed, and its number may be reused at once."""
        self.broken = True
        self._queue.clear()
        self._queued_bytes = 0
        self._work.set()

    async def flush(self) -> None:
        """Write what waits, as long as the server reads. Return when it has closed its stdin."""
        while not self.broken:
            if not self._queue:
                self._work = trio.Event()
                await self._work.wait()
                continue
            try:
                await trio.lowlevel.wait_writable(self._stdin)
            except trio.ClosedResourceError:  # see `close`
                return
            if not self._queue:
                continue
            taken = self._put(self._queue[0])
            self._queued_bytes -= taken
            rest = self._queue[0][taken:]
            if rest:
                self._queue[0] = rest
            else:
                self._queue.popleft()
            self._note_congestion()

    async def watch(self) -> None:
        """Notice that the server closes its stdin, even if nothing is written. Then `flush` returns."""
        if self.broken:
            return
        try:
            closed = select.epoll()
        except OSError:
            return  # no descriptor is left: the next write notices it
        with closed:
            closed.register(self._stdin, 0)  # errors are always reported, epoll_ctl(2)
            await trio.lowlevel.wait_readable(closed.fileno())
        self.broken = True
        self._work.set()

    async def read(
        self,
        on_line: Callable[[bytes], object],
        settle: Callable[[], None],
        caught_up: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Pass on every line until the server closes its stdout.

        Args:
            on_line: receives each line. If it returns true, the next line waits for `caught_up`.
            settle: is called after the last available line, and before other tasks run.
            caught_up: waits until the next line may be passed on.

        Raises:
            LineTooLong: a line is above `max_line_bytes`.
        """
        partial = bytearray()  # a list of chunks would need many times the memory for single bytes
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
            if len(partial) + len(first) > self._max_line_bytes:
                raise LineTooLong
            if not newline:
                partial += first
                continue
            if partial:
                partial += first
                first = bytes(partial)
            partial = bytearray()
            if on_line(first):
                settle()
                await caught_up()
            *lines, last = rest.split(b"\n")
            try:
                if lines:
                    await self._hand_over(lines, on_line, settle, caught_up)
            finally:
                settle()
            if len(last) > self._max_line_bytes:
                raise LineTooLong
            partial += last

    async def caught_up(self, *others: int) -> None:
        """Wait until everything is read that was written so far to stdout and to other streams.

        The end of a stream does not tell that: a process that was left behind may hold the stream open.
        """
        while self._reading or any(map(_has_data, (self._stdout, *others))):
            await trio.sleep(_LOOK_S)

    async def _hand_over(
        self,
        lines: list[bytes],
        on_line: Callable[[bytes], object],
        settle: Callable[[], None],
        caught_up: Callable[[], Awaitable[None]],
    ) -> None:
        until = perf_counter() + TURN_S
        for number, line in enumerate(lines, 1):
            if len(line) > self._max_line_bytes:
                raise LineTooLong
            if on_line(line):
                settle()
                await caught_up()
            elif number % LINES_A_TURN == 0 or perf_counter() > until:
                settle()
                await trio.lowlevel.checkpoint()
            else:
                continue
            until = perf_counter() + TURN_S


def _has_data(fd: int) -> bool:
    """Return whether there is something to read. The end of the stream does not count."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
