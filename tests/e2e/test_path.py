"""The whole path, for real: config, daemon, servers over stdio, ZeroMQ, client, answer."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from client_shim import BrokerClient
from client_shim.errors import InvalidReply, ServerError
from tests.e2e.harness import LED_SCREEN, ROOT, RunningBroker, rogue, running, script

MCP1 = ROOT / ".venv-mcp1" / "bin" / "python"
EVERYTHING = ROOT / "tests/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"

CITIES = ("fukuoka", "tokyo", "beijing", "shanghai", "osaka")


@pytest.fixture(scope="module")
def led_screen() -> Iterator[RunningBroker]:
    """A broker with the five servers of broker.toml."""
    with running(LED_SCREEN) as broker:
        yield broker


@pytest.fixture(scope="module")
def rogues() -> Iterator[RunningBroker]:
    """A broker with one hand-written server of each era."""
    with running({"old": rogue("--era", "legacy"), "new": rogue("--era", "modern")}) as broker:
        yield broker


def questions(number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """One call for each of the five servers, different for every client."""
    clock = f"{number % 24:02}:{number * 7 % 60:02}"
    return [
        ("time", "convert_time", {"source_timezone": "UTC", "time": clock, "target_timezone": "Asia/Tokyo"}),
        ("weather-server", "get_forecast", {"city": CITIES[number % 5], "day": f"2026-11-{23 + number % 5}"}),
        ("fukuoka-transit", "next_departures", {"station": "Tenjin", "after": clock}),
        ("advertisement-server", "current_advertisement", {"at": clock}),
        (
            "laundry-assistant",
            "recommend_cycle",
            {"fabric": "cotton", "soil": ("light", "normal", "heavy")[number % 3]},
        ),
    ]


async def ask(broker: BrokerClient, number: int) -> list[Any]:
    """What one client is told by the five servers."""
    calls = [broker.call_tool(server, tool, arguments) for server, tool, arguments in questions(number)]
    return [result.raw for result in await asyncio.gather(*calls)]


def test_twenty_clients_get_twenty_different_right_answers_from_five_processes(
    led_screen: RunningBroker,
) -> None:
    """Laws 1 and 3: client churn starts no process, and nothing is mixed up."""
    before = led_screen.pids()
    during: list[dict[str, int]] = []

    async def alone(number: int) -> list[Any]:
        async with BrokerClient(f"client {number}", led_screen.endpoint) as broker:
            return await ask(broker, number)

    expected = [asyncio.run(alone(number)) for number in range(20)]
    assert len({json.dumps(answers) for answers in expected}) == 20

    got: dict[int, list[list[Any]]] = {}
    together = threading.Barrier(21)

    def client(number: int) -> None:
        async def page() -> list[list[Any]]:
            async with BrokerClient(f"client {number}", led_screen.endpoint) as broker:
                together.wait(60)
                return [await ask(broker, number) for _ in range(3)]

        got[number] = asyncio.run(page())

    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    together.wait(60)
    during.append(led_screen.pids())
    for thread in threads:
        thread.join(60)

    assert got == {number: [answers] * 3 for number, answers in enumerate(expected)}
    assert len(before) == 5
    assert [before] * 2 == [*during, led_screen.pids()]


TEXTS = (
    "洗濯機は空いていますか？",
    "现在几点？今天的天气怎么样？",
    "👩‍👩‍👧 emoji \U0001f9fa",
    'quotes " \\ and\nlines\r\n',
    "",
)


@pytest.mark.parametrize("server", ["old", "new"])
def test_bodies_pass_unchanged(rogues: RunningBroker, server: str) -> None:
    """Law 7, both eras: Chinese and Japanese, 10 MiB of image, 1 MiB of argument, and nothing at all."""

    async def main() -> None:
        async with BrokerClient("bodies", rogues.endpoint) as broker:
            for text in TEXTS:
                result = await broker.call_tool(server, "echo", {"text": text, "n": [1, 2.5, None, True]})
                assert json.loads(result.content[0].text) == {"text": text, "n": [1, 2.5, None, True]}
            large = "漢字kanji" * 100_000
            result = await broker.call_tool(server, "echo", {"text": large})
            assert json.loads(result.content[0].text) == {"text": large}
            image = await broker.call_tool(server, "big", {"bytes": 10 * 1024**2, "kind": "image"})
            assert base64.b64decode(image.content[0].data) == bytes(10 * 1024**2)
            assert (await broker.call_tool(server, "empty")).content == []

    asyncio.run(main())


@pytest.mark.parametrize(("server", "other"), [("old", "new"), ("new", "old")])
def test_long_bodies_of_many_values_pass_unchanged(rogues: RunningBroker, server: str, other: str) -> None:
    """Laws 2, 5 and 7: they are read in pieces, and what the client sends behind them is answered, too."""
    rows = [{"n": n, "名": ['a"b\\', [[], {}], None, "x" * (n % 90)]} for n in range(50_000)]

    async def main() -> None:
        async with BrokerClient("long", rogues.endpoint) as broker:
            long = [broker.call_tool(server, "echo", {"rows": rows, "n": n}) for n in range(2)]
            short = [broker.call_tool(other, "echo", {"text": str(n)}) for n in range(20)]
            results = await asyncio.gather(*long, *short)
            answers = [json.loads(result.content[0].text) for result in results]
            assert answers[:2] == [{"rows": rows, "n": n} for n in range(2)]
            assert answers[2:] == [{"text": str(n)} for n in range(20)]

    asyncio.run(main())


@pytest.mark.parametrize("server", ["old", "new"])
def test_what_reaches_the_server_is_what_was_sent(rogues: RunningBroker, server: str) -> None:
    """Law 7: the params are spliced, and the broker's `_meta` is the only one."""

    async def main() -> dict[str, Any]:
        async with BrokerClient("splice", rogues.endpoint) as broker:
            meta = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"}
            result = await broker.call_tool(server, "whoami", {"名": "値"}, meta=meta)
            seen: dict[str, Any] = json.loads(result.content[0].text)
            return seen

    line = base64.b64decode(asyncio.run(main())["line"])
    assert line.endswith('"name":"whoami","arguments":{"名":"値"}}}\n'.encode())
    assert line.count(b'"_meta"') == 1
    sent = json.loads(line)["params"]["_meta"]
    assert sent["traceparent"].startswith("00-0af7")
    assert ("io.modelcontextprotocol/protocolVersion" in sent) == (server == "new")


