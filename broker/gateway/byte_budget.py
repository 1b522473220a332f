"""The bytes that clients make the gateway hold: bodies of requests under way, and answers not yet sent."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class ByteBudget:
    """Counts the bytes that are held, for each token and in all.

    Args:
        per_token: how many may be held for one token.
        in_all: how many may be held for all together.
    """

    def __init__(self, per_token: int, in_all: int) -> None:
        self._per_token = per_token
        self._in_all = in_all
        self._held: Counter[str] = Counter()
        self.held = 0
        """How many are held for all together."""
        self.refused: Counter[str] = Counter()
        """How often there was no room, by the limit: `token_bytes` or `all_bytes`."""

    def share(self, token: str) -> Share:
        """Return what the requests of a token count their bytes by."""
        return Share(self, token)

    def full(self, token: str, size: int) -> str | None:
        """Return the limit that leaves no room for so many bytes; `None` where there is room."""
        if self._held[token] + size > self._per_token:
            return "token_bytes"
        return "all_bytes" if self.held + size > self._in_all else None

    def take(self, token: str, size: int) -> str | None:
        """Count bytes as held. Return the limit that forbids it; then nothing is counted."""
        limit = self.full(token, size)
        if limit is not None:
            self.refused[limit] += 1
            return limit
        self._held[token] += size
        self.held += size
        return None

    def give(self, token: str, size: int) -> None:
        """Bytes are no longer held."""
        self._held[token] -= size
        self.held -= size
        if not self._held[token]:
            del self._held[token]


class Share(NamedTuple):
    """The part of one token."""

    budget: ByteBudget
    token: str

    def take(self, size: int) -> str | None:
        """Count bytes as held. Return the limit that forbids it; then nothing is counted."""
        return self.budget.take(self.token, size)

    def give(self, size: int) -> None:
        """Bytes are no longer held."""
        self.budget.give(self.token, size)
