"""What a call is told whose server a reload takes away, and when: laws 2 and 10."""

from __future__ import annotations

import msgspec

from broker.config.schema import ServerConfig
from client_shim.wire import Code
from tests.core.world import Client, World, ready


def two_calls(world: World) -> tuple[Client, int, int]:
    """A client with a call at the server, and one in line for it."""
    client = world.client()
    return client, client.call(), client.call()


def retune(world: World, server: ServerConfig) -> None:
    """The table of the server has changed."""
    world.engine.configure(msgspec.structs.replace(world.config, servers={server.name: server}))
    world.run(world.engine.registry.retune, server.name)


def test_who_waits_for_a_server_that_is_removed_is_told_at_once() -> None:
    """What is at it may still end; what is not sent yet never will be."""
    world = ready(serialized=True)
    client, sent, waiting = two_calls(world)
    world.run(world.engine.registry.withdraw, "time")
    assert client.fault(waiting).code == Code.UNKNOWN_SERVER
    assert client.fault(client.call()).code == Code.UNKNOWN_SERVER
    assert client.endings(sent) == []
    world.processes["time"].reply(world.processes["time"].calls[0], "ok")
    assert client.result(sent) == "ok"
    world.assert_empty()


def test_who_waits_for_a_server_that_is_switched_off_is_told_at_once() -> None:
    """And by which key."""
    world = ready(serialized=True)
    client, sent, waiting = two_calls(world)
    off = msgspec.structs.replace(world.config.servers["time"], enabled=False)
    retune(world, off)
    assert client.fault(waiting).code == Code.SERVER_DISABLED
    assert client.endings(sent) == []


def test_no_call_outlives_the_row_of_its_server() -> None:
    """Law 4: whatever was at it or in line for it when the row goes, ends."""
    world = ready(serialized=True)
    client, sent, waiting = two_calls(world)
    world.processes.clear()
    world.run(world.engine.registry.remove, "time")
    assert client.fault(sent).code == Code.SERVER_DIED
    assert client.fault(waiting).code == Code.UNKNOWN_SERVER
    world.assert_empty()


def test_a_limit_that_is_lowered_ends_nothing() -> None:
    """What is above it may end by itself, and nothing further is given before."""
    world = ready(max_in_flight=2)
    client, process = world.client(), world.processes["time"]
    ids = [client.call() for _ in range(3)]
    lower = msgspec.structs.replace(world.config.servers["time"], max_in_flight=1)
    retune(world, lower)
    process.reply(process.calls[0], "a")
    assert len(process.calls) == 2
    process.reply(process.calls[1], "b")
    process.reply(process.calls[2], "c")
    assert [client.result(id) for id in ids] == ["a", "b", "c"]


def test_a_limit_that_is_raised_lets_in_who_waits() -> None:
    """At once, without a call that has to end first."""
    world = ready(max_in_flight=1)
    client, process = world.client(), world.processes["time"]
    client.call()
    client.call()
    raised = msgspec.structs.replace(world.config.servers["time"], max_in_flight=2)
    retune(world, raised)
    assert len(process.calls) == 2


def test_what_could_be_sent_again_is_not_where_its_server_was_removed() -> None:
    """There is no next process; and whoever waits for one would wait until the reload is over."""
    world = World()
    world.scripts["time"].annotations = {"echo": {"readOnlyHint": True}}
    world.start()
    client = world.client()
    id = client.call()
    world.run(world.engine.registry.withdraw, "time")
    world.exit()
    fault = client.fault(id)
    assert (fault.code, fault.data["not_sent_again"]) == (Code.SERVER_DIED, "stopped")
    world.assert_empty()
