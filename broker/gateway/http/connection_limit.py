"""How many HTTP connections there may be, and which one has to go for a new one. Sans-io.

A connection is unknown until a request on it has shown a token, or has come by an address that needs none.
Whoever can reach a port can open unknown connections, so these may not keep others out: of the unknown ones
the oldest goes first. A client that sends its request at once is known long before its turn comes. Then go
the known ones without a request under way, as any HTTP server may close those. What is left is bounded by
the requests that each token may have open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Cuttable(Protocol):
    """A connection."""

    def cut(self) -> None: ...


class ConnectionLimit:
    """The connections, in the order in which they would have to go.

    Args:
        limit: how many there may be. Half of them may be unknown.
        on_full: is called for each connection that had to go or is refused, with what it was.
    """

    def __init__(self, limit: int, on_full: Callable[[str], None]) -> None:
        self._limit = limit
        self._on_full = on_full
        self._unknown: dict[Cuttable, None] = {}
        self._idle: dict[Cuttable, None] = {}
        self._busy: set[Cuttable] = set()

    def __len__(self) -> int:
        return len(self._unknown) + len(self._idle) + len(self._busy)

    def opened(self, connection: Cuttable) -> bool:
        """Take in a new connection. Return whether there is room for it; another one may be cut for it."""
        if len(self) < self._limit and len(self._unknown) < max(1, self._limit // 2):
            self._unknown[connection] = None
            return True
        kind, waiting = ("unknown", self._unknown) if self._unknown else ("idle", self._idle)
        oldest = next(iter(waiting), None)
        self._on_full("refused" if oldest is None else kind)
        if oldest is None:
            return False
        del waiting[oldest]
        oldest.cut()
        self._unknown[connection] = None
        return True

    def known(self, connection: Cuttable) -> None:
        """A request on it was let in."""
        if connection in self._unknown:
            del self._unknown[connection]
            self._busy.add(connection)

    def began(self, connection: Cuttable) -> None:
        """Note that a request on a connection begins."""
        if connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def rests(self, connection: Cuttable) -> None:
        """Note that no request on a connection is under way."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._idle[connection] = None

    def closed(self, connection: Cuttable) -> None:
        """Forget a connection that has ended."""
        self._unknown.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy.discard(connection)
