"""The catalogue: every page of a list, as one page, in an order of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.tolerances import Oddity
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.methods import MODERN_VERSION, Era
from broker.core.servers.catalogue import LISTS, Catalogue, Listing, changed_lists, lists_for
from broker.core.servers.reading import MAX_CURSOR_BYTES, MAX_ITEMS, MAX_PAGES, MAX_TTL_MS, Reading
from tests.core.fake_server import Json

MAX_BYTES = 100_000


def reading(method: str = "tools/list", max_bytes: int = MAX_BYTES) -> Reading:
    """A list that is about to be read."""
    return Reading(method, max_bytes)


def page(*names: str, cursor: object = None, **hints: object) -> memoryview:
    """One page of tools."""
    result = {"tools": [{"name": name} for name in names], **hints}
    if cursor is not None:
        result["nextCursor"] = cursor
    return memoryview(json.dumps(result).encode())


def body(list_: Reading, era: Era = Era.LEGACY) -> Any:
    """The list as a client gets it."""
    return json.loads(list_.listing(era).body(0.0))


# --- pages -------------------------------------------------------------------------------------------


def test_pages_become_one() -> None:
    """Section 2: clients get one page; the cursors are between broker and server."""
    tools = reading()
    assert tools.page(page("c", "a", cursor="2"), 0.0) == b'{"cursor":"2"}'
    assert tools.page(page("b", cursor="今"), 0.0) == '{"cursor":"今"}'.encode()
    assert tools.page(page(), 0.0) is None
    assert body(tools) == {"tools": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}


def odd(list_: Reading) -> list[str]:
    """What was put up with in it."""
    return [one.oddity.value for one in list_.odd]


@pytest.mark.parametrize("cursor", [2, 2.5, True, {}, []])
def test_a_cursor_that_is_none_ends_the_list(cursor: object) -> None:
    """An optional field of the wrong type costs that field."""
    tools = reading()
    assert tools.page(page("a", cursor=cursor), 0.0) is None
    assert body(tools) == {"tools": [{"name": "a"}]}
    assert odd(tools) == ["cursor-not-a-string"]
    assert tools.listing(Era.LEGACY).partial


@pytest.mark.parametrize("last", [page("a"), page("a", cursor=""), page(), page(cursor="")])
def test_an_empty_cursor_that_leads_nowhere_ends_the_list(last: memoryview) -> None:
    """Many servers end their lists with "". Cursors are opaque, so it is tried."""
    tools = reading()
    assert tools.page(page("a", cursor=""), 0.0) == b'{"cursor":""}'
    assert tools.page(last, 0.0) is None
    assert body(tools) == {"tools": [{"name": "a"}]}
    assert not tools.listing(Era.LEGACY).partial


def test_an_empty_cursor_that_leads_on_is_a_cursor() -> None:
    """The specification: cursors are opaque, and only an absent one ends the list."""
    tools = reading()
    tools.page(page("a", cursor=""), 0.0)
    assert tools.page(page("b", cursor="c"), 0.0) == b'{"cursor":"c"}'
    assert tools.page(page("d"), 0.0) is None
    assert len(body(tools)["tools"]) == 3
    assert odd(tools) == []


def test_a_null_cursor_is_none() -> None:
    """Servers whose serializer writes every field mean the end by it."""
    assert reading().page(memoryview(b'{"tools":[],"nextCursor":null}'), 0.0) is None


@pytest.mark.parametrize("cursors", [["a", "a"], ["a", "b", "a"]])
def test_cursors_that_come_again_end_the_list(cursors: list[str]) -> None:
    """Law 6: a list is not read in a circle. What was read of it is kept."""
    tools = reading()
    for number, cursor in enumerate(cursors[:-1]):
        assert tools.page(page(str(number), cursor=cursor), 0.0) is not None
    assert tools.page(page("last", cursor=cursors[-1]), 0.0) is None
    assert len(body(tools)["tools"]) == len(cursors)
    assert (odd(tools), tools.listing(Era.LEGACY).partial) == (["cursor-again"], True)


def test_a_page_that_brings_nothing_new_ends_the_list() -> None:
    """A server that ignores the cursor, and always gives another one."""
    tools = reading()
    assert tools.page(page("a", "b", cursor="1"), 0.0) is not None
    assert tools.page(page("a", "b", cursor="2"), 0.0) is None
    assert body(tools) == {"tools": [{"name": "a"}, {"name": "b"}]}
    assert odd(tools) == ["page-again"]


def test_a_list_without_an_end_is_cut() -> None:
    """Law 6: new cursors for ever are no better than old ones."""
    tools = reading()
    for number in range(MAX_PAGES):
        assert tools.page(page(str(number), cursor=str(number)), 0.0) is not None
    assert tools.page(page("last", cursor="one more"), 0.0) is None
    assert odd(tools) == ["list-too-long"]
    assert len(body(tools)["tools"]) == MAX_PAGES + 1


def test_a_long_cursor_ends_the_list() -> None:
    """Laws 5 and 6: each cursor is kept and sent back, so that one of 32 MiB took three times its size."""
    tools = reading()
    assert tools.page(page("a", cursor="x" * MAX_CURSOR_BYTES), 0.0) is None
    assert odd(tools) == ["list-too-long"]
    assert body(tools) == {"tools": [{"name": "a"}]}


@pytest.mark.parametrize("hint", ["ttlMs", "cacheScope", "resultType"])
def test_a_hint_of_any_length_is_not_taken_apart(hint: str) -> None:
    """Laws 5 and 6: as plain data a list in its place would take many times the memory of its text."""
    tools = reading(max_bytes=10**9)
    tools.page(page("a", **{hint: [[]] * 1000}), 0.0)
    assert body(tools, Era.MODERN)["ttlMs"] == 0


def test_a_list_of_very_many_items_is_cut() -> None:
    """Law 5: each is looked at, and nobody else has a turn meanwhile; on however many pages they come."""
    tools = reading(max_bytes=10**9)
    tools.page(page(*map(str, range(MAX_ITEMS)), cursor="a"), 0.0)
    assert tools.page(page("one more", cursor="b"), 0.0) is None
    assert (odd(tools), len(tools.listing(Era.LEGACY).items)) == (["list-too-long"], MAX_ITEMS)
    with pytest.raises(ValueError, match=f"{MAX_ITEMS}"):
        reading(max_bytes=10**9).page(page(*map(str, range(MAX_ITEMS + 1))), 0.0)


def test_what_the_cursors_take_counts() -> None:
    """Law 6: each is kept, so that none comes again."""
    tools = reading(max_bytes=1000)
    assert tools.page(page(cursor="a" * 1000), 0.0) is not None
    assert tools.page(page(cursor="b"), 0.0) is None
    assert odd(tools) == ["list-too-long"]


def test_a_list_above_the_limit_is_cut() -> None:
    """Law 6: the limit is on the list, not on the page, and names its key."""
    tools = reading(max_bytes=1000)
    for number in range(9):
        tools.page(page("x" * 90 + str(number), cursor=str(number)), 0.0)
    assert tools.page(page("y" * 200), 0.0) is None
    (cut,) = tools.odd
    assert cut.facts["most"] == "1000 bytes (limits.max_message_bytes)"
    assert len(tools.listing(Era.LEGACY).items) == 9


def test_items_that_repeat_count_against_the_limit() -> None:
    """Law 6: else one item could be sent for ever."""
    tools = reading(max_bytes=1000)
    tools.page(page(*["x" * 100] * 20), 0.0)
    assert odd(tools) == ["list-too-long"]


@pytest.mark.parametrize(
    "item", ["null", "5", '"a"', "[]", "{}", '{"name":5}', '{"name":null}', '{"title":"a"}']
)
def test_a_bad_item_costs_that_item(item: str) -> None:
    """A client gets the others, and `status` tells of it."""
    tools = reading()
    tools.page(memoryview(f'{{"tools":[{{"name":"b"}},{item},{{"name":"a"}}]}}'.encode()), 0.0)
    assert body(tools) == {"tools": [{"name": "b"}, {"name": "a"}]}
    (left_out,) = tools.odd
    assert (left_out.oddity, left_out.facts["count"]) == (Oddity.BAD_ITEM, 1)
    assert item in str(left_out.facts["reason"])


@pytest.mark.parametrize(
    "result", [b"{}", b'{"tools":null}', b'{"other":[]}', b'{"tools":null,"nextCursor":null}']
)
def test_a_list_that_is_null_or_absent_is_empty(result: bytes) -> None:
    """Go writes an empty slice as null."""
    tools = reading()
    assert tools.page(memoryview(result), 0.0) is None
    assert body(tools) == {"tools": []}
    assert odd(tools) == ["list-missing"]


@pytest.mark.parametrize(
    "result",
    [
        b"[]",
        b"null",
        b'{"tools":5}',
        b'{"tools":{}}',
        b'{"tools":"none"}',
        b'{"resultType":"input_required","inputRequests":{}}',
        b'{"resultType":"of a kind that is new","tools":[]}',
    ],
)
def test_a_page_that_is_none_is_refused(result: bytes) -> None:
    """Law 8: what is no list is not taken for an empty one. msgspec's errors are ValueErrors too."""
    with pytest.raises(ValueError, match=r"."):
        reading().page(memoryview(result), 0.0)


