"""The framing of a pipe: one message a line. Both ends of a pipe and of a Unix socket use it."""

from __future__ import annotations

from collections.abc import Iterator

MAX_LINE_BYTES = 134_217_728
"""The longest message. It is above what the broker takes by default (32 MiB), which is refused with its id;
of a longer line nobody can tell whose answer would be missing, so that the connection ends."""


class LineSplitter:
    """Splits what arrives into lines. No byte is looked at twice, and no line grows without bound."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skips = False
        """Whether the rest of a line that is too long is being thrown away."""

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Return the lines that are complete now, without their ends; `None` for one that is too long.

        Empty lines are left out.
        """
        *complete, rest = data.split(b"\n")
        for part in complete:
            line = self._take(part)
            if line is None or line.strip():
                yield line
        self._keep(rest)

    @property
    def rest(self) -> bytes:
        """What has arrived of a line that has no end yet."""
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self._parts.clear()
            self._skips = True
        elif part:
            self._parts.append(part)

    def _take(self, part: bytes) -> bytes | None:
        self._keep(part)
        line = None if self._skips else b"".join(self._parts)
        self._parts.clear()
        self._size, self._skips = 0, False
        return line
