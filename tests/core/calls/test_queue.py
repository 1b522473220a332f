"""The line in front of a server: everybody's turn comes, nobody's comes twice."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.calls.queue import FairQueue
from broker.core.calls.table import Call


def call(id: int, channel: int = 1, connection: bytes = b"a") -> Call:
    """A call that waits."""
    return Call(
        id=id,
        channel_key=(connection, channel),
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


def send(line: FairQueue) -> list[Call]:
    """Everybody whose turn it is now, as the engine sends them."""
    sent = []
    while (following := line.next()) is not None:
        following.sent = True
        sent.append(following)
    return sent


def serve(line: FairQueue) -> Iterator[Call]:
    """The order in which calls get to a server that answers the oldest first."""
    running = send(line)
    while running:
        done = running.pop(0)
        yield done
        line.leave(done)
        running += send(line)


def test_one_channel_is_served_in_its_order() -> None:
    """Section 2: a client's calls do not overtake each other on the way in."""
    line = FairQueue(2)
    for id in range(6):
        line.join(call(id))
    assert [done.id for done in serve(line)] == list(range(6))


def test_channels_take_turns() -> None:
    """Law 5: round robin over channels, not over calls; connections with the same channel number differ."""
    line = FairQueue(1)
    for id, (connection, channel) in enumerate([(b"a", 1)] * 3 + [(b"a", 2)] * 2 + [(b"b", 1)]):
        line.join(call(id, channel, connection))
    assert [done.id for done in serve(line)] == [0, 3, 5, 1, 4, 2]


def test_no_more_than_the_limit_run_at_once() -> None:
    """Law 6: `max_in_flight`, or one where the server is serialized."""
    line = FairQueue(3)
    for id in range(10):
        line.join(call(id, channel=id))
    assert len(send(line)) == 3
    assert line.next() is None
    assert (line.waiting, line.running) == (7, 3)


def test_nobody_is_next_while_the_server_does_not_read() -> None:
    """Section 5: what waits, waits where it can still be cancelled, not in a pipe."""
    line = FairQueue(3)
    line.join(call(1))
    line.held = True
    assert line.next() is None
    line.held = False
    assert send(line) != []


def test_who_leaves_before_his_turn_is_not_called() -> None:
    """Law 2: a call that was cancelled in line never gets to its server."""
    line = FairQueue(1)
    calls = [call(id, channel) for id, channel in enumerate([1, 1, 2, 3])]
    for waiting in calls:
        line.join(waiting)
    line.leave(calls[0])
    line.leave(calls[2])
    assert [done.id for done in serve(line)] == [1, 3]
    assert repr(line) == "<FairQueue waiting=0 running=0/1>"


LANES = st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 4))


@given(st.integers(1, 1000), st.integers(1, 40), st.integers(0, 1200))
def test_a_single_call_waits_for_what_runs_and_for_no_more(flood: int, concurrency: int, served: int) -> None:
    """Law 5: behind 1,000 calls of one channel, a call of another waits for at most `max_in_flight` calls."""
    line = FairQueue(concurrency)
    for id in range(flood):
        line.join(call(id))
    running = send(line)
    for _ in range(min(served, flood - 1)):
        line.leave(running.pop(0))
        running += send(line)
    line.join(mine := call(9999, connection=b"mine"))
    others = 0
    while mine not in running:
        running += send(line)
        if mine not in running:
            others += 1
            line.leave(running.pop(0))
    assert others + running.index(mine) <= concurrency


@given(st.lists(LANES, max_size=40), st.integers(1, 5), st.integers(0, 40), st.integers(0, 40))
def test_a_single_call_waits_for_each_other_lane_once(
    lanes: list[tuple[bytes, int]], concurrency: int, place: int, served: int
) -> None:
    """Law 5: whoever else waits, and whenever it comes, it waits for what runs and for one of each lane."""
    line = FairQueue(concurrency)
    mine = call(999, connection=b"mine")
    for id, (connection, channel) in enumerate(lanes[:place]):
        line.join(call(id, channel, connection))
    running = send(line)
    for _ in range(min(served, len(running))):
        line.leave(running.pop(0))
        running += send(line)
    line.join(mine)
    for id, (connection, channel) in enumerate(lanes[place:], place):
        line.join(call(id, channel, connection))
    others = 0
    while mine not in running:
        others += 1
        if running:
            line.leave(running.pop(0))
        running += send(line)
    assert others <= concurrency + len(set(lanes))


