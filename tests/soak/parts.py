"""The parts of the soak, in the order in which they run, with their counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz import games, heavy
from tests.soak import (
    bridges,
    churn,
    handovers,
    hostile,
    keyless,
    kills,
    matrix,
    questions,
    queues,
    reloads,
    restarts,
    sessions,
    strangers,
    vanish,
)
from tests.soak.ground import Line, Progress


class Part(NamedTuple):
    """One part: its function, the stated count, the one for the tests, and what is counted."""

    run: Callable[[int, Progress], list[Line]]
    stated: int
    few: int
    unit: str


PARTS = {
    "faults": Part(matrix.run, 1, 0, "rounds"),
    "restarts": Part(restarts.run, 1000, 12, "restarts"),
    "reloads": Part(reloads.run, 100, 6, "reloads"),
    "kills": Part(kills.run, 50, 5, "kills"),
    "handovers": Part(handovers.in_order, 10, 2, "restarts"),
    "crashes": Part(handovers.killed, 10, 2, "kills"),
    "strangers": Part(strangers.run, 60, 3, "seconds"),
    "questions": Part(questions.run, 60, 3, "seconds"),
    "queues": Part(queues.run, 1000, 100, "calls"),
    "stopped": Part(hostile.stopped_reader, 10, 1, "rounds"),
    "caller": Part(hostile.caller, 100_000, 2_000, "requests"),
    "vanishing": Part(hostile.vanishing, 500, 100, "clients"),
    "keyless": Part(keyless.run, 10_000, 0, "connections"),
    "churn": Part(churn.run, 10_000, 200, "cycles"),
    "bridges": Part(bridges.run, 10_000, 12, "bridges"),
    "sessions": Part(sessions.run, 1000, 16, "sessions"),
    "vanish": Part(vanish.run, 200, 10, "kills"),
    "fuzz-core": Part(games.core, 10_000, 150, "games"),
    "fuzz-shim": Part(games.shim, 50_000, 2_000, "games"),
    "fuzz-heavy": Part(games.heavy, heavy.SIZE_BYTES, 1_500_000, "bytes"),
}
"""`few` is 0 where another test has it."""
