"""What servers say unasked, and to whom: lists that changed, resources that were updated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.clients import subscriptions
from broker.core.clients.notifications import UNHEARD, UPDATED
from broker.core.mcp.methods import Era
from broker.core.servers.listen_stream import LISTEN_BURST
from broker.core.servers.subscription import MAX_ASKING
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json, Process, Script
from tests.core.reloading import Reloads
from tests.core.residue import tables
from tests.core.world import Client, World

ALL: Json = {"tools": {"listChanged": True}, "resources": {"listChanged": True, "subscribe": True}}
LISTS = {"tools/list": ["echo"], "resources/list": ["u"]}
META = "io.modelcontextprotocol/subscriptionId"
TOOLS, RESOURCES, U = "tools/list_changed", "resources/list_changed", "resources/updated"
ERAS = pytest.mark.parametrize("era", list(Era))


def there(era: Era, capabilities: Json = ALL, **keys: Any) -> World:
    """A broker with one server of this era, "time", that tells of its lists and resources."""
    world = World({"time": keys})
    script = world.scripts["time"]
    script.era, script.capabilities, script.lists = era, capabilities, dict(LISTS)
    world.start()
    return world


def subscribed(process: Process) -> list[str]:
    """The resources that it is to tell of, as it knows it."""
    if process.script.era is Era.MODERN:
        gone = {line["params"]["requestId"] for line in process.got("notifications/cancelled")}
        gone |= process.answered  # a stream ends with its answer
        listens = [line for line in process.got("subscriptions/listen") if line["id"] not in gone]
        return [
            uri for one in listens for uri in one["params"]["notifications"].get("resourceSubscriptions", [])
        ]
    uris = [line["params"]["uri"] for line in process.got("resources/subscribe")]
    for line in process.got("resources/unsubscribe"):
        uris.remove(line["params"]["uri"])
    return uris


def change(process: Process, *tools: str) -> None:
    """It has other tools from now on, and says so."""
    process.script.lists["tools/list"] = [*tools]
    process.tell(TOOLS)


# --- lists -------------------------------------------------------------------------------------------


@ERAS
def test_who_listens_hears_that_a_list_changed_after_it_was_read(era: Era) -> None:
    """A client that asks after the notification gets the new list; other clients hear nothing."""
    world = there(era)
    page, other = world.client(b"a"), world.client(b"b")
    assert page.result(page.listen()) == {"servers": ["time"]}
    page.listen(["time"], channel=2)
    world.scripts["time"].mute = {"tools/list"}
    process = world.processes["time"]
    change(process, "echo", "new")
    assert page.news() == []
    process.reply(process.got("tools/list")[-1], {"tools": [{"name": "echo"}, {"name": "new"}]})
    assert page.news() == [(1, "time", TOOLS, {}), (2, "time", TOOLS, {})]
    assert len(page.result(page.request("time", "tools/list"))["tools"]) == 2
    assert other.news() == []


@ERAS
def test_a_list_that_is_the_same_did_not_change(era: Era) -> None:
    """A server that announces changes without any wakes no client; hints about the age do not count."""
    world = there(era)
    page = world.client()
    page.listen()
    world.scripts["time"].hints = {"ttlMs": 5} if era is Era.MODERN else {}
    world.processes["time"].tell(TOOLS)
    assert page.news() == []


@ERAS
def test_who_listens_hears_what_changed_across_a_restart(era: Era) -> None:
    """Subscribers are told of the lists that changed, and of no others."""
    world = there(era)
    page = world.client()
    page.listen()
    world.scripts["time"].lists["tools/list"] = ["other"]
    world.exit()
    world.wait(5.0)
    assert page.news() == [(1, "time", TOOLS, {})]
    world.exit()
    world.wait(5.0)
    assert page.news() == []


def test_who_listens_before_the_server_is_there_hears_when_it_is() -> None:
    """Law 8: until then its lists were not known."""
    world = World()
    page = world.client()
    page.listen()
    world.start()
    assert page.news() == [(1, "time", TOOLS, {})]


def test_resources_and_their_templates_are_one_change() -> None:
    """MCP has one notification for both."""
    world = there(Era.LEGACY)
    page = world.client()
    page.listen()
    world.scripts["time"].lists |= {"resources/list": ["v"], "resources/templates/list": ["w"]}
    world.exit()
    world.wait(5.0)
    assert page.news() == [(1, "time", RESOURCES, {})]


def test_while_a_client_does_not_read_one_word_of_a_change_waits_for_it() -> None:
    """Law 6: the newest takes the place of the older one."""
    world = World(credit_bytes=65_536)
    script = world.scripts["time"]
    process = world.start()
    page = world.client()
    page.listen()
    big = page.call()
    process.reply(process.calls[0], "x" * 70_000)
    for number in range(3):
        script.lists["tools/list"] = [str(number)]
        process.tell(TOOLS)
    assert (page.news(), world.engine.counters["replaced.news"]) == ([], 2)
    page.say(wire.Credit(0, 0, 70_000))
    assert page.result(big)
    assert page.news() == [(1, "time", TOOLS, {})]


@pytest.mark.parametrize("how", ["empty", "channel", "goodbye", "lost"])
@ERAS
def test_who_is_gone_listens_no_longer(era: Era, how: str) -> None:
    """Law 4: the row goes, and with the last one the subscription upstream."""
    world = there(era)
    page = world.client()
    page.listen(time=["u"])
    process = world.processes["time"]
    assert subscribed(process) == ["u"]
    if how == "empty":
        page.listen([])
    elif how == "lost":
        world.cut(page)
    else:
        page.say(wire.Goodbye(1 if how == "channel" else 0, 0, "done"))
    assert subscribed(process) == []
    change(process, "new")
    assert page.news() == []
    world.assert_empty()


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"servers": ["x" * 300]}, Code.INVALID_BODY),
        ({"servers": [f"s{number}" for number in range(1025)]}, Code.INVALID_BODY),
        ({"resources": {"x" * 300: ["u"]}}, Code.INVALID_BODY),
        ({"server": "time"}, Code.INVALID_BODY),
        ({"resources": {"time": ["x" * 3000]}}, Code.INVALID_BODY),
        ({"x" * wire.MAX_HEADER_BYTES: 1}, Code.INVALID_BODY),
    ],
)
def test_what_cannot_be_listened_to_is_refused_and_changes_nothing(params: Json, code: Code) -> None:
    """Law 10: and what the channel listened to before, it still does. Law 6: however long the mistake is."""
    world = there(Era.LEGACY)
    page = world.client()
    page.listen()
    assert page.fault(page.request(wire.MANAGEMENT, "listen", params)).code == code
    change(world.processes["time"], "new")
    assert page.news() == [(1, "time", TOOLS, {})]


def test_a_server_that_tells_of_no_resources_cannot_be_subscribed_to() -> None:
    """Law 8: one that waited for an update would wait for ever. It is said, and costs nothing else."""
    world = there(Era.LEGACY, {"resources": {}, "tools": {"listChanged": True}})
    page = world.client()
    result = page.result(page.listen(time=["u"]))
    assert (result["servers"], result["not_subscribed"]["time"]["code"]) == (["time"], Code.METHOD_REFUSED)
    ((_, server, method, params),) = page.told()
    assert (server, method, params["uri"]) == ("time", UNHEARD, "u")
    assert "resources.subscribe" in params["reason"]
    assert not world.processes["time"].got("resources/subscribe")
    change(world.processes["time"], "new")
    assert page.news() == [(1, "time", TOOLS, {})]


def test_a_server_that_is_not_there_costs_the_others_nothing() -> None:
    """Law 5: one subscription that fails does not silence the others; each failure is reported once."""
    world = there(Era.LEGACY)
    page = world.client()
    params = {"servers": ["time", "gone"], "resources": {"time": ["u"], "gone": ["v", "w"]}}
    result = page.result(page.request(wire.MANAGEMENT, "listen", params))
    assert result["servers"] == ["time"]
    assert [*result["not_subscribed"]] == ["gone"]
    assert result["not_subscribed"]["gone"]["code"] == Code.UNKNOWN_SERVER
    told = page.told()
    assert [(server, method, params["uri"]) for _, server, method, params in told] == [
        ("gone", UNHEARD, None),
        ("gone", UNHEARD, "v"),
        ("gone", UNHEARD, "w"),
    ]
    assert all("there is no server 'gone'" in params["reason"] for *_, params in told)
    assert subscribed(world.processes["time"]) == ["u"]
    world.processes["time"].tell(U, uri="u")
    change(world.processes["time"], "new")
    assert {(server, method) for _, server, method, _ in page.news()} == {("time", U), ("time", TOOLS)}


@ERAS
def test_a_server_that_comes_back_is_heard_again(era: Era) -> None:
    """A subscriber is told when the server goes and what it may have missed, and need not subscribe again."""
    world = there(Era.LEGACY)
    reloads = Reloads(world)
    page = world.client()
    page.request(wire.MANAGEMENT, "listen", {"servers": ["back"], "resources": {"back": ["u"]}})
    page.told()
    world.scripts["back"] = script = Script()
    script.era, script.capabilities, script.lists = era, ALL, dict(LISTS)
    reloads.reload({"time": {}, "back": {}})
    assert subscribed(world.processes["back"]) == ["u"]
    assert {(server, method) for _, server, method, _ in page.news()} >= {("back", TOOLS), ("back", U)}
    world.processes["back"].tell(U, uri="u")
    assert page.news() == [(1, "back", U, {"uri": "u"})]
    reloads.reload({"time": {}})
    reloads.go_on("back")
    gone = [(server, params["uri"]) for _, server, method, params in page.told() if method == UNHEARD]
    assert gone == [("back", None), ("back", "u")]
    reloads.reload({"time": {}, "back": {}})
    assert subscribed(world.processes["back"]) == ["u"]
    assert {method for _, server, method, _ in page.news() if server == "back"} >= {TOOLS, U}


def test_beyond_a_limit_it_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 6: which limit, and when to try again."""
    monkeypatch.setattr(subscriptions, "MAX_CHANNELS_OF_ONE", 1)
    page = there(Era.LEGACY).client()
    page.listen()
    fault = page.fault(page.listen(channel=2))
    assert (fault.code, fault.data["limit"]) == (Code.BUSY, "listening channels of a connection")
    assert fault.data["retry_after_s"] > 0


