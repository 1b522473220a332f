"""Law 5: whoever opens connections and says nothing makes room for others, and not they for him."""

from __future__ import annotations

import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.frontend.zmq.silent import SilentConnections, machine_of
from tests.core.residue import residue


def test_the_oldest_of_the_machine_with_most_connections_ends() -> None:
    """One of another machine stays, though it is older."""
    silent = SilentConnections(3)
    assert [silent.add(fd, "10.0.0.1") for fd in (1, 2)] == [None, None]
    assert silent.add(3, "10.0.0.2") is None
    assert silent.add(4, "10.0.0.3") == 1
    assert silent.add(5, "10.0.0.1") == 2
    assert len(silent) == 3


def test_who_speaks_or_ends_is_forgotten() -> None:
    """Nothing is left of it, also where its descriptor is used again before its end was told."""
    silent = SilentConnections(3)
    silent.add(1, "10.0.0.1")
    silent.add(1, "10.0.0.2")
    silent.remove(1)
    silent.remove(2)
    assert not residue(silent)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans())))
def test_there_are_never_too_many(steps: list[tuple[int, int, bool]]) -> None:
    """Law 6, whatever comes and goes."""
    silent = SilentConnections(5)
    for fd, machine, comes in steps:
        if comes:
            silent.add(fd, f"10.0.0.{machine}")
        else:
            silent.remove(fd)
        assert len(silent) <= 5


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.booleans())))
def test_it_is_always_the_oldest_of_a_machine_that_has_most(steps: list[tuple[int, int, bool]]) -> None:
    """As a table of all connections has it; at the end nothing is left."""
    silent, table = SilentConnections(5), dict[int, str]()
    for fd, machine, comes in steps:
        table.pop(fd, None)
        if not comes:
            silent.remove(fd)
            continue
        table[fd] = f"10.0.0.{machine}"
        ended = silent.add(fd, table[fd])
        assert (ended is not None) is (len(table) > 5)
        if ended is not None:
            counts = Counter(table.values())
            theirs = [fd for fd in table if table[fd] == table[ended]]
            assert (len(theirs), ended) == (max(counts.values()), theirs[0])
            del table[ended]
    for fd in table:
        silent.remove(fd)
    assert not residue(silent)


def steps_of_one_more(machines: int) -> int:
    """How many calls it takes to add one more connection where so many machines have one each."""
    silent, calls = SilentConnections(machines), [0]
    for number in range(machines):
        silent.add(number, f"10.0.{number // 256}.{number % 256}")
    sys.setprofile(lambda *_: calls.append(0))
    try:
        silent.add(machines, "10.1.0.0")
    finally:
        sys.setprofile(None)
    return len(calls)


def test_an_attempt_costs_the_same_however_many_machines_attack() -> None:
    """Law 5: each connection of an attack would cost as much as all others together."""
    assert steps_of_one_more(1000) == steps_of_one_more(10)


def test_a_machine_has_a_whole_network_of_addresses_in_ipv6() -> None:
    """The first 64 bits; an IPv4 address inside of IPv6 stands for itself."""
    assert machine_of("2001:db8::1") == machine_of("2001:db8::ffff:2")
    assert machine_of("2001:db8::1") != machine_of("2001:db8:0:1::1")
    assert machine_of("::ffff:10.0.0.1") != machine_of("::ffff:10.0.0.2")
    assert machine_of("fe80::1%eth0") == machine_of("fe80::2%eth0")
    assert machine_of("") == ""
