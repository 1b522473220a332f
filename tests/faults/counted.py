"""The broker as it is, with its trio tasks counted in a file.

    python tests/faults/counted.py FILE serve --config …

FILE holds the number of tasks that there are, in 8 bytes, at any time. A worker thread ends after one idle
second, not after ten: who wants to see that none is left does not wait so long.
"""

from __future__ import annotations

import mmap
import struct
import sys
from functools import partial
from pathlib import Path

import trio
from trio._core import _thread_cache

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from broker.__main__ import main

_COUNT = struct.Struct("<q")


class Census(trio.abc.Instrument):
    """Counts the tasks."""

    def __init__(self, path: str) -> None:
        Path(path).write_bytes(_COUNT.pack(0))
        with open(path, "r+b") as file:
            self._shown = mmap.mmap(file.fileno(), _COUNT.size)
        self._count = 0

    def _add(self, number: int) -> None:
        self._count += number
        _COUNT.pack_into(self._shown, 0, self._count)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._add(1)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._add(-1)


def tasks_in(path: Path) -> int:
    """How many tasks the broker that writes this file has."""
    (count,) = _COUNT.unpack(path.read_bytes())
    return int(count)


if __name__ == "__main__":
    census = Census(sys.argv.pop(1))
    _thread_cache.IDLE_TIMEOUT = 1
    trio.run = partial(trio.run, instruments=[census])  # type: ignore[assignment]
    sys.argv[0] = "mcp-broker"
    main()