@ERAS
@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe", "subscriptions/listen"])
def test_the_methods_of_mcp_for_it_are_refused_and_name_the_way(era: Era, method: str) -> None:
    """Law 10: they speak for one client, and the process is everybody's."""
    page = there(era).client()
    fault = page.fault(page.request("time", method, {"uri": "u"}))
    assert fault.code == Code.METHOD_REFUSED
    assert "`listen`" in fault.data["hint"]


# --- resources ---------------------------------------------------------------------------------------


@ERAS
def test_an_update_reaches_who_subscribed(era: Era) -> None:
    """Law 3: and nobody else; one subscription upstream is enough for all."""
    world = there(era)
    pages = [world.client(name) for name in (b"a", b"b", b"c")]
    pages[0].listen([], time=["u", "v"])
    pages[1].listen([], channel=7, time=["u"])
    pages[2].listen()
    process = world.processes["time"]
    process.tell(U, uri="u", note="x")
    assert pages[0].news() == [(1, "time", U, {"uri": "u", "note": "x"})]
    assert pages[1].news() == [(7, "time", U, {"uri": "u", "note": "x"})]
    process.tell(U, uri="v")
    process.tell(U, uri="w")
    process.tell(U, url="u")
    assert [len(page.news()) for page in pages] == [1, 0, 0]
    assert sorted(subscribed(process)) == ["u", "v"]
    assert world.engine.servers["time"].dropped["resource.updated"] == 2
    dropped = [note.facts["reason"] for note in world.notes if note.event == "server.resource.updated"]
    assert dropped == ["no client has subscribed to it", "it names no uri"]


