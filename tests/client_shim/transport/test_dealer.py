"""A `Dealer` and a peer, without a loop: what is there to be done is known, whatever was found before."""

from __future__ import annotations

import select
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.transport.dealer import Dealer
from tests.client_shim.peer import PATIENCE_S, Peer


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where nobody listens yet."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        yield f"ipc://{folder}/s"


def test_what_came_after_all_had_been_read_is_work(endpoint: str) -> None:
    """A deadline asks for it: what has arrived before a deadline comes first."""
    with Peer(endpoint) as peer:
        dealer = Dealer(endpoint, ClientState({"name": "test"}, 0.0))
        try:
            dealer.flush()
            hello = peer.receive()
            assert dealer.receive(0.0) == []
            assert not dealer.swallowed()
            peer.welcome(hello.who)
            assert waited_for(dealer.has_work)
            dealer.receive(0.0)
            assert dealer.state.phase is ConnectionPhase.OPEN
        finally:
            dealer.close()


def test_the_first_that_the_monitor_has_to_tell_wakes_who_waits(endpoint: str) -> None:
    """A broker that ends while a client comes is missed at once, not when its greeting is long overdue."""
    dealer = Dealer(endpoint, ClientState({"name": "test"}, 0.0))
    try:
        _, monitor = dealer.filenos
        assert select.select([monitor], [], [], PATIENCE_S)[0], "nothing is told of it that nobody listens"
        dealer.receive(0.0)
        assert dealer.state.phase is ConnectionPhase.ENDED
    finally:
        dealer.close()


def waited_for(true: Callable[[], bool]) -> bool:
    """Whether it is so within `PATIENCE_S`."""
    end = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()
