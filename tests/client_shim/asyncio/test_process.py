"""What a process does to its clients: it forks, and it ends. Each test has a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import broker
import client_shim
from client_shim import wire
from tests.client_shim.peer import PATIENCE_S, Peer

ROOT = Path(__file__).parents[3]

HEAD = """
import asyncio, os, sys, threading, time
from client_shim import BlockingClient, BrokerClient
from client_shim.asyncio.pool import connection_pool
endpoint = sys.argv[1]
"""


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    """Somebody who listens, and where."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder, Peer(f"ipc://{folder}/s") as peer:
        yield peer, f"ipc://{folder}/s"


@contextmanager
def program(source: str, endpoint: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs this, and no longer than the test."""
    command = [sys.executable, "-c", source, endpoint]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


FORKS = """
async def parent():
    await client.connect()
    child = os.fork()
    if child == 0:
        return child
    await asyncio.to_thread(os.waitpid, child, 0)
    print("parent", await client.request("s", "parent"))
    await client.aclose()
    return child

client = BrokerClient("forks", endpoint)
loop = asyncio.new_event_loop()
try:
    forked = loop.run_until_complete(parent())
except BaseException as error:
    print(error)
    os._exit(1)
if forked == 0:
    asyncio._set_running_loop(None)
    assert connection_pool().connections == ()
    asyncio.run(client.ping())
    os._exit(0)
"""


@pytest.mark.usefixtures("loops")
def test_a_forked_child_opens_a_connection_of_its_own(peer: tuple[Peer, str]) -> None:
    """Trap: a socket that two processes use belongs to neither. The parent's goes on as if nothing was."""
    remote, endpoint = peer
    with program(HEAD + FORKS, endpoint) as process:
        parent = remote.receive()
        remote.welcome(parent.who)
        child = remote.receive()
        assert isinstance(child.message, wire.Hello)
        assert child.message.client["pid"] != parent.message.client["pid"]
        remote.welcome(child.who)
        remote.result(remote.receive())
        heard = remote.receive()
        while isinstance(heard.message, wire.Goodbye):  # the child's
            heard = remote.receive()
        assert (heard.who, heard.message.method) == (parent.who, "parent")
        remote.result(heard, b'"alive"')
        assert process.communicate(timeout=PATIENCE_S)[0] == "parent alive\n"


ENDINGS = {
    "the loop was closed and the client was not": """
loop = asyncio.new_event_loop()
client = BrokerClient("x", endpoint)
loop.run_until_complete(client.connect())
loop.close()
""",
    "a loop still runs in a daemon thread": """
client, up = BrokerClient("x", endpoint), threading.Event()
async def main():
    await client.connect()
    up.set()
    await client.request("s", "never")
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
up.wait()
""",
    "exit in the middle of a call": """
async def main():
    client = BrokerClient("x", endpoint)
    await client.connect()
    call = asyncio.ensure_future(client.request("s", "never"))
    await asyncio.sleep(0)
    sys.exit()
asyncio.run(main())
""",
    "a blocking client was not closed": """
client = BlockingClient(endpoint)
client.connect()
""",
}


@pytest.mark.parametrize("source", ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.usefixtures("loops")
def test_no_process_hangs_at_its_end(peer: tuple[Peer, str], source: str) -> None:
    """Trap: with libzmq's defaults, a context that is ended with a socket open waits for ever."""
    remote, endpoint = peer
    with program(HEAD + source, endpoint) as process:
        remote.welcome(remote.receive().who)
        assert process.wait(timeout=PATIENCE_S) == 0


def test_both_packages_have_one_version() -> None:
    """One distribution; the shim says its version in the hello and cannot import the broker for it."""
    assert client_shim.__version__ == broker.__version__


def test_the_blocking_client_does_without_asyncio() -> None:
    """A command must start fast: asyncio alone would double its time."""
    check = "import sys, client_shim.blocking; sys.exit(bool({'asyncio', 'logging'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-E", "-c", check], cwd=ROOT, check=False).returncode == 0


def test_the_package_loads_nothing_until_a_name_is_used() -> None:
    """`import client_shim` is paid for by all who need only a part of it."""
    check = (
        "import sys, client_shim; a = 'zmq' in sys.modules; client_shim.BrokerClient; sys.exit(a or "
        "'asyncio' not in sys.modules or not hasattr(client_shim, 'errors') or hasattr(client_shim, 'nope'))"
    )
    assert subprocess.run([sys.executable, "-E", "-c", check], cwd=ROOT, check=False).returncode == 0