@pytest.mark.parametrize(
    ("method", "member", "key"),
    [
        ("tools/list", "tools", "name"),
        ("prompts/list", "prompts", "name"),
        ("resources/list", "resources", "uri"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate"),
    ],
)
def test_each_list_has_its_own_names(method: str, member: str, key: str) -> None:
    """The specification: resources go by uri, the others by name."""
    items = reading(method)
    items.page(
        memoryview(json.dumps({member: [{key: "b", "title": "x"}, {key: "a"}], "other": []}).encode()), 0.0
    )
    assert body(items) == {member: [{key: "b", "title": "x"}, {key: "a"}]}


# --- order and bytes ---------------------------------------------------------------------------------

items = st.lists(
    st.fixed_dictionaries({"name": st.text(max_size=4), "title": st.integers()}),
    max_size=8,
    unique_by=lambda item: item["name"],
)


@given(items, st.integers(1, 4))
def test_the_order_is_the_servers(tools: list[Any], size: int) -> None:
    """Hosts show the tools in it, and models see it. How the server cuts its pages makes no difference."""
    one, many = reading(), reading()
    one.page(memoryview(json.dumps({"tools": tools}).encode()), 0.0)
    for start in range(0, len(tools), size):
        many.page(memoryview(json.dumps({"tools": tools[start : start + size]}).encode()), 0.0)
    assert one.listing(Era.LEGACY) == many.listing(Era.LEGACY)
    assert tools == body(one)["tools"]


def test_an_item_is_the_bytes_it_came_in() -> None:
    """Law 7: a schema with a number beyond a double stays what it is."""
    item = rb'{ "name":"a", "inputSchema":{"maximum":1e999,"x":"\u00e9"} }'
    tools = reading()
    tools.page(memoryview(b'{"tools":[' + item + b"]}"), 0.0)
    assert item in tools.listing(Era.LEGACY).body(0.0)


def test_of_two_items_with_one_name_the_first_stays() -> None:
    """Law 9: it is counted, so that it can be logged."""
    tools = reading()
    tools.page(memoryview(b'{"tools":[{"name":"a","n":1},{"name":"a","n":2}],"nextCursor":"x"}'), 0.0)
    tools.page(memoryview(b'{"tools":[{"name":"a","n":3}]}'), 0.0)
    assert body(tools) == {"tools": [{"name": "a", "n": 1}]}
    (left_out,) = tools.odd
    assert (left_out.oddity, left_out.facts["count"]) == (Oddity.SAME_NAME, 2)


# --- what a modern list says of itself ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("pages", "ttl_ms", "scope"),
    [
        ([{}], 0, "private"),
        ([{"ttlMs": 5000, "cacheScope": "public"}], 5000, "public"),
        ([{"ttlMs": 5000, "cacheScope": "public"}, {"ttlMs": 10, "cacheScope": "public"}], 10, "public"),
        (
            [{"ttlMs": 5000, "cacheScope": "public"}, {"ttlMs": 9000, "cacheScope": "private"}],
            5000,
            "private",
        ),
        ([{"ttlMs": 5000, "cacheScope": "public"}, {}], 0, "private"),
        ([{"ttlMs": -5, "cacheScope": "public"}], 0, "public"),
        ([{"ttlMs": 10**400, "cacheScope": "public"}], MAX_TTL_MS, "public"),
        ([{"ttlMs": 1.7e308, "cacheScope": "public"}], MAX_TTL_MS, "public"),
        ([{"ttlMs": 1, "cacheScope": "of a kind that is new"}], 1, "private"),
    ],
)
def test_a_modern_list_has_its_hints(pages: list[dict[str, object]], ttl_ms: int, scope: str) -> None:
    """2026-07-28: `resultType`, `ttlMs` and `cacheScope`; of several pages the most careful word."""
    tools = reading()
    for hints in pages:
        tools.page(page(**hints), 0.0)
    assert body(tools, Era.MODERN) == {
        "resultType": "complete",
        "ttlMs": ttl_ms,
        "cacheScope": scope,
        "tools": [],
    }


