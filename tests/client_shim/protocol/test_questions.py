"""Questions of servers at the client: each gets one answer, and the deadline of its call stands still."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from broker.core.calls import questions as core_questions
from broker.core.calls import table as core_table
from client_shim import errors, wire
from client_shim.protocol import calls, questions, reasons
from client_shim.protocol.calls import GRACE_S, MAX_EXTENDED_S
from client_shim.protocol.events import Dropped, Ended, Questioned, Withdrawn
from client_shim.protocol.questions import MAX_QUESTIONS
from client_shim.protocol.reasons import MAX_ANSWER_BYTES
from client_shim.protocol.state import ClientState
from tests.client_shim.talk import ECHO, flush, hear, opened

DAY = MAX_EXTENDED_S


def with_call(timeout_s: float | None = 10.0, flags: int = 0) -> ClientState:
    """A connection with the open call 1, on channel 1."""
    state = opened()
    assert state.request(1, ECHO._replace(timeout_s=timeout_s, flags=flags), 0.0) == 1
    flush(state)
    return state


def ask(state: ClientState, id: int, now: float = 0.0, call: int = 1) -> None:
    """The broker passes a question on, which the shell gets."""
    question = wire.Question(1, id, call, "s", "elicitation/create")
    assert hear(state, question, b"{}", now) == [Questioned(*question, b"{}")]


def dropped(state: ClientState, message: wire.Message, body: bytes | None = None) -> str:
    """The name under which a message of the broker is counted."""
    (event,) = hear(state, message, body)
    assert isinstance(event, Dropped)
    assert state.counts[event.why] == 1
    return event.why


def test_the_limits_are_those_of_the_broker() -> None:
    """Or one side would refuse what the other allows, and end a call that the other keeps."""
    assert questions.MAX_QUESTIONS == core_questions.MAX_QUESTIONS
    assert reasons.MAX_ANSWER_BYTES == core_questions.MAX_ANSWER_BYTES
    assert calls.MAX_EXTENDED_S == core_table.MAX_EXTENDED_S


# --- one answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ok", [True, False])
def test_a_question_has_one_answer(ok: bool) -> None:
    """Law 2, the other way round."""
    state = with_call()
    ask(state, 7)
    assert state.questions.answer(7, ok, b"{}", 1.0)
    assert not state.questions.answer(7, ok, b"{}", 1.0)
    assert flush(state) == [wire.Answer(1, 7, ok)]


def test_a_question_can_be_refused() -> None:
    """A server that asks must not wait for ever."""
    state = with_call()
    ask(state, 7)
    state.questions.refuse(Questioned(1, 7, 1, "s", "elicitation/create", b"{}"), 0.0)
    assert (frames := state.next_message()) is not None
    assert wire.decode(frames[0]) == wire.Answer(1, 7, False)
    assert json.loads(frames[1])["code"] == -32601


def test_a_question_that_was_withdrawn_is_not_answered() -> None:
    """And its shell is told, once; a withdrawal that crosses the answer is late."""
    state = with_call()
    ask(state, 7)
    assert hear(state, wire.Cancel(1, 7, "no longer")) == [Withdrawn(7, 1, "no longer")]
    assert not state.questions.answer(7, True, b"{}", 0.0)
    assert flush(state) == []
    assert dropped(state, wire.Cancel(1, 7, "no longer")) == "late"


@pytest.mark.parametrize("how", ["result", "cancel", "deadline", "channel", "loss", "goodbye", "close"])
def test_a_question_ends_with_its_call(how: str) -> None:
    """However that ends: nothing about the question is sent after it."""
    state = with_call()
    ask(state, 7)
    ends: dict[str, Callable[[], object]] = {
        "result": lambda: hear(state, wire.Result(1, 1), b"{}"),
        "cancel": lambda: state.cancel(1, "no longer wanted"),
        "deadline": lambda: state.expire(DAY + GRACE_S),
        "channel": lambda: state.close_channel(1, "closed"),
        "loss": lambda: state.lose("gone"),
        "goodbye": lambda: hear(state, wire.Goodbye(0, 0, "over", 1)),
        "close": lambda: state.close("closed"),
    }
    ends[how]()
    assert state.in_flight == len(state.questions) == 0
    assert not state.questions.answer(7, True, b"{}", 0.0)
    assert not any(isinstance(message, wire.Answer) for message in flush(state))


def test_a_question_about_a_call_that_has_ended_is_late() -> None:
    """Its withdrawal is on the way already, or the broker has the CANCEL of the call: no answer is needed."""
    state = with_call()
    state.cancel(1)
    flush(state)
    assert dropped(state, wire.Question(1, 7, 1, "s", "m"), b"{}") == "late"
    assert flush(state) == []


@pytest.mark.parametrize(("channel", "call"), [(2, 1), (1, 2), (1, 0)])
def test_a_question_about_no_call_is_refused(channel: int, call: int) -> None:
    """Law 8: the shell is not asked about another call than its own. Law 9: it is counted."""
    state = with_call()
    assert dropped(state, wire.Question(channel, 7, call, "s", "m"), b"{}") == "stray"
    assert flush(state) == [wire.Answer(channel, 7, False)]


def test_a_question_that_is_open_is_not_asked_again() -> None:
    """Whatever the broker says: it has one answer."""
    state = with_call()
    ask(state, 7)
    assert dropped(state, wire.Question(1, 7, 1, "s", "m"), b"{}") == "stray"
    assert state.questions.answer(7, True, b"{}", 0.0)
    assert flush(state) == [wire.Answer(1, 7, True)]


def test_only_so_many_questions_of_a_call_are_open() -> None:
    """Law 6: each is a task in the shell. Another call has its own."""
    state = with_call()
    other = state.request(1, ECHO, 0.0)
    flush(state)
    for id in range(1, MAX_QUESTIONS + 1):
        ask(state, id)
    assert dropped(state, wire.Question(1, 99, 1, "s", "m"), b"{}") == "excess"
    assert wire.Answer(1, 99, False) in flush(state)
    ask(state, 100, call=other)
    assert hear(state, wire.Cancel(1, 1, None)) == [Withdrawn(1, 1, None)]
    ask(state, 101)


@pytest.mark.parametrize("id", [8, 0])
def test_a_withdrawal_of_no_question_is_stray(id: int) -> None:
    """And one on another channel than the question is."""
    state = with_call()
    ask(state, 7)
    assert dropped(state, wire.Cancel(1, id, None)) == "stray"
    assert isinstance(hear(state, wire.Cancel(2, 7, None))[0], Dropped)
    assert 7 in state.questions


@pytest.mark.parametrize(("limit", "size"), [(MAX_ANSWER_BYTES * 2, MAX_ANSWER_BYTES), (1000, 1000)])
def test_an_answer_that_the_broker_would_not_take_is_not_sent(limit: int, size: int) -> None:
    """The question stays open: it can be answered with less, or refused."""
    state = opened(max_message_bytes=limit)
    state.request(1, ECHO, 0.0)
    flush(state)
    ask(state, 7)
    with pytest.raises(errors.TooLarge):
        state.questions.answer(7, True, b"x" * (size + 1), 0.0)
    assert state.questions.answer(7, True, b"x" * size, 0.0)
    assert flush(state) == [wire.Answer(1, 7, True)]


# --- time ------------------------------------------------------------------------------------------------


def test_the_deadline_stands_still_while_a_question_is_open() -> None:
    """As the broker's own does: a person may think for longer than the call may take."""
    state = with_call(timeout_s=10.0)
    ask(state, 7, now=4.0)
    assert state.expire(100.0) == []
    assert state.questions.answer(7, True, b"{}", 104.0)
    assert state.next_deadline() == 110.0 + GRACE_S
    assert state.expire(110.0 + GRACE_S - 0.1) == []
    (ended,) = state.expire(110.0 + GRACE_S)
    assert isinstance(ended, Ended)
    assert isinstance(ended.outcome, errors.DeadlineExceeded)


