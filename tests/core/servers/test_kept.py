"""A catalogue that outlives the broker: what is kept of it, what is believed, and what it answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mcp.agreement import Agreed
from broker.core.mcp.methods import MODERN_VERSION, Era
from broker.core.servers.catalogue import LEAST_TTL_MS, LISTS, TOLD_TTL_MS, Catalogue
from broker.core.servers.kept import KeptCatalogue, UnusableError, decode, encode, keep
from broker.core.servers.lifecycle import Event, State
from broker.core.servers.reading import Reading
from client_shim.wire import Code
from tests.core.fake_server import Json
from tests.core.world import World

MAX_BYTES = 1_000_000
TOLD: Json = {"tools": {"listChanged": True}}


def catalogue(lists: dict[str, Json], era: Era = Era.LEGACY, **agreed: Any) -> Catalogue:
    """A catalogue with these pages."""
    handshake: Json = {"capabilities": {}, "server_info": {"name": "x"}, "instructions": None, **agreed}
    known = Catalogue(Agreed(era, MODERN_VERSION if era is Era.MODERN else "2025-11-25", **handshake))
    for method, page in lists.items():
        reading = Reading(method, MAX_BYTES)
        reading.page(memoryview(json.dumps(page).encode()), 0.0)
        known.put(method, reading.listing(era))
    return known


def again(known: Catalogue, era: Era | None = Era.LEGACY) -> KeptCatalogue:
    """The same catalogue from the file of the next broker."""
    return decode(encode(keep(known, era)), MAX_BYTES)


# --- the format --------------------------------------------------------------------------------------


names = st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=5)
hints = st.fixed_dictionaries(
    {}, optional={"ttlMs": st.integers(0, 10**9), "cacheScope": st.sampled_from(["public", "private"])}
)
words = st.text(max_size=20) | st.none()


@given(
    era=st.sampled_from(Era),
    named=st.dictionaries(st.sampled_from(sorted(LISTS)), names, max_size=4),
    hints=hints,
    instructions=words,
    remembered=st.sampled_from([None, *Era]),
)
def test_what_is_kept_is_what_was_read(
    era: Era, named: dict[str, list[str]], hints: Json, instructions: str | None, remembered: Era | None
) -> None:
    """Lists in the server's order, item for item as bytes, capabilities, instructions and the era."""
    pages = {
        method: {LISTS[method].member: [{LISTS[method].key: key, "x": 1} for key in keys], **hints}
        for method, keys in named.items()
    }
    known = catalogue(pages, era, capabilities={"tools": {}, "x": [1]}, instructions=instructions)
    kept = again(known, remembered)
    assert (kept.era, kept.agreed) == (remembered, known.agreed)
    assert kept.lists.keys() == known.whole.keys()
    restored = kept.catalogue(None)
    assert not restored.changes_since(known)
    for method, listing in restored.whole.items():
        before = known.whole[method]
        assert (listing.ttl_s, listing.scope, listing.repeatable) == (
            before.ttl_s,
            before.scope,
            before.repeatable,
        )


def test_a_list_that_is_empty_or_cut_off_is_not_kept() -> None:
    """Seen elsewhere: an empty list, or a failure, that was answered for ever."""
    known = catalogue({"tools/list": {"tools": []}, "prompts/list": {"prompts": [{"name": "a"}]}})
    reading = Reading("resources/list", MAX_BYTES)
    reading.page(memoryview(b'{"resources":[{"uri":"a"}],"nextCursor":"2"}'), 0.0)
    known.put("resources/list", reading.listing(Era.LEGACY, partial=True))
    known.lacks("resources/templates/list")
    kept = again(known)
    assert (set(kept.lists), set(kept.lacking)) == ({"prompts/list"}, {"resources/templates/list"})
    without = catalogue({})
    without.lacks("tools/list")
    assert not again(without).lacking


@given(data=st.data())
def test_content_that_was_cut_off_is_refused(data: st.DataObject) -> None:
    """Law 8: what is not whole is nothing."""
    content = encode(keep(catalogue({"tools/list": {"tools": [{"name": "a"}]}}), None))
    with pytest.raises(UnusableError):
        decode(content[: data.draw(st.integers(0, len(content) - 1))], MAX_BYTES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lists", {"tools/list": {"tools": []}}),
        ("lists", {"tools/list": {"tools": [{}]}}),
        ("lists", {"tools/list": {"tools": [{"name": "a"}], "nextCursor": "2"}}),
        ("lists", {"tools/list": {"tools": [{"name": "x" * MAX_BYTES}]}}),
        ("lists", {"other/list": {"tools": [{"name": "a"}]}}),
        ("lists", []),
        ("era", "new"),
        ("agreed", None),
        ("more", 1),
    ],
)
def test_content_that_no_broker_writes_is_refused(key: str, value: object) -> None:
    """Law 8: it is read as strictly as a page of a server."""
    content = json.loads(encode(keep(catalogue({"tools/list": {"tools": [{"name": "a"}]}}), None)))
    with pytest.raises(UnusableError):
        decode(json.dumps({**content, key: value}).encode(), MAX_BYTES)


# --- before the process is ready -------------------------------------------------------------------------


def restarted(**table: object) -> World:
    """A broker that was restarted: it has the catalogue of a server with the tool `echo`, and no process."""
    old = World({"time": table})
    old.scripts["time"].capabilities = TOLD
    old.start()
    server = old.engine.servers["time"]
    assert server.catalogue is not None
    world = World({"time": table})
    world.scripts["time"].capabilities = TOLD
    world.engine.registry.restore("time", again(server.catalogue, server.remembered))
    return world


