"""(e) Public gateways in front of the same servers, each as its own documentation starts it.

They are installed by `make bench` into folders of their own. One that is not there, or that does not
come up here, is left out, and the report says why.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.http_client import Http
from benchmarks.http_ways import OldSse, Streamable
from benchmarks.processes import HERE, SERVERS, Command, started
from benchmarks.results import Results
from benchmarks.ways import CLIENTS, Way

_START_S = 40.0


class Peer(NamedTuple):
    """A gateway: the file of its version, its program, its start, and its transport."""

    name: str
    package: str
    program: str
    arguments: Callable[[Command, int, Path], Command]
    path: str = "/mcp"
    dialect: type[Streamable] = Streamable


def _config(server: Command, folder: Path) -> Path:
    """Write an `mcpServers` file with this server."""
    config = folder / "peer.json"
    config.write_text(json.dumps({"mcpServers": {"s": {"command": server[0], "args": server[1:]}}}))
    return config


PEERS = (
    Peer(
        "mcp-proxy",
        ".venv-mcp-proxy/lib/python3*/site-packages/mcp_proxy-*.dist-info/METADATA",
        ".venv-mcp-proxy/bin/mcp-proxy",
        lambda server, port, _: ["--port", str(port), "--", *server],
    ),
    Peer(
        "FastMCP proxy",
        ".venv-fastmcp/lib/python3*/site-packages/fastmcp-*.dist-info/METADATA",
        ".venv-fastmcp/bin/fastmcp",
        lambda server, port, folder: [
            *("run", str(_config(server, folder)), "--transport", "http", "--port", str(port)),
            *("--no-banner", "--log-level", "ERROR"),
        ],
    ),
    Peer(
        "mcp-hub",
        "node_modules/mcp-hub/package.json",
        "node_modules/.bin/mcp-hub",
        lambda server, port, folder: ["--port", str(port), "--config", str(_config(server, folder))],
        dialect=OldSse,
    ),
    Peer(
        "supergateway",
        "node_modules/supergateway/package.json",
        "node_modules/.bin/supergateway",
        lambda server, port, _: [
            *("--stdio", shlex.join(server), "--outputTransport", "streamableHttp", "--stateful"),
            *("--port", str(port), "--logLevel", "none"),
        ],
    ),
)


async def open_all(stack: AsyncExitStack, server: str, folder: Path, results: Results) -> list[Way]:
    """Return every gateway that starts; the results name the others."""
    ways = []
    for peer in PEERS:
        mine = AsyncExitStack()
        try:
            way = await _open(mine, peer, SERVERS[server], folder)
        except Exception as error:
            await mine.aclose()
            results.absent[peer.name] = f"{server}: {_in_words(error)}"
        else:
            stack.push_async_callback(mine.aclose)
            results.peers[peer.name] = _version(peer)
            ways.append(way)
    return ways


async def _open(stack: AsyncExitStack, peer: Peer, server: Command, folder: Path) -> Way:
    program = HERE / peer.program
    if not program.exists():
        raise FileNotFoundError("it is not installed")
    port = free_port()
    log = folder / f"{peer.name.replace(' ', '-')}.log"
    command = [str(program), *peer.arguments(server, port, folder)]
    process = stack.enter_context(started(command, log=log, env=_environ(folder)))
    await until_it_listens(port, process.poll, log)
    sessions = [await _session(stack, peer, port) for _ in range(CLIENTS)]
    return Way(peer.name, list(sessions), many=True)


async def _session(stack: AsyncExitStack, peer: Peer, port: int) -> Streamable:
    http = Http(port)
    stack.callback(http.close)
    session = peer.dialect(http, peer.path, {})
    await session.open()
    return session


def _environ(folder: Path) -> dict[str, str]:
    """Return the environment of a gateway. Its home has a fresh catalogue, so mcp-hub fetches none."""
    cache = folder / "home" / "mcp-hub" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    catalogue = {"registry": {"servers": [{"id": "none"}]}, "lastFetchedAt": int(time.time() * 1000)}
    (cache / "registry.json").write_text(json.dumps({**catalogue, "serverDocumentation": {}}))
    home = str(cache.parents[1])
    return {**os.environ, "XDG_DATA_HOME": home, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until_it_listens(port: int, poll: Callable[[], int | None], log: Path) -> None:
    """Wait until a started gateway takes connections."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_S
    while loop.time() < deadline and poll() is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise RuntimeError(f"it did not come up: {' '.join(last)[:200]}")


def _in_words(error: BaseException) -> str:
    while inner := getattr(error, "exceptions", ()):  # of a group
        error = inner[0]
    return f"{type(error).__name__}: {error}"[:300]


def _version(peer: Peer) -> str:
    text = next(HERE.glob(peer.package)).read_text(encoding="utf-8")
    if peer.package.endswith(".json"):
        return str(json.loads(text)["version"])
    return next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("Version:"))
