"""Laws 2 and 8 across brokers: a call that one has not begun goes to the next, and nobody begins it twice.

The two automata themselves, the client's and the broker's, with pipes between them that a message may stay in
for as long as it likes. Brokers drain, say goodbye, or are killed at any moment, and the next one comes.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client_shim import wire
from client_shim.errors import BrokerError, BrokerLost, ShuttingDown
from client_shim.protocol import payload
from client_shim.protocol.events import Ended, Event
from client_shim.protocol.reasons import is_for_the_next
from client_shim.protocol.state import ClientState, ConnectionPhase
from tests.client_shim.talk import WHO
from tests.core.fake_server import Json
from tests.core.world import Client, World

CHANNELS = st.integers(1, 3)
FEW = st.integers(1, 4)


class Handovers(RuleBasedStateMachine):
    """One client with three channels, and one broker after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets = 0
        self.waiting: dict[int, int] = {}
        """Calls that no broker has: secret → channel."""
        self.open: dict[int, int] = {}
        """Calls that this broker may have: id → secret."""
        self.channels: dict[int, int] = {}
        self.ends: dict[int, bytes | BrokerError] = {}
        self.cut_short = False
        """Whether any broker was killed, or ended before it was drained."""
        self.old: list[World] = []
        self.begin()

    def begin(self) -> None:
        """The next broker is there, and the client connects."""
        self.world = World({"time": {"max_in_flight": 2}}, credit_bytes=65_536)
        self.world.start()
        self.client: Client = self.world.stranger()
        self.state = ClientState(WHO, 0.0)
        self.up: deque[tuple[bytes, ...]] = deque()
        self.taken: set[int] = set()
        """The requests of this connection that the transport has taken."""
        self.is_lost = False
        self.transport_takes(1)
        self.broker_reads(1)
        self.client_reads(1)
        assert self.state.phase is ConnectionPhase.OPEN

    # -- the client -------------------------------------------------------------------------------

    def send(self, secret: int) -> None:
        """Make a call of what waits."""
        params = {"name": "echo", "arguments": {"secret": secret}}
        channel = self.waiting.pop(secret)
        self.open[self.state.request(channel, payload.prepare("time", "tools/call", params), 0.0)] = secret

    def absorb(self, events: list[Event]) -> None:
        """Take in what the client's automaton says."""
        for event in events:
            if not isinstance(event, Ended):
                continue
            secret = self.open.pop(event.id)
            assert secret not in self.ends, "it ended twice"
            unknown = isinstance(event.outcome, BrokerError) and event.outcome.outcome_unknown
            assert not unknown or event.id in self.taken, "what never left is known not to have been begun"
            if is_for_the_next(event.outcome):
                assert not self.begun()[secret], "it was begun, and would be sent again"
                self.waiting[secret] = self.channels[secret]
            else:
                self.ends[secret] = event.outcome
        if self.state.phase is ConnectionPhase.OPEN:
            for secret in list(self.waiting):
                self.send(secret)

    @rule(channels=st.lists(CHANNELS, min_size=1, max_size=4), leave=st.booleans(), arrive=st.booleans())
    def call(self, channels: list[int], leave: bool, arrive: bool) -> None:
        for channel in channels:
            self.secrets += 1
            self.waiting[self.secrets] = self.channels[self.secrets] = channel
        self.absorb([])
        if leave:
            self.transport_takes(9)
        if leave and arrive and not self.is_lost:
            self.broker_reads(9)

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def cancel(self, data: Any) -> None:
        id = data.draw(st.sampled_from(sorted(self.open)))
        self.ends[self.open.pop(id)] = b"cancelled"
        self.state.cancel(id)

    @rule(channel=CHANNELS, luck=st.integers(0, 3))
    def close_channel(self, channel: int, luck: int) -> None:
        if not luck:
            self.absorb(self.state.close_channel(channel, "closed"))

    @rule(messages=FEW)
    @precondition(lambda self: self.state.next_message() is not None)
    def transport_takes(self, messages: int) -> None:
        for _ in range(messages):
            if (frames := self.state.next_message()) is not None:
                self.up.append(frames)
                self.taken.add(wire.decode(frames[0]).id)
                self.state.sent()

    @rule(messages=FEW)
    @precondition(lambda self: self.client.inbox)
    def client_reads(self, messages: int) -> None:
        for message, body in self.client.inbox[:messages]:
            header = wire.encode(message)
            self.absorb(self.state.receive([header] if body is None else [header, body], 0.0))
        del self.client.inbox[:messages]

    # -- the broker -------------------------------------------------------------------------------

    @rule(messages=FEW)
    @precondition(lambda self: not self.is_lost and self.up)
    def broker_reads(self, messages: int) -> None:
        for _ in range(min(messages, len(self.up))):
            self.client.send(*self.up.popleft())

    @rule(size=st.sampled_from([1, 70_000]))
    @precondition(lambda self: not self.is_lost and self.unanswered())
    def server_answers(self, size: int) -> None:
        request = self.unanswered()[0]
        self.world.processes["time"].reply(request, {"secret": secret_of(request), "more": "x" * size})

    def is_connected(self) -> bool:
        """Whether the broker has not said goodbye."""
        return len(self.world.engine.connections) > 0

    def unanswered(self) -> list[Json]:
        """What the server is asked, and has not answered."""
        process = self.world.processes["time"]
        return [call for call in process.calls if call["id"] not in process.answered]

    @rule()
    @precondition(lambda self: not self.is_lost and not self.world.engine.clients.closing)
    def broker_drains(self) -> None:
        self.world.run(self.world.engine.refuse_new)

    @rule(patient=st.booleans())
    @precondition(lambda self: not self.is_lost and self.world.engine.clients.closing and self.is_connected())
    def broker_says_goodbye(self, patient: bool) -> None:
        if patient and not self.world.engine.is_drained:
            return
        self.cut_short = self.cut_short or not self.world.engine.is_drained
        self.world.run(self.world.engine.clients.goodbye, "it ends")
        self.world.closed.clear()  # closed, but not broken: the client has yet to read why

    @rule(luck=st.integers(0, 3), arrived=st.integers(0, 9))
    @precondition(lambda self: not self.is_lost)
    def broker_is_killed(self, luck: int, arrived: int) -> None:
        if luck:
            return
        self.cut_short = self.is_lost = True
        del self.client.inbox[arrived:]

    @rule()
    @precondition(lambda self: self.is_lost or not self.is_connected())
    def next_broker(self) -> None:
        while self.client.inbox:  # what arrived before a loss is read before it
            self.client_reads(len(self.client.inbox))
        self.absorb(self.state.lose("it ended"))
        assert not self.open
        self.old.append(self.world)
        self.begin()

    # -- what must hold ---------------------------------------------------------------------------

    def begun(self) -> Counter[int]:
        """How often servers were given each call, by whichever broker."""
        worlds = [*self.old, self.world]
        return Counter(secret_of(call) for world in worlds for server in world.ever for call in server.calls)

    @invariant()
    def no_call_is_begun_twice(self) -> None:
        assert set(self.begun().values()) <= {1}

    @invariant()
    def each_ends_with_its_own_answer_or_as_unknown(self) -> None:
        for secret, outcome in self.ends.items():
            if isinstance(outcome, BrokerError):
                is_cut = isinstance(outcome, (BrokerLost, ShuttingDown)) and outcome.outcome_unknown
                assert not is_cut or self.cut_short, "an end in order has failed a call"
            elif outcome != b"cancelled":
                assert json.loads(outcome)["secret"] == secret

    def teardown(self) -> None:
        """At the end a broker comes that lives: nobody waits for ever."""
        if self.is_lost or self.world.engine.clients.closing:
            self.is_lost = self.cut_short = True
            self.next_broker()
        for _ in range(10 + len(self.channels)):
            self.transport_takes(4)
            self.broker_reads(4)
            if self.unanswered():
                self.server_answers(1)
            self.client_reads(4)
        assert not self.open
        assert not self.waiting
        assert self.ends.keys() == self.channels.keys()
        self.no_call_is_begun_twice()


def secret_of(call: Json) -> int:
    """What its caller gave it."""
    return int(call["params"]["arguments"]["secret"])


TestHandovers = Handovers.TestCase
