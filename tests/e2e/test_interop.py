"""Servers that others have written: both lines of the Python SDK, and the reference server for TypeScript.

Each is shared by several clients at once, and asked for all that `BrokerClient` has.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from client_shim import BrokerClient
from client_shim.errors import DeadlineExceeded, MethodRefused, ServerError
from client_shim.results import CallResult
from tests.e2e.harness import RunningBroker, running, script
from tests.e2e.test_path import EVERYTHING, MCP1

CLIENTS = 8


class Kind(NamedTuple):
    """What a server has, by the names that it gives it."""

    command: dict[str, Any]
    era: str
    sum: str
    slow: tuple[str, dict[str, Any]]
    """A tool that tells of three steps, and takes a while where `forever` is added to it."""
    forever: dict[str, Any]
    echo: tuple[str, str]
    image: str
    uri: str
    prompt: tuple[str, dict[str, str]]
    missing: str


SDK = Kind(
    script("tests/servers/sdk2_server.py"),
    "modern",
    "add",
    ("slow", {"steps": 3, "delay_s": 0.1}),
    {"delay_s": 60},
    ("echo", "text"),
    "picture",
    "note://hello",
    ("greet", {"name": "Ann"}),
    "note://no",
)
"""Both lines of the Python SDK serve the same."""

KINDS = {
    "sdk1": SDK._replace(command=script("tests/servers/sdk1_server.py", python=str(MCP1)), era="legacy"),
    "sdk2": SDK,
    "everything": Kind(
        # It does not end with its input while an operation is under way: SIGTERM ends it.
        {"command": "node", "args": [str(EVERYTHING)], "timeout_stop_sec": 1.0},
        "legacy",
        "get-sum",
        ("trigger-long-running-operation", {"steps": 3, "duration": 0.3}),
        {"duration": 180},
        ("echo", "message"),
        "get-tiny-image",
        "demo://resource/static/document/features.md",
        ("args-prompt", {"city": "Fukuoka"}),
        "demo://no",
    ),
}


def is_there(name: str) -> bool:
    """Whether it can be run here; `make test` installs what is missing."""
    return MCP1.exists() if name == "sdk1" else name != "everything" or _has_node()


def _has_node() -> bool:
    return EVERYTHING.exists() and shutil.which("node") is not None


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One broker with all that can be run here."""
    with running({name: kind.command for name, kind in KINDS.items() if is_there(name)}) as running_broker:
        yield running_broker


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a server."""
    if not is_there(request.param):
        pytest.skip(f"{request.param} is not installed; `make test` installs it where its runtime is there")
    return str(request.param)


def text(result: CallResult) -> str:
    """The text of the first item."""
    return str(result.content[0].text)


def test_the_whole_surface(broker: RunningBroker, name: str) -> None:
    """Every method, with what a server of somebody else's says."""
    kind = KINDS[name]

    async def main() -> None:
        async with BrokerClient("surface", broker.endpoint) as page:
            await page.ping()
            (server,) = [one for one in await page.servers() if one["name"] == name]
            assert (server["era"], server["state"]) == (kind.era, "ready")
            assert {kind.sum, kind.image, kind.echo[0]} <= {tool.name for tool in await page.list_tools(name)}
            assert kind.uri in {resource.uri for resource in await page.list_resources(name)}
            assert isinstance(await page.list_resource_templates(name), list)
            assert kind.prompt[0] in {prompt.name for prompt in await page.list_prompts(name)}
            assert "5" in text(await page.call_tool(name, kind.sum, {"a": 2, "b": 3}))
            image = await page.call_tool(name, kind.image)
            assert any(item.mimeType == "image/png" and item.data for item in image.content)
            assert (await page.read_resource(name, kind.uri)).contents[0].text
            prompt = await page.get_prompt(name, *kind.prompt)
            assert next(iter(kind.prompt[1].values())) in prompt.messages[0].content.text
            with pytest.raises(ServerError):
                await page.read_resource(name, kind.missing)
            discovered = await page.request(name, "server/discover")
            assert "tools" in discovered["capabilities"]
            assert "tasks" not in discovered["capabilities"]
            with pytest.raises(MethodRefused):
                await page.request(name, "tasks/get", {"taskId": "1"})

    asyncio.run(main())


def test_completion(broker: RunningBroker) -> None:
    """With a server that completes, and the arguments that are filled in already."""
    if not is_there("everything"):
        pytest.skip("server-everything is not installed; `make test` does that where npm is there")

    async def main() -> None:
        async with BrokerClient("completion", broker.endpoint) as page:
            ref = {"type": "ref/prompt", "name": "completable-prompt"}
            found = await page.complete("everything", ref, {"name": "department", "value": "E"})
            assert found.values == ["Engineering"]
            context = {"arguments": {"department": "Engineering"}}
            names = await page.complete("everything", ref, {"name": "name", "value": ""}, context=context)
            assert names.values

    asyncio.run(main())


def test_each_of_several_has_its_own_answers_and_its_own_progress(broker: RunningBroker, name: str) -> None:
    """Law 3: the ids and tokens of the clients are the same; the server's SDK sees the broker's only."""
    kind = KINDS[name]
    tool, argument = kind.echo

    async def page(number: int) -> None:
        async with BrokerClient(f"page {number}", broker.endpoint) as client:
            seen: list[float] = []
            slow = client.call_tool(name, *kind.slow, on_progress=lambda done, *_: seen.append(done))
            secrets = [f"秘密 {number}.{call}" for call in range(5)]
            echoes = [client.call_tool(name, tool, {argument: secret}) for secret in secrets]
            said, *_ = await asyncio.gather(asyncio.gather(*echoes), slow)
            for secret, result in zip(secrets, said, strict=True):
                assert secret in text(result)
            assert seen == sorted(set(seen))
            assert seen[-1] == 3

    async def main() -> None:
        await asyncio.gather(*(page(number) for number in range(CLIENTS)))

    asyncio.run(main())


def test_a_call_that_is_given_up_hurts_no_other(broker: RunningBroker, name: str) -> None:
    """It is the right one that is cancelled; its neighbour goes on to its end."""
    kind = KINDS[name]
    tool, arguments = kind.slow

    async def main() -> None:
        async with BrokerClient("page", broker.endpoint) as page:
            begun, seen = asyncio.Event(), list[float]()

            def on_progress(done: float, total: float | None, message: str | None) -> None:
                seen.append(done)
                begun.set()

            given_up = asyncio.ensure_future(page.call_tool(name, tool, {**arguments, **kind.forever}))
            other = asyncio.ensure_future(page.call_tool(name, tool, arguments, on_progress=on_progress))
            await begun.wait()
            given_up.cancel()
            await asyncio.wait([given_up])
            assert given_up.cancelled()
            await other
            assert seen == [1, 2, 3]
            with pytest.raises(DeadlineExceeded):
                await page.call_tool(name, tool, {**arguments, **kind.forever}, timeout=0.2)
            assert "5" in text(await page.call_tool(name, kind.sum, {"a": 2, "b": 3}))

    asyncio.run(main())
    broker.wait(lambda status: all(not one["in_flight"] for one in status["servers"]))
    assert broker.server(name)["restarts"] == 0
