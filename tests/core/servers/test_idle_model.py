"""Laws 1 and 2 for servers that rest: any interleaving of calls, idle stops, kills, stops and reloads.

`MCP_BROKER_EXAMPLES=10000 pytest --timeout=0 tests/core/servers/test_idle_model.py` tries ten thousand.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.servers.lifecycle import Event, State
from client_shim import wire
from tests.core.clients.test_notifications import ALL
from tests.core.fake_server import Json
from tests.core.reloading import Reloads
from tests.core.world import Client, World

IDLE_S = 1.0
TIMEOUT_S = 20.0
HIGH = 1024 * 1024
TABLES: dict[str, Json] = {
    "a": {"start": "demand", "idle_stop_sec": IDLE_S, "start_limit_burst": 100, "timeout": TIMEOUT_S},
    "b": {"idle_stop_sec": 2 * IDLE_S, "stateful": True, "max_in_flight": 1, "timeout": TIMEOUT_S},
}

names = st.sampled_from(sorted(TABLES))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), names),
        st.tuples(st.just("answer"), names),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.sampled_from([0.3, IDLE_S, 2 * IDLE_S, 30.0])),
        st.tuples(st.just("idle slowly"), names),
        st.tuples(st.just("bury"), names),
        st.tuples(st.just("kill"), names),
        st.tuples(st.just("stop"), names),
        st.tuples(st.just("start"), names),
        st.tuples(st.just("replace"), names),
        st.tuples(st.just("retune"), names),
        st.tuples(st.just("measure"), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("subscribe"), st.sampled_from(["", *sorted(TABLES)])),
    ),
    max_size=25,
)


class History:
    """One broker and one client, which calls; every call has a name of its own."""

    def __init__(self, budget: Mapping[str, int]) -> None:
        self.world = World(TABLES, budget)
        for script in self.world.scripts.values():
            script.capabilities = ALL
        self.tables = {name: dict(table) for name, table in TABLES.items()}
        self.reloads = Reloads(self.world)
        self.client: Client = self.world.client()
        self.calls: list[tuple[int, float]] = []
        self.edition = 0
        self.world.rest("a")
        self.world.start("b")

    def step(self, what: str, about: object) -> None:
        """Let one thing happen, if it can."""
        world, name = self.world, str(about)
        state = world.lifecycles[name].state if name in TABLES else None
        if what == "call":
            self.calls.append((self.client.call(name), world.now))
        elif what == "answer" and name in world.processes and state is not State.DRAINING:
            process = world.processes[name]
            for call in [call for call in process.calls if call["id"] not in process.answered][:1]:
                process.reply(call, {"id": call["id"]})
        elif what == "cancel" and self.calls:
            id, _ = self.calls[int(str(about)) % len(self.calls)]
            self.client.say(wire.Cancel(1, id, None))
        elif what == "measure":
            used = dict.fromkeys(world.processes, int(str(about)) * HIGH)
            world.run(world.engine.budget.measured, used)
        elif what == "subscribe":
            params = {"servers": None, "resources": {name: ["u"]} if name else {}}
            self.client.request(wire.MANAGEMENT, "listen", params, channel=1)
        elif what == "wait":
            assert isinstance(about, float)
            world.wait(about)
        elif what == "idle slowly" and state is State.READY:
            world.slow_to_end.add(name)
            world.wait(3 * IDLE_S)
            if world.lifecycles[name].state is not State.DRAINING:
                world.slow_to_end.discard(name)
        elif what == "bury" and state is State.DRAINING and name not in self.reloads.under_way:
            world.bury(name)
        elif what == "kill" and name in world.processes and state is not State.DRAINING:
            world.exit(name)
        elif what == "stop":
            world.stop(name)
        elif what == "start":
            world.feed(name, Event.START)
        elif what in ("replace", "retune") and not self.reloads.under_way and state is not State.DRAINING:
            self.edition += 1
            change = {"args": [str(self.edition)]} if what == "replace" else {"restart_sec": self.edition}
            self.tables[name] |= change
            self.reloads.reload(self.tables)
            for one in [*self.reloads.under_way]:
                self.reloads.go_on(one)
            self.reloads.finish()

    def check(self) -> None:
        """Law 1, by the world, which refuses a second process; law 2; no call waits for an idle server;
        never more processes than may run; and the budget has looked whenever it had to."""
        world = self.world
        world.engine.budget.look(world.now)
        assert world.engine.finish(world.now) == []
        for id, since in self.calls:
            ended = len(self.client.endings(id))
            assert ended == 1 or (ended == 0 and world.now <= since + TIMEOUT_S)
        assert len(world.processes) <= world.budget.get("max_running", 2)
        for name, server in world.engine.servers.items():
            if server.lifecycle.idle:
                assert not world.engine.dispatch.table.of_server(name)
        given = [call["id"] for process in world.ever for call in process.calls]
        assert len(given) == len(set(given))
        assert len(given) <= len(self.calls)

    def end(self) -> None:
        """Everything ends: each call has one ending, and what nobody uses rests."""
        self.client.listen()
        for name in TABLES:
            if self.world.lifecycles[name].state is State.DRAINING:
                self.world.bury(name)
        self.world.wait(1000.0)
        for id, _ in self.calls:
            assert len(self.client.endings(id)) == 1
        assert all(one.state in (State.IDLE, State.STOPPED) for one in self.world.lifecycles.values())
        assert self.world.processes == {}


BUDGETS: list[dict[str, int]] = [{}, {"max_running": 1}, {"memory_high": HIGH}]


@pytest.mark.parametrize("budget", BUDGETS, ids=["no limit", "max_running", "memory_high"])
@given(steps)
def test_no_interleaving_loses_a_call_or_does_it_twice(
    budget: dict[str, int], history: list[tuple[str, object]]
) -> None:
    """A call that meets the end of an idle process, at whatever moment; and two that need the same place."""
    it = History(budget)
    for what, about in history:
        it.step(what, about)
        it.check()
    it.end()
