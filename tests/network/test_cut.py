"""A cable between the hosts of a client and a broker, in namespaces: it flaps, and it is out for a while.

They need root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client_shim.key_file import KeyFile
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until
from tests.network.place import Keys

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root and iproute2 (sudo apt-get install iproute2)",
)

LEASE_MS = 1500
"""The lease in these tests, of both sides. A message may take its minute."""

ADDRESS = "tcp://10.211.55.2:5555"

BROKER = f"""
import sys
from broker.frontend.zmq import options
options.LEASE_MS, options.KEEPALIVE_S = {LEASE_MS}, 1
from broker.__main__ import main
sys.exit(main())
"""

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
    calls = [client.call_tool("s", "sleep", {{"seconds": n / 20}}) for n in range(40)]
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


class Cable:
    """Two network namespaces with a cable between them: 10.211.55.1 and 10.211.55.2."""

    def __init__(self) -> None:
        self.client, self.broker = (f"mb-{os.getpid()}-{side}" for side in ("client", "broker"))

    def lay(self) -> None:
        """Make the namespaces."""
        for host in (self.client, self.broker):
            ip("netns", "add", host)
        ip("-n", self.client, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", self.broker)
        for number, host in enumerate((self.client, self.broker), 1):
            ip("-n", host, "address", "add", f"10.211.55.{number}/24", "dev", "cable")
            ip("-n", host, "link", "set", "cable", "up")

    def pull(self) -> None:
        """Take the cable out. Neither side is told."""
        ip("-n", self.broker, "link", "set", "cable", "down")

    def plug(self) -> None:
        """Put it in again."""
        ip("-n", self.broker, "link", "set", "cable", "up")

    def remove(self) -> None:
        """Remove the namespaces, as far as they were made."""
        for host in (self.client, self.broker):
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=PATIENCE_S)


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable that is laid for one test."""
    cable = Cable()
    try:
        try:
            cable.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield cable
    finally:
        cable.remove()


@contextmanager
def far_client(cable: Cable, keys: KeyFile) -> Iterator[subprocess.Popen[str]]:
    """The client, on its own host."""
    command = ["ip", "netns", "exec", cable.client, sys.executable, "-c", CLIENT]
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


def test_a_cable_that_flaps_costs_nothing_and_one_that_is_out_ends_both_sides(
    cable: Cable, tmp_path: Path
) -> None:
    """Laws 2 and 4: within the lease every call is answered; after it, nothing is left on either side."""
    keys = Keys(tmp_path)
    far = keys.new("far")
    with (
        running(
            {"s": rogue()},
            ports=[ADDRESS],
            program=("-c", BROKER),
            before=("ip", "netns", "exec", cable.broker),
            broker=keys.table(),
        ) as broker,
        far_client(cable, far) as client,
    ):
        assert said(client) == "connected"
        for _ in range(8):
            cable.pull()
            time.sleep(0.05)
            cable.plug()
            time.sleep(0.1)
        assert said(client) == "answered"
        wait_until(lambda: broker.server("s")["in_flight"] == 1)
        cable.pull()
        began = time.monotonic()
        assert said(client) == "lost True"
        wait_until(lambda: not is_there(broker))
        assert broker.server("s")["in_flight"] == 0
        assert time.monotonic() - began < 20, "it took as long as a message may"
        cable.plug()
        assert said(client) == "back"
        assert client.wait(PATIENCE_S) == 0
