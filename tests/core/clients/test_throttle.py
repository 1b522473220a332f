"""Law 5: who is refused time and again waits, and nobody else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.clients.throttle import AT_ONCE, EVERY_S, REMEMBERED, TOGETHER, Throttle
from broker.frontend.zmq.turns import Turns
from client_shim import wire
from tests.core.residue import residue
from tests.core.world import INSTANCE, Client, World

# -- whose next messages can wait ---------------------------------------------------------------------------


def test_a_burst_is_refused_at_once_and_what_comes_after_it_waits() -> None:
    """A burst beyond a limit is told so at once; then so many at a time come together."""
    throttle = Throttle()
    assert [throttle.tried(b"a", 5.0) for _ in range(AT_ONCE)] == [None] * AT_ONCE
    verdict = throttle.tried(b"a", 5.0)
    assert verdict is not None
    assert verdict.is_new
    assert verdict.until == 5.0 + (1 + TOGETHER) * EVERY_S
    *free, again = (throttle.tried(b"a", verdict.until) for _ in range(TOGETHER + 1))
    assert free == [None] * TOGETHER
    assert again is not None
    assert not again.is_new


def test_who_was_calm_for_as_long_as_the_burst_takes_begins_anew() -> None:
    """A client that makes a mistake now and then is never slowed, however old its connection is."""
    throttle = Throttle()
    for now in (0.0, 1000.0, 2000.0):
        verdicts = [throttle.tried(b"a", now) for _ in range(AT_ONCE + 1)]
        assert [verdict.is_new for verdict in verdicts if verdict is not None] == [True]


@given(st.lists(st.floats(0.0, 0.02), min_size=1, max_size=2000))
def test_in_the_long_run_nobody_is_refused_more_often_than_the_pace(steps: list[float]) -> None:
    """Who heeds each verdict has the burst and one for each interval, and no more."""
    throttle, now = Throttle(), 0.0
    for tried, step in enumerate(steps, start=1):
        now += step * EVERY_S
        verdict = throttle.tried(b"a", now)
        assert tried <= AT_ONCE + now / EVERY_S + 1
        if verdict is not None:
            assert now < verdict.until <= now + (TOGETHER + 1) * EVERY_S
            now = verdict.until


@given(st.lists(st.integers(0, 4), min_size=AT_ONCE, max_size=3000))
def test_who_heeds_nothing_waits_a_bounded_time_all_the_same(steps: list[int]) -> None:
    """What comes while its connection waits is paid for as well, but not without an end."""
    throttle, now = Throttle(), 0.0
    for step in steps:
        now += step * EVERY_S / 4
        verdict = throttle.tried(b"a", now)
        assert verdict is None or verdict.until <= now + (2 * TOGETHER + 1) * EVERY_S


def test_what_is_known_of_connections_is_bounded_and_forgotten() -> None:
    """Law 6: also where connections are made up that nobody tells the end of."""
    throttle, rounds = Throttle(), Turns()
    for number in range(2 * REMEMBERED):
        throttle.tried(number.to_bytes(5, "big"), 1.0)
        rounds.hold(number.to_bytes(5, "big"), 2.0)
    assert residue(throttle) == {"Throttle._debts": REMEMBERED}
    assert len(rounds.held) == REMEMBERED
    for number in range(2 * REMEMBERED):
        throttle.forget(number.to_bytes(5, "big"))
        rounds.forget(number.to_bytes(5, "big"))
    assert residue(throttle) == residue(rounds) == {}
    assert not rounds.held


# -- who else has sent something ----------------------------------------------------------------------------


def served(rounds: Turns, queues: dict[str, int], now: float = 0.0) -> tuple[str, float]:
    """Whom a ROUTER serves, one message of each in turn, until all can rest; and until when."""
    order, turn = "", list(queues)
    for _ in range(1000):
        turn = [name for name in turn if queues[name]]
        if not turn:
            return order, 0.0
        name = turn.pop(0)
        turn.append(name)
        queues[name] -= 1
        order += name
        until = rounds.rest(name.encode(), now)
        if until:
            return order, until
    raise AssertionError("it goes on without an end")


@pytest.mark.parametrize(
    ("queues", "held", "order", "until"),
    [
        ({"a": 9}, {"a": 2.0}, "aa", 2.0),
        ({"a": 9, "b": 9}, {"a": 2.0, "b": 3.0}, "aba", 2.0),
        ({"a": 9, "b": 9}, {"a": 2.0, "b": 1.0}, "aba", 1.0),
        ({"a": 9, "n": 3}, {"a": 2.0}, "ananana" + "a", 2.0),
        ({"n": 1, "a": 9}, {"a": 2.0}, "naa", 2.0),
        ({"a": 9, "n": 1, "b": 9}, {"a": 2.0, "b": 3.0}, "anba" + "b", 2.0),
        ({"a": 9, "n": 2}, {}, "anan" + "a" * 7, 0.0),
        ({"a": 1, "n": 2}, {"a": 2.0}, "ann", 0.0),
    ],
)
def test_they_rest_when_all_have_had_their_turn_and_nobody_else_has(
    queues: dict[str, int], held: dict[str, float], order: str, until: float
) -> None:
    """Nobody's message is left behind those that can wait: `n` is always served to its last one."""
    rounds = Turns()
    for name, theirs in held.items():
        rounds.hold(name.encode(), theirs)
    assert served(rounds, dict(queues)) == (order, until)


