"""The servers that the other tests drive do what their flags and tools promise."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.driver import (
    INITIALIZE,
    META,
    MODERN_META,
    PATIENCE_S,
    ROGUE,
    Driven,
    Object,
    legacy,
    modern,
    with_keys,
)
from tests.servers.rogue_tools import TABLE

Start = Callable[..., Driven]
both_eras = pytest.mark.parametrize("start", [legacy, modern])

SERVERS = Path(__file__).resolve().parents[1] / "servers"
MCP1_PYTHON = SERVERS.parent.parent / ".venv-mcp1" / "bin" / "python"


# Handshakes


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), [-32601, "2025-11-25"]),
        (("--protocol", "2025-03-26"), [-32601, "2025-03-26"]),
        (("--bad-version",), [-32601, "1999-01-01"]),
        (("--era", "modern"), [["2026-07-28"], -32022]),
        (("--era", "dual"), [["2026-07-28"], -32022]),
        (("--era", "dual", "--silent-on-discover"), [None, "2025-11-25"]),
        (("--silent-on-discover",), [None, "2025-11-25"]),
    ],
)
def test_answers_the_probe_then_initialize(flags: tuple[str, ...], expected: list[object]) -> None:
    """Guards `--era`, `--protocol`, `--bad-version`, `--silent-on-discover`: what each handshake is told."""
    with Driven(*ROGUE, *flags) as server:
        probe = server.begin("server/discover", meta=MODERN_META)
        shaken = server.ask("initialize", INITIALIZE)
        # Both are served by the reading thread: an answer to the probe would have come first.
        probed = server.answer(probe) if expected[0] is not None else {}
        told = [
            probed.get("error", {}).get("code") or probed.get("result", {}).get("supportedVersions"),
            shaken.get("error", {}).get("code") or shaken.get("result", {}).get("protocolVersion"),
        ]
        assert told == expected
        assert "server/discover" not in str(server.unasked)


def test_dual_is_legacy_when_initialize_comes_first() -> None:
    """Guards `--era dual`: what comes first settles it for the pipe."""
    with Driven(*ROGUE, "--era", "dual").open_legacy() as server:
        assert server.ask("server/discover", meta=MODERN_META)["error"]["code"] == -32601
        assert "resultType" not in server.ask("tools/list")["result"]


@both_eras
def test_no_capabilities(start: Start) -> None:
    """Guards `--no-capabilities`, and that there are some without it."""
    method = "server/discover" if start is modern else "initialize"
    meta = MODERN_META if start is modern else None
    for flags, empty in ((["--no-capabilities"], True), ([], False)):
        with Driven(*ROGUE, "--era", start.__name__, *flags) as server:
            result = server.ask(method, INITIALIZE, meta=meta)["result"]
            assert (result["capabilities"] == {}) is empty


@pytest.mark.parametrize(
    ("flag", "method", "status"),
    [
        (("--exit-on-discover", "7"), "server/discover", 7),
        (("--die-in-handshake",), "server/discover", 1),
        (("--die-in-handshake",), "initialize", 1),
    ],
)
def test_dies_in_the_handshake(flag: tuple[str, ...], method: str, status: int) -> None:
    """Guards `--exit-on-discover` and `--die-in-handshake`: the process ends and says nothing."""
    with Driven(*ROGUE, *flag) as server:
        server.begin(method, INITIALIZE)
        assert (server.out.rest(), server.status()) == (b"", status)


def test_exit_on_discover_spares_initialize() -> None:
    """Guards `--exit-on-discover`: the respawned server can be used as a legacy one."""
    with legacy("--exit-on-discover", "7") as server:
        assert server.call("echo", a=1) == {"a": 1}


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({}, -32602),
        ({META + "protocolVersion": "2026-07-28"}, -32602),
        ({META + "clientCapabilities": {}}, -32602),
        (with_keys(MODERN_META, protocolVersion="1900-01-01"), -32022),
    ],
)
def test_modern_wants_its_meta_on_every_request(meta: Object, code: int) -> None:
    """Guards the modern era: version and capabilities on each request, or -32602; another version, -32022."""
    with Driven(*ROGUE, "--era", "modern", meta=meta) as server:
        assert server.ask("tools/list")["error"]["code"] == code
        server.meta = MODERN_META
        assert len(server.call("violations")) == (code == -32602)


@pytest.mark.parametrize("method", ["ping", "logging/setLevel", "resources/subscribe", "no/such"])
def test_modern_lacks_what_the_revision_removed(method: str) -> None:
    """Guards the modern era's table of methods."""
    with modern() as server:
        assert server.ask(method)["error"]["code"] == -32601