@ERAS
def test_the_subscription_is_made_again_after_a_restart(era: Era) -> None:
    """Law 8: the broker cannot know that nothing was missed, so it tells what may have been."""
    world = there(era)
    page = world.client()
    page.listen([], time=["u", "v"])
    world.exit()
    world.wait(5.0)
    assert sorted(subscribed(world.processes["time"])) == ["u", "v"]
    assert sorted(uri["uri"] for *_, uri in page.news()) == ["u", "v"]


@ERAS
def test_who_subscribes_before_the_server_is_there_is_subscribed_when_it_is(era: Era) -> None:
    """A subscriber that came before the server has missed nothing."""
    world = World()
    script = world.scripts["time"]
    script.era, script.capabilities, script.lists = era, ALL, dict(LISTS)
    page = world.client()
    page.listen([], time=["u"])
    process = world.start()
    assert (subscribed(process), page.news()) == (["u"], [])


def test_an_older_server_is_asked_for_a_few_resources_at_a_time() -> None:
    """Law 6: whoever wants thousands, and changes its mind, does not flood the server."""
    world = there(Era.LEGACY)
    process, page = world.processes["time"], world.client()
    process.script.mute = {"resources/subscribe"}
    uris = [str(number) for number in range(20)]
    page.listen([], time=uris)
    assert len(process.got("resources/subscribe")) == MAX_ASKING
    page.listen([])
    process.script.mute = set()
    for request in process.got("resources/subscribe"):
        process.reply(request, {})
    assert len(process.got("resources/subscribe")) == MAX_ASKING
    assert subscribed(process) == []


