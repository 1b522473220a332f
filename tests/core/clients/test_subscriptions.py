"""Who listens: a row for each channel, and only while it does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.calls.queue import ChannelKey
from broker.core.clients import subscriptions
from broker.core.clients.subscriptions import Subscription, Subscriptions, read_subscription

A, B, C = (b"a", 1), (b"a", 2), (b"b", 1)
EMPTY = "<Subscriptions channels=0 uris=0 servers=0>"


def heard(lanes: Iterable[ChannelKey | None]) -> list[ChannelKey]:
    """Without the pauses."""
    return [lane for lane in lanes if lane is not None]


def wants(*servers: str, **resources: str) -> Subscription:
    """What a channel wants: servers, and the resources of servers, parted by spaces."""
    return Subscription(
        frozenset(servers), {name: frozenset(uris.split()) for name, uris in resources.items()}
    )


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{}", Subscription()),
        (b'{"servers":null}', Subscription(None)),
        (b'{"servers":["s","s"]}', wants("s")),
        (b'{"resources":{"s":["u","v","u"],"t":[]}}', wants(s="u v")),
    ],
)
def test_the_params_of_listen(body: bytes, what: Subscription) -> None:
    """`null` means all servers; a kind that the params do not name is not subscribed."""
    assert read_subscription(body) == what


@pytest.mark.parametrize(
    "body",
    [
        b'{"server":["s"]}',
        b'{"servers":"s"}',
        b'{"resources":["u"]}',
        b'{"resources":{"s":[""]}}',
        b'{"resources":{"s":["%b"]}}' % (b"x" * (subscriptions.MAX_URI_BYTES + 1)),
        b'{"servers":[%b]}' % b",".join([b'"s"'] * (subscriptions.MAX_PARAMS_BYTES // 4)),
    ],
)
def test_params_that_are_none_are_refused(body: bytes) -> None:
    """Law 8: a misspelt key is not taken for "nothing"."""
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's errors are of this kind, with words of their own
        read_subscription(body)


def test_who_listens_hears() -> None:
    """Law 3: each channel gets what it subscribed to, of one server or of all."""
    table = Subscriptions()
    table.want(A, Subscription(None))
    table.want(B, wants("s"))
    table.want(C, wants("t"))
    assert (heard(table.listeners("s")), heard(table.listeners("u"))) == ([A, B], [A])
    assert (table.channels(b"a"), table.channels(b"x")) == ([1, 2], [])
    table.want(A, wants("t"))
    assert (heard(table.listeners("s")), sorted(heard(table.listeners("t")))) == ([B], [A, C])


def test_the_first_in_and_the_last_out_make_a_difference() -> None:
    """The broker holds one subscription at the server for all its clients."""
    table = Subscriptions()
    assert table.want(A, wants(s="u v")) == {"s"}
    table.want(B, wants(s="u", t="w"))
    assert (set(table.uris("s")), set(table.uris("t"))) == ({"u", "v"}, {"w"})
    assert table.want(A, Subscription()) == {"s"}
    assert set(table.uris("s")) == {"u"}
    assert table.drop(b"a") == {"s", "t"}
    assert (repr(table), set(table.uris("s"))) == (EMPTY, set())


@pytest.mark.parametrize(
    ("uri", "hears"),
    [
        ("file:///notes", True),
        ("file:///notes/", True),
        ("file:///notes/a/b", True),
        ("file:///notes?x=1", True),
        ("file:///notes#top", True),
        ("file:///notes2", False),
        ("file:///", False),
        ("", False),
    ],
)
def test_who_subscribed_to_the_whole_hears_of_a_part(uri: str, hears: bool) -> None:
    """2025-11-25: the uri of an update "might be a sub-resource of the one that the client subscribed to"."""
    table = Subscriptions()
    table.want(A, wants(s="file:///notes"))
    table.want(B, wants(t="file:///notes"))
    assert heard(table.subscribers("s", uri)) == ([A] if hears else [])


def test_a_very_long_uri_holds_nobody_up() -> None:
    """Law 5: to try each part that it has would take longer than the test may."""
    table = Subscriptions()
    table.want(A, Subscription(resources={"s": frozenset({"x://", "x:///"})}))
    assert heard(table.subscribers("s", "x:///" + "/" * 4_000_000)) == [A]


def test_a_folder_with_its_slash_is_a_whole_too() -> None:
    """The same, as others write it."""
    table = Subscriptions()
    table.want(A, wants(s="file:///notes/"))
    assert heard(table.subscribers("s", "file:///notes/a")) == [A]
    assert heard(table.subscribers("s", "file:///notes/")) == [A]


@pytest.mark.parametrize(
    ("limit", "value", "name"),
    [
        ("MAX_CHANNELS", 2, "listening channels"),
        ("MAX_CHANNELS_OF_ONE", 2, "listening channels of a connection"),
        ("MAX_URIS", 3, "subscribed resources"),
        ("MAX_URIS_OF_ONE", 3, "subscribed resources of a connection"),
    ],
)
def test_there_is_a_limit_and_it_has_a_name(
    limit: str, value: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 6; and what stays within it, or wants less than before, is never refused."""
    monkeypatch.setattr(subscriptions, limit, value)
    table = Subscriptions()
    table.want(A, wants(s="u v"))
    table.want(B, wants(s="u"))
    new = (b"a", 3) if "OF_ONE" in limit else C
    exceeded = table.exceeded(new, wants(s="w"))
    assert exceeded is not None
    assert (exceeded.name, exceeded.value) == (name, value)
    assert table.exceeded(A, wants(s="u w")) is None
    assert table.exceeded(new, Subscription()) is None


LANES = st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 3))
SERVERS = st.sampled_from(["s", "t"])


class AnyTable(RuleBasedStateMachine):
    """Channels want this and that, and go."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Subscriptions()
        self.rows: dict[tuple[bytes, int], Subscription] = {}

    @rule(
        lane=LANES,
        servers=st.none() | st.frozensets(SERVERS),
        resources=st.dictionaries(SERVERS, st.frozensets(st.sampled_from("uvw"), min_size=1)),
    )
    def want(
        self, lane: tuple[bytes, int], servers: frozenset[str] | None, resources: dict[str, frozenset[str]]
    ) -> None:
        self.rows[lane] = Subscription(servers, resources)
        self.table.want(lane, self.rows[lane])

    @rule(lane=LANES, whole=st.booleans())
    def drop(self, lane: tuple[bytes, int], whole: bool) -> None:
        self.table.drop(lane[0], None if whole else lane[1])
        gone = [other for other in self.rows if other == lane or (whole and other[0] == lane[0])]
        for other in gone:
            del self.rows[other]

    @invariant()
    def it_says_what_was_wanted(self) -> None:
        rows = {lane: row for lane, row in self.rows.items() if row}
        assert len(self.table) == len(rows)
        for server in "st":
            listeners = [lane for lane, row in rows.items() if row.servers is None or server in row.servers]
            assert sorted(heard(self.table.listeners(server))) == sorted(listeners)
            for uri in "uvw":
                hear = [lane for lane, row in rows.items() if uri in row.resources.get(server, ())]
                assert sorted(heard(self.table.subscribers(server, uri))) == sorted(hear)
                assert (uri in self.table.uris(server)) is bool(hear)

    def teardown(self) -> None:
        for connection in (b"a", b"b"):
            self.table.drop(connection)
        assert repr(self.table) == EMPTY
        assert (self.table._rows, self.table._subscribers) == ({}, {})


TestAnyTable = AnyTable.TestCase
