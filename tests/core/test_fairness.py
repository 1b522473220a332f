"""The line in front of a server: everybody's turn comes, nobody's comes twice."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.fairness import Line
from broker.core.routing import Call


def call(id: int, channel: int = 1, connection: bytes = b"a") -> Call:
    """A call that waits."""
    return Call(
        id=id,
        connection=connection,
        channel=channel,
        client_id=id,
        server="s",
        method="tools/call",
        name="x",
        body=b"{}",
        meta=None,
        wants_progress=False,
        extends=False,
        token=id,
        timeout_s=30.0,
        deadline=30.0,
        since=0.0,
    )


def send(line: Line) -> list[Call]:
    """Everybody whose turn it is now, as the multiplexer sends them."""
    sent = []
    while (following := line.next()) is not None:
        following.sent = True
        sent.append(following)
    return sent


def serve(line: Line) -> Iterator[Call]:
    """The order in which calls get to a server that answers the oldest first."""
    running = send(line)
    while running:
        done = running.pop(0)
        yield done
        line.leave(done)
        running += send(line)


def test_one_channel_is_served_in_its_order() -> None:
    """Section 2: a client's calls do not overtake each other on the way in."""
    line = Line(2)
    for id in range(6):
        line.join(call(id))
    assert [done.id for done in serve(line)] == list(range(6))


def test_channels_take_turns() -> None:
    """Law 5: round robin over channels, not over calls; connections with the same channel number differ."""
    line = Line(1)
    for id, (connection, channel) in enumerate([(b"a", 1)] * 3 + [(b"a", 2)] * 2 + [(b"b", 1)]):
        line.join(call(id, channel, connection))
    assert [done.id for done in serve(line)] == [0, 3, 5, 1, 4, 2]


def test_no_more_than_the_limit_run_at_once() -> None:
    """Law 6: `max_in_flight`, or one where the server is serialized."""
    line = Line(3)
    for id in range(10):
        line.join(call(id, channel=id))
    assert len(send(line)) == 3
    assert line.next() is None
    assert (line.waiting, line.running) == (7, 3)


def test_nobody_is_next_while_the_server_does_not_read() -> None:
    """Section 5: what waits, waits where it can still be cancelled, not in a pipe."""
    line = Line(3)
    line.join(call(1))
    line.held = True
    assert line.next() is None
    line.held = False
    assert send(line) != []


def test_who_leaves_before_his_turn_is_not_called() -> None:
    """Law 2: a call that was cancelled in line never gets to its server."""
    line = Line(1)
    calls = [call(id, channel) for id, channel in enumerate([1, 1, 2, 3])]
    for waiting in calls:
        line.join(waiting)
    line.leave(calls[0])
    line.leave(calls[2])
    assert [done.id for done in serve(line)] == [1, 3]
    assert repr(line) == "<Line waiting=0 running=0/1>"


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 4)), max_size=40),
    st.integers(1, 5),
    st.integers(0, 40),
)
def test_a_single_call_waits_for_each_other_lane_once(
    lanes: list[tuple[bytes, int]], concurrency: int, place: int
) -> None:
    """Law 5: behind a flood on other channels a call waits for what runs, and for one of each lane."""
    line = Line(concurrency)
    mine = call(999, connection=b"mine")
    for id, (connection, channel) in enumerate(lanes):
        if id == place:
            line.join(mine)
        line.join(call(id, channel, connection))
    if place >= len(lanes):
        line.join(mine)
    others = 0
    for done in serve(line):
        if done is mine:
            break
        others += 1
    assert others <= concurrency + len(set(lanes))


class AnyLine(RuleBasedStateMachine):
    """Calls join, are served, and leave at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(3)
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        self.ids = 0

    @rule(channel=st.integers(1, 3), connection=st.sampled_from([b"a", b"b"]))
    def join(self, channel: int, connection: bytes) -> None:
        self.ids += 1
        joined = call(self.ids, channel, connection)
        self.line.join(joined)
        self.waiting.append(joined)

    @rule()
    def next(self) -> None:
        following = self.line.next()
        assert (following is None) is (not self.waiting or len(self.running) == 3 or self.line.held)
        if following is not None:
            assert following is next(other for other in self.waiting if other.lane == following.lane)
            self.waiting.remove(following)
            following.sent = True
            self.running.append(following)

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.line.held = held

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        leaving = data.draw(st.sampled_from(self.waiting + self.running))
        self.line.leave(leaving)
        (self.running if leaving.sent else self.waiting).remove(leaving)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert (self.line.waiting, self.line.running) == (len(self.waiting), len(self.running))
        assert set(self.line._lanes) == {waiting.lane for waiting in self.waiting}


TestAnyLine = AnyLine.TestCase
