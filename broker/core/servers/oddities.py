"""Counts and logs what servers send that is odd or dropped: nothing of it vanishes silently."""

from __future__ import annotations

from collections.abc import Iterable

from broker.base.metrics import Counters
from broker.base.text import clip
from broker.base.tolerances import KINDS, Fact, Oddity, Tolerated, told
from broker.core.effects import Effects, Level
from broker.core.servers.server import Server
from broker.core.servers.visibility import SECTIONS

MAX_PATTERNS_CHARS = 400
"""The longest text about the patterns of a server that match nothing."""


class Oddities:
    """Counts and logs per server, and for the whole broker, what was tolerated or dropped."""

    def __init__(self, counters: Counters, effects: Effects) -> None:
        self._counters = counters
        self._effects = effects

    def note(self, server: Server, odd: Iterable[Oddity]) -> None:
        """Count and log the oddities of a line, which were tolerated."""
        for oddity in odd:
            self.tolerate(server, Tolerated(oddity))

    def tolerate(self, server: Server, odd: Tolerated) -> None:
        """Count and log what was tolerated; a notable kind is a warning, once per process."""
        if server.tolerate(odd):
            level = Level.WARNING if KINDS[odd.oddity].notable else Level.DEBUG
            event = "catalogue.unread" if odd.oddity is Oddity.UNREAD else "server.odd"
            reason = told(odd.oddity, {"server": server.name, **odd.facts})
            facts = {"list": odd.facts["list"]} if "list" in odd.facts else {}
            self._effects.log(level, event, server=server.name, kind=odd.oddity.value, **facts, reason=reason)

    def note_patterns(self, server: Server) -> None:
        """Remark on the patterns of `only` and `hide` that match nothing: a typing error shows or hides."""
        for section in SECTIONS:
            unmatched = ", ".join(server.catalogue.unmatched(section) if server.catalogue else ())
            facts: dict[str, Fact] = {"list": section, "patterns": clip(unmatched, MAX_PATTERNS_CHARS)}
            if not unmatched:
                server.remarks.pop((Oddity.PATTERN, section), None)
            elif server.remarks.get((Oddity.PATTERN, section)) != facts:
                self.tolerate(server, Tolerated(Oddity.PATTERN, facts))

    def discard(self, server: Server, what: str, **facts: str | int) -> None:
        """Count and log something of a server that is dropped."""
        server.dropped.add(what)
        self._counters.add(f"dropped.{what}")
        self._effects.log(Level.DEBUG, f"server.{what}", server=server.name, **facts)