@pytest.mark.parametrize("how", ["error", "silence", "garbage"])
def test_a_subscription_that_the_server_refuses_is_told_in_the_log(how: str) -> None:
    """Law 9: nobody would know why no update comes; and it is not asked for again and again."""
    world = there(Era.LEGACY)
    process, page = world.processes["time"], world.client()
    process.script.mute = {"resources/subscribe"}
    page.listen([], time=["u"])
    (request,) = process.got("resources/subscribe")
    if how == "error":
        process.refuse(request, -32002, "there is no u")
    elif how == "garbage":
        process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % request["id"])
    world.wait(100.0)
    (note,) = [note for note in world.notes if note.event == "resource.not_subscribed"]
    assert note.facts["uri"] == "u"
    assert len(process.got("resources/subscribe")) == 1
    ((channel, server, method, params),) = page.told()
    assert (channel, server, method, params["uri"]) == (1, "time", UNHEARD, "u")
    assert params["reason"]


def test_a_server_that_lost_the_ability_is_told_of_in_the_log() -> None:
    """Law 9: after an upgrade, say; it was subscribed to while it was not there."""
    world = World()
    page = world.client()
    page.listen([], time=["u"])
    world.scripts["time"].lists = dict(LISTS)
    world.start()
    assert "resource.not_subscribed" in [note.event for note in world.notes]
    assert [method for _, _, method, _ in page.told()] == [UNHEARD]


# --- the one stream of a server of 2026-07-28 ---------------------------------------------------------


def listens(world: World) -> list[Json]:
    """The filters that the server was asked for, and which of them were taken back."""
    process = world.processes["time"]
    gone = {line["params"]["requestId"] for line in process.got("notifications/cancelled")}
    return [
        {**line["params"]["notifications"], **({"gone": True} if line["id"] in gone else {})}
        for line in process.got("subscriptions/listen")
    ]


FIRST = {"toolsListChanged": True, "resourcesListChanged": True}


def test_the_stream_is_asked_for_before_the_lists_are_read() -> None:
    """No change can fall between the subscription and the reading."""
    lines = there(Era.MODERN).processes["time"].lines
    assert [line["method"] for line in lines][:3] == ["server/discover", "subscriptions/listen", "tools/list"]


def test_the_old_stream_is_taken_back_when_the_new_one_is_acknowledged() -> None:
    """There is a moment with two streams, and never one without any."""
    world = there(Era.MODERN)
    process, page = world.processes["time"], world.client()
    process.script.mute = {"subscriptions/listen"}
    page.listen(time=["u"])
    assert listens(world) == [FIRST, {**FIRST, "resourceSubscriptions": ["u"]}]
    new = process.got("subscriptions/listen")[-1]["id"]
    process.tell(
        "subscriptions/acknowledged",
        _meta={META: new},
        notifications={**FIRST, "resourceSubscriptions": ["u"]},
    )
    assert listens(world) == [{**FIRST, "gone": True}, {**FIRST, "resourceSubscriptions": ["u"]}]
    assert page.news() == []


