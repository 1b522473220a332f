"""A connection can be gone in four ways, and each has the same effects, down to the last row.

A real endpoint, hub and core, a client with everything that there is to leave behind, and a server that the
test plays.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from broker.core.effects import Level
from broker.frontend.address import ListenAddress
from broker.frontend.zmq.router import Router
from broker.hub import Hub
from client_shim import wire
from tests.core.residue import residue
from tests.core.world import INSTANCE, World
from tests.e2e.raw import Peers
from tests.e2e.test_hostile_clients import GREETING, command

PATIENCE_S = 30.0
LEASE_S = 0.5
HELLO = wire.Hello(0, 0, [wire.VERSION], {"name": "leaves"})
SAID: list[tuple[wire.Message, bytes]] = [
    (
        wire.Request(1, 1, INSTANCE, "time", "tools/call", None, wire.WANTS_PROGRESS, None),
        b'{"name":"echo"}',
    ),
    (wire.Request(2, 2, INSTANCE, "time", "tools/call", None, 0, None), b'{"name":"echo"}'),
    (
        wire.Request(3, 3, INSTANCE, wire.MANAGEMENT, "listen", None, 0, None),
        b'{"servers":null,"resources":{"time":["u"]}}',
    ),
]
"""A call at the server, one in line behind it, and a channel that listens and has subscribed."""


class Played:
    """The server, as the hub has it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def got(self, method: str) -> list[dict[str, Any]]:
        """What it was sent of one method."""
        return [line for line in self.lines if line.get("method") == method]

    def write(self, line: bytes) -> None:
        """Take a line, or several."""
        self.lines += map(json.loads, line.splitlines())

    def opened(self) -> None:
        """Nothing to do."""

    def end_process(self, reason: str) -> None:
        """Nothing to do."""

    def respawn(self, reason: str) -> None:
        """Nothing to do."""

    def idle(self) -> None:
        """Nothing to do."""

    def admitted(self) -> None:
        """Nothing to do."""

    def demand(self) -> None:
        """Nothing to do."""

    def log_output(self, text: bytes) -> None:
        """Nothing to do."""


class Stage:
    """A hub with its endpoint, and the server behind it."""

    def __init__(self, address: str) -> None:
        world = World({"time": {"serialized": True, "watchdog_sec": 0}})
        script = world.scripts["time"]
        script.capabilities = {"tools": {}, "resources": {"subscribe": True}}
        world.start()
        self.address = address
        self.engine = world.engine
        self.engine.effects._least = Level.ERROR
        self.server = Played()
        self.hub = Hub(world.engine, lambda: world.now)
        self.hub.upstreams["time"] = self.server
        self.endpoint = Router(world.config.limits, self.hub, [ListenAddress(address)])
        self.hub.attach(self.endpoint, lambda request: None)

    def say(self, message: dict[str, Any]) -> None:
        """The server says something."""
        line = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.hub.run(self.engine.replies.line, "time", line)


async def until(so: Callable[[], bool]) -> None:
    """Wait for what will be so."""
    with trio.fail_after(PATIENCE_S):
        while not so():
            await trio.sleep(0.005)


# --- the four ways ---------------------------------------------------------------------------------------

Way = Callable[[Stage], Any]


@contextmanager
def a_client(stage: Stage) -> Iterator[Any]:
    """A DEALER that has said all of it."""
    with closing(Peers(stage.address)) as peers:
        peer = peers.connect()
        for message, body in [(HELLO, None), *SAID]:
            peer.say(message, body)
        yield peer


async def says_goodbye(stage: Stage) -> None:
    """It says so."""
    with a_client(stage) as peer:
        await until(lambda: bool(stage.server.got("resources/subscribe")))
        peer.say(wire.Goodbye(0, 0, "done"))
        await until(lambda: not len(stage.engine.connections))


async def breaks(stage: Stage) -> None:
    """Its socket is closed, as the kernel closes that of a process that was killed: libzmq tells of it."""
    with a_client(stage) as peer:
        await until(lambda: bool(stage.server.got("resources/subscribe")))
        peer.close()
        await until(lambda: not len(stage.engine.connections))


async def cannot_be_reached(stage: Stage) -> None:
    """A send finds no route, before anything was told of the loss."""
    clients, drain, lost = stage.engine.clients, stage.endpoint._drain_monitor, []
    lose = clients.lost

    def lose_first(key: bytes, now: float) -> None:
        lost.append(key)
        lose(key, now)

    with a_client(stage) as peer:
        await until(lambda: bool(stage.server.got("resources/subscribe")))
        clients.lost = lose_first  # type: ignore[method-assign]
        stage.endpoint._drain_monitor = lambda: drain() if lost else None  # type: ignore[method-assign]
        peer.close()
        (call,) = stage.server.got("tools/call")
        params = {"progressToken": call["id"], "progress": 1}

        def is_found_out() -> bool:
            stage.say({"method": "notifications/progress", "params": params})
            return not len(stage.engine.connections)

        await until(is_found_out)


async def falls_silent(stage: Stage) -> None:
    """It is unplugged or stopped: no heartbeat comes for as long as its last one said, its lease."""

    def frame(data: bytes, more: bool) -> bytes:
        return bytes([int(more), len(data)]) + data

    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(stage.address.removeprefix("ipc://"))
        silent.sendall(GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\x06DEALER"))
        greeted = b""
        while b"READY" not in greeted:
            greeted += await trio.to_thread.run_sync(silent.recv, 4096)
        silent.sendall(frame(wire.encode(HELLO), False))
        for message, body in SAID:
            silent.sendall(frame(wire.encode(message), True) + frame(body, False))
        silent.sendall(command(b"PING", int(LEASE_S * 10).to_bytes(2, "big")))
        await until(lambda: bool(stage.server.got("resources/subscribe")))
        assert len(stage.engine.connections) == 1
        await until(lambda: not len(stage.engine.connections))


WAYS: list[tuple[Way, str]] = [
    (says_goodbye, "goodbye"),
    (breaks, "lost"),
    (cannot_be_reached, "lost"),
    (falls_silent, "lost"),
]


@pytest.mark.parametrize(("leave", "reason"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_however_a_client_goes_nothing_of_it_is_left(leave: Way, reason: str) -> None:
    """Law 4: its call is cancelled, its queue emptied, its subscription ended, and every row is freed."""

    async def main(address: str) -> None:
        stage = Stage(address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.endpoint.run)
            await leave(stage)
            (call,) = stage.server.got("tools/call")  # the one in line never got there
            (cancelled,) = stage.server.got("notifications/cancelled")
            assert cancelled["params"]["requestId"] == call["id"]
            (subscribe,) = stage.server.got("resources/subscribe")
            stage.say({"id": subscribe["id"], "result": {}})
            (unsubscribe,) = stage.server.got("resources/unsubscribe")
            stage.say({"id": unsubscribe["id"], "result": {}})
            stage.say({"id": call["id"], "result": {}})
            assert stage.engine.wake_at() is None
            assert residue(stage.engine) == {}
            assert stage.engine.counters[f"closed.{reason}"] == 1
            assert stage.engine.counters["dropped.late.reply"] == 1
            await until(lambda: not len(stage.endpoint._descriptors))
            assert not residue(stage.endpoint._descriptors)
            nursery.cancel_scope.cancel()
        stage.endpoint.close()

    with TemporaryDirectory(prefix="mb-") as folder:
        trio.run(main, f"ipc://{folder}/b.sock")
