"""The bytes that clients make the gateway hold: bodies of requests under way, and answers not yet read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple


class ByteBudget:
    """Counts the bytes that are held, for each token and in all.

    Args:
        per_token: how many may be held for one token.
        in_all: how many may be held for all together.
        on_full: is called with the key of a limit, and the token, each time that there is no room.
    """

    def __init__(
        self, per_token: int, in_all: int, on_full: Callable[[str, str], None] = lambda limit, token: None
    ) -> None:
        self._per_token = per_token
        self._in_all = in_all
        self._held: Counter[str] = Counter()
        self.held = 0
        """How many are held for all together."""
        self._on_full = on_full

    def share(self, token: str) -> Share:
        """Return what the requests of a token count their bytes by."""
        return Share(self, token)

    def take(self, token: str, size: int) -> str | None:
        """Count bytes as held. Return the key of the limit that forbids it; then nothing is counted."""
        if self._held[token] + size > self._per_token:
            limit = "token_bytes"
        elif self.held + size > self._in_all:
            limit = "all_bytes"
        else:
            self._held[token] += size
            self.held += size
            return None
        self._on_full(limit, token)
        return limit

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
        """Count bytes as held. Return the key of the limit that forbids it; then nothing is counted."""
        return self.budget.take(self.token, size)

    def give(self, size: int) -> None:
        """Bytes are no longer held."""
        self.budget.give(self.token, size)