def tools(world: World, key: bytes = b"a") -> list[str]:
    """The tools that a client gets at once."""
    client = world.client(key)
    return [tool["name"] for tool in client.result(client.request("time", "tools/list"))["tools"]]


def test_lists_are_answered_before_a_process_is_ready() -> None:
    """A page that is opened right after a restart does not wait for a process; its calls do."""
    world = restarted()
    world.scripts["time"].mute = {"initialize"}
    assert tools(world) == ["echo"]
    process = world.start()
    assert world.lifecycles["time"].state is State.HANDSHAKE
    client = world.client(b"b")
    listed, found, called = (
        client.request("time", "tools/list"),
        client.request("time", "server/discover"),
        client.call(),
    )
    assert client.result(listed)["tools"] == [{"name": "echo"}]
    assert client.result(found)["capabilities"] == TOLD
    assert not client.endings(called)
    process.reply(process.got("initialize")[0], {"protocolVersion": "2025-11-25", "capabilities": TOLD})
    process.reply(process.calls[0], "ok")
    assert client.result(called) == "ok"


@pytest.mark.parametrize(("fresh", "told"), [(["echo"], 0), (["echo", "new"], 1), (["new"], 1), ([], 1)])
def test_who_listens_hears_that_the_fresh_lists_differ(fresh: list[str], told: int) -> None:
    """The same command may bring other tools, as `@latest` does: every start compares."""
    world = restarted()
    world.scripts["time"].lists["tools/list"] = fresh
    client = world.client()
    client.listen()
    world.start()
    assert [method for _, _, method, _ in client.news()] == ["tools/list_changed"] * told
    assert tools(world, b"b") == fresh


def test_a_list_that_was_not_kept_waits_for_the_process() -> None:
    """Without it there was an error: the next process may have what the last one was not asked for."""
    world = restarted()
    client = world.client()
    world.feed("time", Event.START)
    id = client.request("time", "prompts/list")
    assert client.result(id) == {"prompts": []}
    cold = restarted()
    cold.scripts["time"].mute = {"initialize"}
    cold.start()
    page = cold.client()
    id = page.request("time", "prompts/list")
    assert not page.endings(id)


def test_a_stopped_server_says_so_for_a_list_that_was_not_kept() -> None:
    """Law 10: it will not come, and why."""
    world = restarted()
    client = world.client()
    assert client.fault(client.request("time", "prompts/list")).code == Code.SERVER_DOWN


def test_what_the_table_hides_is_hidden() -> None:
    """A filter that was added meanwhile holds for the kept lists as well."""
    world = restarted(tools={"hide": ["echo"]})
    assert tools(world) == []


# --- the era -----------------------------------------------------------------------------------------


def test_the_era_is_remembered() -> None:
    """The probe of an older server is saved, as at each restart of its process."""
    world = restarted()
    process = world.start()
    assert (process.got("server/discover"), len(process.got("initialize"))) == ([], 1)


def test_an_era_that_is_wrong_is_found_out() -> None:
    """The server was upgraded behind the same command."""
    world = restarted()
    world.scripts["time"].era = Era.MODERN
    world.start()
    server = world.engine.servers["time"]
    assert (server.remembered, world.lifecycles["time"].state) == (Era.MODERN, State.READY)


def test_an_era_that_failed_is_dropped() -> None:
    """A process that answers nothing to it: the next one is probed, and so is that of the next broker."""
    world = restarted()
    world.scripts["time"].mute = {"initialize", "server/discover"}
    world.start()
    world.exit()
    server = world.engine.servers["time"]
    assert server.catalogue is not None
    assert (server.remembered, again(server.catalogue, server.remembered).era) == (None, None)
    world.wait(2.0)
    assert world.processes["time"].got("server/discover")


# --- the time that a client may keep a list ------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl_ms", "told", "least"),
    [(0, True, TOLD_TTL_MS), (None, True, TOLD_TTL_MS), (0, False, 0), (None, False, LEAST_TTL_MS)],
)
def test_a_time_of_0_is_not_passed_on_where_changes_are_told(
    ttl_ms: int | None, told: bool, least: int
) -> None:
    """Seen elsewhere: `ttlMs: 0` switched the cache of every client off."""
    page: Json = {"tools": [{"name": "a"}]} | ({} if ttl_ms is None else {"ttlMs": ttl_ms})
    known = catalogue({"tools/list": page}, Era.MODERN, capabilities={"tools": {"listChanged": told}})
    for one in (known, again(known).catalogue(None)):
        assert json.loads(one.answer("tools/list", 1000.0) or b"")["ttlMs"] == least


def test_a_kept_list_is_not_new() -> None:
    """Its time was counted from a reading of long ago."""
    known = catalogue({"tools/list": {"tools": [{"name": "a"}], "ttlMs": 10**9}}, Era.MODERN)
    restored = again(known).catalogue(None)
    assert json.loads(restored.answer("tools/list", 1000.0) or b"")["ttlMs"] == LEAST_TTL_MS


def test_the_revision_changes_with_the_lists_only() -> None:
    """What is read again and is the same is not written again."""
    known = catalogue({"tools/list": {"tools": [{"name": "a"}]}})
    before = known.revision
    known.put("tools/list", catalogue({"tools/list": {"tools": [{"name": "a"}]}}).whole["tools/list"])
    assert known.revision == before
    known.put("tools/list", catalogue({"tools/list": {"tools": [{"name": "b"}]}}).whole["tools/list"])
    known.lacks("prompts/list")
    known.lacks("prompts/list")
    assert known.revision == before + 2