@pytest.mark.parametrize("server", ["old", "new"])
@pytest.mark.parametrize("kind", ["surrogate", "utf8", "deep"])
def test_a_reply_that_is_no_json_ends_its_own_call_and_no_other(
    rogues: RunningBroker, server: str, kind: str
) -> None:
    """Law 2: a server's broken reply ends its call at once, with the server named."""

    async def main() -> None:
        async with BrokerClient("broken", rogues.endpoint) as broker:
            other = asyncio.create_task(broker.call_tool(server, "sleep", {"seconds": 0.2}))
            with pytest.raises(InvalidReply, match=f"server '{server}' answered tools/call"):
                await broker.call_tool(server, "bad_reply", {"kind": kind}, timeout=60)
            assert (await other).content[0].text == "slept"

    asyncio.run(main())


@pytest.mark.parametrize("server", ["old", "new"])
def test_a_number_that_json_does_not_have_comes_as_null(rogues: RunningBroker, server: str) -> None:
    """Servers whose JSON writer lets NaN through work with the SDK: the rest of the answer is whole."""

    async def main() -> None:
        async with BrokerClient("nan", rogues.endpoint) as broker:
            result = await broker.call_tool(server, "bad_reply", {"kind": "nan"}, timeout=60)
            assert result.raw["value"] is None

    asyncio.run(main())


def test_errors_of_the_server_are_its_own(rogues: RunningBroker) -> None:
    """Law 7: a JSON-RPC error comes with its code and data, a failed tool as a result."""

    async def main() -> None:
        async with BrokerClient("errors", rogues.endpoint) as broker:
            with pytest.raises(ServerError) as caught:
                await broker.call_tool(
                    "old", "jsonrpc_error", {"code": -32011, "message": "坏了", "data": [1]}
                )
            assert (caught.value.rpc_code, caught.value.rpc_message) == (-32011, "坏了")
            assert (await broker.call_tool("old", "fail")).isError

    asyncio.run(main())


@pytest.mark.parametrize("server", ["old", "new"])
def test_progress_comes_in_order_and_before_the_result(rogues: RunningBroker, server: str) -> None:
    """Law 3: progress reaches the caller that asked for it, and nobody else."""

    async def main() -> None:
        async with (
            BrokerClient("progress", rogues.endpoint) as one,
            BrokerClient("other", rogues.endpoint) as two,
        ):
            mine: list[float] = []
            theirs: list[float] = []
            await asyncio.gather(
                one.call_tool(server, "progress", {"steps": 5}, on_progress=lambda p, t, m: mine.append(p)),
                two.call_tool(server, "progress", {"steps": 3}, on_progress=lambda p, t, m: theirs.append(p)),
            )
            assert (mine, theirs) == ([1, 2, 3, 4, 5], [1, 2, 3])

    asyncio.run(main())


def test_a_cancelled_task_cancels_the_right_call(rogues: RunningBroker) -> None:
    """Law 4: what nobody waits for is cancelled upstream."""

    async def main() -> None:
        async with BrokerClient("cancel", rogues.endpoint) as broker:
            before = json.loads((await broker.call_tool("old", "cancelled")).content[0].text)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(broker.call_tool("old", "hang"), 0.05)
            while len(now := json.loads((await broker.call_tool("old", "cancelled")).content[0].text)) == len(
                before
            ):
                await asyncio.sleep(0.01)
            assert len(now) == len(before) + 1

    asyncio.run(main())


