"""The client's automaton, without a socket or a clock: greeting, calls, credit, and every way to an end."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.limits import LimitsConfig
from client_shim import errors, wire
from client_shim.protocol import outbox
from client_shim.protocol.calls import GRACE_S
from client_shim.protocol.events import Dropped, Ended, Event, Logged, Lost, Notified, Progressed
from client_shim.protocol.payload import prepare
from client_shim.protocol.reasons import is_for_the_next
from client_shim.protocol.state import ConnectionPhase
from tests.client_shim.talk import ECHO, LIMITS, WINDOW, flush, greeting, hear, opened


def only_error(events: list[Event]) -> errors.BrokerError:
    """The error of the one call that these events end."""
    (outcome,) = [event.outcome for event in events if isinstance(event, Ended)]
    assert isinstance(outcome, errors.BrokerError)
    return outcome


def how_lost(events: list[Event]) -> errors.Unavailable:
    """Why the connection is over; nothing is said after that."""
    assert isinstance(events[-1], Lost)
    return events[-1].error


# --- the greeting ------------------------------------------------------------------------------------


def test_a_request_waits_for_the_welcome() -> None:
    """Every request carries the instance it is for, which only the welcome tells."""
    state = greeting()
    with pytest.raises(RuntimeError, match="open connection"):
        state.request(1, ECHO, 0.0)
    hear(state, wire.Welcome(0, 0, "i1", "1.0", LIMITS))
    state.request(1, ECHO._replace(timeout_s=1.5, flags=1, meta={"k": 1}), 0.0)
    assert flush(state) == [wire.Request(1, 1, "i1", "s", "echo", 1500, 1, {"k": 1})]


@pytest.mark.parametrize(
    ("versions", "side"), [([2, 3], "upgrade the shim"), ([0], "upgrade the broker"), (None, "the older")]
)
def test_a_refused_version_says_which_side_to_upgrade(versions: list[int] | None, side: str) -> None:
    """Law 10: the fault `wire-version` becomes an error with a next step."""
    data = {} if versions is None else {"versions": versions}
    events = hear(greeting(), wire.Fault(0, 0, "wire-version", "no", data))
    assert isinstance(how_lost(events), errors.WrongWireVersion)
    assert side in how_lost(events).hint


def test_a_header_of_another_version_is_understood_that_far() -> None:
    """A broker of the future may not know how to speak to us; its version is the first element for ever."""
    error = how_lost(greeting().receive([msgpack.packb((9, 99, 0, 0, "?"))], 0.0))
    assert isinstance(error, errors.WrongWireVersion)
    assert error.data["broker"] == [9]


def test_a_refused_greeting_is_told_in_the_brokers_words() -> None:
    """Law 10: why, and what to do, come from the side that knows."""
    fault = wire.Fault(0, 0, "busy", "64 connections are the limit", {"hint": "raise it"})
    error = how_lost(hear(greeting(), fault))
    assert isinstance(error, errors.BrokerRefused)
    assert str(error) == "the broker refused the connection: 64 connections are the limit; raise it"
    assert error.data["fault"] == "busy"


def test_no_welcome_in_time_is_silence() -> None:
    """A socket that is open and never answers must not hold its client for ever."""
    state = greeting()
    assert state.next_deadline() == 5.0
    assert state.expire(4.9) == []
    assert isinstance(how_lost(state.expire(5.0)), errors.BrokerSilent)
    assert state.next_deadline() is None


# --- the ends of a call ------------------------------------------------------------------------------


def test_a_result_is_handed_on_as_it_came() -> None:
    """Law 7: untouched bodies."""
    state = opened()
    id = state.request(1, ECHO, 0.0)
    body = b'{ "a" : 1.0e0 }'
    assert hear(state, wire.Result(1, id), body) == [Ended(id, body)]


def test_a_servers_error_keeps_its_code_message_and_data() -> None:
    """A server's JSON-RPC errors pass as bytes."""
    state = opened()
    body = b'{"code": -32602, "message": "no such zone", "data": {"zone": "X"}}'
    error = only_error(hear(state, wire.Error(1, state.request(1, ECHO, 0.0)), body))
    assert isinstance(error, errors.ServerError)
    assert (error.rpc_code, error.rpc_message, error.rpc_data) == (-32602, "no such zone", {"zone": "X"})


