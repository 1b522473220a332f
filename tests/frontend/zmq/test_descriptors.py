"""Law 4: a connection is known from its first message to its loss, in whatever order libzmq tells of both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.clients.connections import Peer
from broker.frontend.zmq.descriptors import REMEMBERED, Descriptors, is_routers_own, plain_address
from tests.core.residue import residue

PEER = Peer(1000, 1000, 42)


def key(number: int) -> bytes:
    """The key that a ROUTER gives the connection of that number."""
    return b"\0" + (number % 2**32).to_bytes(4, "big")


def speaks(connections: Descriptors, number: int, fd: int | None) -> bool:
    """A connection's first message comes in; whether it is taken for one."""
    admitted = connections.admit(key(number), fd)
    if admitted and fd is not None:
        connections.greet(key(number), fd, PEER)
    return admitted


def test_a_connection_is_known_until_its_descriptor_is_given_back() -> None:
    """The plain life of one."""
    connections = Descriptors()
    connections.accepted(7)
    assert speaks(connections, 1, 7)
    assert (connections.peers.get(key(1)), connections.descriptor_of(key(1))) == (PEER, 7)
    connections.ended(7)
    assert list(connections.lost) == [key(1)]
    assert connections.peers.get(key(1)) is None
    assert len(connections) == 0
    assert not speaks(connections, 1, 7)


def test_who_comes_and_goes_in_silence_is_nobody() -> None:
    """There is nobody to tell of."""
    connections = Descriptors()
    connections.accepted(7)
    connections.ended(7)
    connections.ended(8)
    assert not connections.lost
    assert not residue(connections)


@pytest.mark.parametrize("later", [2, 2**31, 2**32 - 1, 2**32])
def test_of_two_on_one_descriptor_the_later_is_the_one(later: int) -> None:
    """A descriptor goes to the next one before all is read of the last, also where the number turns over."""
    first = later - 1
    connections = Descriptors()
    connections.accepted(7)
    assert speaks(connections, first, 7)
    assert speaks(connections, later, 7)
    assert list(connections.lost) == [key(first)]
    assert not speaks(connections, first, 7)
    assert connections.descriptor_of(key(later)) == 7


@pytest.mark.parametrize(
    ("name", "fd"), [(key(1), 8), (key(1), None), (b"mine!", 7), (b"\0abc", 7), (b"", 7)]
)
def test_who_sits_nowhere_or_names_itself_is_not_admitted(name: bytes, fd: int | None) -> None:
    """What nobody can tell the end of must not be known."""
    connections = Descriptors()
    connections.accepted(7)
    assert not connections.admit(name, fd)
    assert is_routers_own(name) == (name == key(1))
    assert len(connections) == 1


def test_who_has_said_goodbye_may_begin_anew_and_who_was_cut_may_not() -> None:
    """The same connection can greet again; one that was broken has nothing but late messages."""
    connections = Descriptors()
    for fd in (7, 8):
        connections.accepted(fd)
        assert speaks(connections, fd, fd)
    connections.forget(key(7))
    connections.end(key(8))
    assert speaks(connections, 7, 7)
    assert not speaks(connections, 8, 8)
    assert not connections.lost


@given(
    st.lists(st.tuples(st.sampled_from(["accepted", "ended", "speaks", "forget", "end"]), st.integers(0, 3)))
)
def test_each_that_was_known_is_lost_once_and_nothing_is_left(steps: list[tuple[str, int]]) -> None:
    """In any order: who was greeted is told lost once, unless the broker itself was done with it."""
    connections, number, at, told = Descriptors(), 0, dict[int, int](), list[int]()
    for what, fd in steps:
        if what == "accepted":
            number += 1
            connections.accepted(fd)
            at[fd] = number
        elif what == "speaks" and fd in at and key(at[fd]) not in connections.peers:
            if speaks(connections, at[fd], fd):
                told.append(at[fd])
        elif what == "ended":
            connections.ended(fd)
            at.pop(fd, None)
        elif fd in at:
            (connections.forget if what == "forget" else connections.end)(key(at[fd]))
    for fd in range(4):
        connections.ended(fd)
    assert len(set(connections.lost)) == len(connections.lost)
    assert set(connections.lost) <= {key(number) for number in told}
    connections.lost.clear()
    assert not residue(connections)


def test_the_names_of_those_that_are_over_are_bounded() -> None:
    """Law 6: a broker that has had a million clients keeps what it needs."""
    connections = Descriptors()
    for number in range(2 * REMEMBERED):
        connections.accepted(7)
        assert speaks(connections, number, 7)
        connections.ended(7)
    assert len(connections._over) == REMEMBERED


def test_an_address_is_shown_as_people_write_it() -> None:
    """An IPv4 address inside of IPv6, which a port of both families sees; others stay."""
    assert plain_address("::ffff:10.0.0.5") == "10.0.0.5"
    assert plain_address("::ffff:1:2") == "::ffff:1:2"
    assert plain_address("2001:db8::10:20:30") == "2001:db8::10:20:30"
