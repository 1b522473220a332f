"""What clients may see and use of a server: `only` and `hide` of its table, in lists and in calls."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.base.backlog import result_of
from broker.config.loading import load
from broker.core.clients.subscriptions import MAX_URIS
from broker.core.servers.lifecycle import State
from broker.core.servers.visibility import Visibility, _Filter, visibility_of
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json, Process, Script
from tests.core.reloading import Reloads
from tests.core.world import Client, World

UPDATED = "notifications/resources/updated"
LISTS = {
    "tools/list": ["get_time", "delete_all", "echo"],
    "prompts/list": ["hello", "secret"],
    "resources/list": ["file:///pub/a", "file:///secret"],
    "resources/templates/list": ["db://{table}/rows", "file:///pub/{name}"],
}
TABLE: Json = {
    "tools": {"hide": ["delete_*"]},
    "prompts": {"only": ["hello"]},
    "resources": {"hide": ["file:///secret*", "db://{table}/rows"]},
}


def visible(section: str, **patterns: object) -> Visibility:
    """What clients see of a server whose table has these patterns."""
    config = load({"servers": {"a": {"command": "x", section: patterns}}}, {}).servers["a"]
    found = visibility_of(config)
    assert found is not None
    return found


def seen_of(method: str, keys: list[str], **patterns: object) -> frozenset[str]:
    """What clients see of a list with these keys."""
    sifted = result_of(visible(method.partition("/")[0], **patterns).sift(method, keys))
    assert sifted is not None
    return sifted.seen


def world(
    table: Json | None = None, *, begin: bool = True, credit_bytes: int = 8_388_608, **script: Any
) -> World:
    """A world with a server that has all kinds of lists."""
    made = World({"time": TABLE if table is None else table}, credit_bytes=credit_bytes)
    offers: Json = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True}}
    made.scripts["time"] = Script(lists=dict(LISTS), capabilities=offers, **script)
    if begin:
        made.start()
    return made


def listed(client: Client, method: str) -> list[str]:
    """The names in a list as a client gets it."""
    (items,) = (
        value for key, value in client.result(client.request("time", method)).items() if key in MEMBERS
    )
    return [item.get("name") or item.get("uri") or item["uriTemplate"] for item in items]


MEMBERS = ("tools", "prompts", "resources", "resourceTemplates")

# --- patterns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "name", "seen"),
    [
        ({"hide": ["delete_*"]}, "delete_all", False),
        ({"hide": ["delete_*"]}, "Delete_all", True),
        ({"hide": ["delete_*"]}, "undelete_all", True),
        ({"hide": ["a[12]", "b?"]}, "a2", False),
        ({"hide": ["a[12]", "b?"]}, "b", True),
        ({"only": ["get_*"]}, "get_time", True),
        ({"only": ["get_*"]}, "set_time", False),
        ({"only": ["get_*"], "hide": ["get_secret"]}, "get_secret", False),
        ({"only": []}, "anything", False),
        ({"hide": ["a"]}, "a\n", True),
        ({"hide": ["a"]}, "a\0", False),
        ({"hide": ["a"]}, "b" * 4097, False),
    ],
)
def test_a_pattern_is_a_shell_pattern(patterns: Json, name: str, seen: bool) -> None:
    """Case counts, `hide` wins, and a name that cannot be compared is hidden."""
    assert seen_of("tools/list", [name], **patterns) == ({name} if seen else set())


@pytest.mark.parametrize(
    "uri",
    [
        "file:///secret",
        "FILE:///secret",
        "file:///%73ecret",
        "file:///%2573ecret",
        "file:////secret",
        "file:///secret/",
        "file:///secret#part",
        "file:///secret?query",
        "file:///pub/../secret",
        "file:///pub/%2e%2e/secret",
        "file:///pub/..%2fsecret",
        "file:///pub\\..\\secret",
        "file:///./secret",
        "file:///secret\0",
        "db://users/rows",
        "DB://users/rows",
        "db://users%2Frows",
        "db://a/b/rows",
    ],
)
def test_another_spelling_of_a_hidden_uri_is_hidden(uri: str) -> None:
    assert not visible("resources", hide=["file:///secret", "db://{table}/rows"]).allows_uri(uri)


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("db://users/rows", True),
        ("db://users/x/rows", False),
        ("db://users?x/rows", False),
        ("file:///pub/my%20doc", True),
        ("file:///pub/../secret", False),
        ("file:///secret", False),
    ],
)
def test_a_variable_of_a_template_stands_for_its_value(uri: str, seen: bool) -> None:
    """`only` is narrow: a value has no slash."""
    assert visible("resources", only=["db://{table}/rows", "file:///pub/*"]).allows_uri(uri) is seen


@given(
    st.lists(st.text("ab*?[{}/", min_size=1, max_size=6), min_size=1, max_size=6),
    st.text("ab[{}/\n", max_size=8),
    st.booleans(),
)
def test_many_patterns_are_as_each_of_them(patterns: list[str], name: str, hides: bool) -> None:
    """They are compared all at once."""
    seen = seen_of("tools/list", [name], **{"hide" if hides else "only": patterns})
    assert (name in seen) == (any(fnmatchcase(name, one) for one in patterns) != hides)


def test_a_server_without_patterns_has_no_filter() -> None:
    """So that its calls cost nothing more."""
    table = {"command": "x", "tools": {}, "prompts": {"hide": []}}
    assert visibility_of(load({"servers": {"a": table}}, {}).servers["a"]) is None


# --- lists -------------------------------------------------------------------------------------------


def test_what_is_hidden_is_in_no_list() -> None:
    client = world().client()
    assert listed(client, "tools/list") == ["get_time", "echo"]
    assert listed(client, "prompts/list") == ["hello"]
    assert listed(client, "resources/list") == ["file:///pub/a"]
    assert listed(client, "resources/templates/list") == ["file:///pub/{name}"]


def test_a_change_of_what_is_hidden_tells_nobody() -> None:
    """The list is read again, and is the same to clients."""
    seen = world()
    client = seen.client()
    client.listen(["time"])
    process = seen.processes["time"]
    for names, told in ((["get_time", "delete_more", "echo"], 0), (["get_time"], 1)):
        process.script.lists["tools/list"] = names
        process.say({"method": "notifications/tools/list_changed"})
        seen.wait(2.0)
        assert [news[2] for news in client.news()] == ["tools/list_changed"] * told


def test_an_undeclared_and_a_partial_list_are_filtered_too() -> None:
    made = world(begin=False)
    made.scripts["time"].capabilities = {}
    made.start()
    client = made.client()
    assert listed(client, "prompts/list") == ["hello"]
    assert listed(client, "tools/list") == ["get_time", "echo"]


MANY = [f"get_{number}" for number in range(3000)] + ["delete_all"]


def announced(made: World, names: list[str]) -> Process:
    """The process of the server, which has answered that these are its tools; the first were compared."""
    process = made.processes["time"]
    process.script.mute = {"tools/list"}
    process.say({"method": "notifications/tools/list_changed"})
    process.reply(process.got("tools/list")[-1], {"tools": [{"name": name} for name in names]})
    made.step(made.engine.tick)
    assert made.engine.backlog  # some of the names were compared
    return process


def test_a_long_list_is_compared_in_pieces_and_never_answered_half() -> None:
    """Whoever asks meanwhile waits for it, and a call of what is hidden is refused as ever (law 5)."""
    made = world()
    client = made.client()
    client.listen(["time"])
    process = announced(made, MANY)
    asked = client.request("time", "tools/list")
    assert client.fault(client.call(tool="delete_all")).code == Code.UNKNOWN_TOOL
    assert (client.endings(asked), client.news()) == ([], [])
    made.wait(0.0)
    assert [item["name"] for item in client.result(asked)["tools"]] == MANY[:-1]
    assert [news[2] for news in client.news()] == ["tools/list_changed"]
    assert process.calls == []


def test_a_reload_while_a_list_is_compared_counts() -> None:
    made = world()
    announced(made, MANY)
    Reloads(made).reload({"time": {"tools": {"only": ["delete_*"]}}})
    made.wait(0.0)
    assert listed(made.client(), "tools/list") == ["delete_all"]


def test_a_process_that_ends_while_its_list_is_compared_leaves_nothing() -> None:
    """The list before it is answered."""
    made = world()
    client = made.client()
    announced(made, MANY)
    made.stop()
    assert not made.engine.backlog
    assert listed(client, "tools/list") == ["get_time", "echo"]


# --- calls -------------------------------------------------------------------------------------------

HIDDEN: list[tuple[str, Json]] = [
    ("tools/call", {"name": "delete_all", "arguments": {}}),
    ("prompts/get", {"name": "secret"}),
    ("resources/read", {"uri": "file:///secret"}),
    ("resources/read", {"uri": "db://users/rows"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "secret"}, "argument": {}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "db://{table}/rows"}, "argument": {}}),
]
SEEN: list[tuple[str, Json]] = [
    ("tools/call", {"name": "echo", "arguments": {"name": "delete_all", "uri": "file:///secret"}}),
    ("prompts/get", {"name": "hello"}),
    ("resources/read", {"uri": "file:///pub/b"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "hello"}, "argument": {}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "file:///pub/{name}"}, "argument": {}}),
]


@pytest.mark.parametrize("state", ["ready", "starting", "unread"])
@pytest.mark.parametrize(("method", "params"), HIDDEN)
def test_what_is_hidden_is_in_no_call(method: str, params: Json, state: str) -> None:
    """Also while the server starts, and where its lists could not be read."""
    mute = set(LISTS) if state == "unread" else {"initialize"} if state == "starting" else set()
    made = world(mute=mute)
    client = made.client()
    id = client.request("time", method, params, timeout_ms=60_000)
    if state == "starting":
        made.processes["time"].script.mute.clear()
        process = made.processes["time"]
        process.reply(process.got("initialize")[0], {"protocolVersion": "2025-11-25", "capabilities": {}})
    made.wait(20.0)
    code = Code.UNKNOWN_TOOL if method == "tools/call" else Code.INVALID_PARAMS
    assert client.fault(id).code == code
    assert made.processes["time"].got(method) == []


@pytest.mark.parametrize(("method", "params"), SEEN)
def test_what_is_seen_is_passed_on(method: str, params: Json) -> None:
    made = world()
    client = made.client()
    id = client.request("time", method, params)
    (got,) = made.processes["time"].got(method)
    made.processes["time"].reply(got, {"fine": True})
    assert client.result(id) == {"fine": True}
    assert got["params"] == params


def test_a_refusal_names_only_what_is_seen() -> None:
    """It is the one for a tool that is not there."""
    made = world()
    client = made.client()
    hidden, missing = (
        client.fault(client.call(tool="delete_all")),
        client.fault(client.call(tool="delete_alt")),
    )
    assert hidden.message.replace("delete_all", "delete_alt") == missing.message
    assert "get_time" in hidden.message


keys = st.sampled_from(["name", "Name", "NAME", "n\\u0061me", "\\u006eame", "name\\u0000", "uri", "x"])
values = st.sampled_from(
    ['"echo"', '"delete_all"', '"del\\u0065te_all"', "7", "null", '{"name":"delete_all"}']
)


def read_by_anybody(body: bytes) -> set[object]:
    """Every tool that a parser may find: the first or the last, with or without case, up to a NUL."""
    pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=lambda found: found)
    return {
        tuple(map(tuple, value)) if isinstance(value, list) else value
        for key, value in pairs
        if key.partition("\0")[0].lower() == "name"
    }


@given(st.lists(st.tuples(keys, values), max_size=4), st.sampled_from([0, 1_100_000]))
@example([("name", '"echo"'), ("name", '"delete_all"')], 0)
@example([("name", '"delete_all"'), ("name", '"echo"')], 0)
@example([("name", '"echo"'), ("Name", '"delete_all"')], 0)
@example([("name", '"echo"'), ("n\\u0061me", '"delete_all"')], 1_100_000)
@example([("name", '"echo"'), ("x", '{"name":"delete_all"}')], 1_100_000)
def test_no_spelling_of_params_is_a_way_around(members: list[tuple[str, str]], padding: int) -> None:
    """Keys that come twice, in another case, in escapes; in long params, too, which are read in pieces."""
    written = [f'"{key}":{value}' for key, value in members]
    if padding:
        written.insert(1, f'"arguments":"{"." * padding}"')
    body = f"{{{','.join(written)}}}".encode()
    made = world()
    client = made.client()
    id = client.request("time", "tools/call", body=body)
    made.wait(0.0)
    passed = made.processes["time"].calls
    if passed:
        assert read_by_anybody(body) == {"echo"}
    else:
        client.fault(id)
        clear = [value for key, value in members if key in ("name", "n\\u0061me", "\\u006eame")]
        others = [key for key, _ in members if key in ("Name", "NAME", "name\\u0000")]
        assert others or clear != ['"echo"']


@pytest.mark.parametrize(
    "body",
    [
        b'{"uri":"file:///pub/a","uri":"file:///secret"}',
        b'{"uri":"file:///pub/a","URI":"file:///secret"}',
        b'{"ref":{"type":"ref/prompt","name":"hello","name":"secret"}}',
        b'{"ref":{"type":"ref/prompt","name":"hello"},"Ref":{"type":"ref/prompt","name":"secret"}}',
        b'{"ref":7}',
        b"{}",
        b"{" + b",".join(b'"%d":0' % number for number in range(100)) + b',"uri":"file:///pub/a"}',
    ],
)
def test_other_params_are_as_clear(body: bytes) -> None:
    """Law 8: where two parsers may find different things, nothing is passed on."""
    made = world()
    client = made.client()
    method = "completion/complete" if b"ref" in body else "resources/read"
    fault = client.fault(client.request("time", method, body=body))
    assert (fault.code, made.processes["time"].got(method)) == (Code.INVALID_PARAMS, [])


def test_a_server_without_filters_gets_the_same_params_as_ever() -> None:
    made = world({})
    made.client().request("time", "tools/call", body=b'{"name":"a","name":"echo"}')
    assert len(made.processes["time"].calls) == 1


# --- subscriptions -----------------------------------------------------------------------------------


def updated(process: Process, uri: str) -> None:
    """The server says that a resource has changed."""
    process.say({"method": UPDATED, "params": {"uri": uri}})


def subscribed(process: Process) -> list[str]:
    """What the server was asked to tell of."""
    return [line["params"]["uri"] for line in process.got("resources/subscribe")]


def test_nobody_hears_of_a_hidden_resource() -> None:
    made = world()
    client = made.client()
    client.listen([], time=["file:///pub/a", "file:///secret", "file:///"])
    process = made.processes["time"]
    assert sorted(subscribed(process)) == ["file:///", "file:///pub/a"]
    ((_, _, method, params),) = client.told()
    assert (method, params["uri"]) == ("$broker/not_subscribed", "file:///secret")
    for uri in ("file:///secret", "file:///secret/part", "file:///pub/a"):
        updated(process, uri)
    assert [params["uri"] for _, _, _, params in client.told()] == ["file:///pub/a"]


def test_an_update_that_waits_for_its_turn_is_hidden_by_a_reload() -> None:
    """Many channels are told in several steps; a reload may come between them."""
    made = world({})
    reloads, client = Reloads(made), made.client()
    for channel in range(1, 501):
        client.listen([], channel=channel, time=["file:///secret"])
    updated(made.processes["time"], "file:///secret")
    assert made.engine.backlog
    told_before = len(client.news())
    reloads.reload({"time": TABLE})
    made.wait(1.0)
    assert 0 < told_before < 500
    assert {method for _, _, method, _ in client.told()} == {"$broker/not_subscribed"}


def test_an_update_that_waits_for_its_client_is_hidden_by_a_reload() -> None:
    """The client does not read meanwhile."""
    made = world({}, credit_bytes=65_536)
    process = made.processes["time"]
    reloads, client = Reloads(made), made.client()
    client.listen([], time=["file:///secret"])
    big = client.call(tool="delete_all")
    process.reply(process.calls[0], "x" * 70_000)
    updated(process, "file:///secret")
    reloads.reload({"time": TABLE})
    made.wait(0.0)
    client.say(wire.Credit(0, 0, 70_000))
    assert client.result(big)
    assert [method for _, _, method, _ in client.told()] == ["$broker/not_subscribed"]


# --- reloads -----------------------------------------------------------------------------------------


def test_a_reload_hides_and_shows_without_a_new_process() -> None:
    """Lists, calls and subscriptions follow at once; listeners are told; a call in flight ends as ever."""
    made = world({})
    reloads, client = Reloads(made), made.client()
    client.listen(["time"], time=["file:///secret"])
    flying = client.call(tool="delete_all")
    process = made.processes["time"]
    client.told()
    reloads.reload({"time": TABLE})
    made.wait(0.0)
    assert {method for _, _, method, _ in client.told()} == {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "$broker/not_subscribed",
    }
    assert listed(client, "tools/list") == ["get_time", "echo"]
    assert client.fault(client.call(tool="delete_all")).code == Code.UNKNOWN_TOOL
    assert [line["params"]["uri"] for line in process.got("resources/unsubscribe")] == ["file:///secret"]
    process.reply(process.calls[0], {"fine": True})
    assert client.result(flying) == {"fine": True}
    reloads.reload({"time": {}})
    made.wait(0.0)
    told = client.news()
    assert {news[2] for news in told} == {
        "tools/list_changed",
        "prompts/list_changed",
        "resources/list_changed",
        "resources/updated",
    }
    assert listed(client, "tools/list") == LISTS["tools/list"]
    client.call(tool="delete_all")
    assert len(process.calls) == 2
    assert made.processes["time"] is process


def test_a_reload_of_the_filters_of_a_long_list_is_done_in_pieces() -> None:
    """Nobody gets the list of before, or half of it; a call of what is hidden is refused at once (law 5)."""
    made = world({}, begin=False)
    made.scripts["time"].lists["tools/list"] = MANY
    process = made.start()
    client = made.client()
    client.listen(["time"])
    for hidden in (["get_*"], ["delete_*"]):  # the second one comes while the lists are compared
        Reloads(made).reload({"time": {"tools": {"hide": hidden}}})
        assert made.engine.backlog
    asked = client.request("time", "tools/list")
    fault = client.fault(client.call(tool="delete_all"))
    assert (fault.code, "get_" in fault.message) == (Code.UNKNOWN_TOOL, False)
    client.call(tool="get_7")
    assert [call["params"]["name"] for call in process.calls] == ["get_7"]
    assert (client.endings(asked), client.news()) == ([], [])
    made.wait(0.0)
    assert [item["name"] for item in client.result(asked)["tools"]] == MANY[:-1]
    assert [news[2] for news in client.news()] == ["tools/list_changed"]


def test_a_call_that_waits_follows_the_reload() -> None:
    """It is looked at when it would be sent."""
    made = world({"serialized": True})
    client = made.client()
    client.call(tool="echo")
    waiting = client.call(tool="delete_all")
    process = made.processes["time"]
    Reloads(made).reload({"time": {"serialized": True, **TABLE}})
    process.reply(process.calls[0], {})
    assert client.fault(waiting).code == Code.UNKNOWN_TOOL


def test_a_server_that_is_down_shows_what_the_reload_says() -> None:
    """Lists are answered from memory then, and what was hidden is known."""
    made = world()
    client, reloads = made.client(), Reloads(made)
    made.stop()
    reloads.reload({"time": {"tools": {"hide": ["echo"]}}})
    assert listed(client, "tools/list") == ["get_time", "delete_all"]


@pytest.mark.parametrize("start", ["boot", "demand"])
def test_a_server_without_a_process_is_not_started_for_a_comparison(start: str) -> None:
    """A long list that is compared with new filters is answered after it, as with a process (law 5)."""
    table: Json = {"start": start, "idle_stop_sec": 10 if start == "demand" else 0}
    made = world(dict(table), begin=False)
    made.scripts["time"].lists["tools/list"] = MANY
    made.start()
    client, reloads = made.client(), Reloads(made)
    made.wait(10.0) if start == "demand" else made.stop()
    assert made.lifecycles["time"].state is (State.IDLE if start == "demand" else State.STOPPED)
    reloads.reload({"time": {**table, "tools": {"hide": ["delete_*"]}}})
    assert made.engine.backlog  # some of the names were compared
    asked = client.request("time", "tools/list")
    assert client.endings(asked) == []
    made.wait(0.0)
    assert [item["name"] for item in client.result(asked)["tools"]] == MANY[:-1]
    assert made.spawned["time"] == 1
    assert len(made.engine.dispatch.table) == 0


def test_a_process_that_fails_while_its_list_is_compared_has_not_failed_at_it() -> None:
    """Law 3: the next one is asked for the list again; only a list without an answer may be at fault."""
    made = world({"prompts": {"hide": ["secret"]}}, begin=False)
    many = [*(f"hello_{index}" for index in range(3000)), "secret"]
    made.scripts["time"].lists["prompts/list"] = many
    made.scripts["time"].mute = {"resources/list"}
    made.start()
    assert made.engine.backlog  # some of the names were compared
    made.exit()
    made.scripts["time"].mute = set()
    made.wait(60.0)
    assert listed(made.client(), "prompts/list") == many[:-1]
    assert len(made.processes["time"].got("prompts/list")) == 1


# --- what an operator is told ------------------------------------------------------------------------


def remarks(made: World) -> dict[str, object]:
    """The patterns that match nothing, by table."""
    found = made.engine.servers["time"].remarks
    return {
        section: facts["patterns"]
        for (oddity, section), facts in found.items()
        if oddity == "pattern-unmatched"
    }


def test_a_pattern_that_matches_nothing_is_remarked_on() -> None:
    """A typing error hides or shows silently else. A reload that corrects it takes the remark away."""
    made = world({"tools": {"only": ["get_*", "ecko"], "hide": ["delte_*"]}, "resources": {"hide": ["db:*"]}})
    assert remarks(made) == {"tools": 'only "ecko", hide "delte_*"'}
    Reloads(made).reload({"time": TABLE})
    assert remarks(made) == {}


def test_what_is_hidden_is_counted() -> None:
    known = world().engine.servers["time"].catalogue
    assert known is not None
    assert [known.hidden(section) for section in ("tools", "prompts", "resources")] == [1, 1, 2]
    assert len(known.names("tools/list")) == 2


def test_the_filters_are_made_anew_only_for_other_patterns() -> None:
    """Making them takes time by the length of the patterns, and a reload looks at every server."""
    table = {"command": "x", "resources": {"hide": ["file:///secret*"]}}
    config, same, other = (
        load({"servers": {"a": {**table, **more}}}, {}).servers["a"]
        for more in ({}, {"timeout": 9}, {"tools": {"hide": ["a"]}})
    )
    before = visibility_of(config)
    assert before is not None
    assert visibility_of(same, before) is before
    assert visibility_of(other, before) is not before
    assert visibility_of(load({"servers": {"a": {"command": "x"}}}, {}).servers["a"], before) is None


def test_each_uri_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """16,384 subscribed uris take a tenth of a second, and each further subscription looks at all of them."""
    compared = list[str]()
    allows = _Filter.allows

    def counted(its: _Filter, uri: str) -> bool:
        compared.append(uri)
        return allows(its, uri)

    monkeypatch.setattr(_Filter, "allows", counted)
    filters = visible("resources", hide=["file:///secret*"])
    uris = [f"file:///{'secret' if n % 2 else 'pub'}/{n}" for n in range(MAX_URIS)]
    for _ in range(3):
        assert [filters.allows_uri(uri) for uri in uris] == [n % 2 == 0 for n in range(MAX_URIS)]
    assert compared == uris


def test_the_kept_answers_about_uris_are_bounded() -> None:
    """Law 5: a client that subscribes and unsubscribes for ever takes no memory for it."""
    filters = visible("resources", hide=["file:///secret*"])
    for count in range(3000):
        assert filters.allows_uri(f"file:///pub/{count:04000d}")
        assert filters._allowed_chars == sum(map(len, filters._allowed)) <= 4 * 1024 * 1024