def test_an_answer_on_another_channel_ends_nothing() -> None:
    """Law 3: the number alone does not make it ours. It is counted."""
    state = opened()
    id = state.request(1, ECHO, 0.0)
    (dropped,) = hear(state, wire.Result(2, id), b"{}")
    assert isinstance(dropped, Dropped)
    assert (state.in_flight, state.counts) == (1, {"stray": 1})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"code": "x", "message": 1}', b"\xff", b"[" * 99999])
def test_an_error_that_is_none_still_ends_the_call(body: bytes) -> None:
    """Law 2: one answer, whatever the server wrote."""
    state = opened()
    events = hear(state, wire.Error(1, state.request(1, ECHO, 0.0)), body)
    assert isinstance(only_error(events), errors.InvalidReply)


@pytest.mark.parametrize("code", [code for code in wire.Code if code is not wire.Code.HELLO_FIRST])
def test_every_fault_has_a_type_with_the_brokers_words(code: wire.Code) -> None:
    """Errors are typed; only what cannot end a call has no class of its own."""
    state = opened()
    fault = wire.Fault(1, state.request(1, ECHO, 0.0), code.value, "so it is", {"hint": "do this"})
    error = only_error(hear(state, fault))
    assert isinstance(error, errors.CallError)
    assert (type(error) is errors.CallError) == (code is wire.Code.WIRE_VERSION)
    assert (error.code, str(error)) == (code.value, "so it is; do this")


def test_a_fault_of_a_newer_broker_is_a_call_error() -> None:
    """Whoever catches `CallError` need not know every code."""
    state = opened()
    error = only_error(hear(state, wire.Fault(1, state.request(1, ECHO, 0.0), "brand-new", "m", {})))
    assert (type(error), error.code) == (errors.CallError, "brand-new")


def test_a_fault_without_a_message_is_told_all_the_same() -> None:
    """Law 10: an error with no words helps nobody."""
    state = opened()
    id = state.request(1, ECHO, 0.0)
    (ended,) = hear(state, wire.Fault(1, id, "busy", "", {}))
    assert isinstance(ended, Ended)
    assert str(ended.outcome) == "the broker ended the call with the code 'busy' and no message"


def test_the_deadline_is_enforced_here_too_but_later() -> None:
    """Law 2: also when the broker fails to. It gets `GRACE_S`, for its own words are better."""
    state = opened()
    id = state.request(1, ECHO._replace(timeout_s=3.0), 10.0)
    flush(state)
    assert state.next_deadline() == 13.0 + GRACE_S
    assert state.expire(13.0 + GRACE_S - 0.01) == []
    assert isinstance(only_error(state.expire(13.0 + GRACE_S)), errors.DeadlineExceeded)
    assert flush(state) == [wire.Cancel(1, id, "deadline")]


def test_a_cancelled_call_is_over_at_once_and_its_late_end_is_counted() -> None:
    """Law 9: what comes late is counted, and ends nothing."""
    state = opened()
    first, second = state.request(1, ECHO, 0.0), state.request(1, ECHO, 0.0)
    flush(state)
    for id in (first, second):
        state.cancel(id, "why not")
    assert flush(state) == [wire.Cancel(1, id, "why not") for id in (first, second)]
    assert state.in_flight == 0
    (dropped,) = hear(state, wire.Fault(1, first, "cancelled", "as you wish", {}))
    assert isinstance(dropped, Dropped)
    hear(state, wire.Result(1, second), b"{}")
    assert state.counts == {"cancelled": 1, "late": 1}
    assert state.request(1, ECHO, 0.0) > second, "a number is never given twice"


def test_a_request_that_was_never_sent_is_taken_back_without_a_word() -> None:
    """What the broker never saw needs no cancelling, and no longer counts against the limits."""
    state = opened()
    for _ in range(outbox.MAX_MESSAGES + 1):
        state.cancel(state.request(1, ECHO, 0.0))
    assert flush(state) == []


def test_a_closed_channel_ends_its_own_calls_only() -> None:
    """Law 3 and 4: the neighbours do not notice, and the broker is told."""
    state = opened()
    mine, other = state.request(1, ECHO, 0.0), state.request(2, ECHO, 0.0)
    flush(state)
    (end,) = state.close_channel(1, "closed")
    assert isinstance(end, Ended)
    assert end.id == mine
    assert isinstance(end.outcome, errors.ClientClosed)
    assert flush(state) == [wire.Goodbye(1, 0, "closed")]
    assert hear(state, wire.Result(2, other), b"{}") == [Ended(other, b"{}")]


