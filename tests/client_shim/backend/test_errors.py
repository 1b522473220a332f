"""What a call of `MCPClient` raises: one of three kinds, with what to do next; and when its time is up."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import tomli

from client_shim import MCPClient, errors
from client_shim.backend.snippet import toml_table
from client_shim.wire import Request
from tests.client_shim.backend.app import Entry, Registry
from tests.client_shim.backend.kit import fails, having, run, text_of
from tests.client_shim.peer import Peer
from tests.e2e.harness import RunningBroker

pytestmark = pytest.mark.usefixtures("endpoint", "loops")

# --- errors ----------------------------------------------------------------------------------------------


def test_a_server_that_the_registry_has_not_is_a_value_error() -> None:
    """The design, section 4; it names those that are there, and why one may be missing."""

    async def main() -> None:
        client = MCPClient(having("time", "weather"))
        for call in (client.list_tools("tiem"), client.call_tool("tiem", "x", {})):
            with pytest.raises(ValueError, match=r"no server 'tiem' in the registry.*time, weather.*npx"):
                await call

    run(main())


def test_a_server_that_the_broker_has_not_comes_with_its_table() -> None:
    """Law 10: the next step is to paste it. It holds no value of `env`, for a model may come to read it."""

    async def main() -> None:
        entry = Entry("search", "npx", ["-y", "@example/search"], {"API_KEY": "s3cret"}, "/srv")
        client = MCPClient(Registry([entry]))
        for call in (client.list_tools("search"), client.call_tool("search", "x", {})):
            words = await fails(call, ValueError, errors.UnknownServer)
            about, _, table = words.partition("\n\n")
            assert "no server 'search'; the broker has broken, off, other, rogue" in about
            assert "broker.toml" in about
            assert "s3cret" not in words
            assert tomli.loads(table)["servers"] == {
                "search": {
                    "command": "npx",
                    "args": ["-y", "@example/search"],
                    "env": {"API_KEY": "${API_KEY}"},
                    "cwd": "/srv",
                }
            }
        await client.aclose()

    run(main())


def test_an_entry_without_a_command_is_one_of_the_three_kinds() -> None:
    """The broker needs none from the backend; the table to paste says where one has to be written."""

    class Bare:
        """An entry with nothing."""

    class Bares:
        """A registry of these entries."""

        def get_server(self, name: str) -> Bare:
            return Bare()

    async def main() -> None:
        client = MCPClient(Bares())
        for call in (client.list_tools("search"), client.call_tool("search", "x", {})):
            words = await fails(call, ValueError, errors.UnknownServer)
            assert "mcp-broker reload" in words
            assert "names none" in words
            assert tomli.loads(words.partition("\n\n")[2])["servers"] == {"search": {"command": ""}}
        assert await client.list_tools("rogue")
        await client.aclose()

    run(main())


@pytest.mark.parametrize(
    "word", ["plain", "a b", "a.b", 'say "hi"', "C:\\dir", "line\nbreak\ttab", "\x00\x1f\x7f", "漢字 🙂"]
)
def test_any_word_can_stand_in_the_table(word: str) -> None:
    """A table that is ready to be pasted is TOML, whatever the registry holds."""
    table = toml_table(word, Entry(word, word, [word], {word: "s3cret"}, word))
    assert tomli.loads(table)["servers"][word] == {
        "command": word,
        "args": [word],
        "env": {word: "${" + word + "}"},
        "cwd": word,
    }
    assert tomli.loads(toml_table("bare", Entry("bare", "run")))["servers"]["bare"] == {"command": "run"}


FAILURES: list[tuple[str, str, Any, type[Exception], type[errors.BrokerError], str]] = [
    ("rogue", "ecko", {}, ValueError, errors.UnknownTool, "no tool 'ecko'.*did you mean echo"),
    ("rogue", "echo", {"text": float("nan")}, ValueError, errors.InvalidRequest, "nan.*JSON"),
    ("rogue", "echo", {"text": object()}, ValueError, errors.InvalidRequest, "text.*object"),
    ("rogue", "jsonrpc_error", {"message": "no soap"}, RuntimeError, errors.ServerError, "no soap"),
    ("rogue", "bad_reply", {"kind": "truncated"}, RuntimeError, errors.InvalidReply, "'rogue'"),
    ("rogue", "hang", {}, RuntimeError, errors.DeadlineExceeded, "did not answer.*gives it 0.2 s"),
    ("rogue", "crash", {}, ConnectionError, errors.ServerDied, "'rogue' ended.*unknown"),
    ("off", "echo", {}, RuntimeError, errors.ServerDisabled, "'off' is switched off"),
    ("broken", "echo", {}, RuntimeError, errors.ServerDown, "'broken' is down"),
]
"""Server, tool and arguments of a call; what it raises, because of what, in which words."""


@pytest.mark.parametrize(
    ("server", "tool", "arguments", "kind", "cause", "words"),
    FAILURES,
    ids=[f"{cause.__name__}-{tool}" for _, tool, _, _, cause, _ in FAILURES],
)
def test_a_failed_call_raises_one_of_three(
    broker: RunningBroker,
    server: str,
    tool: str,
    arguments: Any,
    kind: type[Exception],
    cause: type[errors.BrokerError],
    words: str,
) -> None:
    """The backend catches ValueError, RuntimeError and ConnectionError; the cause says more to who asks."""

    async def main() -> None:
        client = MCPClient(having(server, timeout=0.2 if tool == "hang" else None))
        said = await fails(client.call_tool(server, tool, arguments), kind, cause)
        with pytest.raises(kind, match=words):
            raise kind(said)
        await client.aclose()

    run(main())
    broker.wait_state("rogue", "ready")  # for the next test


@pytest.mark.parametrize("arguments", [[], "{}", 7, ["a"]])
def test_arguments_are_an_object(arguments: Any) -> None:
    """A model may write any JSON; only an object can be the arguments of a tool."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r"tool 'echo' of server 'rogue'.*must be an object"):
            await MCPClient(having("rogue")).call_tool("rogue", "echo", arguments)

    run(main())


