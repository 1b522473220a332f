"""The life of a server: the table, its deadlines, and what follows a failure."""

from __future__ import annotations

from typing import Literal

import pytest

from broker.core.servers.backoff import DEMAND_S, RETRY_S, SETTLED_S, Backoff
from broker.core.servers.lifecycle import TABLE, Action, Ending, Event, IllegalEvent, Lifecycle, State

START_S = 20.0
CRASH = Ending("it exited with status 1")
CLEAN = Ending("it exited with status 0", failure=False)


def lifecycle(
    restart: Literal["always", "on-failure", "never"] = "always", burst: int = 3, luck: float = 0.5
) -> Lifecycle:
    """An automaton that has 3 failures in 60 s, and a first delay of 1 s."""
    backoff = Backoff(first_delay_s=1.0, burst=burst, interval_s=60.0, rng=lambda: luck)
    return Lifecycle(restart=restart, start_s=START_S, backoff=backoff)


PATHS: dict[State, list[Event]] = {
    State.STOPPED: [],
    State.STARTING: [Event.START],
    State.HANDSHAKE: [Event.START, Event.SPAWNED],
    State.READY: [Event.START, Event.SPAWNED, Event.OPENED],
    State.DRAINING: [Event.START, Event.SPAWNED, Event.OPENED, Event.EXITED],
    State.BACKOFF: [Event.START, Event.SPAWNED, Event.EXITED, Event.GONE],
    State.BROKEN: [Event.START, Event.SPAWNED, Event.EXITED, Event.GONE],
    State.IDLE: [Event.IDLE],
}


def in_state(state: State, now: float = 0.0, restart: Literal["always", "never"] = "always") -> Lifecycle:
    """A server that has come into this state by an ordinary way."""
    server = lifecycle(restart, burst=1 if state is State.BROKEN else 3)
    feed(server, PATHS[state], now)
    assert server.state is state
    return server


def feed(server: Lifecycle, events: list[Event], now: float = 0.0, ending: Ending = CRASH) -> Action:
    """Several events at one time; the last action."""
    action = Action.NONE
    for event in events:
        action = server.on(event, now, ending if event in (Event.EXITED, Event.FAILED) else None)
    return action


def crash(server: Lifecycle, now: float, ending: Ending = CRASH) -> Action:
    """It ends by itself, and nothing is left of it."""
    return feed(server, [Event.EXITED, Event.GONE], now, ending)


# --- the table ---------------------------------------------------------------------------------------

# What can happen in each state. `.` is what cannot, and is a fault of the broker's if it does.
#            START     STOP   DEMAND IDLE SPAWNED OPENED  FAILED LEGACY EXITED GONE TIMEOUT
ALLOWED = """
STOPPED      spawn     none   .      rest .       .       .      .      .      .    .
STARTING     none      rest   .      rest greet   .       end    .      .      .    .
HANDSHAKE    none      end    .      .    .       serve   end    end    end    .    end
READY        none      end    .      end  .       .       end    .      end    .    none
DRAINING     none      none   none   .    .       none    none   none   none   rest .
BACKOFF      spawn     rest   .      .    .       .       .      .      .      .    spawn
BROKEN       spawn     rest   spawn  .    .       .       .      .      .      .    spawn
IDLE         spawn     rest   spawn  .    .       .       .      .      .      .    .
"""
EXPECTED = {
    (State[row.split()[0]], event): word
    for row in ALLOWED.strip().splitlines()
    for event, word in zip(Event, row.split()[1:], strict=True)
}


@pytest.mark.parametrize(("state", "event"), EXPECTED)
def test_each_event_in_each_state(state: State, event: Event) -> None:
    """Section 2: an event is in the table with its action, or it is `IllegalEvent` and changes nothing."""
    server = in_state(state)
    if state is State.DRAINING and event is Event.GONE:
        server.on(Event.STOP, 1.0)
    word = EXPECTED[state, event]
    before = repr(server)
    if word == ".":
        with pytest.raises(IllegalEvent, match=f"{event.value} in state {state.value}"):
            server.on(event, 1.0)
        assert repr(server) == before
    else:
        assert server.on(event, 1.0) is Action(word)
        assert server.state is TABLE[state][event][0]


def test_the_table_has_every_state() -> None:
    """Section 2: no state without a row."""
    assert set(TABLE) == set(State)
    assert {(state, event) for state, row in TABLE.items() for event in row} == {
        key for key, word in EXPECTED.items() if word != "."
    }


