"""Laws 2 and 4 over a network that loses, delays, is cut, and changes addresses."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from client_shim import wire
from tests.e2e.harness import ROOT, RunningBroker, rogue, running, wait_until
from tests.e2e.raw import Peers, RawPeer
from tests.network.attacker import half_a_handshake
from tests.network.cable import (
    BROKER,
    CLIENT,
    CLIENT_LATER,
    Hosts,
    inside,
    namespaces,
    needs_namespaces,
    two_hosts,
)
from tests.network.place import Keys
from tests.network.quick_broker import LEASE_MS

pytestmark = needs_namespaces

ADDRESS = f"tcp://{BROKER}:5555"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of one broker."""
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.new("laptop")
    return keys


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts, of which nothing is left at the end."""
    with two_hosts() as hosts:
        yield hosts
    assert namespaces() == []


@pytest.fixture(scope="module")
def broker(hosts: Hosts, keys: Keys) -> Iterator[RunningBroker]:
    """A broker on the one host; its path can be reached from the test."""
    program = (str(ROOT / "tests" / "network" / "quick_broker.py"),)
    before = ("ip", "netns", "exec", hosts.broker)
    with running(
        {"s": rogue(max_in_flight=64)}, ports=[ADDRESS], broker=keys.table(), program=program, before=before
    ) as broker:
        yield broker


@pytest.fixture
def peer(hosts: Hosts, broker: RunningBroker, keys: Keys) -> Iterator[RawPeer]:
    """A client on the other host; when it is gone, the broker holds nothing of it."""
    hosts.cable.loss, hosts.cable.delay_s, hosts.cable.is_cut = 0.0, 0.0, False
    with closing(Peers(ADDRESS)) as peers:
        with inside(hosts.client):
            peer = peers.connect(keys=keys.of("laptop"))
        yield peer.hello()
    hosts.cable.loss, hosts.cable.delay_s, hosts.cable.is_cut = 0.0, 0.0, False
    wait_until(lambda: not of_key(broker), lambda: broker.log()[-2000:])
    assert broker.server("s")["in_flight"] == 0
    assert broker.server("s")["restarts"] == 0


def of_key(broker: RunningBroker) -> list[str]:
    """The machines from which clients with the key are connected."""
    return [one["address"] for one in broker.status()["clients"] if one["key"] == "laptop"]


def descriptors(broker: RunningBroker) -> int:
    """How many the broker has open."""
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def test_every_call_has_one_answer_on_a_bad_cable(hosts: Hosts, peer: RawPeer) -> None:
    """Of ten frames one is lost, and each takes 10 ms: many calls at once, small results and large ones."""
    hosts.cable.loss, hosts.cable.delay_s = 0.1, 0.01
    sent = {}
    for number in range(60):
        text = f"{number} " + "x" * (20_000 if number % 10 == 0 else 10)
        sent[peer.call("s", json.dumps({"name": "echo", "arguments": {"text": text}}).encode())] = text
    answered: dict[int, bytes] = {}
    while len(answered) < len(sent):
        message, body = peer.receive()
        assert isinstance(message, wire.Result), message
        assert message.id not in answered
        answered[message.id] = body or b""
        peer.give_credit()
    assert all(sent[id].encode() in body for id, body in answered.items())
    assert hosts.cable.lost > 10
    peer.ping()


def test_a_cut_for_less_than_the_lease_costs_nothing(hosts: Hosts, peer: RawPeer) -> None:
    """A call that ends meanwhile, one that ends later, and one that is made meanwhile."""
    ids = [
        peer.call("s", json.dumps({"name": "sleep", "arguments": {"seconds": s}}).encode()) for s in (0.2, 1)
    ]
    peer.ping()
    hosts.cable.is_cut = True
    ids.append(peer.call("s", b'{"name":"echo","arguments":{"text":"hi"}}'))
    time.sleep(LEASE_MS / 4000)
    hosts.cable.is_cut = False
    answered = {peer.receive()[0].id for _ in ids}
    assert answered == set(ids)


@pytest.mark.parametrize("busy", [True, False], ids=["in calls", "at rest"])
def test_a_cut_for_more_than_the_lease_ends_the_client_at_the_broker(
    hosts: Hosts, broker: RunningBroker, peer: RawPeer, busy: bool
) -> None:
    """Cable out, NAT that forgot, laptop asleep: nothing comes from the other side, not even an end. Its
    calls are cancelled at the server.
    """
    if busy:
        for _ in range(3):
            peer.call("s", b'{"name":"hang"}')
    peer.ping()
    assert of_key(broker) == [CLIENT]
    hosts.cable.is_cut = True
    began = time.monotonic()
    wait_until(lambda: not of_key(broker))
    assert time.monotonic() - began > LEASE_MS / 2000, "it did not wait for the lease"
    wait_until(lambda: broker.server("s")["in_flight"] == 0)
    hosts.cable.is_cut = False


def test_a_client_whose_address_changes_comes_in_from_the_new_one(
    hosts: Hosts, broker: RunningBroker, keys: Keys, peer: RawPeer
) -> None:
    """The key says which client it is, wherever it is; what it had at the old address ends with the lease."""
    peer.call("s", b'{"name":"hang"}')
    peer.ping()
    hosts.move(CLIENT, CLIENT_LATER)
    try:
        with closing(Peers(ADDRESS)) as peers:
            with inside(hosts.client):
                moved = peers.connect(keys=keys.of("laptop"))
            moved.hello().ping()
            assert CLIENT_LATER in of_key(broker)
            wait_until(lambda: of_key(broker) == [CLIENT_LATER])
            wait_until(lambda: broker.server("s")["in_flight"] == 0)
            moved.ping()
    finally:
        hosts.move(CLIENT_LATER, CLIENT)


def test_nothing_is_left_of_half_a_handshake_when_the_cable_is_cut(
    hosts: Hosts, broker: RunningBroker, keys: Keys, peer: RawPeer
) -> None:
    """A connection that has no key yet ends with the time limit of handshakes or with the kernel's."""
    before = descriptors(broker)
    with inside(hosts.client):
        half = half_a_handshake((BROKER, 5555), keys.stranger())
    with closing(half):
        wait_until(lambda: descriptors(broker) > before)
        hosts.cable.is_cut = True
        wait_until(lambda: descriptors(broker) <= before)