def test_without_a_broker_it_is_a_runtime_error(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The design, section 4: a server that cannot be reached; the next try looks again."""
    monkeypatch.setattr("client_shim.backend.mcp_client.RECONNECT_S", 0.1)

    async def main() -> None:
        client = MCPClient(having("rogue"))
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", f"{endpoint}-not-there")
        for call in (client.list_tools("rogue"), client.call_tool("rogue", "echo", {})):
            words = await fails(call, RuntimeError, errors.NoBroker)
            assert "server 'rogue' cannot be reached: no broker at ipc://" in words
            assert "mcp-broker serve" in words
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", endpoint)
        assert await text_of(client, "rogue", "echo") == "{}"
        await client.aclose()

    run(main())


# --- timeouts --------------------------------------------------------------------------------------------


@asynccontextmanager
async def hearing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peer]:
    """A peer in the place of the broker."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder, Peer(f"ipc://{folder}/s") as peer:
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", f"ipc://{folder}/s")
        yield peer


@pytest.mark.parametrize(
    ("given", "timeout_ms"),
    [
        (None, 30_000),
        (timedelta(seconds=2.5), 2_500),
        (2, 2_000),
        (0.25, 250),
        (0, 30_000),
        (timedelta(0), 30_000),
    ],
)
def test_the_timeout_of_the_registry_is_the_deadline(
    monkeypatch: pytest.MonkeyPatch, given: Any, timeout_ms: int
) -> None:
    """The design, section 4: a timedelta, a number or None, which is 30 s; for lists and calls."""

    async def main() -> None:
        async with hearing(monkeypatch) as peer:
            client = MCPClient(having("s", timeout=given))
            calls = [client.list_tools("s"), client.call_tool("s", "t", {})]
            tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(call) for call in calls]
            await peer.greet()
            for heard in [await peer.heard() for _ in tasks]:
                assert isinstance(heard.message, Request)
                left_ms = heard.message.timeout_ms
                assert left_ms is not None
                assert max(0, timeout_ms - 5_000) < left_ms <= timeout_ms  # less what connecting took
                peer.result(heard, b'{"tools": []}')
            await asyncio.gather(*tasks)
            await client.aclose()

    run(main())


@pytest.mark.parametrize("given", [-1, timedelta(seconds=-1), float("inf"), float("nan"), "30", True])
def test_a_timeout_that_is_none_is_refused(given: Any) -> None:
    """Law 8: rather an error than a deadline that nobody meant."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r"'rogue': the timeout .* in the registry"):
            await MCPClient(having("rogue", timeout=given)).list_tools("rogue")

    run(main())
