"""Reads and watches one process, and tells its supervisor what happens to it and why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from broker.core.servers.health import Looks
from broker.core.servers.lifecycle import Ending, Event, Lifecycle, State
from broker.core.servers.start import LOOK_S
from broker.hub import Hub
from broker.processes.exit_status import ExitStatus
from broker.processes.process import Process
from broker.upstream.stdio.pipe import LineTooLong, Pipe
from broker.upstream.stdio.stderr import StderrLog

_ENVELOPE_BYTES = 65_536
_BESIDE_CALLS_BYTES = 4 * 1024 * 1024
"""The bytes that may wait for a stdin beside calls, which stop above 1 MiB plus two of the largest."""

_LAST_WORDS_S = 1.0
_STDIN_LOOK_S = 0.1
_LOOKS_A_WATCH = 3
"""The number of looks at a process within `watchdog_sec`."""

_TOO_LONG = (
    "it wrote a line above max_message_bytes = {}; "
    "have it answer with less, or raise max_message_bytes in [limits] and restart the broker"
)

_OVERFULL = (
    "it does not read its stdin: more than {} bytes wait for it there, such as answers to its own requests; "
    "have it read its stdin while it writes"
)


class ProcessAttachment:
    """The tasks around one process.

    Args:
        name: the name of the server.
        process: the process.
        lifecycle: the lifecycle of the server, which is told of signs of life.
        log: receives what the process writes for people.
        hub: receives its lines.
        tell: is told what has happened to the process.
        max_message_bytes: the largest result of the server.
    """

    def __init__(
        self,
        name: str,
        process: Process,
        lifecycle: Lifecycle,
        log: StderrLog,
        hub: Hub,
        tell: Callable[[Event, Ending], object],
        max_message_bytes: int,
    ) -> None:
        self._name = name
        self._process = process
        self._lifecycle = lifecycle
        self._log = log
        self._hub, self._registry, self._replies = hub, hub.engine.registry, hub.engine.replies
        self._spoke = False
        self._tell = tell
        self._max_message_bytes = max_message_bytes
        self.read = trio.Event()
        """Set once the process has read its first request."""
        self._max_waiting_bytes = 2 * max_message_bytes + _BESIDE_CALLS_BYTES
        self.pipe = Pipe(
            process.stdin,
            process.stdout,
            max_line_bytes=max_message_bytes + _ENVELOPE_BYTES,
            congested=lambda congested: hub.run(self._registry.congested, name, congested),
            max_waiting_bytes=self._max_waiting_bytes,
            overfull=self._overfull,
        )

    def _overfull(self) -> None:
        self._hub.engine.counters.add("ended.not-reading")
        self._tell(Event.FAILED, Ending(_OVERFULL.format(self._max_waiting_bytes)))

    def begin(self, nursery: trio.Nursery, watchdog_s: float) -> None:
        """Start all tasks in a nursery.

        Args:
            watchdog_s: the seconds within which a stopped process is noticed; 0 for never.
        """
        nursery.start_soon(self._read)
        nursery.start_soon(self._flush)
        nursery.start_soon(self._look, watchdog_s)
        nursery.start_soon(self.pipe.watch)
        nursery.start_soon(self._log.drain, self._process.stderr, self._heard)
        nursery.start_soon(self._look_at_tree)
        nursery.start_soon(self._look_at_stdin)

    async def _look_at_stdin(self) -> None:
        """Until the process is ready, note when it has read what was written to it."""
        await trio.sleep(_STDIN_LOOK_S)
        while self._lifecycle.state is State.HANDSHAKE:
            if not self.pipe.unread():
                self._hub.run(self._registry.taken, self._name)
                self.read.set()
            await trio.sleep(_STDIN_LOOK_S)

    def _heard(self) -> None:
        self._lifecycle.alive(trio.current_time())
        self._hub.run(self._registry.heard, self._name)

    def _line(self, line: bytes) -> bool:
        """Handle one line. Return whether the next one must wait until the server is `_caught_up` with."""
        if not self._spoke:
            self._spoke = True
            self._lifecycle.alive(trio.current_time(), spoke=True)
        self._hub.step(self._replies.line, self._name, line)
        return self._hub.engine.backlog.is_busy(self._name)

    async def _read(self) -> None:
        """Read until the process ends or closes its output, and tell which it was."""
        over = trio.Event()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                try:
                    await self.pipe.read(self._line, self._hub.settle, self._caught_up)
                except LineTooLong:
                    self._tell(Event.FAILED, Ending(_TOO_LONG.format(self._max_message_bytes)))
                over.set()

            async def wait() -> None:
                await self._process.exited()
                over.set()

            nursery.start_soon(read)
            nursery.start_soon(wait)
            await over.wait()
            # The last lines may come after the exit, or the exit after the last line.
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS_S
            if self._process.exit_status() is not None:
                await self.pipe.caught_up(self._process.stderr)
                nursery.cancel_scope.cancel()
        await self._tell_end()

    async def _caught_up(self) -> None:
        await self._hub.caught_up(self._name)

    async def _tell_end(self) -> None:
        status = self._process.exit_status()
        if self._is_legacy(status):
            ended = "it closed its output" if status is None else str(status)
            self._tell(Event.LEGACY, Ending(f"{ended}, asked for server/discover"))
        elif status is None:
            self._tell(Event.EXITED, Ending(f"it closed its output{self._log.why()}"))
        else:
            words = self._in_words(status) + await self._left_running(status)
            cause = None if status.never_ran else status.cause
            self._tell(Event.EXITED, Ending(words, failure=status.failure, cause=cause))

    def _is_legacy(self, status: ExitStatus | None) -> bool:
        """Return whether it ended or closed its output because of the era probe, as some older servers do."""
        asked = self._lifecycle.state is State.HANDSHAKE and self._hub.engine.servers[self._name].probing
        return asked and (status is None or not status.never_ran)

    def _in_words(self, status: ExitStatus) -> str:
        """Return how it ended, with the cause that it reported."""
        if status.never_ran:
            return f"it could not be run: {next(iter(self._log.tail(1)), status)}"
        during = " before it was ready" if self._lifecycle.state is State.HANDSHAKE else ""
        why = self._log.why(killed=status.killed) if status.failure or during else ""
        return f"{status}{during}{why}"

    async def _left_running(self, status: ExitStatus) -> str:
        """Return words about a wrapper that ended without failure and left the likely server running."""
        try:
            count = 0 if status.failure else await self._process.processes()
        except OSError:  # /proc cannot be read now
            count = 0
        if not count:
            return ""
        return (
            f", and left {count} of its processes running, which were ended with it; "
            f"let it wait for them, or become the server by `exec`"
        )

    async def _look(self, watchdog_s: float) -> None:
        """Fail a process that stays stopped, whatever it was doing."""
        every_s, looks = watchdog_s / _LOOKS_A_WATCH, Looks()
        while every_s:
            await trio.sleep(every_s)
            if looks.saw(stopped=self._process.is_stopped()):
                self._tell(Event.FAILED, Ending("it was stopped by SIGSTOP or the like, and did not go on"))
                return

    async def _look_at_tree(self) -> None:
        """While its start may be downloading, notice that its tree does something."""
        before = None
        while (start := self._lifecycle.start) is not None and start.runner is not None and not start.spoke:
            every_s = min(LOOK_S, start.start_s / 4)
            await trio.sleep(every_s)
            with suppress(OSError):  # /proc cannot be read now
                now = await self._process.activity()
                if before is not None and now.since(before, every_s):
                    self._lifecycle.alive(trio.current_time())
                before = now

    async def _flush(self) -> None:
        await self.pipe.flush()
        with trio.move_on_after(_LAST_WORDS_S):
            await self._process.exited()
            return  # that is the cause, and `_read` tells it
        legacy = self._is_legacy(None)
        ended = "it closed its input"
        self._tell(
            Event.LEGACY if legacy else Event.EXITED,
            Ending(f"{ended}, asked for server/discover" if legacy else ended),
        )
