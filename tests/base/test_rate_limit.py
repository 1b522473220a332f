"""How often: a burst, and then a steady pace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.base.rate_limit import LogLimit, RateLimit
from tests.core.spans import spans


def test_a_burst_and_then_one_at_a_time() -> None:
    """Law 6: a server that keeps saying that something changed makes no hot loop."""
    pace = RateLimit(3, 2.0)
    assert [pace.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert pace.at() == 12.0
    assert (pace.take(11.9), pace.take(12.0), pace.take(12.0)) == (False, True, False)


@given(st.lists(spans(0.0, 5.0), min_size=1, max_size=60), st.integers(1, 5))
def test_never_more_in_any_time(steps: list[float], burst: int) -> None:
    """Law 6: in any span of time, the burst and one for each interval."""
    pace, times = RateLimit(burst, 2.0), []
    now = 0.0
    for step in steps:
        now += step
        if pace.take(now):
            times.append(now)
        assert pace.at() >= (times[-1] if burst == 1 and times else float("-inf"))
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - times[first]) / 2.0


def test_a_line_of_the_log_counts_those_that_were_left_out() -> None:
    """Law 9: nothing vanishes; the burst comes first, then one a second."""
    limit = LogLimit(burst=2)
    assert [limit.take(0.0) for _ in range(5)] == [1, 1, 0, 0, 0]
    assert [limit.take(1.0), limit.take(1.5), limit.take(2.0)] == [4, 0, 2]
