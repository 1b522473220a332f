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
"""The growth of the process, or of what is free in its heap, after which memory is returned."""


class _MallocFigures(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


class Memory:
    """The heap of this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._pages = Path("/proc/self/statm")
        if hasattr(self._libc, "mallopt"):  # musl has no mallopt, and returns memory by itself
            self._libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        if hasattr(self._libc, "mallinfo2"):  # glibc 2.33
            self._libc.mallinfo2.restype = _MallocFigures
        self._least = self.resident()
        self._least_free = self._free()

    def look(self) -> None:
        """Return freed memory if the process, or what is free in its heap, has grown.

        What is freed after a return does not let the process grow: only the heap knows of it.
        """
        now, free = self.resident(), self._free()
        if now > self._least + _MORE_BYTES or free > self._least_free + _MORE_BYTES:
            if hasattr(self._libc, "malloc_trim"):
                self._libc.malloc_trim(0)
            now = self._least = self.resident()
            self._least_free = free
        self._least = min(self._least, now)
        self._least_free = min(self._least_free, free)

    def resident(self) -> int:
        """Return the resident memory in bytes."""
        return int(self._pages.read_text().split()[1]) * resource.getpagesize()

    def _free(self) -> int:
        """Return the bytes of the heap that are free, resident or not; 0 where the heap does not tell."""
        return self._libc.mallinfo2().fordblks if hasattr(self._libc, "mallinfo2") else 0
