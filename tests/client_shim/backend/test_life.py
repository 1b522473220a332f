"""How the clients of a backend begin and end: opened, given up, closed from anywhere, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from client_shim import MCPClient, errors
from tests.client_shim.backend.kit import having, hellos, in_flight, mine, run, text_of
from tests.client_shim.peer import connections_of, until
from tests.e2e.harness import RunningBroker

pytestmark = pytest.mark.usefixtures("endpoint", "loops")

# --- pages -----------------------------------------------------------------------------------------------


def test_a_further_page_needs_no_process_no_handshake_no_connection(broker: RunningBroker) -> None:
    """Law 1, and what the project is for: on an open connection a client is a number."""

    async def main() -> None:
        registered = having("rogue", "other")
        first = MCPClient(registered)
        await first.list_tools("rogue")
        before = broker.pids(), [each["id"] for each in mine(broker)], hellos(broker)
        connections = connections_of()
        for _ in range(10):
            async with MCPClient(registered) as client:
                for name in registered.servers:
                    assert await client.list_tools(name)
        assert connections_of() == connections
        assert (broker.pids(), [each["id"] for each in mine(broker)], hellos(broker)) == before
        for name in ("rogue", "other"):
            handshakes = await text_of(first, name, "requests")
            assert '"initialize":1' in handshakes.replace(" ", "")
        await first.aclose()

    run(main())


def test_a_forgotten_client_leaves_nothing(broker: RunningBroker) -> None:
    """Law 4: the backend never closes one. It goes with its last reference, and needs no collector."""

    async def main() -> None:
        kept, forgotten = MCPClient(having("rogue")), MCPClient(having("rogue"))
        for client in (kept, forgotten):
            await client.list_tools("rogue")
        (connection,) = connections_of()
        assert "channels=2" in repr(connection)
        del client, forgotten
        await until(lambda: "channels=1" in repr(connection))
        del kept
        await until(lambda: connections_of() == [])
        await until(lambda: mine(broker) == [])

    run(main())


def test_a_forgotten_client_whose_calls_have_failed_leaves_nothing(broker: RunningBroker) -> None:
    """Law 4: an error that holds on to what it came from would keep the client until the collector comes."""

    async def page() -> None:
        client = MCPClient(having("rogue", "gone", timeout=0.2))
        for server, tool in (
            ("rogue", "jsonrpc_error"),
            ("rogue", "hang"),
            ("rogue", "none"),
            ("gone", "x"),
            ("no", "x"),
        ):
            with suppress(ValueError, RuntimeError):
                await client.call_tool(server, tool, {})

    async def main() -> None:
        await page()
        await until(lambda: connections_of() == [])

    run(main())


def test_a_page_that_goes_in_the_middle_of_a_call_takes_it_back(broker: RunningBroker) -> None:
    """Law 4: its task is cancelled, its client forgotten; the server is told, and nothing hangs on."""

    async def main() -> None:
        call = asyncio.ensure_future(MCPClient(having("rogue")).call_tool("rogue", "hang", {}))
        await in_flight(broker, "rogue", 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
        await in_flight(broker, "rogue", 0)
        await until(lambda: mine(broker) == [])

    run(main())


def test_a_call_may_be_given_up_and_the_client_goes_on(broker: RunningBroker) -> None:
    """`wait_for` around a call is the backend's own deadline: the call ends at the server as well."""

    async def main() -> None:
        client = MCPClient(having("rogue"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.call_tool("rogue", "hang", {}), 0.2)
        assert await text_of(client, "rogue", "echo", {}) == "{}"
        await in_flight(broker, "rogue", 0)
        await client.aclose()

    run(main())


# --- closing ---------------------------------------------------------------------------------------------


async def close_in_its_task(client: MCPClient) -> None:
    await client.aclose()


async def close_twice(client: MCPClient) -> None:
    await client.aclose()
    await client.aclose()


async def close_at_once(client: MCPClient) -> None:
    await asyncio.gather(client.aclose(), client.aclose(), client.aclose())


async def close_in_another_task(client: MCPClient) -> None:
    await asyncio.ensure_future(client.aclose())


async def close_with_patience(client: MCPClient) -> None:
    await asyncio.wait_for(client.aclose(), 5)


async def close_after_cancellation(client: MCPClient) -> None:
    call = asyncio.ensure_future(client.call_tool("rogue", "hang", {}))
    await asyncio.sleep(0)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await client.aclose()


async def close_while_cancelled(client: MCPClient) -> None:
    async def page() -> None:
        try:
            await client.call_tool("rogue", "hang", {})
        finally:
            await client.aclose()

    task = asyncio.ensure_future(page())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def close_in_another_thread(client: MCPClient) -> None:
    await asyncio.to_thread(asyncio.run, client.aclose())


async def close_the_stack_only(client: MCPClient) -> None:
    await client.exit_stack.aclose()
    await client.aclose()


async def close_by_leaving(client: MCPClient) -> None:
    async with client:
        await client.list_tools("other")


CLOSINGS = [
    close_in_its_task,
    close_twice,
    close_at_once,
    close_in_another_task,
    close_with_patience,
    close_after_cancellation,
    close_while_cancelled,
    close_in_another_thread,
    close_the_stack_only,
    close_by_leaving,
]


@pytest.mark.parametrize("close", CLOSINGS, ids=[close.__name__ for close in CLOSINGS])
def test_it_can_be_closed_from_anywhere_and_used_again(
    broker: RunningBroker, close: Callable[[MCPClient], Awaitable[None]]
) -> None:
    """Trap: cancel scopes must be left where they were entered; the drop-in holds none."""

    async def main() -> None:
        client = MCPClient(having("rogue", "other"))
        await asyncio.ensure_future(client.list_tools("rogue"))  # opened in a task of its own
        await close(client)
        assert (client.active_sessions, client._list_tools_cache) == ({}, {})
        await until(lambda: connections_of() == [])
        await until(lambda: mine(broker) == [])
        assert await text_of(client, "rogue", "echo", {}) == "{}"
        await client.aclose()

    run(main())


def test_closing_ends_its_own_calls_and_nobody_else_s(broker: RunningBroker) -> None:
    """Law 2, law 3: each waiting call of the client ends, with the error of a lost connection."""

    async def main() -> None:
        client, other = MCPClient(having("rogue")), MCPClient(having("rogue"))
        calls = [
            asyncio.ensure_future(each.call_tool("rogue", "sleep", {"seconds": 600})) for each in [client] * 3
        ]
        bystander = asyncio.ensure_future(text_of(other, "rogue", "hang"))
        await in_flight(broker, "rogue", 4)
        await client.aclose()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(ended, ConnectionError)
            assert isinstance(ended.__cause__, errors.ClientClosed)
        await in_flight(broker, "rogue", 1)
        assert not bystander.done()
        bystander.cancel()
        await other.aclose()

    run(main())
