"""How long a list is good for: what a server says of it, and what the broker makes of that."""

from __future__ import annotations

import pytest

from broker.core.calls.pending_lists import LONGEST_WAIT_S
from broker.core.mcp.methods import Era
from broker.core.servers.lists import READ_BURST
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json, Process
from tests.core.world import Client, World


def there(ttl_ms: int | None, era: Era = Era.MODERN, *, tells: bool = False, **keys: object) -> World:
    """A broker with one server whose lists have this `ttlMs`; it tells of changes or does not."""
    world = World({"time": {"watchdog_sec": 0, **keys}})
    script = world.scripts["time"]
    script.era, script.capabilities = era, {"tools": {"listChanged": tells}}
    script.hints = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "public"}
    world.start()
    return world


def reads(world: World) -> int:
    """How often its list was read, after the first time."""
    return len(world.processes["time"].got("tools/list")) - 1


def ask(client: Client) -> int:
    """Ask for its tools."""
    return client.request("time", "tools/list")


def last(process: Process) -> Json:
    """The last request for its list."""
    return process.got("tools/list")[-1]


@pytest.mark.parametrize(
    ("ttl_ms", "era", "tells", "after_s", "read"),
    [
        (5000, Era.MODERN, False, 4.9, 0),
        (5000, Era.MODERN, False, 5.0, 1),
        (5000, Era.MODERN, True, 5.0, 1),
        (0, Era.MODERN, False, 0.0, 1),
        (0, Era.MODERN, True, 1e6, 0),
        (-5, Era.MODERN, False, 0.0, 1),
        (None, Era.MODERN, False, 1e6, 0),
        (5000, Era.LEGACY, False, 1e6, 0),
        (0, Era.LEGACY, False, 1e6, 0),
    ],
)
def test_when_a_list_is_read_again(
    ttl_ms: int | None, era: Era, tells: bool, after_s: float, read: int
) -> None:
    """2026-07-28, caching: `now < t_received + ttlMs`. With 0, what the server tells of changes is better."""
    world = there(ttl_ms, era, tells=tells)
    client = world.client()
    world.wait(after_s)
    assert [tool["name"] for tool in client.result(ask(client))["tools"]] == ["echo"]
    assert reads(world) == read


def test_a_list_is_not_read_before_somebody_asks() -> None:
    """2026-07-28: "SHOULD NOT treat TTL as a polling interval"."""
    world = there(10)
    world.wait(1000.0)
    assert reads(world) == 0


def test_who_asks_for_an_old_list_gets_the_new_one() -> None:
    """2026-07-28: "SHOULD re-fetch on next access"."""
    world = there(1000)
    client = world.client()
    world.scripts["time"].lists["tools/list"] = ["new"]
    world.wait(1.0)
    assert [tool["name"] for tool in client.result(ask(client))["tools"]] == ["new"]


def test_what_is_left_of_its_time_is_what_a_client_is_told() -> None:
    """Else a client that keeps it would have it for twice as long."""
    world = there(5000)
    client = world.client()
    assert client.result(ask(client))["ttlMs"] == 5000
    world.wait(3.0)
    seen = client.result(ask(client))
    assert (seen["ttlMs"], seen["cacheScope"]) == (2000, "public")


def test_a_hundred_who_ask_are_one_reading() -> None:
    """One reading serves all clients that wait for it, and each gets one answer."""
    world = there(1000)
    process = world.processes["time"]
    world.wait(1.0)
    process.script.mute = {"tools/list"}
    clients = [world.client(str(number).encode()) for number in range(100)]
    ids = [ask(client) for client in clients]
    assert reads(world) == 1
    assert not any(client.endings(id) for client, id in zip(clients, ids, strict=True))
    process.reply(last(process), {"tools": [{"name": "new"}], "ttlMs": 1000})
    for client, id in zip(clients, ids, strict=True):
        assert client.result(id)["tools"] == [{"name": "new"}]
    world.assert_empty()


@pytest.mark.parametrize("how", ["error", "garbage", "pages", "death", "silence", "cancel", "lost"])
def test_a_reading_that_fails_gives_the_old_list(how: str) -> None:
    """2026-07-28: "MAY serve stale responses if errors occur"; a page must open."""
    world = there(1000)
    process, client = world.processes["time"], world.client()
    world.wait(1.0)
    process.script.mute = {"tools/list", "server/discover"}
    id = ask(client)
    if how == "error":
        process.refuse(last(process), -32603, "not now")
    elif how == "garbage":
        process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % last(process)["id"])
    elif how == "pages":
        process.reply(last(process), {"tools": "none"})
    elif how == "death":
        world.exit()
    elif how == "silence":
        world.wait(LONGEST_WAIT_S)
        assert "catalogue.stale" in [note.event for note in world.notes]
    elif how == "cancel":
        client.say(wire.Cancel(1, id, None))
        assert client.fault(id).code == Code.CANCELLED
    else:
        world.cut(client)
        assert client.endings(id) == []
    if how not in ("cancel", "lost"):
        assert [tool["name"] for tool in client.result(id)["tools"]] == ["echo"]
        world.cut(client)
    world.assert_empty()


