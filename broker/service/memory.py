"""Gives freed memory back to the system: glibc keeps it, and who looks at the broker would see a leak.

glibc maps large blocks one by one and unmaps them when they are freed, but each raises the size from which
it does so, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): after a few large messages all come from the heap,
and stay there. So that size is fixed here. What is freed below is given back by malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

_M_MMAP_THRESHOLD = -3
"""From <malloc.h>."""

_MAPPED_BYTES = 4 * 1024 * 1024
"""Blocks from this size on are mapped. To map smaller ones, too, would cost page faults at each message."""

_MORE_BYTES = 8 * 1024 * 1024
"""With so much more than after the last time it is tried whether some can be given back."""


class Memory:
    """The heap of this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._pages = Path("/proc/self/statm")
        self._least = self.resident()
        if hasattr(self._libc, "mallopt"):  # musl has none, and gives back by itself
            self._libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)

    def look(self) -> None:
        """Give back what can be, if the process has grown."""
        now = self.resident()
        if now > self._least + _MORE_BYTES:
            if hasattr(self._libc, "malloc_trim"):
                self._libc.malloc_trim(0)
            now = self._least = self.resident()
        self._least = min(self._least, now)

    def resident(self) -> int:
        """What it takes, in bytes."""
        return int(self._pages.read_text().split()[1]) * resource.getpagesize()
