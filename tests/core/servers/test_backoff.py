"""Restart delays: they double, they are jittered, and a breaker stands above them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.servers.backoff import DEMAND_S, MAX_DELAY_S, RETRY_S, SETTLED_S, Backoff


def backoff(
    first_delay_s: float = 1.0, burst: int = 100, interval_s: float = 60.0, luck: float = 0.5
) -> Backoff:
    """A backoff with the same luck every time; 0.5 means no jitter."""
    return Backoff(first_delay_s=first_delay_s, burst=burst, interval_s=interval_s, rng=lambda: luck)


def test_delays_double_up_to_the_longest() -> None:
    """Section 2: a server that fails for long is tried less and less often."""
    server = backoff()
    delays = [server.failed(1000.0 * number) for number in range(8)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_first_delay_above_the_longest_is_kept() -> None:
    """Section 3: `restart_sec` is what the operator wrote."""
    server = backoff(first_delay_s=120.0)
    assert [server.failed(1000.0 * number) for number in range(3)] == [120.0, 120.0, 120.0]


@pytest.mark.parametrize(("luck", "first"), [(0.0, 0.75), (0.5, 1.0), (0.999999, 1.25)])
def test_jitter_is_a_quarter_either_way(luck: float, first: float) -> None:
    """Section 2: servers that failed together do not start together."""
    delay = backoff(luck=luck).failed(0.0)
    assert delay == pytest.approx(first, abs=1e-5)


@given(
    st.floats(0.01, 500),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.floats(0, 1000), max_size=60),
)
def test_a_delay_is_never_less_than_three_quarters_nor_above_the_longest(
    first_delay_s: float, luck: float, pauses: list[float]
) -> None:
    """Law 6: whatever the history, a delay has bounds; a long row of failures does not overflow."""
    server = backoff(first_delay_s, burst=1000, luck=luck)
    now = 0.0
    for pause in pauses:
        now += pause
        delay = server.failed(now)
        assert delay is not None
        assert 0.75 * min(first_delay_s, MAX_DELAY_S) <= delay <= 1.25 * max(first_delay_s, MAX_DELAY_S)


def test_a_burst_within_the_interval_opens_the_breaker() -> None:
    """Section 2: as systemd's StartLimitBurst= and StartLimitIntervalSec=."""
    server = backoff(burst=3, interval_s=60.0)
    assert server.failed(0.0) is not None
    assert server.failed(30.0) is not None
    assert server.failed(60.0) is None


def test_failures_far_apart_do_not_open_it() -> None:
    """Law 5: a crash an hour is a nuisance, not a burst."""
    server = backoff(burst=3, interval_s=60.0)
    assert all(server.failed(31.0 * number) is not None for number in range(50))


def test_a_burst_of_one_opens_it_at_once() -> None:
    """Section 3: `start_limit_burst = 1` means no second try."""
    assert backoff(burst=1).failed(5.0) is None


def test_an_open_breaker_stays_open_at_every_further_failure() -> None:
    """An open breaker allows one try every five minutes, not a new burst, however old the failures are."""
    server = backoff(burst=3, interval_s=60.0)
    assert [server.failed(1.0), server.failed(2.0), server.failed(3.0)] == [1.0, 2.0, None]
    assert [server.failed(3.0 + RETRY_S * number) for number in range(1, 9)] == [None] * 8
    server.settled()
    assert server.failed(9999.0) == 1.0


def test_settled_forgets_everything() -> None:
    """Section 2: who ran well starts with the first delay, and with an empty breaker."""
    server = backoff(burst=3)
    server.failed(0.0)
    server.failed(1.0)
    server.settled()
    assert [server.failed(2.0), server.failed(3.0), server.failed(4.0)] == [1.0, 2.0, None]


def test_the_times_are_of_a_size_that_makes_sense() -> None:
    """A broken server is left alone for longer than one that is merely restarted."""
    assert 0 < MAX_DELAY_S <= DEMAND_S < SETTLED_S < RETRY_S
