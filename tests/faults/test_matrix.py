"""The fault matrix: whatever a server does, there is one tree of it, and nobody else suffers (laws 1 to 5).

A server for each cell, all in one broker at the same time. `make soak` plays the same cells, with floods ten
times as long, and writes down what it saw: docs/faults.md.
"""

from __future__ import annotations

import pytest

from tests.faults.neighbour import quantile_ms
from tests.faults.stage import Played, play
from tests.faults.table import FAULTS, Cell, Moment, cells

CELLS = cells(*Moment)
FLOOD_LINES = 2_000

STUCK_MS = 10_000.0
"""How long ninety servers that are started on a loaded machine may take the processor from a call."""

every_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)


@pytest.fixture(scope="module")
def played() -> Played:
    """The whole matrix, played once."""
    return play((cell for cell in CELLS if cell.can_be_played), FLOOD_LINES)


def test_the_table_names_every_fault_and_every_moment_once() -> None:
    """There are 22 faults and four moments: one without an expectation would pass unseen."""
    assert len({fault.slug for fault in FAULTS}) == len(FAULTS) == 22
    assert all(list(fault.expected) == list(Moment) for fault in FAULTS)


@every_cell
def test_what_becomes_of_a_server(played: Played, cell: Cell) -> None:
    """Laws 1 and 2: one tree in the end, never two at once; its calls end right; the cause in words."""
    if not cell.can_be_played:
        pytest.skip("there is no npx here")
    seen = played.seen[cell.name]
    assert cell.is_as_expected(seen), (seen, cell.expected)


def test_the_others_were_served_the_whole_time(played: Played) -> None:
    """Law 5: each call of a neighbour was answered rightly, some during each fault, and none was stuck."""
    assert len(played.answers) > 50
    assert quantile_ms(played.answers, 1) <= STUCK_MS
    assert [name for name in played.seen if not played.meanwhile(name)] == [], "it had no answer meanwhile"


def test_what_was_dropped_is_counted(played: Played) -> None:
    """Law 9: the garbage of four floods, and the answers that nobody had asked for."""
    assert played.counters["dropped.noise"] >= 4 * FLOOD_LINES
    assert played.counters["dropped.late.reply"] >= 4


def test_nothing_is_left_in_the_broker(played: Played) -> None:
    """Law 4: with the servers stopped, it has the descriptors and tasks of one that never started any."""
    assert played.after == played.before
