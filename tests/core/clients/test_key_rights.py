"""What a client with a key may use and manage, and how the end of its key ends it (laws 2, 3 and 4)."""

from __future__ import annotations

import msgspec
import pytest

from broker.config.keys import AuthorizedKeys, KeyConfig
from broker.core.clients.connections import CloseReason, Peer
from broker.core.effects import Level
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import Client, World

ONLY_TIME = KeyConfig(servers=("ti*",))


def authorize(world: World, **grants: KeyConfig) -> None:
    """A reload: these clients have keys, whose text is their name."""
    keys = AuthorizedKeys({name: name for name in grants}, grants=grants)
    world.engine.configure(msgspec.structs.replace(world.engine.config, authorized=keys))
    world.run(world.engine.clients.revoke)


def of_key(world: World, name: str, key: bytes = b"k") -> Client:
    """A client that has connected with this key."""
    client = world.stranger(key)
    client.peer = Peer(key=name, public=name, address="10.0.0.5")
    client.hello()
    return client


def place(**grants: KeyConfig) -> World:
    """Two servers, and these clients."""
    world = World({"time": {}, "secret": {}})
    for name in ("time", "secret"):
        world.start(name)
    authorize(world, **grants)
    return world


def test_a_server_that_is_not_granted_is_as_good_as_not_there() -> None:
    """The same answer for one that is configured and one that is not; the granted one is served."""
    world = place(laptop=ONLY_TIME)
    client = of_key(world, "laptop")
    denied, unknown = client.fault(client.call("secret")), client.fault(client.call("nothing"))
    assert denied.code == unknown.code == Code.UNKNOWN_SERVER.value
    assert denied.message.replace("secret", "nothing") == unknown.message
    assert "laptop" in denied.message
    assert "[keys.laptop]" in denied.data["hint"]
    local = world.client(b"local")
    assert client.result(client.request("time", "tools/list")) == {"tools": [{"name": "echo"}]}
    assert local.result(local.request("secret", "tools/list")) == {"tools": [{"name": "echo"}]}


def test_lists_and_notifications_are_of_granted_servers_only() -> None:
    """A list from memory, a subscription to everything, and one that names the server."""
    world = place(laptop=ONLY_TIME)
    client = of_key(world, "laptop")
    client.fault(client.request("secret", "tools/list"))
    assert client.result(client.listen())["servers"] == ["time"]
    told = client.result(client.listen(["time", "secret"], channel=2))
    assert told["servers"] == ["time"]
    assert told["not_subscribed"]["secret"]["code"] == Code.UNKNOWN_SERVER.value
    for name in ("secret", "time"):
        world.scripts[name].lists["tools/list"] = ["echo", "new"]
        world.processes[name].tell("tools/list_changed")
    assert {server for _, server, _, _ in client.told()} == {"time"}


@pytest.mark.parametrize("command", ["stop", "start", "restart", "release", "reload", "logs", "nonsense"])
def test_only_who_may_manage_does(command: str) -> None:
    """By default no key does; a client without a key, on the machine itself, always may."""
    world = place(laptop=KeyConfig(), admin=KeyConfig(manage=True))
    client = of_key(world, "laptop")
    fault = client.fault(client.request(wire.MANAGEMENT, command, {"server": "time"}))
    assert (fault.code, "manage = true" in fault.data["hint"]) == (Code.METHOD_REFUSED.value, True)
    assert not world.managing
    of_key(world, "admin", b"m").request(wire.MANAGEMENT, command, {"server": "time"})
    world.client(b"local").request(wire.MANAGEMENT, command, {"server": "time"})
    assert len(world.managing) == 2


@pytest.mark.parametrize(
    "after",
    [{}, {"other": KeyConfig()}, {"laptop": ONLY_TIME}, {"laptop": KeyConfig(manage=True)}],
    ids=["revoked", "another", "may less", "may more"],
)
def test_a_key_that_changes_ends_its_connections_and_calls(after: dict[str, KeyConfig]) -> None:
    """At once, upstream too; the others go on. With its new rights the client comes in again."""
    world = place(laptop=KeyConfig(), desk=KeyConfig())
    world.scripts["time"].mute = {"tools/call"}
    laptop, desk, local = of_key(world, "laptop"), of_key(world, "desk", b"d"), world.client(b"local")
    for client in (laptop, desk, local):
        client.call("time")
    authorize(world, desk=KeyConfig(), **after)
    assert world.closed == {b"k": CloseReason.REVOKED}
    assert isinstance(laptop.inbox[-1][0], wire.Goodbye)
    assert "laptop" in (laptop.inbox[-1][0].reason or "")
    assert len(world.processes["time"].got("notifications/cancelled")) == 1
    assert world.engine.under_way == 2


def test_a_client_whose_key_was_revoked_before_its_hello_is_not_welcome() -> None:
    """It had done its handshake when the reload came."""
    world = place(laptop=KeyConfig())
    client = world.stranger(b"k")
    client.peer = Peer(key="laptop", public="laptop")
    authorize(world)
    client.say(wire.Hello(0, 0, [wire.VERSION], {"name": "page", "version": "1", "pid": 7}))
    assert world.closed == {b"k": CloseReason.REVOKED}
    assert not client.inbox
    assert len(world.engine.connections) == 0
    assert world.engine.counters["closed.revoked"] == 1
    (note,) = (one for one in world.notes if one.event == "client.closed")
    assert note.level == Level.INFO
    assert note.facts == {"client": "page (laptop)", "reason": "revoked", "key": "laptop", "address": ""}


@pytest.mark.parametrize(
    "peer", [Peer(key="old", public="laptop"), Peer(key="gone", public="gone"), Peer(public="gone")]
)
def test_a_key_that_has_another_name_or_none_by_the_hello_is_not_welcome(peer: Peer) -> None:
    """The connection would be counted and told of by the old name, or be taken for one that needs no key."""
    world = place(laptop=KeyConfig())
    client = world.stranger(b"k")
    client.peer = peer
    client.say(wire.Hello(0, 0, [wire.VERSION], {"name": "page", "version": "1", "pid": 7}))
    assert world.closed == {b"k": CloseReason.REVOKED}


def test_others_are_told_of_a_client_by_its_key() -> None:
    """The log and the errors name it: what a program calls itself can be anything."""
    world = place(laptop=KeyConfig())
    of_key(world, "laptop")
    (connection,) = world.engine.connections.all()
    assert connection.label == "page (laptop)"
    (note,) = (one for one in world.notes if one.event == "client.connected")
    assert note.facts == {"client": "page (laptop)", "key": "laptop", "address": "10.0.0.5"}


def test_requests_are_counted_by_key_while_the_key_holds() -> None:
    """Law 6: a key that is gone leaves no row."""
    world = place(laptop=KeyConfig())
    client = of_key(world, "laptop")
    client.call("time")
    client.call("time")
    assert world.engine.clients.requests.by_key == {"laptop": 2}
    authorize(world)
    assert world.engine.clients.requests.by_key == {}