def test_it_stands_still_until_the_last_question_is_closed() -> None:
    """Questions that overlap are one pause; those one after the other are two."""
    state = with_call(timeout_s=10.0)
    ask(state, 1, now=1.0)
    ask(state, 2, now=2.0)
    state.questions.answer(1, True, b"{}", 20.0)
    assert state.expire(25.0) == []
    hear(state, wire.Cancel(1, 2, None), now=31.0)
    assert state.next_deadline() == 40.0 + GRACE_S
    ask(state, 3, now=35.0)
    state.questions.answer(3, True, b"{}", 37.0)
    assert state.next_deadline() == 42.0 + GRACE_S


def test_questions_defer_it_by_a_day_at_most() -> None:
    """Law 2: also if the broker, which withdraws a question in time, is stopped or stuck."""
    state = with_call(timeout_s=10.0)
    ask(state, 7, now=1.0)
    assert state.next_deadline() == DAY + GRACE_S
    assert state.expire(DAY + GRACE_S - 1) == []
    assert [event.id for event in state.expire(DAY + GRACE_S) if isinstance(event, Ended)] == [1]
    state = with_call(timeout_s=10.0)
    ask(state, 7, now=1.0)
    state.questions.answer(7, True, b"{}", DAY + 1)
    assert state.next_deadline() == DAY + GRACE_S


def test_a_long_timeout_is_not_cut_short_by_a_question() -> None:
    """A call that may take longer than a day has its time."""
    state = with_call(timeout_s=2 * DAY)
    ask(state, 7, now=1.0)
    assert state.next_deadline() == 2 * DAY + GRACE_S
    state.questions.answer(7, True, b"{}", 2.0)
    assert state.next_deadline() == 2 * DAY + GRACE_S


def test_a_call_without_a_deadline_has_none_afterwards() -> None:
    """The broker's is its own."""
    state = with_call(timeout_s=None)
    ask(state, 7, now=1.0)
    state.questions.answer(7, True, b"{}", 5.0)
    assert state.next_deadline() is None


def test_progress_during_a_question_starts_the_time_anew() -> None:
    """From when the deadline is looked at, as without a question."""
    state = with_call(timeout_s=10.0, flags=wire.PROGRESS_EXTENDS)
    ask(state, 7, now=1.0)
    hear(state, wire.Notification(1, 1, "s", "notifications/progress"), b"{}", now=5.0)
    state.questions.answer(7, True, b"{}", 6.0)
    assert state.expire(15.0 + GRACE_S) == []
    assert state.next_deadline() == 25.0 + 2 * GRACE_S
