"""What a server writes for people: always read, kept within bounds, at its level, without secrets."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from broker.base.secrets import Mask
from broker.upstream.stdio.stderr import LINE_BYTES, LINES, StderrLog

_F_SETPIPE_SZ = 1031
"""From <fcntl.h>; the module has the name from Python 3.10 on some systems only."""


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """One for each test."""
    return Clock()


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[StderrLog]:
    """The log of a server `s`."""
    with caplog.at_level(logging.DEBUG, "mcp-broker"):
        yield StderrLog("s", clock)


def drained(log: StderrLog, *chunks: bytes, meanwhile: Callable[[], None] = lambda: None) -> list[str]:
    """Have a process write these chunks, one at a time; what is kept of them."""

    async def main() -> None:
        read, write = os.pipe()
        fcntl.fcntl(write, _F_SETPIPE_SZ, 1 << 20)  # for what is not read at once
        os.set_blocking(read, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.drain, read, meanwhile)
            for chunk in chunks:
                await trio.testing.wait_all_tasks_blocked()
                os.write(write, chunk)
            os.close(write)
        os.close(read)

    trio.run(main)
    return list(log.lines)


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    """The lines of the log with this event."""
    return [record for record in caplog.records if record.getMessage() == event]


def test_lines_are_put_together_from_chunks(log: StderrLog) -> None:
    """A pipe knows no lines; neither an empty line nor the last one without its end makes a difference."""
    assert drained(log, b"on", b"e\ntwo\r\n\n", b"three") == ["one", "two", "three"]


def test_a_progress_bar_is_lines(log: StderrLog) -> None:
    """It ends none for minutes, and would be one line of 4,096 bytes."""
    assert drained(log, b"10%\r20%\r", b"100%\n") == ["10%", "20%", "100%"]


def test_of_a_line_without_end_the_beginning_is_kept(log: StderrLog) -> None:
    """Law 6, and law 9: that there was more is shown."""
    kept = drained(log, *[b"x" * 60_000] * 5, b"\nnext\n")
    assert [len(kept[0]), kept[0][-2:], kept[1]] == [LINE_BYTES + 1, "x…", "next"]
    assert len(kept) == 2


def test_the_last_ones_are_kept(log: StderrLog) -> None:
    """Law 6: a ring for each server."""
    kept = drained(log, b"".join(b"%d\n" % number for number in range(1000)))
    assert (len(kept), kept[-1], log.written) == (LINES, "999", 1000)


def test_nothing_moves_the_cursor_of_who_reads_it(log: StderrLog) -> None:
    """Colours are taken out, and what else a terminal would obey is replaced."""
    kept = drained(log, b"\x1b[31mERROR\x1b[0m: \x1b]0;title\x07red\ta\x9b2J\x08\xe2\x80\xaeb\n")
    assert kept == ["ERROR: red  a\ufffd2J\ufffd\ufffdb"]
    assert kept[0].isprintable()


def test_each_line_has_its_level(log: StderrLog, caplog: pytest.LogCaptureFixture) -> None:
    """What is indented below an error goes on with it; what is not begins anew."""
    drained(log, b"started\n<4>late\nTraceback (most):\n  File\n    x = 1\nValueError: x\n<7>detail\nplain\n")
    assert [record.levelname for record in caplog.records] == [
        *("INFO", "WARNING", "ERROR", "ERROR", "ERROR", "ERROR", "DEBUG", "INFO")
    ]
    assert log.lines[1] == "late"


def test_the_rate_is_limited_and_what_was_left_out_is_counted(
    log: StderrLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: the number is told at the end of the flood too, when no further line comes."""
    drained(log, b"x\n" * 5000)
    shown, left_out = told(caplog, "server.stderr"), told(caplog, "server.lines_left_out")
    assert len(shown) + sum(vars(record)["lines"] for record in left_out) == 5000
    assert len(shown) < 300
    assert len(left_out) <= 2


def test_a_flood_leaves_others_their_turn(log: StderrLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 5: of many lines at once few are looked at, and then it rests; the first and the last are kept."""
    looked_at: list[bytes] = []
    keep = log.keep

    def look(line: bytes) -> None:
        looked_at.append(line)
        keep(line)

    monkeypatch.setattr(log, "keep", look)
    seen: list[int] = []
    lines = [b"%d\n" % number for number in range(20_000)]
    drained(log, b"".join(lines), meanwhile=lambda: seen.append(len(looked_at)))
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * LINES
    assert (looked_at[0], looked_at[-2]) == (b"0", b"19999")
    assert log.written == 20_000
    assert log.lines[-1] == "19999"


def test_the_end_of_a_flood_is_told_while_the_server_lives(
    log: StderrLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: it may write nothing more for days."""

    async def main() -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.drain, read, lambda: None)
            os.write(write, b"x\n" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            while log.left_out:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        os.close(read)
        os.close(write)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert sum(vars(record)["lines"] for record in told(caplog, "server.lines_left_out")) == 800


def test_a_steady_excess_is_told_once_a_second(
    log: StderrLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The count is there to spare the log, not to fill it."""
    for _ in range(1000):
        clock.now += 0.01
        for _ in range(10):
            log.keep(b"x")
    assert len(told(caplog, "server.lines_left_out")) <= 11


@pytest.mark.parametrize("size", [0, 1, LINE_BYTES - 12, LINE_BYTES - 3, LINE_BYTES, LINE_BYTES + 3])
@pytest.mark.parametrize("chunk", [1 << 16, 7])
def test_no_secret_is_kept_or_logged(
    log: StderrLog, caplog: pytest.LogCaptureFixture, size: int, chunk: int
) -> None:
    """Law: not one half of it either, where a line is cut off just there."""
    log.mask = Mask(["hunter2-hunter2"])
    line = b"x" * size + b"hunter2-hunter2" + b"y" * 5000 + b"\n"
    for _ in range(2):
        kept = drained(log, *(line[at : at + chunk] for at in range(0, len(line), chunk)))
    assert all("hunter" not in text and "unter2" not in text for text in kept)
    assert all("hunter" not in str(vars(record)) for record in caplog.records)


def test_a_large_line_that_is_no_message_is_cut_before_anything_else(log: StderrLog) -> None:
    """Law 5: stdout noise of 32 MiB is looked at only as far as it is kept."""
    log.keep(b"\x1b[" * (1 << 24), "stdout")
    assert len(log.lines[0]) <= LINE_BYTES + 1
