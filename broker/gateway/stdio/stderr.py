"""The stderr of `connect`. The host may never read it, and that must not hold the conversation up.

The standard library alone.
"""

from __future__ import annotations

import io
import os
import sys
from select import PIPE_BUF, POLLOUT, poll


class Stderr(io.TextIOBase):
    """Writes to stderr what it takes at once, and drops and counts the rest. The flags of the pipe are the
    host's too, so they stay as they are.

    Attributes:
        dropped: the bytes that were dropped since this was last said.
    """

    def __init__(self, fd: int = 2) -> None:
        self.dropped = 0
        self._fd = fd
        self._poll = poll()
        self._poll.register(fd, POLLOUT)

    def write(self, text: str) -> int:
        """Write a text, or as much of it as is taken at once. Return its length."""
        data = text.encode(errors="backslashreplace")
        if self.dropped:
            note = b"mcp-broker connect: nobody read stderr; %d bytes were dropped\n" % self.dropped
            if self._put(note) == 0:
                self.dropped += len(data)
                return len(text)
            self.dropped = 0
        self.dropped += len(data) - self._put(data)
        return len(text)

    def _put(self, data: bytes) -> int:
        """Write what is taken at once. Return how many bytes that was."""
        done = 0
        try:
            while done < len(data) and self._poll.poll(0):
                done += os.write(self._fd, data[done : done + PIPE_BUF])
        except OSError:  # nobody can read it any more
            pass
        return done


def say(words: str) -> None:
    """Tell the operator: stdout belongs to the host's messages alone."""
    if sys.stderr is not None:
        sys.stderr.write(f"mcp-broker connect: {words}\n")
