"""Returns freed memory to the system. glibc keeps it, which would look like a leak.

glibc maps large blocks one by one and unmaps them when they are freed. But each raises the threshold for
this, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): after a few large messages all blocks come from the heap
and stay there. So the threshold is fixed here, and malloc_trim(3) returns what is freed below it.
"""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

_M_MMAP_THRESHOLD = -3
"""From <malloc.h>."""

_MAPPED_BYTES = 4 * 1024 * 1024
"""Blocks from this size up are mapped. Mapping smaller ones would cost page faults for each message."""

_MORE_BYTES = 8 * 1024 * 1024
"""The growth since the last time after which memory is returned."""


class Memory:
    """The heap of this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._pages = Path("/proc/self/statm")
        self._least = self.resident()
        if hasattr(self._libc, "mallopt"):  # musl has no mallopt, and returns memory by itself
            self._libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)

    def look(self) -> None:
        """Return freed memory if the process has grown."""
        now = self.resident()
        if now > self._least + _MORE_BYTES:
            if hasattr(self._libc, "malloc_trim"):
                self._libc.malloc_trim(0)
            now = self._least = self.resident()
        self._least = min(self._least, now)

    def resident(self) -> int:
        """Return the resident memory in bytes."""
        return int(self._pages.read_text().split()[1]) * resource.getpagesize()
