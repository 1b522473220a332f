"""`MCPClient` as the backend uses it: what it takes, what it gives, what it logs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from types import ModuleType

import pytest

from client_shim import MCPClient
from client_shim.backend.mcp_client import ServerSession
from tests.client_shim.backend.kit import having, run, text_of

pytestmark = pytest.mark.usefixtures("endpoint", "loops")

# --- making one ------------------------------------------------------------------------------------------


def test_it_is_made_as_the_backend_makes_it() -> None:
    """The design, section 4: the constructor and the attributes that its diagnostics read; no loop needed."""
    registry, page = having("rogue"), object()
    for client in (
        MCPClient(registry, print, "uid"),
        MCPClient(server_registery=registry, send_text=print, client_uid="uid"),
    ):
        assert (client.server_registery, client._send_text, client._client_uid) == (registry, print, "uid")
        assert (client.active_sessions, client._list_tools_cache) == ({}, {})
        assert hasattr(client.exit_stack, "aclose")
    with pytest.raises(TypeError, match=r"get_server\(name\)"):
        MCPClient(page)  # type: ignore[arg-type]


def test_leaving_it_closes_it_and_hides_no_error() -> None:
    """`async with` is how the backend lists tools; what it keeps on the exit stack is unwound as well."""

    async def main() -> None:
        client, left = MCPClient(having("rogue")), list[str]()

        async def page() -> None:
            async with client as entered:
                entered.exit_stack.callback(left.append, "the backend's own")
                await entered.list_tools("rogue")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await page()
        assert (client.active_sessions, client._list_tools_cache) == ({}, {})
        assert left == ["the backend's own"]

    run(main())


# --- tools -----------------------------------------------------------------------------------------------


def test_a_tool_is_an_object_with_a_schema() -> None:
    """The backend reads `.name`, `.description` and `.inputSchema`; its forks, what newer SDKs have."""

    async def main() -> None:
        async with MCPClient(having("rogue")) as client:
            tools = {tool.name: tool for tool in await client.list_tools(server_name="rogue")}
            echo = tools["echo"]
            assert echo.description == "Returns its arguments as the JSON text they came in."
            assert echo.inputSchema.get("properties", {}) == {"text": {}}
            assert echo.inputSchema.get("required", []) == []
            assert echo.input_schema == echo.inputSchema
            assert echo.model_dump()["inputSchema"] == echo.inputSchema
            assert client._list_tools_cache == {"rogue": list(tools.values())}
            assert list(client.active_sessions) == ["rogue"]

    run(main())


def test_a_list_is_never_older_than_the_server_s_own() -> None:
    """A page that stays open for days sees a tool that came meanwhile."""

    async def main() -> None:
        async with MCPClient(having("rogue")) as client:
            before = {tool.name for tool in await client.list_tools("rogue")}
            await text_of(client, "rogue", "add_tool", {"name": "later"})
            while (names := {tool.name for tool in await client.list_tools("rogue")}) == before:
                await asyncio.sleep(0.01)
            assert names == {*before, "later"}
            await text_of(client, "rogue", "remove_tool", {"name": "later"})

    run(main())


# --- calls -----------------------------------------------------------------------------------------------


def test_a_call_passes_its_arguments_and_gives_the_two_keys() -> None:
    """By position and by keyword, with Unicode, with nothing."""

    async def main() -> None:
        arguments = {"text": "漢字 🙂", "deep": [{"x": None}]}
        async with MCPClient(having("rogue")) as client:
            by_keyword = await client.call_tool(server_name="rogue", tool_name="echo", tool_args=arguments)
            assert by_keyword == await client.call_tool("rogue", "echo", arguments)
            assert sorted(by_keyword) == ["content_items", "metadata"]
            (item,) = by_keyword["content_items"]
            assert (item["type"], json.loads(item["text"])) == ("text", arguments)
            assert await text_of(client, "rogue", "echo", None) == "{}"

    run(main())


def test_what_a_tool_says_when_it_fails_or_says_nothing() -> None:
    """The design, section 4: a tool error is one item of type `error`, an empty result one empty text."""

    async def main() -> None:
        async with MCPClient(having("rogue")) as client:
            failed = await client.call_tool("rogue", "fail", {"text": "out of soap"})
            assert failed == {"metadata": {}, "content_items": [{"type": "error", "text": "out of soap"}]}
            empty = await client.call_tool("rogue", "empty", {})
            assert empty == {"metadata": {}, "content_items": [{"type": "text", "text": ""}]}

    run(main())


# --- sessions --------------------------------------------------------------------------------------------


def test_a_session_tells_whether_its_server_is_ready() -> None:
    """The design, section 4: diagnostics ping sessions and close them, in a loop over the table."""

    async def main() -> None:
        client = MCPClient(having("rogue", "off"))
        await client.list_tools("rogue")
        rogue = client.active_sessions["rogue"]
        await rogue.ping()
        client.active_sessions["off"] = ServerSession(client, "off")
        with pytest.raises(RuntimeError, match=r"'off' is disabled at the broker.*mcp-broker status"):
            await client.active_sessions["off"].ping()
        for each in list(client.active_sessions.values()):
            await each.close()
            await each.close()
        assert (client.active_sessions, client._list_tools_cache) == ({}, {})
        with pytest.raises(RuntimeError, match="was closed"):
            await rogue.ping()
        await client.list_tools("rogue")
        await client.active_sessions["rogue"].ping()
        await client.aclose()

    run(main())


# --- the log ---------------------------------------------------------------------------------------------


async def some_lines() -> None:
    """A page that uses a server, calls two tools, and is refused one."""
    async with MCPClient(having("rogue"), None, "page 7") as client:
        await client.list_tools("rogue")
        await text_of(client, "rogue", "echo", {"text": "private"})
        await client.call_tool("rogue", "fail", {"text": "out of\nsoap"})
        with pytest.raises(ValueError, match="nope"):
            await client.call_tool("rogue", "nope", {"text": "private"})


SAID = [
    ("INFO", "MCPClient page 7: uses server 'rogue' of the broker"),
    ("INFO", "MCPClient page 7: calls tool 'echo' of server 'rogue'"),
    ("INFO", "MCPClient page 7: calls tool 'fail' of server 'rogue'"),
    ("ERROR", "MCPClient page 7: tool 'fail' of server 'rogue': out of soap"),
    ("INFO", "MCPClient page 7: calls tool 'nope' of server 'rogue'"),
    ("ERROR", "MCPClient page 7: server 'rogue' has no tool 'nope'"),
    ("INFO", "MCPClient page 7: closes, with rogue in use"),
]


def test_it_logs_a_line_for_each_thing_that_happens(caplog: pytest.LogCaptureFixture) -> None:
    """As the original: use, calls, errors, the end. No arguments and no answers."""
    caplog.set_level(logging.INFO, "client_shim")
    run(some_lines())
    lines = [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]
    assert lines == SAID


class Loguru:
    """The part of loguru's logger that is used."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def opt(self, *, exception: BaseException | None) -> Loguru:
        assert exception is None
        return self

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text.partition(";")[0]))


def test_it_logs_with_loguru_where_the_backend_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The design, section 4: the backend bridges nothing from `logging`, where the lines would be lost."""
    caplog.set_level(logging.INFO, "client_shim")
    loguru, logger = ModuleType("loguru"), Loguru()
    loguru.logger = logger  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "loguru", loguru)
    run(some_lines())
    assert logger.lines == SAID
    assert caplog.records == []