def test_who_has_waited_is_served_like_anyone() -> None:
    """A hold ends by itself."""
    rounds = Turns()
    rounds.hold(b"a", 2.0)
    rounds.hold(b"b", 3.0)
    assert served(rounds, {"a": 5}, now=2.0) == ("aaaaa", 0.0)
    assert rounds.begin(2.0)
    assert list(rounds.held) == [b"b"]
    assert not rounds.begin(3.0)
    assert not rounds.held


# -- what leads to nothing ----------------------------------------------------------------------------------


def busy(client: Client, number: int) -> None:
    client.call(id=number + 100)


def unknown(client: Client, number: int) -> None:
    client.call("nobody", id=number + 100)


def uncalled_cancel(client: Client, number: int) -> None:
    client.say(wire.Cancel(1, number + 100_000, None))


def noise(client: Client, number: int) -> None:
    client.send(b"\xc1")


def too_much_credit(client: Client, number: int) -> None:
    client.say(wire.Credit(0, 0, 1 << 40))


def empty_credit(client: Client, number: int) -> None:
    client.say(wire.Credit(0, 0, 0))


def no_management(client: Client, number: int) -> None:
    client.request(wire.MANAGEMENT, "listen", {"servers": 5}, id=number + 100)


NUISANCES = [busy, unknown, uncalled_cancel, noise, too_much_credit, empty_credit, no_management]


@pytest.mark.parametrize("nuisance", NUISANCES, ids=lambda nuisance: nuisance.__name__)
def test_whatever_leads_to_nothing_has_its_pace(nuisance: Callable[[Client, int], None]) -> None:
    """One warning and one count, when it begins, and a hold for each that comes too early."""
    world = World({"time": {"max_in_flight": 1}}, calls_per_channel=8)
    world.start()
    client = world.client()
    for number in range(8):
        client.call(id=number + 1)
    for number in range(AT_ONCE):
        nuisance(client, number)
    assert not world.held
    for number in range(20):
        nuisance(client, AT_ONCE + number)
    assert set(world.held) == {client.key}
    assert world.engine.counters["slowed"] == 1
    (note,) = [note for note in world.notes if note.event == "client.slowed"]
    assert note.facts == {"client": "page", "pid": 42}


def test_so_have_goodbyes_to_channels_that_never_were() -> None:
    """Law 5: to take one takes the processor, as a call does. One is free for each call."""
    world = World()
    world.start()
    client = world.client()
    for number in range(2 * AT_ONCE):
        client.call(channel=number + 1)
        client.say(wire.Goodbye(number + 1, 0, "closed"))
    assert not world.held
    for number in range(AT_ONCE + 1):
        client.say(wire.Goodbye(number + 1, 0, "closed"))
    assert set(world.held) == {client.key}
    assert world.engine.counters["empty.goodbye"] == AT_ONCE + 1


def test_a_stranger_has_a_pace_too() -> None:
    """Who says no hello cannot take the processor either; when it is lost nothing is left of it."""
    world = World()
    stranger = world.stranger()
    for _ in range(AT_ONCE + 1):
        stranger.say(wire.Request(1, 1, INSTANCE, "time", "tools/call", None, 0, None), b"{}")
    assert set(world.held) == {stranger.key}
    world.cut(stranger)
    world.assert_empty()


def test_who_is_answered_is_never_slowed() -> None:
    """Any number of calls, lists and pings: what has an answer has no pace."""
    world = World()
    world.start()
    client = world.client()
    for _ in range(3 * AT_ONCE):
        client.call()
        client.request("time", "tools/list")
    assert not world.held
