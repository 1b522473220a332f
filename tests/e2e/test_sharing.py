"""Sharing, for real: changes, resources, questions, logs; servers of both eras, and one of the SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client_shim import BrokerClient, MCPClient
from client_shim.errors import MethodRefused, ServerError
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running, script

TALKATIVE = script("tests/servers/sdk2_talkative.py")
SERVERS = ("old", "new")


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """A broker with a hand-written server of each era, and one of the SDK."""
    servers = {
        "old": rogue(roots=["notes", "file:///srv/maps"]),
        "new": rogue("--era", "modern"),
        "sdk": TALKATIVE,
        "bare": rogue("--no-capabilities"),
    }
    with running(servers) as running_broker:
        yield running_broker


async def until(so: Callable[[], bool]) -> None:
    """Wait for what a callback will have heard."""

    async def poll() -> None:
        while not so():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), PATIENCE_S)


def said(result: Any) -> Any:
    """What a tool says, from JSON where it is that."""
    return json.loads(result.content[0].text)


# --- changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "tool"), [("old", "add_tool"), ("new", "add_tool"), ("sdk", "grow")])
def test_every_page_that_listens_hears_of_a_new_tool(broker: RunningBroker, server: str, tool: str) -> None:
    """And has it when it asks; the one that does not listen is not disturbed."""

    async def main() -> None:
        heard: list[tuple[str, str, str]] = []
        names: dict[str, set[str]] = {}

        def page(name: str) -> BrokerClient:
            return BrokerClient(
                name, broker.endpoint, on_list_changed=lambda *news: heard.append((name, *news))
            )

        async with page("a") as a, page("b") as b, BrokerClient("quiet", broker.endpoint) as quiet:
            await quiet.call_tool(server, tool, {"name": f"new_{server}"})
            await until(lambda: len(heard) >= 2)
            for name, client in (("a", a), ("b", b)):
                names[name] = {tool.name for tool in await client.list_tools(server)}
        assert sorted(heard) == [("a", server, "tools"), ("b", server, "tools")]
        assert f"new_{server}" in names["a"] & names["b"]

    asyncio.run(main())


@pytest.mark.parametrize("server", SERVERS)
def test_a_list_that_changed_across_a_restart_is_old_for_nobody(
    broker: RunningBroker, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for who listens, nor for the drop-in, which asks each time."""
    monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)

    async def main() -> None:
        heard: list[tuple[str, str]] = []
        async with BrokerClient("page", broker.endpoint, on_list_changed=lambda *n: heard.append(n)) as page:
            drop_in = MCPClient(Registry(), None, "page")
            await page.call_tool(server, "add_tool", {"name": "for_a_while"})
            await until(lambda: (server, "tools") in heard)
            heard.clear()
            assert "for_a_while" in {tool.name for tool in await drop_in.list_tools(server)}
            await page.request("$broker", "restart", {"server": server})
            await until(lambda: (server, "tools") in heard)
            assert "for_a_while" not in {tool.name for tool in await page.list_tools(server)}
            assert "for_a_while" not in {tool.name for tool in await drop_in.list_tools(server)}
            assert "for_a_while" not in {tool.name for tool in drop_in._list_tools_cache[server]}
            await drop_in.aclose()

    asyncio.run(main())


class Registry:
    """A backend's registry that knows every name."""

    def get_server(self, server_name: str, /) -> object:
        return object()


@pytest.mark.parametrize("server", [*SERVERS, "sdk"])
def test_an_update_of_a_resource_reaches_who_subscribed(broker: RunningBroker, server: str) -> None:
    """One subscription upstream; again after a restart, with a word that something may be missed."""

    async def main() -> None:
        heard: list[tuple[str, str, str]] = []

        def page(name: str) -> BrokerClient:
            return BrokerClient(
                name, broker.endpoint, on_resource_updated=lambda *news: heard.append((name, *news))
            )

        async with page("a") as a, page("b") as b, page("c") as c:
            for client in (a, b):
                await client.subscribe_resource(server, "note://today")
            await c.subscribe_resource(server, "note://other")

            async def touch() -> None:
                while sum(name == "a" for name, *_ in heard) == 0:  # until the stream upstream is replaced
                    await c.call_tool(server, "touch", {"uri": "note://today"})
                await until(lambda: {name for name, *_ in heard} == {"a", "b"})

            await touch()
            heard.clear()
            if server == "sdk":
                return
            await c.request("$broker", "restart", {"server": server})
            await until(lambda: len(set(heard)) == 3)
            assert set(heard) == {
                ("a", server, "note://today"),
                ("b", server, "note://today"),
                ("c", server, "note://other"),
            }
            heard.clear()
            await touch()
            await a.unsubscribe_resource(server, "note://today")
            await b.unsubscribe_resource(server, "note://today")
            await c.unsubscribe_resource(server, "note://other")

            def gone(seen: Any) -> bool:
                return not seen["uris"] and not any("resourceSubscriptions" in one for one in seen["listens"])

            while not gone(said(await c.call_tool(server, "subscribed"))):
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_server_that_tells_of_no_resources_says_so(broker: RunningBroker) -> None:
    """Law 8: nobody waits for what never comes."""

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as page:
            with pytest.raises(MethodRefused, match="does not tell"):
                await page.subscribe_resource("bare", "note://today")

    asyncio.run(main())