def test_a_legacy_list_has_none() -> None:
    """2025-11-25: its schema does not know them."""
    tools = reading()
    tools.page(page("a", ttlMs=5), 0.0)
    assert body(tools) == {"tools": [{"name": "a"}]}


# --- the whole ---------------------------------------------------------------------------------------


def agreed(**fields: object) -> Agreed:
    """What a server said of itself."""
    usual: dict[str, Any] = {
        "era": Era.LEGACY,
        "version": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}},
        "server_info": {"name": "s"},
        "instructions": None,
    }
    return Agreed(**usual | fields)


def test_a_catalogue_knows_whether_a_list_is_another_one() -> None:
    """Section 2: only a change is a change."""
    catalogue = Catalogue(agreed())
    assert catalogue.put("tools/list", Listing("tools", {"a": b"1"}))
    assert not catalogue.put("tools/list", Listing("tools", {"a": b"1"}))
    assert catalogue.put("tools/list", Listing("tools", {"b": b"2"}))
    assert catalogue.names("tools/list") == {"b"}
    assert catalogue.answer("tools/list", 0.0) == b'{"tools":[2]}'


def test_a_list_that_the_server_lacks_is_an_empty_one() -> None:
    """As in both SDKs. A list that was not read does not count: law 8."""
    catalogue = Catalogue(agreed())
    assert catalogue.answer("prompts/list", 0.0) is None
    assert catalogue.is_stale("prompts/list", 0.0, lambda _: True)  # it is asked for once, declared or not
    catalogue.lacks("prompts/list")
    assert catalogue.answer("prompts/list", 0.0) == b'{"prompts":[]}'
    assert not catalogue.is_stale("prompts/list", 0.0, lambda _: True)
    assert catalogue.names("prompts/list") == frozenset()


