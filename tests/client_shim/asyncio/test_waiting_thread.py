"""The thread that waits for descriptors where the loop cannot: it reads, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, cast

import pytest

from client_shim import BrokerClient, errors, wire
from client_shim.asyncio import waiting_thread
from client_shim.asyncio.waiting_thread import WaitingThread
from tests.client_shim.loops import LoopWithoutReaders
from tests.client_shim.peer import PATIENCE_S, Peer, connections_of, run, until, while_greeting

pytestmark = pytest.mark.timeout(30)  # a thread that never ends would block the loop that ends it


def threads() -> int:
    """How many of these threads there are."""
    return sum(thread.name == "mcp-broker waiting" for thread in threading.enumerate())


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where nobody listens yet. At the end no connection to it is left, and no thread."""
    before = threads()
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        yield f"ipc://{folder}/s"
        assert connections_of(f"ipc://{folder}/s") == []
        assert waited_for(lambda: threads() == before)


def waited_for(true: Callable[[], bool]) -> bool:
    """Whether it is so within `PATIENCE_S`."""
    end = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()


def has_call(loop: Any) -> bool:
    """Whether a thread has asked the loop to read, and it has not done so."""
    return any("WaitingThread._read" in repr(handle) for handle in loop._ready)


def test_one_thread_serves_all_clients_of_a_loop_and_ends_with_the_last(endpoint: str) -> None:
    """Law 4. Closed, or forgotten: nobody calls `aclose` of a forgotten client."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            before = threads()
            kept, forgotten = BrokerClient("kept", endpoint), BrokerClient("forgotten", endpoint)
            await while_greeting(peer, asyncio.gather(kept.connect(), forgotten.connect()))
            assert threads() == before + 1
            await kept.aclose()
            assert threads() == before + 1
            del forgotten
            gc.collect()
            await until(lambda: threads() == before)
            assert [(await peer.heard()).message.channel for _ in range(2)] == [1, 0]

    run(main(), LoopWithoutReaders)


def test_the_thread_of_a_lost_broker_ends_and_the_next_one_has_its_own(endpoint: str) -> None:
    """Law 6: a broker that restarts every minute leaves no threads."""

    async def main() -> None:
        before, client = threads(), BrokerClient("test", endpoint)
        for instance in ("i1", "i2", "i3"):
            with Peer(endpoint, instance) as peer:
                await peer.greet() if instance != "i1" else await while_greeting(peer, client.connect())
                await until(lambda: client.connected)
                assert threads() == before + 1
            await until(lambda: not client.connected)
            assert threads() == before
        await client.aclose()

    run(main(), LoopWithoutReaders)


@pytest.mark.parametrize("message", ["none", "before the loop is closed", "after the loop is closed"])
def test_the_thread_of_a_loop_that_was_closed_without_notice_ends(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """It looks now and then, also for a message that the loop never read; it wakes no closed loop."""
    monkeypatch.setattr(waiting_thread, "LOOK_S", 0.02)
    with Peer(endpoint) as peer:
        before, lost, left = threads(), LoopWithoutReaders(), BrokerClient("left", endpoint)
        who = lost.run_until_complete(while_greeting(peer, left.connect()))
        if message == "before the loop is closed":
            peer.send(who, wire.Fault(0, 0, "ping", "are you there?", {}))
            assert waited_for(lambda: has_call(lost))
        lost.close()
        if message == "after the loop is closed":
            peer.send(who, wire.Fault(0, 0, "ping", "are you there?", {}))
        assert waited_for(lambda: threads() == before)
        run(while_greeting(peer, left.connect()), LoopWithoutReaders)


def test_without_a_thread_there_is_no_connection_and_it_is_said(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10: a container with a low limit of threads."""

    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with Peer(endpoint):
            monkeypatch.setattr(threading.Thread, "start", full)
            with pytest.raises(errors.Unavailable, match="can't start new thread"):
                await BrokerClient("test", endpoint).connect()

    run(main(), LoopWithoutReaders)


class HandMadeLoop:
    """An event loop whose calls a test makes by hand."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def is_closed(self) -> bool:
        """It is open until the end."""
        return False

    def call_soon_threadsafe(self, call: Callable[[], None], *, context: object) -> None:
        """Keep what the thread asks for."""
        self.asked.put(call)


def test_the_thread_waits_until_the_loop_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor stays readable until then, so the loop would be woken without end."""
    loop, reads = HandMadeLoop(), list[None]()
    ours, theirs = socket.socketpair()
    waiting = WaitingThread(
        cast(asyncio.AbstractEventLoop, loop),
        [ours.fileno()],
        lambda: reads.append(None),
        contextvars.Context(),
    )
    theirs.send(b"x")
    for number in range(1, 4):  # it stays readable, and the thread asks again, as with `add_reader`
        read = loop.asked.get(timeout=PATIENCE_S)
        assert loop.asked.empty(), "it asks twice"
        read()
        assert len(reads) == number
    read = loop.asked.get(timeout=PATIENCE_S)
    ours.recv(1)
    looks, select = SimpleQueue[None](), waiting._selector.select
    monkeypatch.setattr(waiting_thread, "LOOK_S", 0.001)

    def look(look_s: float) -> object:
        looks.put(None)
        return select(look_s)

    monkeypatch.setattr(waiting._selector, "select", look)
    read()
    for _ in range(2):  # the thread looks again only if there was nothing to read
        looks.get(timeout=PATIENCE_S)
    assert loop.asked.empty(), "there is nothing to read"
    theirs.send(b"x")
    read = loop.asked.get(timeout=PATIENCE_S)
    waiting.close()
    read()
    assert loop.asked.empty()
    assert len(reads) == 4, "closed is closed"
    ours.close()
    theirs.close()