def test_every_state_with_a_process_is_left_by_draining_only() -> None:
    """Law 1: what had a process is next started when nothing is left of that one."""
    for state in (State.HANDSHAKE, State.READY):
        for after, _ in TABLE[state].values():
            assert after in (State.HANDSHAKE, State.READY, State.DRAINING)


# --- deadlines ---------------------------------------------------------------------------------------


def test_a_start_has_its_deadline() -> None:
    """Law 2: a server that is never ready is ended, and that is a failure."""
    server = in_state(State.HANDSHAKE, now=5.0)
    assert server.wake_at == 5.0 + START_S
    assert server.on(Event.TIMEOUT, 25.0) is Action.END
    assert (
        server.reason
        == "it was not ready within 20 s (timeout_start_sec = 20; raise it if the server needs longer)"
    )
    server.on(Event.GONE, 26.0)
    assert (server.state, server.last_error) == (
        State.BACKOFF,
        "it was not ready within 20 s (timeout_start_sec = 20; raise it if the server needs longer)",
    )


def test_waiting_for_a_turn_to_start_has_no_deadline() -> None:
    """Section 3, `starts_at_once`: time in the queue is not time to start."""
    assert in_state(State.STARTING).wake_at is None


def test_a_server_that_runs_well_has_settled() -> None:
    """Section 2: after that, an earlier failure does not count."""
    server = lifecycle(burst=2)
    feed(server, PATHS[State.READY])
    crash(server, 0.0)
    feed(server, [Event.TIMEOUT, Event.SPAWNED, Event.OPENED], 1.0)
    due = server.wake_at
    assert due == 1.0 + SETTLED_S
    assert (server.on(Event.TIMEOUT, 61.0), server.wake_at) == (Action.NONE, None)
    crash(server, 61.0)
    assert (server.state, server.wake_at) == (State.BACKOFF, 62.0)


def test_draining_has_no_deadline_of_its_own() -> None:
    """Section 2: the process handle escalates to SIGKILL; the automaton waits for the last of the tree."""
    assert in_state(State.DRAINING).wake_at is None


# --- failures ----------------------------------------------------------------------------------------


def test_crashes_wait_longer_and_longer_then_break_then_are_retried() -> None:
    """Section 2, from the first crash to the retry of a broken server."""
    server = lifecycle(burst=4)
    feed(server, PATHS[State.READY])
    now, waited = 0.0, []
    for _ in range(3):
        assert crash(server, now) is Action.REST
        assert server.state is State.BACKOFF
        assert server.wake_at is not None
        waited.append(server.wake_at - now)
        now = server.wake_at
        assert feed(server, [Event.TIMEOUT], now) is Action.SPAWN
        feed(server, [Event.SPAWNED, Event.OPENED], now)
    assert waited == [1.0, 2.0, 4.0]
    crash(server, now)
    assert (server.state, server.wake_at) == (State.BROKEN, now + RETRY_S)
    assert server.on(Event.TIMEOUT, now + RETRY_S) is Action.SPAWN
    assert server.restarts == 4


@pytest.mark.parametrize(("luck", "low", "high"), [(0.0, 0.74, 0.76), (0.99, 1.24, 1.26)])
def test_the_delay_is_jittered(luck: float, low: float, high: float) -> None:
    """Section 2: a quarter either way."""
    server = lifecycle(luck=luck)
    feed(server, PATHS[State.READY])
    crash(server, 0.0)
    assert server.wake_at is not None
    assert low < server.wake_at < high


@pytest.mark.parametrize("event", [Event.FAILED, Event.EXITED])
@pytest.mark.parametrize("state", [State.HANDSHAKE, State.READY])
def test_the_last_error_is_how_it_ended(state: State, event: Event) -> None:
    """Law 10: `status` and the refused calls say why."""
    server = in_state(state)
    server.on(event, 1.0, CRASH)
    assert server.reason == CRASH.reason
    server.on(Event.GONE, 1.0)
    assert server.last_error == CRASH.reason


def test_a_server_that_cannot_be_spawned_has_failed() -> None:
    """Section 2: there is no process, and yet the way is the same."""
    server = in_state(State.STARTING)
    assert server.on(Event.FAILED, 0.0, Ending("there is no command 'x'")) is Action.END
    assert server.on(Event.GONE, 0.0) is Action.REST
    assert (server.state, server.last_error) == (State.BACKOFF, "there is no command 'x'")


