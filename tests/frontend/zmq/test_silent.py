"""Law 5: whoever opens connections and says nothing makes room for others, and not they for him."""

from __future__ import annotations

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


def test_a_machine_has_a_whole_network_of_addresses_in_ipv6() -> None:
    """The first 64 bits; an IPv4 address inside of IPv6 stands for itself."""
    assert machine_of("2001:db8::1") == machine_of("2001:db8::ffff:2")
    assert machine_of("2001:db8::1") != machine_of("2001:db8:0:1::1")
    assert machine_of("::ffff:10.0.0.1") != machine_of("::ffff:10.0.0.2")
    assert machine_of("fe80::1%eth0") == machine_of("fe80::2%eth0")
    assert machine_of("") == ""