def test_a_channel_that_the_broker_ends_takes_its_calls_along() -> None:
    """Law 2: nobody waits for a channel that is gone."""
    state = opened()
    state.request(1, ECHO, 0.0)
    other = state.request(2, ECHO, 0.0)
    error = only_error(hear(state, wire.Goodbye(1, 0, "too greedy")))
    assert isinstance(error, errors.BrokerLost)
    assert "too greedy" in str(error)
    assert hear(state, wire.Result(2, other), b"{}") == [Ended(other, b"{}")]


# --- the end of the connection -------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [True, False])
def test_a_loss_says_whether_the_call_may_have_been_carried_out(sent: bool) -> None:
    """Law 8: never guess. Only what was never sent is known not to have happened."""
    state = opened()
    state.request(1, prepare("time", "tools/call", {"name": "now"}), 0.0)
    if sent:
        flush(state)
    events = state.lose("it ended")
    error = only_error(events)
    assert isinstance(error, errors.BrokerLost)
    assert error.outcome_unknown is sent
    assert "tool 'now' of server 'time'" in str(error)
    assert ("unknown" if sent else "never sent") in error.hint
    assert is_for_the_next(error) is not sent
    assert isinstance(how_lost(events), errors.BrokerLost)


@pytest.mark.parametrize("how", ["goodbye", "channel", "cut"])
@pytest.mark.parametrize(("method", "reads"), [("logs", True), ("status", True), ("restart", False)])
def test_what_only_asks_the_broker_about_itself_can_be_repeated(how: str, method: str, reads: bool) -> None:
    """Law 8: there is nothing to look for where nothing can have been changed."""
    state = opened()
    state.request(1, prepare("$broker", method, {"server": "time"}), 0.0)
    flush(state)
    channel = 1 if how == "channel" else 0
    events = state.lose("it ended") if how == "cut" else hear(state, wire.Goodbye(channel, 0, "it ends"))
    error = only_error(events)
    assert isinstance(error, errors.BrokerLost)
    assert error.outcome_unknown is not reads
    assert ("only asks" in error.hint) is reads
    assert ("look before" in error.hint) is not reads


@pytest.mark.parametrize("last_id", [None, 0, 2, 4, 9])
def test_a_goodbye_says_which_calls_the_broker_has_not_begun(last_id: int | None) -> None:
    """RFC 9113, section 6.8: what is above the last id can be sent again; and so can what never left.

    The goodbye of an older broker has no last id: of what was sent, nothing is known (law 8).
    """
    state = opened()
    ids = [state.request(channel, ECHO, 0.0) for channel in (1, 2, 1)]
    flush(state)
    unsent = state.request(2, ECHO, 0.0)
    events = hear(state, wire.Goodbye(0, 0, "it ends", last_id))
    assert events[-1] == Lost(how_lost(events), announced=True)
    ends = {event.id: event.outcome for event in events if isinstance(event, Ended)}
    begun = {id for id, outcome in ends.items() if not is_for_the_next(outcome)}
    assert ends.keys() == {*ids, unsent}
    assert begun == {id for id in ids if last_id is None or id <= last_id}
    assert all(ends[id].outcome_unknown is (id in begun) for id in ends)  # type: ignore[union-attr]


def test_a_broker_that_drains_ends_what_it_has_and_takes_no_more() -> None:
    """What it refuses goes to the next one; what it has begun it answers; credit and cancels go on."""
    state = opened()
    begun, refused, cancelled = (state.request(1, ECHO, 0.0) for _ in range(3))
    flush(state)
    (ended,) = hear(state, wire.Fault(1, refused, "shutting-down", "it ends", {}))
    assert isinstance(ended, Ended)
    assert is_for_the_next(ended.outcome)
    assert state.phase is ConnectionPhase.DRAINING
    with pytest.raises(RuntimeError, match="draining"):
        state.request(1, ECHO, 0.0)
    state.cancel(cancelled)
    assert flush(state) == [wire.Cancel(1, cancelled, None)]
    body = b" " * WINDOW
    assert hear(state, wire.Result(1, begun), body) == [Ended(begun, body)]
    assert [type(message) for message in flush(state)] == [wire.Credit]
    assert state.close_channel(1, "done") == []
    assert flush(state) == [wire.Goodbye(1, 0, "done")]
    assert state.lose("killed in the middle of it")[-1].announced  # type: ignore[union-attr]


