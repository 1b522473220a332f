"""The pipe of one server: what it wrote before its end is read, whoever holds the pipe open after it."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest
import trio
import trio.lowlevel
import trio.testing

from broker.upstream.stdio.pipe import LineTooLong, Pipe
from tests.core.residue import residue

PATIENCE_S = 60.0
LINES = 20_000


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Its two ends, the first of which does not block."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_what_was_written_is_read_though_the_pipe_stays_open() -> None:
    """Calls in flight are answered at once when their server dies. A child that it left holds its
    stdout; the answers that it wrote before count, the end of the stream is not waited for."""

    async def main(ours: int, theirs: int, errors: int, their_errors: int) -> list[bytes]:
        pipe = Pipe(-1, ours, max_line_bytes=100, congested=lambda _: None)
        lines: list[bytes] = []
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe.read, lines.append, lambda: None)
                await trio.to_thread.run_sync(os.write, theirs, b"x\n" * LINES)
                await pipe.caught_up(errors)
                nursery.cancel_scope.cancel()
        return lines

    with pipe() as out, pipe() as err:
        assert trio.run(main, *out, *err) == [b"x"] * LINES


def test_what_others_read_is_waited_for_too() -> None:
    """Law 10: the last line on stderr tells the cause, more often than not."""

    async def main(ours: int, theirs: int, errors: int, their_errors: int) -> bytes:
        pipe = Pipe(-1, ours, max_line_bytes=100, congested=lambda _: None)
        os.write(their_errors, b"the cause")
        said = b""

        async def drain() -> None:
            nonlocal said
            await trio.sleep(0.05)
            said = os.read(errors, 100)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await pipe.caught_up(errors)
                assert said == b"the cause"
        return said

    with pipe() as out, pipe() as err:
        trio.run(main, *out, *err)


def test_without_a_descriptor_it_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 5: the broker goes on; that the server has closed its stdin is noticed when it is written to."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main(ours: int) -> None:
        monkeypatch.setattr(select, "epoll", none_left)  # trio itself has its own by now
        await Pipe(ours, -1, max_line_bytes=100, congested=lambda _: None).watch()

    with pipe() as (ours, _):
        trio.run(main, ours)


def test_the_end_of_a_stream_is_nothing_to_read() -> None:
    """Else a process that closed all of its pipes would be waited for."""

    async def main(ours: int, errors: int) -> None:
        pipe = Pipe(-1, ours, max_line_bytes=100, congested=lambda _: None)
        with trio.fail_after(PATIENCE_S):
            await pipe.read(lambda _: None, lambda: None)
            await pipe.caught_up(errors)

    ends = [os.pipe(), os.pipe()]
    for ours, theirs in ends:
        os.set_blocking(ours, False)
        os.close(theirs)
    trio.run(main, ends[0][0], ends[1][0])
    for ours, _ in ends:
        os.close(ours)


@pytest.mark.parametrize("waiting", [False, True], ids=["before it is watched", "while much waits for it"])
def test_when_its_stdin_is_closed_nobody_touches_that_number_any_more(waiting: bool) -> None:
    """Laws 3 and 5: it may be another's at once; and to wait for it was a fault, which ended it hard."""

    async def main() -> None:
        theirs, ours = os.pipe()
        os.set_blocking(ours, False)
        pipe = Pipe(ours, -1, max_line_bytes=100, congested=lambda _: None)
        if waiting:
            pipe.write(b"x" * 10_000_000)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                if waiting:
                    nursery.start_soon(pipe.flush)
                    await trio.testing.wait_all_tasks_blocked()
                pipe.close()
                trio.lowlevel.notify_closing(ours)
                os.close(ours)
                nursery.start_soon(pipe.watch)
                nursery.start_soon(pipe.flush)
        os.close(theirs)

    trio.run(main)


LIMIT = 1000


@pytest.mark.parametrize("before", [b"", b"{}\n", b"{}\n" * 100], ids=["alone", "behind one", "behind many"])
@pytest.mark.parametrize("end", [b"\n", b"\n{}\n", b""], ids=["the last", "before another", "without an end"])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 50 * LIMIT])
def test_every_line_is_held_to_the_limit(before: bytes, end: bytes, size: int) -> None:
    """Law 6: behind a shorter line of the same read, 400,000 bytes passed a limit of 131,072."""

    async def main(ours: int, theirs: int) -> list[int]:
        pipe = Pipe(-1, ours, max_line_bytes=LIMIT, congested=lambda _: None)
        sizes: list[int] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LineTooLong) if size > LIMIT else nullcontext():
                    await pipe.read(lambda line: sizes.append(len(line)), lambda: None)
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            os.write(theirs, before + b"x" * size + end)
            with trio.move_on_after(PATIENCE_S if size > LIMIT else 0.05):
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
        return sizes

    with pipe() as (ours, theirs):
        assert max(trio.run(main, ours, theirs), default=0) <= LIMIT


def test_the_next_line_waits_until_the_last_one_is_caught_up_with() -> None:
    """Law 6: what a line has to be told to many is not met by a thousand further lines."""

    async def main(ours: int, theirs: int) -> None:
        pipe = Pipe(-1, ours, max_line_bytes=LIMIT, congested=lambda _: None)
        lines: list[bytes] = []
        may = trio.Event()

        def take(line: bytes) -> bool:
            lines.append(line)
            return line == b"much"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.read, take, lambda: None, may.wait)
            os.write(theirs, b"much\nmore\n")
            await trio.testing.wait_all_tasks_blocked()
            assert lines == [b"much"]
            may.set()
            with trio.fail_after(PATIENCE_S):
                while len(lines) < 2:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    with pipe() as (ours, theirs):
        trio.run(main, ours, theirs)


def test_what_waits_for_a_server_that_does_not_read_has_a_limit() -> None:
    """Law 6: it is told once, what waited is forgotten, and nothing more is written."""

    async def main() -> list[str]:
        theirs, ours = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        told: list[str] = []
        pipe = Pipe(
            ours,
            -1,
            max_line_bytes=LIMIT,
            congested=lambda _: None,
            max_waiting_bytes=LIMIT,
            overfull=lambda: told.append("overfull"),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.flush)
            pipe.write(b"x" * 1_000_000)  # more than the pipe and the limit hold
            for _ in range(10):
                pipe.write(b"{}\n")
            assert residue(pipe) == {}
            with trio.fail_after(PATIENCE_S):
                while nursery.child_tasks:
                    with suppress(BlockingIOError):
                        os.read(theirs, 65_536)
                    await trio.lowlevel.checkpoint()
        os.close(theirs)
        os.close(ours)
        return told

    assert trio.run(main) == ["overfull"]
