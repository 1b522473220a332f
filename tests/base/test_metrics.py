"""What is counted: a histogram that is right to within five per cent, and counters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.metrics import Counters, Latency


@given(
    st.lists(st.floats(1.5e-6, 1000.0), min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0])
)
def test_a_quantile_is_right_to_within_five_per_cent(durations: list[float], share: float) -> None:
    """Section 3: p50 and p99 of `status` against the sorted list."""
    latency = Latency()
    for seconds in durations:
        latency.add(seconds)
    exact_ms = sorted(durations)[math.ceil(share * len(durations)) - 1] * 1e3
    assert latency.quantile_ms(share) == pytest.approx(exact_ms, rel=0.05)
    assert latency.count == len(durations)
    assert latency.sum_s == pytest.approx(sum(durations))


def test_without_calls_a_quantile_is_0() -> None:
    """Section 3: a server that was never called has no latency."""
    assert Latency().quantile_ms(0.5) == 0.0


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 1e3, 1e9])
def test_no_duration_is_out_of_range(seconds: float) -> None:
    """Law 6: the table has a fixed size; what is beyond it counts at its end."""
    latency = Latency()
    latency.add(seconds)
    assert 0 < latency.quantile_ms(0.5) < 2e6
    assert len(latency._buckets) == 241


def test_counters_count() -> None:
    """Law 9: what never happened counts 0, and asking does not make it an entry."""
    counters = Counters()
    assert counters["late.reply"] == 0
    assert not counters
    counters.add("late.reply")
    counters.add("late.reply", 2)
    assert counters == {"late.reply": 3}


@given(st.lists(st.floats(0.0, 1000.0), max_size=50))
def test_the_bounds_of_a_histogram_hold_what_is_below_them(durations: list[float]) -> None:
    """What Prometheus gets is exact at the bounds, not interpolated."""
    latency = Latency()
    for seconds in durations:
        latency.add(seconds)
    for bound, count in latency.cumulative():
        assert count == sum(seconds * 1e6 < round(bound * 1e6) for seconds in durations)


def test_the_bounds_of_a_histogram_double_from_a_quarter_millisecond_to_two_minutes() -> None:
    """The bounds are the same in every release, and fit a cached answer as well as a slow tool."""
    bounds = [bound for bound, _ in Latency().cumulative()]
    assert (bounds[0], bounds[-1], len(bounds)) == (0.000256, 134.217728, 20)
    assert bounds == [bounds[0] * 2**octave for octave in range(20)]
