"""The cost of each step of one call in our own code.

    python -m benchmarks.steps

Client, broker and server run in one thread, with real sockets and pipes between them; each has its turn when
its input is there. So this measures our own code and its system calls. In a real call the event loops and the
wake-ups of threads and processes come on top.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import click
import trio

from benchmarks.calls import ECHO
from benchmarks.servers import bare
from broker.config.loading import load
from broker.core.effects import Level
from broker.core.engine import Engine
from broker.frontend.address import ListenAddress
from broker.frontend.zmq.router import Router
from broker.hub import Hub
from broker.upstream.starts import lifecycle_of
from broker.upstream.stdio.pipe import Pipe
from client_shim.protocol import payload
from client_shim.protocol.events import Ended
from client_shim.protocol.state import ClientState, ConnectionPhase
from client_shim.transport.dealer import Dealer
from docs.blocks.markdown import table

COUNT = 2000

STEPS = {
    "ask": ("client: encode the params", "client_shim/protocol/payload.py"),
    "request": ("client: number the call, encode the header", "client_shim/protocol/state.py"),
    "flush": ("client: hand two frames to libzmq, wake its thread", "client_shim/transport/dealer.py"),
    "take": ("broker: take three frames from libzmq", "broker/frontend/zmq/router.py"),
    "received": ("broker: check, queue, route, build the line", "broker/core/clients/messages.py"),
    "write": ("broker: write the line to the server's pipe", "broker/upstream/stdio/pipe.py"),
    "line": (
        "broker: read the envelope of the answer, find its call, end it",
        "broker/core/servers/replies.py",
    ),
    "send": ("broker: hand three frames to libzmq, wake its thread", "broker/frontend/zmq/router.py"),
    "settle": ("broker: look at the socket again, set the alarm, twice", "broker/hub.py"),
    "receive": ("client: take two frames from libzmq, find the call", "client_shim/transport/dealer.py"),
    "decode": ("client: decode the result", "client_shim/protocol/payload.py"),
}
"""name → what is done, and where, in the order of a call"""

_SERVER = "bare"
_WARM_UP = 100


class Watch:
    """The seconds of each step of a call. Time in an inner step is not part of the outer one."""

    def __init__(self) -> None:
        self.took = dict.fromkeys(STEPS, 0.0)
        self._inner = [0.0]

    def step(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, watched."""

        def watched(*arguments: Any) -> Any:
            self._inner.append(0.0)
            began = perf_counter()
            try:
                return work(*arguments)
            finally:
                took = perf_counter() - began
                self.took[name] += took - self._inner.pop()
                self._inner[-1] += took

        return watched

    def over(self) -> dict[str, float]:
        """End a call. Return the seconds of its steps."""
        took, self.took = self.took, dict.fromkeys(STEPS, 0.0)
        return took


class BareServer:
    """The bare server behind two pipes, in the same thread."""

    def __init__(self) -> None:
        self._requests, self.stdin = os.pipe()
        self.stdout, self._answers = os.pipe()
        self._ends = (self._requests, self.stdin, self.stdout, self._answers)
        for end in self._ends:
            os.set_blocking(end, False)

    async def serve(self) -> None:
        """Answer every line."""
        while True:
            await trio.lowlevel.wait_readable(self._requests)
            for line in os.read(self._requests, 65_536).splitlines():
                os.write(self._answers, bare.answer(line))

    def close(self) -> None:
        """Close both pipes."""
        for end in self._ends:
            os.close(end)


