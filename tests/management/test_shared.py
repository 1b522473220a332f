"""Work that is shared by who asks at the same time, and memory that is given back (law 6)."""

from __future__ import annotations

import platform
import sys
from subprocess import PIPE, run

import pytest
import trio
import trio.testing

from broker.management.shared import Shared

MIB = 1024 * 1024

FREES = """
import sys
from broker.service.memory import Memory
memory = Memory()
before = memory.resident()
blocks = [bytes(5000) for _ in range(8000)]
kept = [bytes(5000) for _ in range(10)]  # above them in the heap
print(memory.resident() - before)
if sys.argv[1:] == ["looked at meanwhile"]:
    memory.look()
del blocks
memory.look()
print(memory.resident() - before)
"""
"""Its memory after it has allocated 40 MB in small blocks, and after it has freed most of them."""


def test_who_asks_while_it_is_done_shares_the_next_time() -> None:
    """Law 5: a flood of `status` looked at all processes once for each; what is found is never too old."""

    async def main() -> None:
        may, times, results = trio.Event(), 0, list[int]()

        async def work() -> int:
            nonlocal times
            times += 1
            mine = times
            await may.wait()
            return mine

        shared = Shared(work)

        async def ask() -> None:
            results.append(await shared.get())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            may.set()
        assert (times, sorted(results)) == (2, [1, *[2] * 10])

    trio.run(main)


def test_where_it_fails_those_who_share_it_try_again() -> None:
    """Law 2: each has an answer, whatever came of another's."""

    async def main() -> None:
        times, results = 0, list[object]()

        async def work() -> int:
            nonlocal times
            times += 1
            await trio.testing.wait_all_tasks_blocked()
            if times == 1:
                raise OSError
            return times

        shared = Shared(work)

        async def ask() -> None:
            try:
                results.append(await shared.get())
            except OSError:
                results.append("failed")

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert results.count("failed") == 1
        assert len(results) == 4

    trio.run(main)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others give it back by themselves")
@pytest.mark.parametrize("when", ["", "looked at meanwhile"])
def test_memory_that_was_freed_is_given_back(when: str) -> None:
    """Law 6: 3.77 GiB of a client that was gone stayed; so did what was freed after a look."""
    seen = run([sys.executable, "-c", FREES, when], stdout=PIPE, text=True, check=True, timeout=60.0)
    grown, left = map(int, seen.stdout.split())
    assert grown > 35 * MIB
    assert left < 15 * MIB
