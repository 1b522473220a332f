"""No history of deaths, stops and starts makes a call happen twice that must not, or leaves one open."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.servers.lifecycle import Ending, Event, State
from client_shim import wire
from client_shim.wire import Code
from tests.core.fake_server import Json, Process
from tests.core.world import World

SERVERS: dict[str, Json] = {
    "plain": {"max_in_flight": 2, "start_limit_burst": 1000},
    "serial": {"serialized": True, "start_limit_burst": 2},
    "stateful": {"stateful": True, "restart": "on-failure"},
}
HARMLESS = {"read"}


@dataclass
class Made:
    """A call that was made, as its client knows it."""

    server: str
    tool: str
    cancelled: bool = False
    ended: bool = False

    @property
    def may_be_repeated(self) -> bool:
        """Whether sending it twice does no harm."""
        return self.tool in HARMLESS and self.server != "stateful"


class AnyDeaths(RuleBasedStateMachine):
    """One client with two channels, three servers, and every way for them to end and to come back."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SERVERS)
        for name, script in self.world.scripts.items():
            script.lists = {"tools/list": ["read", "write"]}
            script.annotations = {"read": {"readOnlyHint": True}}
            self.world.start(name)
        self.client = self.world.client()
        self.made: dict[int, Made] = {}

    @rule(
        name=st.sampled_from([*SERVERS]),
        tools=st.lists(st.sampled_from(["read", "write"]), min_size=1, max_size=3),
        channel=st.integers(1, 2),
        timeout_ms=st.sampled_from([1500, 30_000, 600_000]),
    )
    def call(self, name: str, tools: list[str], channel: int, timeout_ms: int) -> None:
        for tool in tools:
            number = len(self.made)
            params = {"name": tool, "arguments": {"number": number}}
            id = self.client.request(name, "tools/call", params, channel=channel, timeout_ms=timeout_ms)
            assert id == number + 1
            self.made[id] = Made(name, tool)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.made)))
        if not self.made[id].ended:
            self.made[id].cancelled = True
            self.client.say(wire.Cancel(1, id, None))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([*self.world.processes.values()]))
        open_calls = self.world.engine.dispatch.table
        has = [request for request in process.calls if open_calls.by_id(request["id"])]
        if has:
            request = data.draw(st.sampled_from(has))
            process.reply(request, request["params"]["arguments"]["number"])

    @rule(
        name=st.sampled_from([*SERVERS]),
        how=st.sampled_from(["die", "die", "die slowly", "hang", "stop", "restart"]),
    )
    def end(self, name: str, how: str) -> None:
        world, state = self.world, self.world.lifecycles[name].state
        if state is State.DRAINING:
            world.bury(name)
        elif how == "stop":
            world.stop(name)
        elif name in world.processes:
            world.slow_to_end |= {name} if how == "die slowly" else set()
            if how == "restart":
                world.restart(name)
            elif how == "hang":
                world.feed(name, Event.FAILED, Ending("it answered neither calls nor health checks"))
            else:
                world.exit(name)

    @rule(name=st.sampled_from([*SERVERS]))
    def start(self, name: str) -> None:
        self.world.feed(name, Event.START)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def every_call_ends_once_and_truly(self) -> None:
        for message, body in self.client.inbox:
            made = self.made[message.id]
            assert not made.ended, "a second ending"
            made.ended = True
            if isinstance(message, wire.Result):
                assert body == b"%d" % (message.id - 1)
            else:
                assert isinstance(message, wire.Fault)
                self.is_a_true_fault(made, message, self.sent(message.id))
        self.client.inbox.clear()

    def is_a_true_fault(self, made: Made, fault: wire.Fault, sent: list[Process]) -> None:
        if fault.code == Code.SERVER_DIED:
            why = fault.data["not_sent_again"]
            assert len(sent) in {"twice": (2,), "stopped": (1, 2)}.get(why, (1,))
            assert why in ({"twice", "stopped", "late"} if made.may_be_repeated else {"tool", "stateful"})
            assert not made.may_be_repeated or ("safe to repeat" in fault.data["hint"]) is (why != "twice")
        elif fault.code == Code.SERVER_DOWN:
            assert not sent, "what was sent may have been carried out"
        else:
            assert fault.code in (Code.DEADLINE, Code.CANCELLED)
            assert fault.code == Code.DEADLINE or made.cancelled

    def sent(self, id: int) -> list[Process]:
        """The processes that a call was sent to."""
        return [
            process
            for process in self.world.ever
            for request in process.calls
            if request["params"]["arguments"]["number"] == id - 1
        ]

    @invariant()
    def nothing_happens_twice_that_must_not(self) -> None:
        for number, made in self.made.items():
            sent = self.sent(number)
            assert len(sent) <= 1 + made.may_be_repeated
            assert len({id(process) for process in sent}) == len(sent), "twice to one process"

    @invariant()
    def what_a_dead_server_had_has_ended_or_waits(self) -> None:
        calls = self.world.engine.dispatch.table
        for name, server in self.world.engine.servers.items():
            mine = calls.of_server(name)
            assert server.queue.running == sum(call.sent for call in mine)
            assert server.queue.waiting == sum(not call.sent for call in mine)
            assert name in self.world.processes or server.queue.running == 0
            if server.lifecycle.state is State.STOPPED:
                assert mine == []
            if server.opened:
                full = server.queue.running + server.queue.reserved >= server.config.concurrency
                assert full or server.queue.waiting == 0
        assert calls.body_bytes == sum(len(call.body) for name in SERVERS for call in calls.of_server(name))

    def teardown(self) -> None:
        """In the end everybody has heard, and nothing is left."""
        self.world.wait(2000.0)
        self.every_call_ends_once_and_truly()
        assert all(made.ended for made in self.made.values())
        self.world.assert_empty()


TestAnyDeaths = AnyDeaths.TestCase
