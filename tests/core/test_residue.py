"""What `World.assert_empty` finds: the model's last word is worth what this is."""

from __future__ import annotations

from broker.core.mcp.methods import Era
from broker.frontend.zmq.descriptors import Descriptors
from tests.core.clients.test_notifications import ALL, LISTS
from tests.core.residue import KEPT, residue, tables
from tests.core.world import World

SERVERS = {"old": {"serialized": True}, "new": {}}


def busy() -> World:
    """A broker with a client that has everything under way that there is."""
    world = World(SERVERS, credit_bytes=65_536)
    for name, script in world.scripts.items():
        script.era = Era.MODERN if name == "new" else Era.LEGACY
        script.capabilities, script.lists = ALL, dict(LISTS)
        script.annotations = {"echo": {"readOnlyHint": True}}
        world.start(name)
    page = world.client()
    page.listen(old=["u"], new=["v"])
    page.request("$broker", "status")
    page.call("old")
    page.call("old", channel=2)
    page.call("new", meta={"io.modelcontextprotocol/logLevel": "info"})
    world.scripts["new"].mute = {"tools/list"}
    world.processes["new"].tell("tools/list_changed")
    return world


def test_every_table_is_found() -> None:
    """Law 4: by looking, so that none can be forgotten."""
    world = busy()
    page = world.client(b"b")
    page.request("old", "tools/list", channel=3)
    assert set(residue(world.engine)) >= {
        *("CallTable._calls", "CallTable._by_client", "CallTable._per_channel", "CallTable._deadlines"),
        *(
            "Connections._by_key",
            "Requests.managing",
            "Attribution._open",
            "FairQueue._lanes",
            "FairQueue._new",
        ),
        *(
            "Subscriptions._rows",
            "Subscriptions._subscribers",
            "LegacySubscription._has",
            "ListenStream._uris",
        ),
    }


def test_a_table_that_somebody_adds_is_found() -> None:
    """Law 4: on its first day, however deep it is."""
    world = busy()
    world.engine.servers["old"].queue.new_table = {"a": {"b": [1]}}  # type: ignore[attr-defined]
    assert residue(world.engine)["FairQueue.new_table"] == 1


def test_what_may_be_kept_is_there() -> None:
    """An exception for what is no more would hide the next one of that name."""
    world = busy()
    found = {name for root in (world.engine, Descriptors()) for names, _ in tables(root) for name in names}
    assert KEPT.keys() <= found
