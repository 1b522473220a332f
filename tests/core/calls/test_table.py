"""The table of open calls: whose answer it is, when its time is up, and that nothing stays behind."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.config.limits import LimitsConfig
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import MAX_EXTENDED_S, Call, CallTable


def add(
    table: CallTable,
    client_id: int = 1,
    *,
    connection: bytes = b"a",
    channel: int = 1,
    server: str = "s",
    deadline: float = 30.0,
    body: bytes = b"{}",
) -> Call:
    """A call that was opened."""
    call = Call(
        id=table.new_id(),
        channel_key=(connection, channel),
        connection=connection,
        channel=channel,
        client_id=client_id,
        server=server,
        method="tools/call",
        name="x",
        body=body,
        meta={"k": 1},
        wants_progress=False,
        extends=False,
        token=client_id,
        timeout_s=30.0,
        deadline=deadline,
        since=0.0,
    )
    table.add(call)
    return call


def test_ids_are_never_used_again() -> None:
    """Section 5: not even when the call has ended, for its late reply may still come."""
    table = CallTable()
    seen = set()
    for _ in range(100):
        call = add(table)
        table.end(call)
        seen |= {call.id, table.new_id()}
    assert len(seen) == 200


def test_the_same_id_of_two_clients_are_two_calls() -> None:
    """Law 3: what clients choose collides, and means nothing upstream."""
    table = CallTable()
    mine, yours = add(table, 1, connection=b"a"), add(table, 1, connection=b"b")
    assert mine.id != yours.id
    assert table.by_client(b"a", 1) is mine
    assert table.by_client(b"b", 1) is yours
    assert table.by_client(b"c", 1) is None


@pytest.mark.parametrize("id", [True, 1.0, "1", None, [1], {}])
def test_only_an_integer_names_a_call(id: object) -> None:
    """Law 8: 1.0 and true are equal to 1 in Python, and are not what the broker sent."""
    table = CallTable()
    assert add(table).id == 1
    assert table.by_id(id) is None
    assert table.by_id(1) is not None


def test_what_was_sent_and_may_not_be_sent_again_is_not_kept() -> None:
    """Law 6: a body is in memory until it is written, and no longer."""
    table = CallTable()
    call = add(table, body=b"x" * 1000)
    call.no_retry = NoRetry.TOOL
    assert table.body_bytes == 1000
    table.mark_sent(call, 0.0)
    assert (table.body_bytes, call.body, call.meta, call.sent) == (0, b"", None, True)
    table.end(call)
    assert table.body_bytes == 0


def test_what_may_be_sent_again_is_kept_and_counted_until_it_ends() -> None:
    """Law 6: also while it runs, and under the new id that it gets when its server has died."""
    table = CallTable()
    call = add(table, body=b"x" * 1000)
    table.mark_sent(call, 0.0)
    assert (table.body_bytes, len(call.body), call.begun) == (1000, 1000, True)
    before = call.id
    call.deaths += 1
    table.mark_lost(call)
    assert (table.by_id(before), table.by_id(call.id)) == (None, call)
    assert (table.body_bytes, call.sent, call.begun) == (1000, False, True)
    assert table.next_deadline() == call.deadline
    assert list(table.expired(call.deadline - 1)) == []
    table.end(call)
    assert (table.body_bytes, table.next_deadline()) == (0, None)


def test_the_calls_of_a_client_and_of_its_channel() -> None:
    """Law 4: a channel is released without its siblings."""
    table = CallTable()
    one, two = add(table, 1, channel=1), add(table, 2, channel=2)
    add(table, 1, connection=b"b", channel=1)
    assert table.of_client(b"a") == [one, two]
    assert table.of_client(b"a", 2) == [two]
    assert table.of_client(b"x") == []


@pytest.mark.parametrize(
    ("limit", "value"),
    [("calls_per_channel", 1), ("calls_per_connection", 2), ("calls", 3), ("queue_bytes", 6)],
)
def test_the_limit_that_a_further_call_would_exceed(limit: str, value: int) -> None:
    """Law 6: of a channel, a connection, the broker, and of all params; one above it nothing is exceeded."""
    table = CallTable()
    add(table, 1, channel=1)
    add(table, 2, channel=2)
    add(table, 1, connection=b"b")
    assert table.exceeded(LimitsConfig(**{limit: value}), (b"a", 1), 1) == limit
    assert table.exceeded(LimitsConfig(**{limit: value + 1}), (b"a", 1), 1) is None


def test_expired_gives_calls_in_the_order_of_their_deadlines() -> None:
    """Law 2: each at its own time, whatever the order they came in."""
    table = CallTable()
    for number, deadline in enumerate([30.0, 10.0, 20.0, 40.0]):
        add(table, number, deadline=deadline)
    expired = []
    for call in table.expired(30.0):
        expired.append(call.deadline)
        table.end(call)
    assert expired == [10.0, 20.0, 30.0]
    assert table.next_deadline() == 40.0


def test_progress_starts_the_time_anew() -> None:
    """Section 3, `PROGRESS_EXTENDS`: the old deadline is forgotten."""
    table = CallTable()
    call = add(table, deadline=30.0)
    table.extend(call, 25.0)
    assert (call.deadline, table.next_deadline()) == (55.0, 55.0)
    assert list(table.expired(54.9)) == []


def test_progress_does_not_extend_a_call_for_ever() -> None:
    """MCP: a maximum "regardless of progress notifications". A call that was given more keeps what it had."""
    table = CallTable()
    call, patient = add(table, deadline=30.0), add(table, 2, deadline=2 * MAX_EXTENDED_S)
    call.extends = True
    for now in range(0, int(MAX_EXTENDED_S) + 1000, 20):
        table.extend(call, float(now))
    assert (call.deadline, call.given_s) == (MAX_EXTENDED_S, MAX_EXTENDED_S)
    table.extend(patient, 10.0)
    assert (patient.deadline, patient.given_s) == (2 * MAX_EXTENDED_S, 30.0)


def test_the_deadlines_do_not_grow_with_progress() -> None:
    """Law 6: a call that is extended a million times has one row."""
    table = CallTable()
    calls = [add(table, number) for number in range(10)]
    for step in range(5000):
        table.extend(calls[step % 10], float(step))
        assert len(table._deadlines) <= 64 + 2 * len(calls)
    assert table.next_deadline() == min(call.deadline for call in calls)


def test_the_deadlines_do_not_grow_with_calls_that_ended() -> None:
    """Law 6: a busy day leaves nothing behind, though no deadline was ever reached."""
    table = CallTable()
    first = add(table, 0, deadline=1.0)
    for number in range(1, 5000):
        table.end(add(table, number, deadline=1e9))
        assert len(table._deadlines) <= 68
    assert table.next_deadline() == first.deadline


class AnyTable(RuleBasedStateMachine):
    """Calls come, are sent, extended and ended in any order; a list of them is the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.table = CallTable()
        self.calls: list[Call] = []
        self.now = 0.0

    @rule(
        client_id=st.integers(1, 4),
        connection=st.sampled_from([b"a", b"b"]),
        channel=st.integers(1, 2),
        server=st.sampled_from(["s", "t"]),
        timeout_s=st.floats(0, 50),
        size=st.integers(0, 9),
    )
    def add(
        self, client_id: int, connection: bytes, channel: int, server: str, timeout_s: float, size: int
    ) -> None:
        if self.table.by_client(connection, client_id) is not None:
            return
        deadline = self.now + timeout_s
        body = b"x" * size
        self.calls.append(
            add(
                self.table,
                client_id,
                connection=connection,
                channel=channel,
                server=server,
                deadline=deadline,
                body=body,
            )
        )

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), what=st.sampled_from(["send", "send once", "lose", "extend", "end"]))
    def change(self, data: st.DataObject, what: str) -> None:
        call = data.draw(st.sampled_from(self.calls))
        if what == "end":
            self.table.end(call)
            self.calls.remove(call)
        elif what == "extend":
            self.table.extend(call, self.now)
        elif what == "lose" and call.sent and call.no_retry is None:
            self.table.mark_lost(call)
            self.calls.sort(key=lambda one: one.id)
        elif what.startswith("send") and not call.sent:
            call.no_retry = NoRetry.TOOL if what == "send once" else None
            self.table.mark_sent(call, 0.0)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = sorted(call.deadline for call in self.calls if call.deadline <= self.now)
        expired = []
        for call in self.table.expired(self.now):
            expired.append(call.deadline)
            self.table.end(call)
            self.calls.remove(call)
        assert expired == due

    @invariant()
    def every_view_is_that_of_the_list(self) -> None:
        table, calls = self.table, self.calls
        assert len(table) == len(calls)
        assert table.body_bytes == sum(len(call.body) for call in calls)
        assert not any(call.body for call in calls if call.sent and call.no_retry)
        assert table.next_deadline() == min((call.deadline for call in calls), default=None)
        assert all(table.by_id(call.id) is call for call in calls)
        for connection in (b"a", b"b"):
            mine = [call for call in calls if call.connection == connection]
            assert sorted(table.of_client(connection), key=lambda call: call.id) == mine
            for channel in (1, 2):
                held = len([call for call in mine if call.channel == channel])
                full = table.exceeded(LimitsConfig(calls_per_channel=held), (connection, channel), 0)
                assert full == "calls_per_channel"
        for server in ("s", "t"):
            assert table.of_server(server) == [call for call in calls if call.server == server]

    def teardown(self) -> None:
        """Law 6: when every call has ended, the table is as it was at the start."""
        for call in self.calls:
            self.table.end(call)
        assert repr(self.table) == "<CallTable calls=0 clients=0>"
        assert (self.table.body_bytes, self.table._per_channel) == (0, {})
        assert self.table.next_deadline() is None
        assert not self.table._deadlines


TestAnyTable = AnyTable.TestCase
