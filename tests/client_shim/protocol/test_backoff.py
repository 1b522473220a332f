"""Back off reconnects, spread them, keep no call waiting longer than it has to; and how long a call waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_shim.protocol.backoff import HASTE_S, MAX_DELAY_S, NEVER, SETTLED_S, ReconnectBackoff


def waits(attempts: ReconnectBackoff, count: int, *, now: float = 0.0, hasty: bool = False) -> list[float]:
    """The waits between attempts that fail at once, in seconds."""
    seen = []
    for _ in range(count):
        attempts.tried(now)
        due = attempts.after(now, hasty=hasty)
        seen.append(round(due - now, 6))
        now = due
    return seen


def test_the_delays_grow_to_a_limit_and_are_spread() -> None:
    """They double from the first, and no two clients of a broker that restarts have the same."""
    middle = waits(ReconnectBackoff(lambda: 0.5), 20)
    assert middle[:3] == [0.05, 0.1, 0.2]
    assert middle[-1] == MAX_DELAY_S
    assert waits(ReconnectBackoff(lambda: 0.0), 1) < waits(ReconnectBackoff(lambda: 1.0), 1)


@given(st.floats(0, 1, exclude_max=True))
def test_who_waits_with_a_call_waits_for_a_haste_at_most(chance: float) -> None:
    """However often it has failed before. The delays without a waiting call grow nevertheless."""
    attempts = ReconnectBackoff(lambda: chance)
    assert max(waits(attempts, 20, hasty=True)) <= HASTE_S
    assert waits(attempts, 1) == [round(MAX_DELAY_S * (0.5 + chance), 6)]


def test_a_call_may_have_an_attempt_at_once_unless_there_was_one_just_now() -> None:
    """A call that comes while nobody tries does not wait out a delay of half a minute."""
    attempts = ReconnectBackoff(lambda: 0.5)
    assert attempts.soonest(5.0) == 5.0
    attempts.tried(5.0)
    assert attempts.soonest(5.0) == attempts.soonest(5.05) == 5.0 + HASTE_S
    assert attempts.soonest(7.0) == 7.0


@pytest.mark.parametrize(
    ("held_s", "then"),
    [(SETTLED_S / 2, 0.4), (SETTLED_S, 0.4), (SETTLED_S + 1, 0.05)],
)
def test_after_a_good_connection_the_delays_start_short_again(held_s: float, then: float) -> None:
    """One that is lost soon after its welcome, time and again, is no good one: it is backed off from."""
    attempts = ReconnectBackoff(lambda: 0.5)
    waits(attempts, 3)
    attempts.tried(100.0)
    attempts.welcomed(100.0)
    assert attempts.after(100.0 + held_s, hasty=False) == pytest.approx(100.0 + held_s + then)


def test_an_attempt_has_come_through_once_it_is_welcomed() -> None:
    """A welcome is that of the last attempt, and of no earlier one."""
    attempts = ReconnectBackoff(lambda: 0.5)
    attempts.tried(1.0)
    before = attempts.came_through
    attempts.welcomed(1.0)
    meanwhile = attempts.came_through
    attempts.tried(2.0)
    assert (before, meanwhile, attempts.came_through) == (False, True, False)


# --- how long a call waits ------------------------------------------------------------------------------


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100) | st.just(NEVER))
def test_a_call_waits_alike_for_a_broker_that_was_lost_and_for_one_that_was_never_there(
    began: float, reconnect_s: float, expires: float
) -> None:
    """For `reconnect_s` from when it was gone or the call began, whichever is later, within its deadline."""
    never_there, lost = ReconnectBackoff(lambda: 0.5), ReconnectBackoff(lambda: 0.5)
    never_there.tried(5.0)
    never_there.failed(5.0, announced=False)
    lost.tried(1.0)
    lost.welcomed(1.0)
    lost.failed(5.0, announced=False)
    for backoff in (never_there, lost):
        backoff.tried(6.0)
        backoff.failed(6.0, announced=False)
        assert backoff.gone_at == 5.0, "further attempts do not give more time"
        assert backoff.wait_until(began, reconnect_s, expires) == min(max(began, 5.0) + reconnect_s, expires)
    assert (never_there.was_reached, lost.was_reached) == (False, True)


def test_a_call_waits_for_its_whole_time_where_the_broker_is_there_or_has_said_that_it_ends() -> None:
    """A drain, and an orderly restart; without a deadline the latter is waited for as after a loss."""
    backoff = ReconnectBackoff(lambda: 0.5)
    assert backoff.wait_until(0.0, 5.0, 60.0) == 60.0, "the first attempt has not begun"
    backoff.tried(1.0)
    backoff.welcomed(1.0)
    assert [backoff.wait_until(2.0, 5.0, expires) for expires in (60.0, NEVER)] == [60.0, NEVER]
    backoff.failed(3.0, announced=True)
    assert [backoff.wait_until(2.0, 5.0, expires) for expires in (60.0, NEVER)] == [60.0, 8.0]


def test_a_refused_hello_is_the_word_of_a_broker() -> None:
    """One that is about to end refuses it so: the next one is waited for as after a restart in order."""
    backoff = ReconnectBackoff(lambda: 0.5)
    backoff.tried(1.0)
    backoff.failed(1.0, announced=True)
    assert backoff.was_reached
    assert backoff.wait_until(1.0, 5.0, 60.0) == 60.0
