"""Connections and their credit: what may be under way, what waits, and in which order it goes out."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.clients.connections import Connection, Connections, Peer, Send
from client_shim import wire

PEER = Peer(1000, 1000, 42)
PROGRESS = wire.Notification(1, 7, "s", "notifications/progress")


def table_and_connection(
    credit_bytes: int = 1000, outbox_bytes: int = 5000
) -> tuple[Connections, Connection]:
    """A table with one connection in it."""
    table = Connections(credit_bytes=credit_bytes, outbox_bytes=outbox_bytes)
    return table, table.open(b"a", "page", PEER, 5.0)


def cost(message: wire.Message, body: bytes | None) -> int:
    """What it takes of the credit."""
    return wire.cost(wire.encode(message), body)


def ids(posts: list[Send]) -> list[int]:
    """Which requests these messages are about."""
    return [wire.decode(post.header).id for post in posts]


def test_a_connection_is_there_from_open_to_close() -> None:
    """Law 4: and no longer."""
    table, connection = table_and_connection()
    assert table.get(b"a") is connection
    assert (connection.name, connection.peer, connection.since) == ("page", PEER, 5.0)
    assert table.all() == [connection]
    assert table.close(b"a") is connection
    assert table.close(b"a") is None
    assert table.get(b"a") is None
    assert len(table) == 0


def test_within_its_credit_a_message_goes_out_at_once() -> None:
    """Section 5, credit: it is taken when the message is sent."""
    table, connection = table_and_connection()
    post = table.post(connection, wire.Result(1, 1), b"{}")
    assert post == Send(b"a", wire.encode(wire.Result(1, 1)), b"{}")
    assert connection.unread_bytes == cost(wire.Result(1, 1), b"{}")


def test_one_message_may_go_beyond_the_credit() -> None:
    """Section 5, credit: else a result larger than the window could never be sent."""
    table, connection = table_and_connection(credit_bytes=1000)
    assert table.post(connection, wire.Result(1, 1), b"x" * 9000) is not None
    assert table.post(connection, wire.Result(1, 2), b"{}") is None
    assert connection.outbox_bytes == cost(wire.Result(1, 2), b"{}")


def test_what_waits_goes_out_in_order_as_the_client_reads() -> None:
    """Law 2: nothing overtakes, also not a message that would fit."""
    table, connection = table_and_connection(credit_bytes=1000, outbox_bytes=10_000)
    big = cost(wire.Result(1, 1), b"x" * 2000)
    table.post(connection, wire.Result(1, 1), b"x" * 2000)
    for id in (2, 3, 4):
        assert table.post(connection, wire.Result(1, id), b"x" * 600) is None
    assert ids(table.credit(connection, big - 1000)) == []
    assert ids(table.credit(connection, 1)) == [2]
    assert table.post(connection, wire.Result(1, 5), b"") is None
    assert ids(table.credit(connection, 2000)) == [3, 4]
    assert ids(table.credit(connection, 2000)) == [5]
    assert connection.outbox_bytes == 0


def test_credit_that_was_never_taken_is_not_given() -> None:
    """Law 6: a client that claims to have read more than it was sent gains nothing by it."""
    table, connection = table_and_connection(credit_bytes=1000)
    table.credit(connection, 10**15)
    assert connection.unread_bytes == 0
    table.post(connection, wire.Result(1, 1), b"x" * 1000)
    assert table.post(connection, wire.Result(1, 2), b"") is None


def test_negative_credit_hurts_only_who_gives_it() -> None:
    """Law 5: the wire's integer has a sign; messages wait, and that is all."""
    table, connection = table_and_connection()
    assert table.credit(connection, -5000) == []
    assert table.post(connection, wire.Result(1, 1), b"") is None


def test_newer_progress_takes_the_place_of_older() -> None:
    """Law 6: a client that does not read has one line of progress per call waiting, in its old place."""
    table, connection = table_and_connection(credit_bytes=1)
    table.post(connection, wire.Result(1, 1), b"")
    for body in (b"1", b"22", b"333"):
        table.post(connection, PROGRESS, body, slot=("progress", 70))
    table.post(connection, PROGRESS, b"other", slot=("progress", 71))
    table.post(connection, wire.Result(1, 7), b"end")
    expected = (cost(PROGRESS, b"333"), cost(PROGRESS, b"other"), cost(wire.Result(1, 7), b"end"))
    assert connection.outbox_bytes == sum(expected)
    posts = []
    for _ in range(3):
        posts += table.credit(connection, 10**6)
    assert [post.body for post in posts] == [b"333", b"other", b"end"]