def test_a_call_that_the_end_of_its_broker_cuts_off_is_not_sent_again() -> None:
    """Law 8: the broker says that it had begun, and the outcome is unknown."""
    state = opened()
    fault = wire.Fault(1, state.request(1, ECHO, 0.0), "shutting-down", "cut", {"outcome": "unknown"})
    error = only_error(hear(state, fault))
    assert (error.outcome_unknown, is_for_the_next(error)) == (True, False)


@pytest.mark.parametrize("code", ["wrong-instance", "hello-first"])
def test_a_broker_that_knows_no_such_client_has_begun_nothing_from_there_on(code: str) -> None:
    """It reads in order: what was sent before may have been begun, what is refused and what follows was not.

    The connection is over, or the call would be sent there again, and refused again, without an end.
    """
    state = opened()
    before, refused, after = (state.request(1, ECHO, 0.0) for _ in range(3))
    flush(state)
    events = hear(state, wire.Fault(1, refused, code, "who?", {}))
    ends = {event.id: is_for_the_next(event.outcome) for event in events if isinstance(event, Ended)}
    assert ends == {before: False, refused: True, after: True}
    assert isinstance(how_lost(events), errors.BrokerLost)


def test_a_goodbye_ends_the_connection_for_the_reason_it_gives() -> None:
    """The broker is ending, or has had enough of this client: the caller is told which."""
    state = opened()
    state.request(1, ECHO, 0.0)
    assert "evicted" in str(how_lost(hear(state, wire.Goodbye(0, 0, "evicted"))))
    assert state.phase is ConnectionPhase.ENDED


def test_a_broker_that_forgot_this_client_is_lost() -> None:
    """`hello-first` for a connection that has greeted: what was under way there is gone."""
    state = opened()
    ids = [state.request(1, ECHO, 0.0) for _ in range(2)]
    events = hear(state, wire.Fault(1, ids[1], "hello-first", "who?", {}))
    assert [event.id for event in events if isinstance(event, Ended)] == ids
    assert isinstance(how_lost(events), errors.BrokerLost)


def test_closing_on_purpose_ends_all_calls_and_says_goodbye_last() -> None:
    """Law 4: the broker need not wait for the lease to run out."""
    state = opened()
    state.request(1, ECHO, 0.0)
    flush(state)
    state.request(2, ECHO, 0.0)
    events = state.close("done")
    assert [type(event.outcome) for event in events if isinstance(event, Ended)] == [errors.ClientClosed] * 2
    assert flush(state) == [wire.Goodbye(0, 0, "done")]
    assert state.lose("anything") == []


# --- what is said unasked --------------------------------------------------------------------------------


def test_progress_belongs_to_a_call_and_other_news_to_a_channel() -> None:
    """Law 3: `id` names the call; 0 names no call."""
    state = opened()
    id = state.request(1, ECHO, 0.0)
    progress = wire.Notification(1, id, "s", "notifications/progress")
    assert hear(state, progress, b'{"progress":1}') == [Progressed(id, b'{"progress":1}')]
    message = wire.Notification(1, id, "s", "notifications/message")
    assert hear(state, message, b'{"level":"info"}') == [Logged(id, b'{"level":"info"}')]
    changed = wire.Notification(3, 0, "s", "notifications/tools/list_changed")
    assert hear(state, changed, b"{}") == [Notified(3, "s", changed.method, b"{}")]


@pytest.mark.parametrize("extends", [False, True])
def test_progress_holds_off_the_deadline_of_this_side_where_it_was_asked_to(extends: bool) -> None:
    """The broker's word counts; without progress this side ends the call as ever."""
    state = opened()
    flags = wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS * extends
    id = state.request(1, ECHO._replace(timeout_s=10.0, flags=flags), 0.0)
    progress = wire.Notification(1, id, "s", "notifications/progress")
    for due in (10.0 + GRACE_S, 20.0 + 2 * GRACE_S):
        hear(state, progress, b'{"progress":1}')
        assert state.expire(due - 0.1) == []
        assert state.next_deadline() == due
        events = state.expire(due)
        if not extends:
            assert isinstance(only_error(events), errors.DeadlineExceeded)
            return
        assert events == []
    assert isinstance(only_error(state.expire(30.0 + 3 * GRACE_S)), errors.DeadlineExceeded)


@given(st.lists(st.binary(max_size=40) | st.just(wire.encode(wire.Result(1, 1))), min_size=1, max_size=3))
def test_no_frame_is_too_strange(frames: list[bytes]) -> None:
    """Nothing that comes off the wire raises, or ends a call that it is not about."""
    state = opened()
    state.request(1, ECHO, 0.0)
    bystander = state.request(2, ECHO, 0.0)
    ended = [event.id for event in state.receive(frames, 0.0) if isinstance(event, Ended)]
    assert bystander not in ended or state.phase is ConnectionPhase.ENDED