def test_modern_results_are_dressed() -> None:
    """Guards `--ttl-ms`, `--cache-scope` and the fields that every modern result has."""
    with modern("--ttl-ms", "5", "--cache-scope", "private") as server:
        listed = server.ask("tools/list")["result"]
        called = server.ask("tools/call", {"name": "empty"})["result"]
        assert (listed["resultType"], listed["ttlMs"], listed["cacheScope"]) == ("complete", 5, "private")
        assert called.keys() == {"resultType", "content", "isError", "_meta"}


# Lists, resources, prompts


@both_eras
def test_every_tool_is_listed(start: Start) -> None:
    """Guards the list: every tool of the table, with a description and the schema of an object."""
    with start() as server:
        tools = server.ask("tools/list")["result"]["tools"]
        assert [tool["name"] for tool in tools] == list(TABLE)
        assert all(tool["description"] and tool["inputSchema"]["type"] == "object" for tool in tools)


@pytest.mark.parametrize("flags", [(), ("--empty-cursor",), ("--shuffle",), ("--shuffle", "--empty-cursor")])
@pytest.mark.parametrize(
    ("method", "key", "size"),
    [("tools/list", "tools", 5), ("resources/list", "resources", 2), ("prompts/list", "prompts", 1)],
)
def test_pages(flags: tuple[str, ...], method: str, key: str, size: int) -> None:
    """Guards `--page-size` and `--empty-cursor`: the pages together are the list, each item once."""
    with legacy() as server:
        whole = server.ask(method)["result"][key]
    with legacy("--page-size", str(size), *flags) as server:
        pages = list(server.pages(method, key))
        assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
        assert sorted(str(item) for page in pages for item in page) == sorted(map(str, whole))
        cursor = server.ask(method)["result"]["nextCursor"]
        assert (cursor == "") is ("--empty-cursor" in flags)


def test_a_cursor_that_was_never_given_is_refused() -> None:
    """Guards pagination: -32602, and "" is no cursor unless it was given."""
    with legacy() as server:
        assert server.ask("tools/list", {"cursor": ""})["error"]["code"] == -32602
        assert server.ask("tools/list", {"cursor": "nonsense"})["error"]["code"] == -32602


def test_endless_pages_never_end() -> None:
    """Guards `--endless-pages`: there is always one more page."""
    with legacy("--page-size", "20", "--endless-pages") as server:
        assert len(list(server.pages("tools/list", "tools", at_most=12))) == 12


def test_shuffle_gives_another_order() -> None:
    """Guards `--shuffle`: the same list again is in another order (equal by chance: one in 28!)."""
    with legacy("--shuffle") as server:
        orders = [str(server.ask("tools/list")["result"]["tools"]) for _ in range(2)]
        assert orders[0] != orders[1]


@both_eras
def test_resources_prompts_and_completion(start: Start) -> None:
    """Guards what else can be asked for, and the code of an unknown resource in each era."""
    with start() as server:
        read = server.ask("resources/read", {"uri": "note://7"})["result"]
        unknown = server.ask("resources/read", {"uri": "else://7"})["error"]
        templates = server.ask("resources/templates/list")["result"]["resourceTemplates"]
        prompt = server.ask("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}})["result"]
        reference = {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "name", "value": "A"},
        }
        completed = server.ask("completion/complete", reference)["result"]
        assert read["contents"][0]["text"] == "note 7"
        assert unknown["code"] == (-32602 if start is modern else -32002)
        assert templates[0]["uriTemplate"] == "note://{id}"
        assert prompt["messages"][0]["content"]["text"] == "Hello, Ada!"
        assert completed["completion"]["values"] == ["Ada", "Alan"]


# What a client must keep to

CALL = '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"hang","_meta":{"progressToken":%s}}}'