@given(st.lists(LANES | st.none(), max_size=80), st.integers(1, 4))
def test_nobody_has_three_turns_while_another_waits_for_one(
    steps: list[tuple[bytes, int] | None], concurrency: int
) -> None:
    """Law 5: not even who comes with ever new channels, or joins again whenever its lane is empty."""
    line = FairQueue(concurrency)
    turns: dict[tuple[bytes, int], list[tuple[bytes, int]]] = {}
    running: list[Call] = []
    for id, lane in enumerate([*steps, *[None] * 80]):
        if lane is not None:
            line.join(call(id, lane[1], lane[0]))
            turns.setdefault(lane, [])
        elif running:
            line.leave(running.pop(0))
        for sent in send(line):
            running.append(sent)
            del turns[sent.channel_key]
            if sent.channel_key in line._lanes:
                turns[sent.channel_key] = []
            for lane_that_waits, since in turns.items():
                since += [sent.channel_key] if lane_that_waits != sent.channel_key else []
                assert since.count(sent.channel_key) <= 2
    assert not turns


def test_a_call_that_was_given_up_keeps_its_place_on_a_serialized_server() -> None:
    """A serialized server is busy until the late reply, the end of the process, or a stated time."""
    for freed_by in ("reply", "process", "time"):
        line = FairQueue(1)
        line.join(call(1))
        (given_up,) = send(line)
        line.leave(given_up)
        line.reserve(1, 30.0)
        line.join(call(2))
        assert (line.next(), line.reserved, line.wake_at) == (None, 1, 30.0)
        assert (line.release(2), line.release("1"), line.release(None), line.tick(29.9)) == (False,) * 4
        if freed_by == "reply":
            assert line.release(1)
        elif freed_by == "process":
            line.release_all()
        else:
            assert line.tick(30.0)
        assert (line.reserved, line.wake_at, len(send(line))) == (0, None, 1)


def test_no_place_is_kept_where_the_server_may_have_several_calls() -> None:
    """Law 6: a server that takes calls side by side need not be spared, and its table would grow."""
    line = FairQueue(2)
    line.reserve(1, 30.0)
    assert (line.reserved, line.wake_at) == (0, None)


def test_what_is_to_be_sent_again_is_sent_first_and_in_its_order() -> None:
    """Law 5: calls that are sent again have waited longest, so they go first."""
    line = FairQueue(3)
    for id, channel in enumerate([1, 2, 1, 3, 3, 1]):
        line.join(call(id, channel))
    lost = send(line)
    assert [one.id for one in lost] == [0, 1, 3]
    for again in reversed(lost):
        again.id, again.sent = again.id + 100, False
        line.rejoin(again)
    assert (line.waiting, line.running) == (6, 0)
    assert [done.id for done in serve(line)] == [100, 101, 103, 2, 4, 5]


class AnyLine(RuleBasedStateMachine):
    """Calls join, are served, and leave at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(3)
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        self.ids = 0

    @rule(channel=st.integers(1, 3), connection=st.sampled_from([b"a", b"b"]))
    def join(self, channel: int, connection: bytes) -> None:
        self.ids += 1
        joined = call(self.ids, channel, connection)
        self.queue.join(joined)
        self.waiting.append(joined)

    @rule()
    def next(self) -> None:
        following = self.queue.next()
        assert (following is None) is (not self.waiting or len(self.running) == 3 or self.queue.held)
        if following is not None:
            assert following is next(
                other for other in self.waiting if other.channel_key == following.channel_key
            )
            self.waiting.remove(following)
            following.sent = True
            self.running.append(following)

    @precondition(lambda self: self.running)
    @rule()
    def lose(self) -> None:
        """The server died: all calls that ran are retried, in the order in which they were sent."""
        for lost in reversed(self.running):
            self.ids += 1
            lost.id, lost.sent = self.ids, False
            self.queue.rejoin(lost)
        self.waiting = self.running + self.waiting
        self.running = []

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.queue.held = held

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        leaving = data.draw(st.sampled_from(self.waiting + self.running))
        self.queue.leave(leaving)
        (self.running if leaving.sent else self.waiting).remove(leaving)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert (self.queue.waiting, self.queue.running) == (len(self.waiting), len(self.running))
        assert set(self.queue._lanes) == {waiting.channel_key for waiting in self.waiting}


TestAnyLine = AnyLine.TestCase