def test_a_call_and_a_message_of_one_number_do_not_meet() -> None:
    """Law 3: the slots of progress are named by calls, those of messages by their count."""
    table, connection = table_and_connection(credit_bytes=1)
    table.post(connection, wire.Result(1, 1), b"")
    for number in range(1, 6):
        table.post(connection, PROGRESS, b"p", slot=("progress", number))
        table.post(connection, wire.Result(1, number), b"m")
    assert len(connection.outbox) == 10


def test_an_outbox_above_its_limit_is_reported() -> None:
    """Law 6: whoever does not read is closed; the others are not asked to wait for it."""
    table, connection = table_and_connection(credit_bytes=1, outbox_bytes=1000)
    table.post(connection, wire.Result(1, 1), b"")
    table.post(connection, wire.Result(1, 2), b"x" * 400)
    assert table.overflowing == []
    table.post(connection, wire.Result(1, 3), b"x" * 400)
    assert table.overflowing == [connection]


def test_a_body_that_waits_does_not_keep_the_line_it_came_in() -> None:
    """Law 6: a view of a result would hold the whole line of the server in memory."""
    table, connection = table_and_connection(credit_bytes=1)
    line = bytearray(b"the line of a server")
    table.post(connection, wire.Result(1, 1), b"")
    table.post(connection, wire.Result(1, 2), memoryview(line)[4:8])
    line.clear()  # BufferError while somebody has a view of it
    assert [post.body for post in table.credit(connection, 10**6)] == [b"line"]


class AnyTraffic(RuleBasedStateMachine):
    """A client that reads now and then; a plain list is the reference of what it must get."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.connection = table_and_connection(credit_bytes=1500, outbox_bytes=4000)
        self.expected: list[tuple[int | None, bytes]] = []
        self.waiting = 0
        self.sent: list[bytes] = []
        self.unread: list[int] = []
        self.posted = 0

    def take(self, posts: list[Send]) -> None:
        for post in posts:
            assert isinstance(post.body, bytes)
            self.sent.append(post.body)
            self.unread.append(wire.cost(post.header, post.body))

    @rule(size=st.integers(0, 900), call=st.none() | st.integers(1, 3))
    def post(self, size: int, call: int | None) -> None:
        self.posted += 1
        body = str(self.posted).encode().ljust(size)
        message = wire.Result(1, self.posted) if call is None else PROGRESS
        had_outbox = bool(self.connection.outbox)
        post = self.table.post(
            self.connection, message, body, slot=None if call is None else ("progress", call)
        )
        waiting = [slot for slot, _ in self.expected[len(self.sent) :]]
        if post is None and call is not None and call in waiting:
            self.expected[len(self.sent) + waiting.index(call)] = (call, body)
        else:
            self.expected.append((call, body))
        if post is not None:
            assert not had_outbox
            self.take([post])

    @precondition(lambda self: self.unread)
    @rule(messages=st.integers(1, 4))
    def read(self, messages: int) -> None:
        read_bytes = sum(self.unread[:messages])
        del self.unread[:messages]
        self.take(self.table.credit(self.connection, read_bytes))

    @invariant()
    def what_was_sent_is_what_was_posted_in_its_order(self) -> None:
        assert self.sent == [body for _, body in self.expected[: len(self.sent)]]

    @invariant()
    def what_is_unread_is_within_the_window_and_one_message(self) -> None:
        assert self.connection.unread_bytes == sum(self.unread)
        assert sum(self.unread[:-1]) < 1500 or not self.unread

    @invariant()
    def the_outbox_knows_its_size(self) -> None:
        waiting = self.connection.outbox.values()
        assert self.connection.outbox_bytes == sum(wire.cost(*item) for item in waiting)
        assert len(waiting) == len(self.expected) - len(self.sent)
        if self.connection.outbox_bytes > 4000:
            assert self.table.overflowing

    def teardown(self) -> None:
        """A client that reads everything gets everything."""
        while self.unread:
            self.read(len(self.unread))
        assert self.sent == [body for _, body in self.expected]
        assert self.connection.outbox_bytes == self.connection.unread_bytes == 0


TestAnyTraffic = AnyTraffic.TestCase