def test_what_a_draining_server_says_changes_nothing() -> None:
    """Section 2: the first cause is the one that counts."""
    server = in_state(State.READY)
    server.on(Event.FAILED, 0.0, Ending("it wrote a line above 9 bytes"))
    for event in (Event.EXITED, Event.OPENED, Event.FAILED, Event.LEGACY):
        server.on(event, 1.0, CRASH)
    server.on(Event.GONE, 2.0)
    assert server.last_error == "it wrote a line above 9 bytes"


@pytest.mark.parametrize(
    ("restart", "ending", "state"),
    [
        ("always", CRASH, State.BACKOFF),
        ("always", CLEAN, State.BACKOFF),
        ("on-failure", CRASH, State.BACKOFF),
        ("on-failure", CLEAN, State.STOPPED),
        ("never", CRASH, State.STOPPED),
        ("never", CLEAN, State.STOPPED),
    ],
)
def test_restart_policies(
    restart: Literal["always", "on-failure", "never"], ending: Ending, state: State
) -> None:
    """Section 3: the words are systemd's, and mean what they mean there."""
    server = lifecycle(restart)
    feed(server, PATHS[State.READY])
    assert crash(server, 0.0, ending) is Action.REST
    assert server.state is state
    assert (server.wake_at is None) is (state is State.STOPPED)
    assert server.last_error == ending.reason


# --- a broken server -----------------------------------------------------------------------------------


def broken(now: float = 0.0) -> Lifecycle:
    """A server whose breaker has opened, of a burst of three."""
    server = lifecycle(burst=3)
    feed(server, [Event.START, Event.SPAWNED], now)
    for _ in range(2):
        crash(server, now)
        feed(server, [Event.TIMEOUT, Event.SPAWNED], now)
    crash(server, now)
    assert server.state is State.BROKEN
    return server


@pytest.mark.parametrize("by", [Event.TIMEOUT, Event.DEMAND])
def test_a_single_try_that_fails_opens_the_breaker_again(by: Event) -> None:
    """Whoever caused the try, the breaker allows one every five minutes, not a burst."""
    server, now = broken(), 0.0
    for _ in range(5):
        now += RETRY_S if by is Event.TIMEOUT else DEMAND_S
        assert server.on(by, now) is Action.SPAWN
        feed(server, [Event.SPAWNED], now)
        crash(server, now)
        assert (server.state, server.wake_at) == (State.BROKEN, now + RETRY_S)


def test_a_try_that_works_closes_the_breaker_once_it_has_settled() -> None:
    """A server that fails soon after its start is still broken; a server that stays up has recovered."""
    server = broken()
    feed(server, [Event.DEMAND, Event.SPAWNED, Event.OPENED], DEMAND_S)
    crash(server, DEMAND_S + 1)
    assert server.state is State.BROKEN
    feed(server, [Event.DEMAND, Event.SPAWNED, Event.OPENED], 100.0)
    server.on(Event.TIMEOUT, 100.0 + SETTLED_S)
    crash(server, 200.0)
    assert (server.state, server.wake_at) == (State.BACKOFF, 201.0)


def test_a_call_may_have_it_tried_when_the_last_failure_is_a_while_ago() -> None:
    """Law 6: many calls must not cause many starts."""
    server = broken(now=5.0)
    assert server.demand_at() == 5.0 + DEMAND_S
    server.on(Event.DEMAND, 40.0)
    assert server.demand_at() is None
    assert in_state(State.BACKOFF).demand_at() is None
    assert in_state(State.STOPPED).demand_at() is None


@pytest.mark.parametrize("state", [State.STARTING, State.HANDSHAKE, State.DRAINING, State.READY])
def test_a_start_by_hand_closes_the_breaker_in_every_state(state: State) -> None:
    """`start` closes the breaker at once, also while one of its tries is under way."""
    server = broken()
    path = {
        State.STARTING: [],
        State.HANDSHAKE: [Event.SPAWNED],
        State.READY: [Event.SPAWNED, Event.OPENED],
        State.DRAINING: [Event.SPAWNED, Event.EXITED],
    }
    feed(server, [Event.DEMAND, *path[state]], 100.0)
    feed(server, [Event.START], 100.0)
    if state is State.DRAINING:
        server.on(Event.GONE, 101.0)
    if server.state is State.STARTING:
        server.on(Event.SPAWNED, 101.0)
    crash(server, 102.0)
    assert (server.state, server.wake_at) == (State.BACKOFF, 103.0)


@pytest.mark.parametrize(("ending", "given_up"), [(CRASH, False), (CLEAN, True)])
def test_a_server_that_is_not_restarted_is_told_from_one_that_was_stopped(
    ending: Ending, given_up: bool
) -> None:
    """Law 10: an operator stopped the one; the other ended, and `restart` says to leave it at that."""
    server = lifecycle("on-failure")
    feed(server, PATHS[State.READY])
    crash(server, 0.0, ending)
    assert server.given_up is given_up
    server.on(Event.STOP, 1.0)
    assert (server.state, server.given_up) == (State.STOPPED, False)