def test_one_that_is_forgotten_leaves_no_subscription(broker: RunningBroker) -> None:
    """Law 4: the last one out ends it at the server, also where nobody closed anything."""

    async def main() -> None:
        page = BrokerClient("page", broker.endpoint)
        keeper = BrokerClient("keeper", broker.endpoint)
        await page.subscribe_resource("old", "note://leak")
        assert said(await keeper.call_tool("old", "subscribed"))["uris"] == ["note://leak"]
        del page
        while said(await keeper.call_tool("old", "subscribed"))["uris"]:
            await asyncio.sleep(0.01)
        await keeper.aclose()

    asyncio.run(main())


# --- questions ---------------------------------------------------------------------------------------


def test_a_question_of_the_sdk_is_in_its_result_and_the_answer_in_the_next_call(
    broker: RunningBroker,
) -> None:
    """`input_required`, end to end with the SDK; each caller has its own state."""

    async def order(page: BrokerClient, what: str, size: str) -> str:
        first = await page.call_tool("sdk", "order", {"what": what})
        assert first.input_required
        assert first.input_requests["size"]["method"] == "elicitation/create"
        second = await page.call_tool(
            "sdk",
            "order",
            {"what": what},
            input_responses={"size": {"action": "accept", "content": {"size": size}}},
            request_state=first.request_state,
        )
        assert not second.input_required
        return str(second.content[0].text)

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint, capabilities={"elicitation": {}}) as page:
            orders = [order(page, what, size) for what, size in (("tea", "L"), ("cake", "S"), ("茶", "大"))]
            assert await asyncio.gather(*orders) == [
                "an order of tea: L",
                "an order of cake: S",
                "an order of 茶: 大",
            ]

    asyncio.run(main())


def test_what_a_client_cannot_do_it_is_not_asked(broker: RunningBroker) -> None:
    """2026-07-28: the capabilities are those of the client that calls, not of the broker."""

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as page:
            with pytest.raises(ServerError, match="elicitation"):
                await page.call_tool("new", "ask", {"method": "elicitation/create"})
            meta: dict[str, object] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
            result = await page.call_tool("new", "ask", {"method": "elicitation/create"}, meta=meta)
            assert result.input_required

    asyncio.run(main())


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create"])
def test_a_question_of_an_older_server_is_refused_and_counted(broker: RunningBroker, method: str) -> None:
    """Law 8: and the call that it was asked for goes on."""

    async def main() -> None:
        before = broker.server("old")["questions"]
        async with BrokerClient("page", broker.endpoint) as page:
            answer = said(await page.call_tool("old", "ask", {"method": method}))
        assert answer["error"]["code"] == -32601
        assert "many clients share this process" in answer["error"]["message"]
        assert broker.server("old")["questions"] == before + 1

    asyncio.run(main())
    broker.wait_log("server.question")


def test_roots_come_from_the_config(broker: RunningBroker) -> None:
    """A path is taken from the folder of the config."""

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as page:
            answer = said(await page.call_tool("old", "ask", {"method": "roots/list"}))
        notes = (broker.folder.resolve() / "notes").as_uri()
        assert answer["result"] == {"roots": [{"uri": notes}, {"uri": "file:///srv/maps"}]}

    asyncio.run(main())


# --- logs and traces ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "tool"), [("new", "log"), ("sdk", "say")])
def test_a_log_message_reaches_the_call_that_asked(broker: RunningBroker, server: str, tool: str) -> None:
    """Where it is the only one; before its result."""

    async def main() -> None:
        logged: list[Any] = []
        async with BrokerClient("page", broker.endpoint) as page:
            arguments = {"text": "烤箱", "level": "warning"} if tool == "log" else {"text": "烤箱"}
            await page.call_tool(server, tool, arguments, on_log=lambda *log: logged.append(log))
        assert [(level, data) for level, data, _ in logged] == [("warning", "烤箱")]

    asyncio.run(main())


@pytest.mark.parametrize("server", SERVERS)
def test_the_trace_of_a_client_reaches_the_server(broker: RunningBroker, server: str) -> None:
    """W3C trace context, in `_meta` of both eras."""
    trace = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "baggage": "user=7",
    }

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as page:
            seen = said(await page.call_tool(server, "whoami", meta=trace))
        params = seen["params"] if isinstance(seen["params"], dict) else json.loads(seen["params"])
        assert trace.items() <= params["_meta"].items()

    asyncio.run(main())


# --- one at a time -----------------------------------------------------------------------------------


def test_a_serialized_server_never_has_two_calls_even_when_one_was_cancelled() -> None:
    """`wait_for` gives up, the server goes on; the next call waits until it has ended."""
    with running({"one": rogue("--serial", serialized=True)}) as broker:

        async def main() -> None:
            async with BrokerClient("page", broker.endpoint) as page:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(page.call_tool("one", "hang", {"late": True}), 0.2)
                assert said(await page.call_tool("one", "requests"))["tools/call"] == 2

        asyncio.run(main())