def test_many_changes_of_mind_are_one_stream() -> None:
    """Law 5: clients that subscribe all the time do not keep the server busy with it."""
    world = there(Era.MODERN)
    page = world.client()
    for number in range(50):
        page.listen(time=[str(number)])
    assert len(listens(world)) == LISTEN_BURST
    world.wait(1.0)
    assert listens(world)[-1] == {**FIRST, "resourceSubscriptions": ["49"]}
    assert len(listens(world)) == LISTEN_BURST + 1
    assert sum("gone" not in one for one in listens(world)) == 1


@pytest.mark.parametrize("how", ["result", "error", "cancelled"])
def test_a_stream_that_ends_is_opened_again_and_what_was_missed_is_seen_to(how: str) -> None:
    """The lists are read again, and subscribers of a resource are told to read it again."""
    world = there(Era.MODERN)
    process, page = world.processes["time"], world.client()
    page.listen(time=["u"])
    open_ = process.got("subscriptions/listen")[-1]
    process.script.lists["tools/list"] = ["other"]
    if how == "result":
        process.reply(open_, {})
    elif how == "error":
        process.refuse(open_, -32603, "the backlog is full")
    else:
        process.tell("cancelled", requestId=open_["id"])
    assert listens(world)[-1] == {**FIRST, "resourceSubscriptions": ["u"]}
    assert sorted(page.news()) == [(1, "time", U, {"uri": "u"}), (1, "time", TOOLS, {})]


def test_a_stream_that_always_ends_is_opened_at_a_steady_pace() -> None:
    """Law 6: a stream that always ends makes no hot loop."""
    world = there(Era.MODERN)
    process = world.processes["time"]
    for _ in range(10):
        ended = process.got("subscriptions/listen")[-1]
        process.reply(ended, {})
    assert len(listens(world)) == LISTEN_BURST
    world.wait(3.0)
    assert len(listens(world)) == LISTEN_BURST + 1


def test_a_stream_that_cannot_be_replaced_leaves_the_old_one_and_who_waits_knows() -> None:
    """Law 8: what was heard before still is; of the new resource nothing will be."""
    world = there(Era.MODERN)
    process, page = world.processes["time"], world.client()
    page.listen(time=["u"])
    process.script.mute = {"subscriptions/listen"}
    page.listen(time=["u", "v"])
    process.refuse(process.got("subscriptions/listen")[-1], -32603, "too many")
    assert [(method, params["uri"]) for _, _, method, params in page.told()] == [(UNHEARD, "v")]
    process.tell(U, uri="u")
    assert page.news() == [(1, "time", U, {"uri": "u"})]


URIS = [f"note://{number}" for number in range(100)]


def held(world: World) -> list[set[str]]:
    """The tables that are as large as if all of `URIS` were kept in them."""
    figures = {"Latency._buckets"}
    return [names for names, size in tables(world.engine) if size >= len(URIS) and names != figures]


@ERAS
@pytest.mark.parametrize("way", ["refuses", "is silent", "ends the old one first", "ends the old one after"])
@pytest.mark.parametrize("was_open", [True, False], ids=["it was subscribed", "it was not yet"])
def test_whatever_a_server_says_after_the_clients_have_left_nothing_is_left(
    era: Era, way: str, was_open: bool
) -> None:
    """Law 4: a refusal to listen to less, or the end of a stream, kept 500 of 500 uris for ever."""
    world = there(era)
    process, page = world.processes["time"], world.client()
    mute = {"subscriptions/listen", "resources/subscribe", "resources/unsubscribe"}
    process.script.mute = set() if was_open else mute
    page.listen(time=URIS)
    assert held(world)
    process.script.mute = mute
    opened = process.got("subscriptions/listen")
    if way == "ends the old one first" and era is Era.MODERN:
        process.refuse(opened[-1], -32603, "the backlog is full")
    world.cut(page)
    if way == "ends the old one after" and era is Era.MODERN:
        process.tell("cancelled", requestId=opened[-1]["id"])
    for _ in range(len(URIS)):
        asked = [
            line for method in mute for line in process.got(method) if line["id"] not in process.answered
        ]
        if not asked or way != "refuses":
            break
        for line in asked:
            process.refuse(line, -32603, "no")
    world.wait(1000.0 if era is Era.MODERN else 100_000.0)
    assert held(world) == []
    world.assert_empty()