# --- the era probe -----------------------------------------------------------------------------------


def test_a_respawn_for_the_era_is_neither_a_failure_nor_a_restart() -> None:
    """Section 5, the era probe: it costs nothing, not even with a breaker that opens at the first failure."""
    server = lifecycle("never", burst=1)
    feed(server, PATHS[State.HANDSHAKE])
    assert server.on(Event.LEGACY, 1.0, CRASH) is Action.END
    assert server.respawning
    assert not server.stopping
    assert server.on(Event.GONE, 2.0) is Action.SPAWN
    assert (server.state, server.restarts, server.last_error) == (State.STARTING, 0, None)
    assert not server.respawning


def test_a_stop_during_the_probe_is_a_stop() -> None:
    """Section 5: nobody learns an era from a server that was told to end."""
    server = in_state(State.HANDSHAKE)
    server.on(Event.STOP, 0.0)
    server.on(Event.LEGACY, 0.0, CRASH)
    assert not server.respawning
    assert server.on(Event.GONE, 0.0) is Action.REST


# --- an operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in State if state is not State.DRAINING])
def test_stop_leads_to_rest_from_everywhere(state: State) -> None:
    """Section 3: a stopped server stays stopped, and its stop is no error."""
    server = in_state(state)
    error = server.last_error
    if server.on(Event.STOP, 1.0) is Action.END:
        assert server.stopping
        assert server.reason == "it was stopped"
        assert server.on(Event.GONE, 2.0) is Action.REST
    assert (server.state, server.wake_at) == (State.STOPPED, None)
    assert server.last_error == error


@pytest.mark.parametrize("cause", [Event.STOP, Event.EXITED, Event.FAILED])
def test_start_during_draining_starts_as_soon_as_the_old_one_is_gone(cause: Event) -> None:
    """Law 1: `restart` is a stop and a start, and never has two processes."""
    server = in_state(State.READY)
    server.on(cause, 0.0, CRASH)
    assert server.on(Event.START, 1.0) is Action.NONE
    assert not server.stopping
    assert server.on(Event.GONE, 2.0) is Action.SPAWN
    assert (server.state, server.restarts) == (State.STARTING, 1)


def test_the_last_word_of_an_operator_counts() -> None:
    """Section 3: start, then stop, while it drains."""
    server = in_state(State.READY)
    feed(server, [Event.STOP, Event.START, Event.STOP])
    assert server.stopping
    assert server.on(Event.GONE, 1.0) is Action.REST


@pytest.mark.parametrize("state", [State.STOPPED, State.BACKOFF, State.BROKEN])
def test_start_by_hand_is_a_fresh_start(state: State) -> None:
    """Section 2: whoever starts a server has done something about it, so the breaker starts anew."""
    server = lifecycle(burst=2)
    feed(server, PATHS[State.READY])
    crash(server, 0.0)
    if state is State.BROKEN:
        feed(server, [Event.TIMEOUT, Event.SPAWNED], 1.0)
        crash(server, 1.0)
    elif state is State.STOPPED:
        server.on(Event.STOP, 1.0)
    assert server.state is state
    assert feed(server, [Event.START, Event.SPAWNED, Event.OPENED], 2.0) is Action.SERVE
    crash(server, 3.0)
    assert (server.state, server.wake_at) == (State.BACKOFF, 4.0)


def test_restarts_count_what_was_started_again() -> None:
    """Section 3: `restarts` of `status` counts every start but the first and those after a stop."""
    server = in_state(State.READY)
    assert server.restarts == 0
    crash(server, 0.0)
    feed(server, [Event.TIMEOUT, Event.SPAWNED, Event.OPENED], 1.0)
    assert server.restarts == 1
    feed(server, [Event.STOP, Event.START, Event.GONE, Event.SPAWNED, Event.OPENED], 2.0)
    assert server.restarts == 2
    feed(server, [Event.STOP, Event.GONE, Event.START], 3.0)
    assert server.restarts == 2


def test_since_is_when_the_state_began() -> None:
    """Section 3: `uptime_s` of `status`."""
    server = in_state(State.READY, now=7.0)
    server.on(Event.START, 9.0)
    assert server.since_s == 7.0
    server.on(Event.TIMEOUT, 70.0)
    assert server.since_s == 7.0
