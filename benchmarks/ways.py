"""The ways from a caller to a tool that are compared, behind one interface.

What each gives is the text of the tool's answer: all of them encode the arguments and decode the result.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import select
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import zmq

from benchmarks.processes import Broker, Command, piped, script, started
from client_shim import BrokerClient
from client_shim.keys import ClientKeys

CLIENTS = 8
"""The number of clients that share the calls in flight."""

_READ_BYTES = 1 << 16


class Caller(Protocol):
    """A client of one server."""

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool; return the text of its answer."""


class Way(NamedTuple):
    """One way to a server, and its clients. `many`: whether they may call at the same time."""

    name: str
    callers: list[Caller]
    many: bool


def request_line(id: int, tool: str, arguments: dict[str, Any]) -> bytes:
    """Return a call of a tool as a line."""
    params = {"name": tool, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
    return json.dumps(message).encode() + b"\n"


def text_of(line: bytes, id: int) -> str:
    """Return the text of the answer to the call of this id."""
    message = json.loads(str(line, "utf-8"))  # as the shim decodes: `loads` of bytes takes twice as long
    if message["id"] != id:
        raise RuntimeError(f"the answer to call {message['id']} came where that to {id} was due")
    text: str = message["result"]["content"][0]["text"]
    return text


class Pipe:
    """(a) The server's own pipes, with nothing in between. It blocks: nothing is faster."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin.fileno(), process.stdout.fileno()
        self._ids = itertools.count(1)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make one call at a time."""
        id = next(self._ids)
        os.write(self._stdin, request_line(id, tool, arguments))
        chunks = [os.read(self._stdout, _READ_BYTES)]
        while not chunks[-1].endswith(b"\n"):
            chunks.append(os.read(self._stdout, _READ_BYTES))
        return text_of(b"".join(chunks), id)


class Floor:
    """(b) A bare DEALER in front of `forwarder`. It blocks too."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._ids = itertools.count(1)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make one call at a time."""
        id = next(self._ids)
        self._socket.send(request_line(id, tool, arguments))
        return text_of(self._socket.recv(), id)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)


class FloorOnLoop:
    """The same DEALER on asyncio: what the caller's own event loop costs."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._ids = itertools.count(1)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._waiter: asyncio.Future[bytes] | None = None
        asyncio.get_running_loop().add_reader(self._fd, self._look)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make one call at a time."""
        id = next(self._ids)
        self._socket.send(request_line(id, tool, arguments))
        self._waiter = asyncio.get_running_loop().create_future()
        self._look()
        return text_of(await self._waiter, id)

    def _look(self) -> None:
        """Asked each time it is woken: until then the descriptor stays readable, and the loop would spin."""
        readable = int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN
        if readable and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._socket.recv())

    def close(self) -> None:
        """Close the loop and the socket."""
        asyncio.get_running_loop().remove_reader(self._fd)
        self._socket.close(0)


class Sdk:
    """(c) An open session of the MCP SDK, whatever its transport."""

    def __init__(self, client: Any, rename: Callable[[str], str] = str) -> None:
        self._client = client
        self._rename = rename

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make any number of calls at a time."""
        result = await self._client.call_tool(self._rename(tool), arguments)
        text: str = result.content[0].text
        return text


class Shim:
    """(d) `BrokerClient`, through a broker."""

    def __init__(self, client: BrokerClient, server: str) -> None:
        self._client = client
        self._server = server

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make any number of calls at a time."""
        result = await self._client.call_tool(self._server, tool, arguments)
        text: str = result.content[0].text
        return text


def open_pipe(stack: AsyncExitStack, command: Command) -> Way:
    """(a)"""
    process = stack.enter_context(piped(command))
    initialize_by_hand(process)
    return Way("raw pipe", [Pipe(process)], many=False)


def initialize_by_hand(process: subprocess.Popen[bytes]) -> None:
    """Open a session of MCP on the pipes of a process."""
    assert process.stdin is not None
    assert process.stdout is not None
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "b", "version": "1"},
    }
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    process.stdin.write(json.dumps(hello).encode() + b"\n")
    process.stdout.readline()
    process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')


def open_floor(stack: AsyncExitStack, folder: Path, loop: str, command: Command) -> list[Way]:
    """(b), with a bare caller and with one on asyncio; from within a loop."""
    endpoint = f"ipc://{folder}/floor-{loop}.sock"
    forward = script("forwarder.py", loop, endpoint, *command)
    log = folder / f"floor-{loop}.log"
    process = stack.enter_context(started(forward, log=log, stdout=subprocess.PIPE))
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    select.select([process.stdout], [], [])
    floor, on_loop = Floor(endpoint), FloorOnLoop(endpoint)
    stack.callback(floor.close)
    stack.callback(on_loop.close)
    named = {"poll": ("floor", "floor, caller on asyncio"), "trio": ("floor on trio", "floor on both loops")}
    blocking, looping = named[loop]
    return [Way(blocking, [floor], many=False), Way(looping, [on_loop], many=False)]


async def open_sdk(stack: AsyncExitStack, command: Command, log: Path) -> Way:
    """(c)"""
    from mcp import Client, StdioServerParameters, stdio_client

    errors = stack.enter_context(log.open("a", encoding="utf-8"))
    parameters = StdioServerParameters(command=command[0], args=command[1:])
    client = await stack.enter_async_context(Client(stdio_client(parameters, errlog=errors)))
    return Way("SDK over stdio", [Sdk(client)] * CLIENTS, many=True)


async def open_shim(
    stack: AsyncExitStack, broker: Broker, server: str, keys: ClientKeys | None = None
) -> Way:
    """(d)"""
    clients = [
        await stack.enter_async_context(BrokerClient(f"bench-{number}", broker.endpoint, keys=keys))
        for number in range(CLIENTS)
    ]
    return Way("mcp-broker", [Shim(client, server) for client in clients], many=True)