def test_a_deadline_that_is_shorter_is_kept_with_the_old_list() -> None:
    """Law 2: no later than the deadline; and it is no failure."""
    world = there(1000)
    client = world.client()
    world.wait(1.0)
    world.scripts["time"].mute = {"tools/list"}
    id = client.request("time", "tools/list", timeout_ms=500)
    world.wait(0.5)
    assert [tool["name"] for tool in client.result(id)["tools"]] == ["echo"]


def test_a_server_that_hangs_holds_up_one_page_and_not_every_one() -> None:
    """Law 5: who asks while the reading takes too long already does not wait for it."""
    world = there(1000)
    client = world.client()
    world.wait(1.0)
    world.scripts["time"].mute = {"tools/list"}
    first = ask(client)
    world.wait(LONGEST_WAIT_S)
    assert client.result(first)
    assert client.result(ask(client))
    assert reads(world) == 1


def test_a_list_without_any_time_is_read_at_a_steady_pace() -> None:
    """Law 5: a flood of page opens is no flood of readings."""
    world = there(0)
    client = world.client()
    for _ in range(50):
        assert client.result(ask(client))
    assert reads(world) == READ_BURST
    world.wait(1.0)
    assert client.result(ask(client))
    assert reads(world) == READ_BURST + 1


@pytest.mark.parametrize("why", ["full", "stopped"])
def test_what_cannot_be_read_now_is_answered_at_once(why: str) -> None:
    """Section 2: a page that opens during a restart, or while the server does not read, sees the tools."""
    world = there(0)
    client = world.client()
    if why == "full":
        world.run(world.engine.registry.congested, "time", True)
    else:
        world.stop()
    assert client.result(ask(client))


def test_it_waits_in_no_line_behind_calls() -> None:
    """Law 5: a list is the broker's own affair with the server, as it is at the start."""
    world = there(0, serialized=True)
    client = world.client()
    for _ in range(5):
        client.call()
    assert client.result(ask(client))


def test_a_list_that_could_not_be_read_is_tried_again_when_it_is_asked_for() -> None:
    """Law 8: "no list" is said of what was tried."""
    world = World()
    world.scripts["time"].capabilities = {"tools": {}}
    world.scripts["time"].mute = {"tools/list"}
    process = world.start()
    process.refuse(last(process), -32603, "not yet")
    client = world.client()
    world.scripts["time"].mute = set()
    assert client.result(ask(client))["tools"] == [{"name": "echo"}]


def test_the_limits_of_a_client_hold_for_lists_that_are_waited_for() -> None:
    """Law 6: its row counts like that of any call."""
    world = World(calls_per_channel=2)
    script = world.scripts["time"]
    script.era, script.hints = Era.MODERN, {"ttlMs": 0}
    world.start()
    script.mute = {"tools/list"}
    client = world.client()
    ids = [ask(client) for _ in range(3)]
    assert client.fault(ids[2]).code == Code.BUSY


def test_a_change_that_is_told_while_who_asks_waits_is_read_once_more() -> None:
    """2026-07-28: the notification "invalidates" what is being read."""
    world = there(1000, tells=True)
    process, client = world.processes["time"], world.client()
    world.wait(1.0)
    process.script.mute = {"tools/list"}
    id = ask(client)
    process.tell("tools/list_changed")
    process.reply(last(process), {"tools": [{"name": "a"}], "ttlMs": 1000})
    assert client.endings(id) == []
    process.reply(last(process), {"tools": [{"name": "b"}], "ttlMs": 1000})
    assert client.result(id)["tools"] == [{"name": "b"}]


@pytest.mark.parametrize("era", list(Era))
def test_a_list_that_is_said_to_have_changed_is_not_answered_before_it_is_read(era: Era) -> None:
    """2026-07-28: it is "immediately stale". Who adds a tool by a call, and then asks, has it in the list."""
    world = there(None, era, tells=True)
    process, client = world.processes["time"], world.client()
    process.script.mute = {"tools/list"}
    process.tell("tools/list_changed")
    id = ask(client)
    assert client.endings(id) == []
    assert reads(world) == 1
    process.reply(last(process), {"tools": [{"name": "new"}]})
    assert client.result(id)["tools"] == [{"name": "new"}]
    world.assert_empty()


def test_nobody_waits_for_longer_because_others_came() -> None:
    """Law 5: nor because the server says again and again that the list is another one now."""
    world = there(None, tells=True)
    process, client = world.processes["time"], world.client()
    process.script.mute = {"tools/list"}
    process.tell("tools/list_changed")
    first = ask(client)
    world.wait(LONGEST_WAIT_S / 2)
    process.tell("tools/list_changed")
    process.reply(last(process), {"tools": [{"name": "new"}]})
    second = ask(client)
    world.wait(LONGEST_WAIT_S / 2)
    assert client.result(first)["tools"] == client.result(second)["tools"] == [{"name": "new"}]
