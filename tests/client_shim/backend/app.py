"""A backend as the drop-in meets it: what it does with its MCP client, page by page.

It is run as a program, in an environment that has the shim and what else the backend would have, on a
registry and a plan: for each page the calls that it makes. It opens the pages, some of them at a time, and
forgets each as the real one does: without closing anything. What came of it goes to stdout as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.util
import json
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client_shim import BrokerClient, MCPClient
from client_shim.asyncio.pool import connection_pool as connection_registry

PATIENCE_S = 60.0
OPEN_PAGES = 3
"""How many pages are open at a time."""

Step = tuple[str, str, dict[str, Any]]
"""A call as a page makes it: server, tool, arguments."""


@dataclass
class Entry:
    """A server as `mcp_servers.json` has it."""

    name: str
    command: str = "is-not-run"
    args: list[str] = field(default_factory=list)
    env: dict[str, str] | None = None
    cwd: str | None = None
    timeout: Any = None


class Registry:
    """The servers of the backend."""

    def __init__(self, servers: Iterable[Entry]) -> None:
        self.servers = {server.name: server for server in servers}

    @classmethod
    def load(cls, path: Path) -> Registry:
        """That of an `mcp_servers.json`."""
        tables = json.loads(path.read_text(encoding="utf-8"))["mcp_servers"]
        return cls(Entry(name, **table) for name, table in tables.items())

    def get_server(self, server_name: str) -> Entry | None:
        return self.servers.get(server_name)


class ToolAdapter:
    """Learns what the servers offer, with a client for this one purpose."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def tools(self, enabled: list[str]) -> dict[str, tuple[str, Any]]:
        """Each tool's server and its parameters; a server that fails is left out."""
        found: dict[str, tuple[str, Any]] = {}
        async with MCPClient(self._registry) as client:
            for server in enabled:
                if server not in self._registry.servers:
                    continue
                try:
                    listed = await client.list_tools(server)
                except (ValueError, RuntimeError, ConnectionError) as error:
                    print(error, file=sys.stderr)
                    continue
                for tool in listed:
                    found[tool.name] = server, tool.inputSchema.get("properties", {})
        return found


class ToolExecutor:
    """Makes the calls of a page, and turns whatever happens into a text for a model."""

    def __init__(self, client: MCPClient, tools: dict[str, tuple[str, Any]]) -> None:
        self._client = client
        self._tools = tools

    async def run(self, name: str, arguments: dict[str, Any]) -> str:
        server, _ = self._tools[name]
        try:
            result = await self._client.call_tool(server_name=server, tool_name=name, tool_args=arguments)
        except (ValueError, RuntimeError, ConnectionError) as error:
            return f"{type(error).__name__}: {error}"
        first = result["content_items"][0]
        text: str = first.get("text", "")
        return f"Error: {text}" if first["type"] == "error" else text


class WebSocket:
    """The other end of a page."""

    async def send_text(self, text: str) -> None:
        """The backend hands this to its client."""


class Page:
    """What a web-socket connection has for itself."""

    def __init__(self, registry: Registry, socket: WebSocket, uid: str) -> None:
        self._registry = registry
        self._socket = socket
        self._uid = uid
        self.client: MCPClient | None = None
        self.tools: dict[str, tuple[str, Any]] = {}

    async def open(self) -> None:
        """Ask for the tools twice, for the prompt and for the calls; then make the client of the page."""
        adapter, enabled = ToolAdapter(self._registry), list(self._registry.servers)
        for_prompt = await adapter.tools(enabled)
        self.tools = await adapter.tools(enabled)
        assert for_prompt == self.tools
        self.client = MCPClient(self._registry, self._socket.send_text, self._uid)

    async def talk(self, plan: list[Step]) -> list[str]:
        assert self.client is not None
        executor = ToolExecutor(self.client, self.tools)
        return [await executor.run(tool, arguments) for _, tool, arguments in plan]


class Backend:
    """Opens pages and forgets them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._pages: dict[str, Page] = {}
        self._places = asyncio.Semaphore(OPEN_PAGES)

    async def serve(self, uid: str, plan: list[Step]) -> list[str]:
        """One page, from its opening to its end."""
        async with self._places:
            self._pages[uid] = page = Page(self._registry, WebSocket(), uid)
            await page.open()
            try:
                return await page.talk(plan)
            finally:
                await self._disconnect(uid)

    async def _disconnect(self, uid: str) -> None:
        """As the original does: it looks the page up after throwing it away, and so never closes anything."""
        self._pages.pop(uid, None)
        page = self._pages.get(uid)
        if page is not None and page.client is not None:
            await page.client.aclose()


async def run(registry: Registry, plans: list[list[Step]]) -> dict[str, Any]:
    """All pages; then what is left in this process and at the broker."""
    backend = Backend(registry)
    answers = [await backend.serve("page 0", plans[0])]
    files = open_files()
    answers += await asyncio.gather(
        *(backend.serve(f"page {number}", plan) for number, plan in enumerate(plans[1:], start=1))
    )
    clients = sum(isinstance(each, MCPClient) for each in gc.get_objects())
    await until(lambda: not connections())
    await until(lambda: open_files() <= files)  # libzmq closes what it had a little later
    async with BrokerClient() as broker:
        status = await broker.status()
        waits_in_thread = any(thread.name == "mcp-broker waiting" for thread in threading.enumerate())
    return {
        "python": platform.python_version(),
        "mcp": version("mcp") if importlib.util.find_spec("mcp") else None,
        "mcp loaded": "mcp" in sys.modules,
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "waits in a thread": waits_in_thread,
        "shim": sys.modules["client_shim"].__file__,
        "answers": answers,
        "clients": clients,
        "children": has_children(),
        "at the broker": [client for client in status["clients"] if client["pid"] == os.getpid()],
    }


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"it never came; open: {open_files()} files, {connections()}"
        await asyncio.sleep(0.01)


def connections() -> tuple[object, ...]:
    """Those of the shim in this process."""
    return connection_registry().connections


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def has_children() -> bool:
    """Whether this process has started any."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def on_loop(kind: str, main: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run it on asyncio's own loop or on uvloop's."""
    if kind != "uvloop":
        return asyncio.run(main)
    new_loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    loop = new_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("registry", type=Path)
    parser.add_argument("plans", type=Path)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--import-mcp", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # stderr is for what nobody expects
    if options.import_mcp:
        importlib.import_module("mcp")
    plans = json.loads(options.plans.read_text(encoding="utf-8"))
    report = on_loop(options.loop, run(Registry.load(options.registry), plans))
    json.dump(report, sys.stdout)