@pytest.mark.parametrize(
    ("lines", "breach"),
    [
        (["{"], "malformed line"),
        (['{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}'], "malformed line"),
        (["[]"], "malformed line"),
        (['{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}'], "malformed line"),
        (['{"jsonrpc":"2.0","id":1,"method":"pi\\u006eg",\r"params":{}}'], "malformed line"),
        (['{"jsonrpc":"2.0","id":null,"method":"ping"}'], "neither integer nor string"),
        ([CALL % (7, 1), CALL % (7, 2)], "id 7 is in use"),
        ([CALL % (7, 1), CALL % (8, 1)], "progress token 1 is in use"),
        (['{"jsonrpc":"2.0","id":99,"result":{}}'], "nothing that was asked"),
        (['{"jsonrpc":"2.0","method":"notifications/cancelled"}'], "notifications/cancelled"),
        (['{"jsonrpc":"2.0","id":9,"method":"initialize"}'], "a second time"),
    ],
)
def test_breaches_are_kept(lines: list[str], breach: str) -> None:
    """Guards `violations`: what the specification forbids to a client is seen, and serving goes on."""
    with legacy() as server:
        server.write(("\n".join(lines) + "\n").encode())
        found = server.call("violations")
        assert found
        assert breach in found[0]


def test_a_request_before_the_handshake_is_a_breach() -> None:
    """Guards `violations`: the legacy era begins with `initialize` and `notifications/initialized`."""
    with Driven(*ROGUE) as server:
        assert "result" in server.ask("ping")
        assert server.ask("tools/list")["error"]["code"] == -32602
        assert server.open_legacy().call("violations") == ["tools/list before notifications/initialized"]


def test_a_bare_cr_ends_a_line() -> None:
    """Guards the trap of the bare CR: what hides between two of them is served as a request."""
    with legacy() as server:
        server.write(b'{"jsonrpc":"2.0","id":1,\r{"jsonrpc":"2.0","id":99,"method":"ping"}\r}\n')
        assert server.answer(99)["result"] == {}


# The SDK


def check_sdk_server(server: Driven) -> None:
    """What both of the SDK's servers do, in whichever era."""
    assert server.call("add", a=1, b=2) == 3
    assert server.call("echo", text="é") == "é 漢字 ü 🙂"
    assert server.call("slow", steps=2, meta={"progressToken": "t"}) == "2 steps"
    reports = [server.until_unasked("notifications/progress")["params"] for _ in range(2)]
    assert [(report["progressToken"], report["progress"]) for report in reports] == [("t", 1), ("t", 2)]
    picture = server.answer(server.begin_call("picture"))["result"]["content"]
    assert picture == [{"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}]
    broken = server.answer(server.begin_call("broken"))["result"]
    assert (broken["isError"], "it is broken" in broken["content"][0]["text"]) == (True, True)
    assert server.ask("resources/read", {"uri": "note://hello"})["result"]["contents"][0]["text"] == "hello"
    prompt = server.ask("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}})["result"]
    assert prompt["messages"][0]["content"]["text"] == "Hello, Ada!"


@pytest.mark.skipif(not MCP1_PYTHON.exists(), reason="needs .venv-mcp1 with mcp<2: `make test` makes it")
def test_sdk1_server() -> None:
    """Guards `sdk1_server.py`: the tools, the resource and the prompt, on the 1.x SDK."""
    with Driven(str(MCP1_PYTHON), str(SERVERS / "sdk1_server.py")).open_legacy() as server:
        check_sdk_server(server)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_sdk2_server(era: str) -> None:
    """Guards `sdk2_server.py`: the same in both eras of the 2.x SDK."""
    with Driven(sys.executable, str(SERVERS / "sdk2_server.py")) as server:
        if era == "legacy":
            server.open_legacy()
        else:
            server.meta = MODERN_META
        check_sdk_server(server)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_sdk_takes_rogue_for_a_server(era: str) -> None:
    """Guards rogue.py against our reading of the specification: the SDK finds nothing wrong with it."""
    from mcp import Client, StdioServerParameters

    async def use() -> tuple[str, object, list[int]]:
        reports: list[int] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            reports.append(int(progress))

        command = StdioServerParameters(command=ROGUE[0], args=[*ROGUE[1:], "--era", era, "--page-size", "9"])
        async with Client(command) as client:
            page = await client.list_tools()
            await client.read_resource("note://1")
            await client.get_prompt("greet", {"name": "Ada"})
            await client.call_tool("progress", {"steps": 2}, progress_callback=note)
            breaches = await client.call_tool("violations", {})
            return page.next_cursor or "", breaches.content[0], reports

    cursor, breaches, reports = asyncio.run(asyncio.wait_for(use(), PATIENCE_S))
    assert (bool(cursor), getattr(breaches, "text", None), reports) == (True, "[]", [1, 2])
