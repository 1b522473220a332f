"""What the tests of the drop-in share: registries made by hand, and a loop with an end."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Coroutine
from typing import Any

from client_shim import MCPClient
from tests.client_shim.backend.app import Entry, Registry
from tests.client_shim.peer import connections_of, until
from tests.e2e.harness import RunningBroker

PATIENCE_S = 60.0


def having(*names: str, **keys: Any) -> Registry:
    """A registry with these servers, all alike."""
    return Registry(Entry(name, **keys) for name in names)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it on a loop of its own, within bounds, and check that nothing of the shim is left in that loop.

    The garbage collector is off meanwhile: what has no more owner must go by itself.
    """

    async def bounded() -> None:
        await asyncio.wait_for(main, PATIENCE_S)
        await until(lambda: connections_of() == [])

    gc.disable()
    try:
        asyncio.run(bounded())
    finally:
        gc.enable()


async def text_of(client: MCPClient, server: str, tool: str, arguments: dict[str, Any] | None = None) -> str:
    """What a tool says, as the backend would read it."""
    (item,) = (await client.call_tool(server, tool, arguments))["content_items"]
    assert item["type"] == "text", item
    text: str = item["text"]
    return text


async def fails(call: Awaitable[object], kind: type[Exception], cause: type[Exception]) -> str:
    """The words of the error that a call ends in, which has this cause."""
    (error,) = await asyncio.gather(call, return_exceptions=True)
    assert type(error) is kind, repr(error)
    assert isinstance(error.__cause__, cause), repr(error.__cause__)
    return str(error)


def mine(broker: RunningBroker) -> list[dict[str, Any]]:
    """The connections of this process, but for those that ask for the status."""
    clients = broker.status()["clients"]
    return [each for each in clients if each["pid"] == os.getpid() and each["name"] != "mcp-broker"]


def hellos(broker: RunningBroker) -> int:
    """How many connections of this process the broker has seen, but for those that ask for the status."""
    lines = [line for line in broker.log().splitlines() if f"pid={os.getpid()}" in line]
    return sum("client.connected" in line and "client=mcp-broker" not in line for line in lines)


async def in_flight(broker: RunningBroker, server: str, number: int) -> None:
    """Until the server has so many calls."""
    await until(lambda: broker.server(server)["in_flight"] == number)
