"""Measures the transports between a client and the broker, in turns: by a socket file, by TCP, with keys.

The same for an event loop that cannot watch descriptors, as that of Windows: there a thread waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from benchmarks import calls
from benchmarks.plan import Plan
from benchmarks.processes import SERVERS, Broker, running_broker
from benchmarks.results import Results
from benchmarks.summary import IPC, KEYS, TCP, THREAD
from benchmarks.ways import Way, open_shim
from client_shim.key_file import PUBLIC, KeyFile, text_of
from client_shim.keys import ClientKeys
from client_shim.transport.curve import new_pair

_SERVER = "bare"


class _Loop(asyncio.SelectorEventLoop):
    """A loop that can be kept from watching descriptors for a while."""

    watches = True

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:  # type: ignore[override]
        """Watch a descriptor, or raise what the loop of Windows does."""
        if not self.watches:
            raise NotImplementedError
        super().add_reader(fd, callback, *args)


def measure(plan: Plan, folder: Path, results: Results) -> None:
    """Measure calls by each transport, to two brokers: with keys, a broker takes nobody without over TCP."""
    servers = {_SERVER: SERVERS[_SERVER]}
    loop = _Loop()
    try:
        with ExitStack() as stack:
            bare_port, port = _endpoint(), _endpoint()
            keys = _make_keys(folder)
            settings = {"server_key": "server.key_secret", "authorized_keys": "authorized_keys"}
            bare = stack.enter_context(running_broker(folder, "bare", servers, bare_port))
            stack.enter_context(running_broker(folder, "keyed", servers, port, settings))
            loop.run_until_complete(_measure(loop, bare, bare_port, port, keys, plan, results))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _measure(
    loop: _Loop, bare: Broker, bare_port: str, port: str, keys: ClientKeys, plan: Plan, results: Results
) -> None:
    async with AsyncExitStack() as stack:

        async def way(name: str, endpoint: str, keys: ClientKeys | None = None) -> Way:
            opened = await open_shim(stack, bare._replace(endpoint=endpoint), _SERVER, keys)
            return opened._replace(name=name)

        ways = [await way(IPC, bare.endpoint), await way(TCP, bare_port), await way(KEYS, port, keys)]
        loop.watches = False
        # Another spelling of the path is another connection.
        ways.append(await way(THREAD, bare.endpoint.replace("/bare.sock", "/./bare.sock")))
        loop.watches = True
        for each in ways:
            await calls.one_by_one(each.callers[0], 3)
        for _ in range(plan.rounds):
            for each in ways:
                await calls.round_of(each, plan, results.networks)


def _endpoint() -> str:
    """Return an endpoint of loopback TCP that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return f"tcp://127.0.0.1:{trial.getsockname()[1]}"


def _make_keys(folder: Path) -> ClientKeys:
    """Write the keys of a broker and one client where the config says; return the client's."""
    server, server_secret = new_pair()
    public, secret = new_pair()
    (folder / "authorized_keys").mkdir(mode=0o700)
    for path, keys in (
        (folder / "server.key_secret", KeyFile("mcp-broker", server, server_secret)),
        (folder / "authorized_keys" / f"bench{PUBLIC}", KeyFile("bench", public)),
    ):
        path.touch(mode=0o600)
        path.write_text(text_of(keys), encoding="utf-8")
    return ClientKeys(server, public, secret)