def test_a_stream_that_cannot_be_replaced_keeps_nothing_of_who_is_gone() -> None:
    """Law 4: it goes on for who is left, and ends with the last of them."""
    world = there(Era.MODERN)
    process, page, leaver = world.processes["time"], world.client(), world.client(b"b")
    page.listen(time=["u"])
    leaver.listen(time=URIS)
    world.wait(10.0)
    process.script.mute = {"subscriptions/listen"}
    world.cut(leaver)
    process.refuse(process.got("subscriptions/listen")[-1], -32603, "no")
    assert held(world) == []
    process.tell(U, uri="u")
    assert page.news() == [(1, "time", U, {"uri": "u"})]
    world.cut(page)
    world.wait(10.0)
    process.refuse(process.got("subscriptions/listen")[-1], -32603, "no")
    assert subscribed(process) == []
    world.assert_empty()


@pytest.mark.parametrize("how", ["error", "silence"])
def test_a_stream_that_is_refused_is_told_of_and_not_asked_for_again(how: str) -> None:
    """Law 9: from then on the lists are read when they are asked for."""
    world = World()
    script = world.scripts["time"]
    script.era, script.capabilities, script.lists = Era.MODERN, ALL, dict(LISTS)
    script.mute = {"subscriptions/listen"}
    process = world.start()
    if how == "error":
        process.refuse(process.got("subscriptions/listen")[0], -32601, "no such method")
    world.wait(100.0)
    assert len(process.got("subscriptions/listen")) == 1
    (note,) = [note for note in world.notes if note.event == "subscription.refused"]
    assert note.facts["reason"]


@pytest.mark.parametrize(
    "more", [{}, {"resourceSubscriptions": 5}, {"resourceSubscriptions": [{"uri": "u"}]}]
)
def test_a_stream_that_does_less_than_was_asked_is_told_of(more: Json) -> None:
    """2026-07-28: the client SHOULD check what was acknowledged. Law 5: it may be anything."""
    world = there(Era.MODERN)
    process = world.processes["time"]
    process.script.mute = {"subscriptions/listen"}
    page = world.client()
    page.listen(time=["u"])
    new = process.got("subscriptions/listen")[-1]["id"]
    agreed = {"toolsListChanged": True, **more}
    process.tell("subscriptions/acknowledged", _meta={META: new}, notifications=agreed)
    assert [(method, params["uri"]) for _, _, method, params in page.told()] == [(UNHEARD, "u")]
    (note,) = [note for note in world.notes if note.event == "subscription.partial"]
    assert "resourcesListChanged" in str(note.facts["reason"])


def test_a_word_about_a_stream_that_is_not_the_brokers_is_nobodys() -> None:
    """Law 8: only an acknowledgement is taken for one."""
    world = there(Era.MODERN)
    process = world.processes["time"]
    for params in ({"_meta": {META: 999}}, {"_meta": 5}, {}):
        process.tell("subscriptions/acknowledged", **params)
    process.tell("cancelled", requestId=999)
    process.tell("cancelled")
    assert world.engine.counters["dropped.notification"] == 5
    assert listens(world) == [FIRST]


def test_the_body_of_an_update_passes_as_it_came() -> None:
    """Law 7."""
    world = there(Era.LEGACY)
    page: Client = world.client()
    page.listen([], time=["u"])
    page.inbox.clear()
    world.processes["time"].say(
        b'{"jsonrpc":"2.0","method":"%b","params":{"uri" : "u", "x":1.0}}' % UPDATED.encode()
    )
    ((_, body),) = page.inbox
    assert body == b'{"uri" : "u", "x":1.0}'
    assert json.loads(body)["uri"] == "u"
