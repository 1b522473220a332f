"""Law 6: what one connection may have under way is bounded in bytes, on its way to the broker too."""

from __future__ import annotations

import pytest

from broker.core.clients.connections import CloseReason
from broker.core.clients.flow_control import MAX_UNGREETED_BYTES
from broker.core.clients.throttle import AT_ONCE, UNIT_BYTES
from broker.frontend.zmq.turns import Turns
from client_shim import wire
from client_shim.protocol.outbox import Outbox
from tests.core.world import INSTANCE, Client, World

WINDOW = 1 << 20
SMALL = b"{}"
LARGE = b'{"name":"echo","arguments":{"x":"%b"}}' % (b"x" * WINDOW)


def credit(client: Client) -> int:
    """What it was given back since the last time."""
    given = [message for message, _ in client.inbox if isinstance(message, wire.Credit)]
    client.inbox = [item for item in client.inbox if not isinstance(item[0], wire.Credit)]
    return sum(message.read_bytes for message in given)


def greeted() -> tuple[World, Client]:
    """A client with that window, of whom it is not seen by itself what is left to be read."""
    world = World(credit_bytes=WINDOW)
    world.start()
    world.refills = False
    return world, world.client()


def test_credit_is_given_back_for_every_byte_a_quarter_of_the_window_at_a_time() -> None:
    """The client would wait for ever for what is forgotten."""
    _, client = greeted()
    header, body = wire.encode(wire.Request(1, 1, "another", "time", "ping", None, 0, None)), b" " * 1000
    sent = given = 0
    for _ in range(2000):
        client.send(header, body)
        sent += wire.cost(header, body)
        given += credit(client)
        assert 0 <= sent - given < WINDOW // 4
    assert given


def test_who_has_used_up_its_credit_is_given_more_once_nothing_of_it_is_left() -> None:
    """What it has sent beyond that is there already, and would show until then."""
    world, client = greeted()
    client.request("time", "tools/call", body=LARGE)
    assert (credit(client), world.engine.connections.get(client.key).exhausted) == (0, True)  # type: ignore[union-attr]
    client.say(wire.Credit(0, 0, 0))  # what is small may overtake requests
    world.run(world.engine.clients.flow.refill, client.key)
    assert credit(client) > len(LARGE)
    client.request("time", "tools/call", body=LARGE)
    assert client.key not in world.closed


def test_who_sends_more_than_its_credit_is_closed_and_told_so() -> None:
    """Laws 6 and 9: 150 requests of 31 MiB took 3.77 GiB."""
    world, client = greeted()
    client.request("time", "tools/call", body=LARGE)
    client.request("time", "tools/call", body=LARGE)
    assert world.closed[client.key] is CloseReason.OVERDRAWN
    assert isinstance(client.inbox[-1][0], wire.Goodbye)
    assert world.engine.counters["closed.overdrawn"] == 1
    assert len(world.processes["time"].calls) == 1
    world.run(world.engine.clients.flow.refill, client.key)  # of one that is gone: nothing
    world.wait(100.0)
    world.assert_empty()


@pytest.mark.parametrize(("size", "cut"), [(MAX_UNGREETED_BYTES - 512, False), (MAX_UNGREETED_BYTES, True)])
@pytest.mark.parametrize("kind", ["header", "body"])
def test_who_sends_much_before_its_hello_is_cut_off(kind: str, size: int, cut: bool) -> None:
    """Laws 6 and 9: nothing of it is looked at."""
    world = World()
    stranger = world.stranger()
    if kind == "header":
        stranger.say(wire.Hello(0, 0, [1], {"name": "x" * size}))
    else:
        stranger.say(wire.Request(1, 1, INSTANCE, "time", "ping", None, 0, None), b" " * size)
    assert (world.closed.get(stranger.key) is CloseReason.UNGREETED) is cut
    assert world.engine.counters["closed.ungreeted"] == cut


def test_what_is_refused_counts_by_its_size() -> None:
    """Law 5: to refuse a large message takes longer than a small one."""
    for size, times in ((1, AT_ONCE), (8 * UNIT_BYTES, AT_ONCE // 9)):
        world = World(credit_bytes=1 << 30)
        client = world.client()
        for _ in range(times):
            client.say(wire.Request(1, 1, "another", "time", "ping", None, 0, None), b" " * size)
        assert not world.held
        for _ in range(2):
            client.say(wire.Request(1, 1, "another", "time", "ping", None, 0, None), b" " * size)
        assert world.held


def test_after_a_round_of_all_connections_nothing_of_one_is_left() -> None:
    """A ROUTER gives each connection its turn: so others cannot keep it from its credit."""
    refills = Turns()
    refills.wait(b"a", 3)
    assert [refills.turn() for _ in range(4)] == [[], [], [], [b"a"]]
    refills.wait(b"b", 3)
    refills.wait(b"c", 3)
    refills.forget(b"c")
    assert (refills.quiet(), refills.exhausted) == ([b"b"], {})


# -- the client's side ------------------------------------------------------------------------------------


def drained(outbox: Outbox) -> list[bytes]:
    """What can be sent now."""
    sent = []
    while (frames := outbox.first()) is not None:
        sent.append(frames[0])
        outbox.pop()
    return sent


def test_requests_wait_for_the_broker_to_read_and_nothing_else_does() -> None:
    """Else credit would wait for credit."""
    outbox = Outbox()
    outbox.add(b"hello")
    assert drained(outbox) == [b"hello"]
    outbox.open(1000)
    for id in (1, 2, 3):
        outbox.add_request(id, (b"%d" % id, b"x" * 600))
    assert drained(outbox) == [b"1", b"2"]
    outbox.add(b"credit")
    assert drained(outbox) == [b"credit"]
    outbox.refill(600)
    assert drained(outbox) == []
    outbox.refill(600)
    assert drained(outbox) == [b"3"]
    assert (len(outbox), outbox.requests_bytes) == (0, 0)


def test_a_broker_that_tells_of_no_window_is_sent_everything() -> None:
    """The draft of version 1 before that had none."""
    outbox = Outbox()
    outbox.open(float("inf"))
    for id in range(1, 101):
        outbox.add_request(id, (b"x" * 1000,))
    assert len(drained(outbox)) == 100


@pytest.mark.parametrize("lie", [-5, 0, 1 << 62])
def test_whatever_a_broker_says_it_has_read_the_window_stays(lie: int) -> None:
    """It is a window: never more than that is under way."""
    outbox = Outbox()
    outbox.open(1000)
    outbox.add_request(1, (b"x" * 2000,))
    drained(outbox)
    outbox.refill(lie)
    for id in (2, 3):
        outbox.add_request(id, (b"x" * 2000,))
    assert len(drained(outbox)) == (1 if lie > 0 else 0)