@pytest.mark.parametrize(
    "frames",
    [
        [wire.encode(wire.Result(1, 1))],
        [wire.encode(wire.Result(1, 1)), b"{}", b"{}"],
        [wire.encode(wire.Fault(1, 1, "busy", "m", {})), b"{}"],
        [msgpack.packb((wire.VERSION, 99, 1, 1))],
    ],
)
def test_an_unreadable_answer_ends_its_call(frames: list[bytes]) -> None:
    """Law 2: no other answer will come, so the call ends. Law 9: it is counted."""
    state = opened()
    state.request(1, ECHO, 0.0)
    assert isinstance(only_error(state.receive(frames, 0.0)), errors.InvalidReply)
    assert state.counts == {"unreadable": 1}


# --- limits ------------------------------------------------------------------------------------------------


def test_too_large_is_refused_before_it_is_sent() -> None:
    """Libzmq would cut the connection without a word. Both sizes are named."""
    state = opened(max_message_bytes=10)
    state.request(1, ECHO._replace(body=b"x" * 10), 0.0)
    with pytest.raises(errors.TooLarge, match=r"11 bytes .* 10"):
        state.request(1, ECHO._replace(body=b"x" * 11), 0.0)
    assert state.in_flight == 1


def test_a_meta_that_fills_the_header_is_too_large() -> None:
    """The header has a limit of its own, and `_meta` is what can exceed it."""
    with pytest.raises(errors.TooLarge, match="smaller"):
        opened().request(1, ECHO._replace(meta={"k": "x" * wire.MAX_HEADER_BYTES}), 0.0)


def test_the_outbox_is_bounded_in_messages_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 6: a broker that does not read makes its clients wait, not grow."""
    monkeypatch.setattr(outbox, "MAX_BYTES", 10_000)
    state = opened(max_message_bytes=100_000)
    state.request(1, ECHO._replace(body=b"x" * 20_000), 0.0)  # one always fits
    with pytest.raises(errors.Busy) as refusal:
        state.request(1, ECHO, 0.0)
    assert refusal.value.retry_after_s == 1.0
    flush(state)
    for _ in range(60):
        state.request(1, ECHO, 0.0)
    monkeypatch.setattr(outbox, "MAX_MESSAGES", 60)
    with pytest.raises(errors.Busy):
        state.request(1, ECHO, 0.0)
    assert state.in_flight == 61


def test_what_waits_for_credit_is_as_much_as_a_broker_takes() -> None:
    """A burst that a broker of the default limits takes in is not refused by the shim: it only waits."""
    limits = LimitsConfig()
    assert limits.calls_per_connection <= outbox.MAX_MESSAGES
    assert limits.queue_bytes <= outbox.MAX_BYTES


def test_what_is_taken_back_out_of_a_full_outbox_leaves_the_rest_in_order() -> None:
    """Requests wait for credit, half of them are given up, and the others go in their order."""
    state = opened(request_credit_bytes=100)
    state.request(1, ECHO, 0.0)
    flush(state)
    ids = [state.request(1, ECHO, 0.0) for _ in range(outbox.MAX_MESSAGES)]
    with pytest.raises(errors.Busy):
        state.request(1, ECHO, 0.0)
    for id in ids[::2]:
        state.cancel(id)
    sent: list[int] = []
    while state.in_flight > 1 + len(sent):
        hear(state, wire.Credit(0, 0, 1_000))
        sent += [message.id for message in flush(state) if isinstance(message, wire.Request)]
    assert sent == ids[1::2]


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
def test_a_reading_client_never_runs_out_of_credit(sizes: list[int]) -> None:
    """Law 6: a broker that sends while less than the window is unread can send everything, always."""
    state, unread = opened(), wire.cost(wire.encode(wire.Welcome(0, 0, "i1", "1.0", LIMITS)), None)
    flush(state)
    for size in sizes:
        assert unread < WINDOW
        header, body = wire.encode(wire.Notification(1, 0, "s", "m")), b"x" * size
        unread += wire.cost(header, body)
        state.receive([header, body], 0.0)
        unread -= sum(message.read_bytes for message in flush(state) if isinstance(message, wire.Credit))
        assert unread >= 0, "only what was read is given back"
