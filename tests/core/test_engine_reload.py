"""The same machine once more, while an operator changes the config all the time.

Servers are added, removed, switched on and off, replaced and retuned, with calls at them, in line for them,
and on their way back; limits change. What must hold is what held before.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from client_shim import wire
from tests.core.fake_server import Json
from tests.core.reloading import Reloads
from tests.core.test_engine_model import SERVERS, UPSETS, requests
from tests.core.test_engine_notifications import AnyNews

NAMES = st.sampled_from([*SERVERS])
LIMITS = {"credit_bytes": 65_536, "outbox_bytes": 65_536, "calls_per_connection": 5}


class AnyReload(AnyNews):
    """The same clients and servers, and a config that never rests."""

    def __init__(self) -> None:
        self.tables: dict[str, Json] = {name: dict(table) for name, table in SERVERS.items()}
        self.edition = 0
        self.calls_per_channel = 2
        self.ran: dict[str, int] = {}
        super().__init__()
        self.reloads = Reloads(self.world)

    # -- what an operator does --------------------------------------------------------------------

    @precondition(lambda self: not self.reloads.under_way)
    @rule(
        data=st.data(),
        changes=st.lists(
            st.tuples(NAMES, st.sampled_from(["remove", "add", "add", "off", "on", "replace", "retune"])),
            min_size=1,
            max_size=3,
        ),
        calls_per_channel=st.sampled_from([1, 2, 2, 3]),
        wanted=st.lists(requests, max_size=5),
    )
    def reload(
        self,
        data: st.DataObject,
        changes: list[tuple[str, str]],
        calls_per_channel: int,
        wanted: list[tuple[wire.Request, str]],
    ) -> None:
        """The servers that it is about have just been called."""
        if self.living():
            name, _ = changes[0]
            self.request(data, [(message._replace(service=name), tool) for message, tool in wanted])
        for name, change in changes:
            self.edit(name, change)
        self.calls_per_channel = calls_per_channel
        self.ran = {name: server.queue.running for name, server in self.world.engine.servers.items()}
        self.reloads.reload(self.tables, **LIMITS, calls_per_channel=calls_per_channel)

    def edit(self, name: str, change: str) -> None:
        if change == "remove":
            if len(self.tables) > 1:
                self.tables.pop(name, None)
        elif change == "add" or name not in self.tables:
            self.tables.setdefault(name, dict(SERVERS[name]))
        elif change in ("on", "off"):
            self.tables[name]["enabled"] = change == "on"
        elif change == "replace":
            self.edition += 1
            self.tables[name]["args"] = [str(self.edition)]
        else:
            self.tables[name]["max_in_flight"] = 5 - self.tables[name].get("max_in_flight", 3)

    @precondition(lambda self: self.reloads.under_way)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """The calls of a server that is to go have had their time."""
        self.reloads.go_on(data.draw(st.sampled_from(sorted(self.reloads.under_way))))

    @rule(name=NAMES, what=st.sampled_from(UPSETS))
    def upset(self, name: str, what: str) -> None:
        if self.reloads.runs(name):
            super().upset(name, what)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def a_reload_goes_on_when_it_can(self) -> None:
        self.reloads.finish()

    @invariant()
    def the_servers_are_those_of_the_config(self) -> None:
        if not self.reloads.under_way:
            assert self.world.engine.servers.keys() == self.tables.keys()
            assert self.world.engine.clients.limits.calls_per_channel == self.calls_per_channel
        for name in self.world.processes:
            assert self.reloads.runs(name)

    def room(self, name: str) -> int:
        """One that may have fewer calls than before ends those that it has, and is given no further one."""
        running, had = self.world.engine.servers[name].queue.running, self.ran.get(name, 0)
        self.ran[name] = running
        return max(super().room(name), had)

    def teardown(self) -> None:
        for name in sorted(self.reloads.under_way):
            self.reloads.go_on(name)
        for name in [*self.world.slow_to_end]:
            if name in self.world.processes:
                self.world.bury(name)
        self.reloads.finish()
        super().teardown()


TestAnyReload = AnyReload.TestCase
