"""The log levels and subscriptions of legacy sessions, which outlive the session's time in memory. Sans-io.

A session id is fixed when the session begins, so it cannot carry what the client sets later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from broker.gateway.http.session_ids import SealedSession

MOST = 16_384
MOST_BYTES = 4_194_304
LARGEST_BYTES = 8192
"""The preferences of one session, as JSON."""


class KeptPreferences:
    """The preferences of sessions, as JSON. Bounded: the oldest is forgotten first.

    An entry is a line `NUMBER ISSUED JSON`; a later line replaces an earlier one of the same number, and one
    without JSON removes it.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        """number → when the session was issued, and its preferences"""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def load(self, lines: Iterable[str]) -> None:
        """Take what a file of an earlier run holds; a line that is damaged is skipped."""
        for line in lines:
            number, issued, said = [*line.strip().split(" ", 2), "", ""][:3]
            try:
                self.put(SealedSession(bytes.fromhex(number), int(issued), b""), said.encode())
            except ValueError:
                continue

    def get(self, session: SealedSession) -> bytes | None:
        """Return the preferences of a session; `None` where it has none."""
        held = self._held.get(session.number)
        return None if held is None else held[1]

    def put(self, session: SealedSession, said: bytes) -> tuple[str, list[SealedSession]]:
        """Keep the preferences of a session, in place of what it had before; empty ones are removed.

        Returns:
            The line to append to the file, and the sessions whose preferences are not kept for lack of room.
        """
        before = self._held.pop(session.number, None)
        self._bytes -= len(before[1]) if before is not None else 0
        if len(said) > LARGEST_BYTES:
            return _line(session.number, session.issued_s, b""), [session]
        if said:
            self._held[session.number] = session.issued_s, said
            self._bytes += len(said)
        return _line(session.number, session.issued_s, said), list(self._trimmed())

    def _trimmed(self) -> Iterator[SealedSession]:
        while len(self._held) > MOST or self._bytes > MOST_BYTES:
            number, (issued_s, said) = self._held.popitem(last=False)
            self._bytes -= len(said)
            yield SealedSession(number, issued_s, b"")

    def lines(self) -> list[str]:
        """Return all entries, as a file holds them."""
        return [_line(number, issued_s, said) for number, (issued_s, said) in self._held.items()]


def _line(number: bytes, issued_s: int, said: bytes) -> str:
    return f"{number.hex()} {issued_s} {said.decode()}".rstrip() + "\n"
