"""The findings and their grades. Findings of one kind about many servers are merged into one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

Facts = dict[str, str | int | float]


class Grade(str, Enum):
    """The verdicts of the users' test guide."""

    A = "A"  # fixed
    B = "B"  # partly fixed: the report names the problems
    C = "C"  # not fixed


GRADES: dict[str, Grade] = {
    # The leak is still there.
    "grows": Grade.C,
    "second": Grade.C,
    "beside_grows": Grade.C,
    "left": Grade.C,
    "slower_all": Grade.C,
    "none_ready": Grade.C,
    # A problem to solve.
    "beside": Grade.B,
    "orphan": Grade.B,
    "broker_restarted": Grade.B,
    "crashes": Grade.B,
    "not_ready": Grade.B,
    "misconfigured": Grade.B,
    "stopped": Grade.B,
    "starting": Grade.B,
    "no_room": Grade.B,
    "list_fails": Grade.B,
    "call_fails": Grade.B,
    "tool_fails": Grade.B,
    "slower": Grade.B,
    "asks_outside": Grade.B,
    "asks_unclear": Grade.B,
    # Remarks.
    "wrapped": Grade.A,
    "rose": Grade.A,
    "no_tool": Grade.A,
    "tool_complains": Grade.A,
    "no_backend": Grade.A,
    "open_port": Grade.A,
    "runtime": Grade.A,
    "elsewhere": Grade.A,
    "few_pages": Grade.A,
    "memory": Grade.A,
}
"""kind of finding → grade"""

MANY = ".many"
"""The suffix of the word of a merged finding."""


class Finding(Struct, frozen=True):
    """One finding.

    Args:
        word: a key of the texts: a key of `GRADES`, with the suffix `MANY` if merged.
        server: the server concerned; `None` for a merged or a general finding.
        facts: the values for the text.
    """

    word: str
    server: str | None
    facts: Facts

    @property
    def kind(self) -> str:
        """The key of `GRADES`."""
        return self.word.removesuffix(MANY)

    @property
    def grade(self) -> Grade:
        """The grade of this kind."""
        return GRADES[self.kind]


REMARKS_AT_LEAST, FINDINGS_AT_LEAST = 2, 4
"""The number of servers from which remarks, or findings, of one kind are merged."""

DETAILS: dict[str, str] = {
    "grows": "{first} → {last}",
    "second": "pid {pids}",
    "beside_grows": "{first} → {last}",
    "beside": "{last}×",
    "orphan": "pid {pids}",
    "crashes": "{times}×",
    "not_ready": "{state}",
    "misconfigured": "",
    "stopped": "",
    "starting": "{state}",
    "no_room": "{limit}",
    "list_fails": "{times}/{of}",
    "call_fails": "{tool}, {times}/{of}",
    "tool_fails": "{tool}, {times}/{of}",
    "slower": "{first_s} → {last_s} s",
    "asks_outside": "",
    "asks_unclear": "",
    "wrapped": "{processes}",
    "rose": "{first} → {last}",
    "tool_complains": "{tool}",
}
"""kind that can be merged → the detail shown for each server"""


def collected(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings, with those of one kind about many servers merged into `WORD.many`."""
    kinds = {word: [one for one in found if one.word == word and one.server] for word in DETAILS}
    many = {word: kind for word, kind in kinds.items() if len(kind) >= _least(word)}
    single = [one for one in found if one.word not in many or one.server is None]
    return single + [_together(word, kind) for word, kind in many.items()]


def _least(word: str) -> int:
    return REMARKS_AT_LEAST if GRADES[word] is Grade.A else FINDINGS_AT_LEAST


def _together(word: str, kind: Sequence[Finding]) -> Finding:
    details = ((one.server, DETAILS[word].format(**one.facts)) for one in kind)
    servers = ", ".join(f"{name} ({detail})" if detail else str(name) for name, detail in details)
    return Finding(f"{word}{MANY}", None, {"count": len(kind), "servers": servers})
