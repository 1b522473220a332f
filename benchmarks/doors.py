"""(f) The doors of `mcp-broker gateway` with its defaults: HTTP of both eras, and `mcp-broker connect`."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gateways import free_port, until_it_listens
from benchmarks.http_client import Http
from benchmarks.http_ways import Modern, Streamable, id_of
from benchmarks.processes import READY_S, Broker, Command, piped, started
from benchmarks.summary import CONNECT, HTTP_LEGACY, HTTP_MODERN
from benchmarks.ways import CLIENTS, Way, initialize_by_hand, request_line, text_of

_READ_BYTES = 1 << 20


class Gateway(NamedTuple):
    """A running gateway: its port, the token for it, and the address of its broker."""

    port: int
    token: str
    endpoint: str


async def open_gateway(
    stack: AsyncExitStack, broker: Broker, servers: Iterable[str], folder: Path, tokens: Iterable[str] = ()
) -> Gateway:
    """Start a gateway in front of a broker, with a token and everything else as it is by default.

    Args:
        tokens: further ones, which are their own names.
    """
    port, home = free_port(), folder / "gateway-state"
    config, log = folder / "gateway.toml", folder / "gateway.log"
    tables = [f'[tokens.{token}]\nsha256 = "{sha256(token.encode()).hexdigest()}"\n' for token in tokens]
    config.write_text("".join([f'[gateway]\nstate_dir = "{home}"\n', *tables]), encoding="utf-8")
    command = [sys.executable, "-m", "broker", "gateway", "--config", str(config)]
    options = ["--endpoint", broker.endpoint, "--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
    process = stack.enter_context(started([*command, *options], log=log))
    await until_it_listens(port, process.poll, log)
    for server in servers:
        await _until_there(folder / "gateway" / f"{server}.sock")
    return Gateway(port, (home / "token").read_text(encoding="ascii").strip(), broker.endpoint)


async def _until_there(socket: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    while not socket.exists():
        if asyncio.get_running_loop().time() > deadline:
            raise RuntimeError(f"the gateway did not make {socket}")
        await asyncio.sleep(0.05)


async def open_http(stack: AsyncExitStack, gateway: Gateway, server: str) -> list[Way]:
    """Return the ways by HTTP, one for each era."""
    path, headers = address_of(server, gateway.token)
    clients = [Http(gateway.port) for _ in range(2 * CLIENTS)]
    for http in clients:
        stack.callback(http.close)
    modern = [Modern(http, path, headers) for http in clients[:CLIENTS]]
    sessions = [Streamable(http, path, headers) for http in clients[CLIENTS:]]
    for session in sessions:
        await session.open()
    return [Way(HTTP_MODERN, list(modern), many=True), Way(HTTP_LEGACY, list(sessions), many=True)]


def address_of(server: str, token: str) -> tuple[str, dict[str, str]]:
    """Return the path of a server in a gateway, and the headers for it."""
    return f"/mcp/{server}", {"authorization": f"Bearer {token}"}


class Host:
    """An MCP host at the pipes of `mcp-broker connect`, on asyncio."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin.fileno(), process.stdout.fileno()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._unread: list[bytes] = []
        asyncio.get_running_loop().add_reader(self._stdout, self._read)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Make any number of calls at a time."""
        id = next(self._ids)
        waiting = self._waiting[id] = asyncio.get_running_loop().create_future()
        os.write(self._stdin, request_line(id, tool, arguments))
        return text_of(await waiting, id)

    def _read(self) -> None:
        chunk = os.read(self._stdout, _READ_BYTES)
        if b"\n" not in chunk:
            self._unread.append(chunk)
            return
        *lines, rest = b"".join([*self._unread, chunk]).split(b"\n")
        self._unread = [rest]
        for line in lines:
            self._waiting.pop(id_of(line)).set_result(line)

    def close(self) -> None:
        """Leave the event loop."""
        asyncio.get_running_loop().remove_reader(self._stdout)


def connect_command(gateway: Gateway, server: str) -> Command:
    """Return what a host starts."""
    return [sys.executable, "-m", "broker", "connect", server, "--endpoint", gateway.endpoint]


def open_connect(stack: AsyncExitStack, gateway: Gateway, server: str) -> Way:
    """Return the way through `mcp-broker connect`, a process for each client."""
    hosts = []
    for _ in range(CLIENTS):
        process = stack.enter_context(piped(connect_command(gateway, server)))
        initialize_by_hand(process)
        host = Host(process)
        stack.callback(host.close)
        hosts.append(host)
    return Way(CONNECT, list(hosts), many=True)