@pytest.mark.parametrize("server", ["old", "new"])
def test_a_changed_list_is_read_again(rogues: RunningBroker, server: str) -> None:
    """The catalogue follows `list_changed` in both eras: who has caused a change, and then asks, sees it."""

    async def main() -> None:
        async with BrokerClient("changes", rogues.endpoint) as broker:
            await broker.call_tool(server, "add_tool", {"name": "brand_new"})
            assert "brand_new" in {tool.name for tool in await broker.list_tools(server)}
            assert (await broker.call_tool(server, "brand_new")).content[0].text == "brand_new"
            await broker.call_tool(server, "remove_tool", {"name": "brand_new"})
            assert "brand_new" not in {tool.name for tool in await broker.list_tools(server)}

    asyncio.run(main())


def test_lists_come_whole(rogues: RunningBroker) -> None:
    """All pages of a server that pages and shuffles; the empty cursor is one as any other, if it leads on."""
    shuffling = rogue("--page-size", "3", "--shuffle", "--empty-cursor")

    async def lists(endpoint: str, server: str) -> list[list[str]]:
        async with BrokerClient("lists", endpoint) as broker:
            found = [
                [tool.name for tool in await broker.list_tools(server)],
                [resource.uri for resource in await broker.list_resources(server)],
                [template.uriTemplate for template in await broker.list_resource_templates(server)],
                [prompt.name for prompt in await broker.list_prompts(server)],
            ]
            return found

    with running({"shuffling": shuffling}) as broker:
        got = asyncio.run(lists(broker.endpoint, "shuffling"))
    unshuffled = asyncio.run(lists(rogues.endpoint, "old"))
    assert [sorted(names) for names in got] == [sorted(names) for names in unshuffled]
    assert all(got)


def sdk_server(python: str, path: str) -> Mapping[str, Any]:
    return script(path, python=python)


@pytest.mark.parametrize("line", ["1.x", "2.x"])
def test_servers_of_both_lines_of_the_sdk(line: str) -> None:
    """Real servers of the SDK's two lines: the older handshake and the newer one, tools, errors, progress."""
    if line == "1.x" and not MCP1.exists():
        pytest.skip("there is no .venv-mcp1 with the SDK's 1.x line; `make test` makes it")
    servers = {
        "sdk": script("tests/servers/sdk1_server.py", python=str(MCP1))
        if line == "1.x"
        else script("tests/servers/sdk2_server.py"),
    }
    if line == "1.x":
        servers["time"] = {"command": str(MCP1), "args": ["-m", "mcp_server_time", "--local-timezone", "UTC"]}

    async def main(endpoint: str) -> None:
        async with BrokerClient("sdk", endpoint) as broker:
            assert (await broker.call_tool("sdk", "add", {"a": 2, "b": 3})).content[0].text == "5"
            assert "洗濯" in (await broker.call_tool("sdk", "echo", {"text": "洗濯"})).content[0].text
            seen: list[float] = []
            await broker.call_tool("sdk", "slow", {"steps": 3}, on_progress=lambda p, t, m: seen.append(p))
            assert seen == [1, 2, 3]
            if line == "1.x":
                assert (
                    "UTC"
                    in (await broker.call_tool("time", "get_current_time", {"timezone": "UTC"}))
                    .content[0]
                    .text
                )

    with running(servers) as broker:
        asyncio.run(main(broker.endpoint))
        assert broker.server("sdk")["era"] == ("legacy" if line == "1.x" else "modern")


def test_a_server_from_npm() -> None:
    """`@modelcontextprotocol/server-everything`, where node is there."""
    if not EVERYTHING.exists() or shutil.which("node") is None:
        pytest.skip(
            "server-everything is not installed in tests/node; `make test` does that where npm is there"
        )

    async def main(endpoint: str) -> None:
        async with BrokerClient("node", endpoint) as broker:
            result = await broker.call_tool("everything", "echo", {"message": "你好"})
            assert "你好" in result.content[0].text
            assert await broker.list_prompts("everything")

    with running({"everything": {"command": "node", "args": [str(EVERYTHING)]}}) as broker:
        asyncio.run(main(broker.endpoint))
        assert broker.server("everything")["state"] == "ready"


def test_under_uvloop(rogues: RunningBroker) -> None:
    """The shim on the loop that uvicorn brings."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> str:
        async with BrokerClient("uvloop", rogues.endpoint) as broker:
            text: str = (await broker.call_tool("old", "echo", {"loop": "uv"})).content[0].text
            return text

    assert json.loads(uvloop.run(main())) == {"loop": "uv"}
