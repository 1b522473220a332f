"""The fault matrix: whatever a server does, there is one tree of it, and nobody else suffers (laws 1 to 5).

A server for each cell, all in one broker at the same time. Here it is the moments at which a server serves;
`make soak` has all of them.
"""

from __future__ import annotations

import pytest

from tests.faults.neighbour import quantile_ms
from tests.faults.stage import Played, play
from tests.faults.table import FAULTS, Cell, Moment, cells

MOMENTS = (Moment.IDLE, Moment.CALLS)


@pytest.fixture(scope="module")
def played() -> Played:
    """The whole matrix, played once."""
    return play(cell for cell in cells(*MOMENTS) if cell.can_be_played)


def test_the_table_names_every_fault_and_every_moment_once() -> None:
    """Issue 4: a fault without an expectation would pass unseen."""
    assert len({fault.slug for fault in FAULTS}) == len(FAULTS)
    assert all(list(fault.expected) == list(Moment) for fault in FAULTS)


@pytest.mark.parametrize("cell", cells(*MOMENTS), ids=lambda cell: cell.name)
def test_what_becomes_of_a_server(played: Played, cell: Cell) -> None:
    """Laws 1 and 2: one tree in the end, never two at once; its calls end right; the cause in words."""
    if not cell.can_be_played:
        pytest.skip("there is no npx here")
    seen = played.seen[cell.name]
    assert cell.is_as_expected(seen), (seen, cell.expected)


def test_the_others_were_served_the_whole_time(played: Played) -> None:
    """Law 5: each call of a neighbour was answered rightly, and none out of all proportion to the rest."""
    assert len(played.answers) > 50
    assert quantile_ms(played.answers, 1) <= 100 * quantile_ms(played.answers, 0.5) + 1000


def test_nothing_is_left_in_the_broker(played: Played) -> None:
    """Law 4: with the servers stopped, it has the descriptors and tasks of one that never started any."""
    assert played.after == played.before