def test_the_discovery_names_what_is_there_though_nothing_declares_it() -> None:
    """Hosts ask for the tools of a server only where its capabilities name them."""
    catalogue = Catalogue(agreed(capabilities={}))
    catalogue.put("tools/list", Listing("tools", {"a": b"1"}))
    catalogue.put("prompts/list", Listing("prompts", {}))
    assert json.loads(catalogue.answer("server/discover", 0.0) or b"")["capabilities"] == {"tools": {}}


def test_a_call_of_a_tool_beyond_what_was_read_is_passed_on() -> None:
    """Law 8: only a list that was read to its end says that there is no such tool."""
    catalogue = Catalogue(agreed())
    assert catalogue.may_have_tool("a")
    catalogue.put("tools/list", Listing("tools", {"b": b"1"}))
    assert not catalogue.may_have_tool("a")
    catalogue.put("tools/list", Listing("tools", {"b": b"1"}, partial=True))
    assert catalogue.may_have_tool("a")


@pytest.mark.parametrize("instructions", [None, "", "say 今"])
def test_the_discovery_is_what_was_agreed(instructions: str | None) -> None:
    """2026-07-28, DiscoverResult: also of an older server, so that clients need not know the era."""
    answer = Catalogue(agreed(instructions=instructions)).answer("server/discover", 0.0)
    assert answer is not None
    expected: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": ["2025-11-25"],
        "capabilities": {"tools": {"listChanged": True}},
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s"}},
    }
    assert json.loads(answer) == expected | ({} if instructions is None else {"instructions": instructions})
    modern = Catalogue(agreed(era=Era.MODERN, version=MODERN_VERSION)).answer("server/discover", 0.0)
    assert json.loads(modern or b"")["supportedVersions"] == [MODERN_VERSION]


def test_the_discovery_offers_no_tasks() -> None:
    """Law 8: they are not passed on, so who asks what there is must not be told of them."""
    extensions: Json = {"io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/ui": {}}
    offered: Json = {"tools": {}, "tasks": {"list": {}}, "extensions": extensions}
    answer = Catalogue(agreed(capabilities=offered)).answer("server/discover", 0.0)
    left: Json = {"tools": {}, "extensions": {"io.modelcontextprotocol/ui": {}}}
    assert json.loads(answer or b"")["capabilities"] == left
    assert offered["extensions"] is extensions
    assert len(extensions) == 2


def test_which_lists_a_server_has() -> None:
    """The specification: a list belongs to a capability."""
    assert lists_for({}) == lists_for({"logging": {}}) == ["tools/list"]  # some have tools nevertheless
    assert lists_for({"tools": {}}) == ["tools/list"]
    assert lists_for({"resources": {}}) == ["resources/list", "resources/templates/list"]
    assert lists_for({"prompts": {}, "tools": {}, "logging": {}}) == ["tools/list", "prompts/list"]


def test_which_lists_a_notification_is_about() -> None:
    """The specification: resources and their templates change together."""
    assert changed_lists("notifications/tools/list_changed") == ["tools/list"]
    assert changed_lists("notifications/resources/list_changed") == [
        "resources/list",
        "resources/templates/list",
    ]
    assert changed_lists("notifications/message") == []
    assert {method for kind in LISTS.values() for method in changed_lists(kind.changed)} == set(LISTS)
