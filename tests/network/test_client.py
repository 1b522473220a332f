"""The client over a cable that loses and delays frames, and is cut: laws 2 and 4 hold on both sides."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client_shim.key_file import KeyFile
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until
from tests.network.cable import BROKER, Hosts, needs_namespaces, two_hosts
from tests.network.place import Keys
from tests.network.quick_broker import LEASE_MS

pytestmark = needs_namespaces

ADDRESS = f"tcp://{BROKER}:5555"

CLIENT = f"""
import asyncio, sys
from client_shim import BrokerClient, errors
from client_shim.keys import ClientKeys
from client_shim.transport import dealer
dealer.HEARTBEAT_MS, dealer.LEASE_MS, dealer.KEEPALIVE_S = 100, {LEASE_MS}, 1

def say(text):
    print(text, flush=True)

async def main():
    client = BrokerClient("far", {ADDRESS!r}, keys=ClientKeys(*sys.argv[1:]), reconnect_s=60)
    await client.connect()
    say("connected")
    calls = [client.call_tool("s", "sleep", {{"seconds": n / 20}}) for n in range(30)]
    await asyncio.gather(*calls)
    say("answered")
    try:
        await client.call_tool("s", "hang")
    except errors.BrokerLost as error:
        say(f"lost {{error.outcome_unknown}}")
    await client.call_tool("s", "echo", {{"text": "again"}})
    say("back")
    await client.aclose()

asyncio.run(main())
"""


@contextmanager
def far_client(hosts: Hosts, keys: KeyFile) -> Iterator[subprocess.Popen[str]]:
    """The client, on its own host."""
    command = ["ip", "netns", "exec", hosts.client, sys.executable, "-c", CLIENT]
    arguments = [str(keys.server), keys.public, str(keys.secret)]
    with subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        try:
            yield client
        finally:
            client.kill()


def said(client: subprocess.Popen[str]) -> str:
    """The next line that the client says."""
    assert client.stdout is not None
    return client.stdout.readline().strip()


def is_there(broker: RunningBroker) -> bool:
    """Whether the broker still has the client."""
    return any(client["name"] == "far" for client in broker.status()["clients"])


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts for one test."""
    with two_hosts() as hosts:
        yield hosts


def test_a_bad_cable_costs_nothing_and_one_that_is_out_ends_both_sides(hosts: Hosts, tmp_path: Path) -> None:
    """Within the lease every call is answered; after it, nothing is left on either side, long before a
    message could have taken its minute.
    """
    keys, cable = Keys(tmp_path), hosts.cable
    far = keys.new("far")
    with (
        running(
            {"s": rogue()},
            ports=[ADDRESS],
            program=(str(ROOT / "tests" / "network" / "quick_broker.py"),),
            before=("ip", "netns", "exec", hosts.broker),
            broker=keys.table(),
        ) as broker,
        far_client(hosts, far) as client,
    ):
        assert said(client) == "connected"
        cable.loss, cable.delay_s = 0.03, 0.02
        cable.is_cut = True
        time.sleep(LEASE_MS / 8000)
        cable.is_cut = False
        assert said(client) == "answered"
        cable.loss = cable.delay_s = 0.0
        wait_until(lambda: broker.server("s")["in_flight"] == 1)
        cable.is_cut = True
        began = time.monotonic()
        assert said(client) == "lost True"
        wait_until(lambda: not is_there(broker))
        assert broker.server("s")["in_flight"] == 0
        assert time.monotonic() - began < 10 * LEASE_MS / 1000
        cable.is_cut = False
        assert said(client) == "back"
        assert client.wait(PATIENCE_S) == 0