class Written:
    """The server as the hub uses it."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write

    def opened(self) -> None:
        """Do nothing."""


class Stage:
    """Client, broker and server."""

    def __init__(self, endpoint: str) -> None:
        config = load({"servers": {_SERVER: {"command": _SERVER}}}, {})
        lifecycles = {name: lifecycle_of(server) for name, server in config.servers.items()}
        self.engine = Engine(config, lifecycles, instance="1" * 16, version="1", least=Level.INFO)
        self.hub, self.server = Hub(self.engine, trio.lowlevel.current_clock().current_time), BareServer()
        self.router = Router(config.limits, self.hub, [ListenAddress(endpoint)])
        self.hub.attach(self.router, lambda _: None)
        pipes = self.server.stdin, self.server.stdout
        self.upstream = Pipe(*pipes, max_line_bytes=1 << 20, congested=lambda _: None)
        self.written = Written(self.upstream.write)
        self.hub.upstreams[_SERVER] = self.written  # type: ignore[assignment]
        self.state = ClientState({"name": "steps", "version": "1", "pid": os.getpid()}, monotonic())
        self.dealer = Dealer(endpoint, self.state)
        self.ask: Callable[..., payload.PreparedRequest] = payload.prepare
        self.decode: Callable[..., Any] = payload.decode

    def close(self) -> None:
        """Close everything."""
        self.dealer.close()
        self.router.close()
        self.server.close()

    async def run(self, nursery: trio.Nursery) -> None:
        """Start broker and server, and say hello."""
        nursery.start_soon(self.server.serve)
        nursery.start_soon(self.upstream.read, lambda line: self.line(line), self.hub.settle)
        nursery.start_soon(self.router.run)
        nursery.start_soon(self.hub.tick)
        self.hub.run(self.engine.registry.spawned, _SERVER)
        self.dealer.flush()
        while not (self.engine.servers[_SERVER].opened and self.state.phase is ConnectionPhase.OPEN):
            self.dealer.receive(monotonic())
            await trio.sleep(0.01)

    def line(self, line: bytes) -> None:
        """Handle a line of the server."""
        self.hub.step(self.engine.replies.line, _SERVER, line)

    def watch(self, watch: Watch) -> None:
        """Watch every step from now on."""
        for owner, method, step in (
            (self, "ask", "ask"),
            (self.state, "request", "request"),
            (self.dealer, "flush", "flush"),
            (self.router, "_turn", "take"),
            (self.engine.clients, "received", "received"),
            (self.written, "write", "write"),
            (self, "line", "line"),
            (self.router, "send", "send"),
            (self.hub, "settle", "settle"),
            (self.dealer, "receive", "receive"),
            (self, "decode", "decode"),
        ):
            setattr(owner, method, watch.step(step, getattr(owner, method)))

    async def call(self) -> None:
        """Make one call, from the params to the result."""
        ask = self.ask(_SERVER, "tools/call", {"name": "echo", "arguments": ECHO})
        self.state.request(1, ask, monotonic())
        self.dealer.flush()
        while True:
            while not self.dealer.has_work():
                await trio.lowlevel.wait_readable(self.dealer.filenos[0])
            for event in self.dealer.receive(monotonic()):
                if isinstance(event, Ended):
                    self.decode(ask.subject, event.outcome)
                    return


async def _measure(endpoint: str, count: int) -> list[dict[str, float]]:
    stage, watch, calls = Stage(endpoint), Watch(), []
    try:
        async with trio.open_nursery() as nursery:
            await stage.run(nursery)
            for _ in range(_WARM_UP):
                await stage.call()
            stage.watch(watch)
            for _ in range(count):
                await stage.call()
                calls.append(watch.over())
            nursery.cancel_scope.cancel()
    finally:
        stage.close()
    return calls


def measure(folder: Path, count: int = COUNT) -> dict[str, float]:
    """Return the seconds of each step: the median of so many calls."""
    calls = trio.run(_measure, f"ipc://{folder}/steps.sock", count)
    return {step: statistics.median(call[step] for call in calls) for step in STEPS}


def rows(took: dict[str, float]) -> str:
    """Return the steps as a table."""
    lines = [(what, f"`{where}`", f"{took[step] * 1e6:.1f}") for step, (what, where) in STEPS.items()]
    lines.append(("together", "", f"{sum(took.values()) * 1e6:.1f}"))
    return table(("step", "where", "µs"), lines)


def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        click.echo(rows(measure(Path(folder))))


if __name__ == "__main__":
    main()
