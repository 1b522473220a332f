"""The stream between a conversation and a client: what waits, what is kept, and who reads it."""

from __future__ import annotations

import asyncio

import pytest

from broker.gateway.byte_budget import ByteBudget, Share
from broker.gateway.http.sse import COMMENT, Replay
from broker.gateway.http.streams import Stream
from tests.gateway.http.test_sse import STREAM, events_in

MESSAGE = b'{"n":1}'


def stream(*, limit: int = 1000, keeps: int = 0, share: Share | None = None) -> Stream:
    """A stream with a client that may come back where something is kept for it."""
    return Stream(b"1", limit, Replay(STREAM, b"1", keeps) if keeps else None, share=share)


def read(found: Stream) -> list[str]:
    """The data of the events that the client gets now."""
    return [one["data"] for one in events_in(found.take())]


def test_one_message_needs_no_stream() -> None:
    """It is the JSON body; with anything before it, it is not."""
    found = stream()
    found.attach(lambda: None)
    found.add(MESSAGE)
    assert found.only_message() is None
    found.finish()
    assert found.only_message() == MESSAGE


def test_messages_come_in_order_and_once() -> None:
    found = stream()
    found.attach(lambda: None)
    found.add(b"1")
    found.add(b"2")
    assert read(found) == ["1", "2"]
    found.add(b"3")
    found.finish()
    assert read(found) == ["3"]
    assert not found.has_more


def test_bytes_are_counted_until_the_client_has_read_them() -> None:
    """Law 6: what waits and what is on its way; those of the request until it is answered."""
    budget = ByteBudget(100, 1000)
    found = stream(share=budget.share("one"))
    reader = found.attach(lambda: None)
    assert budget.take("one", 20) is None
    found.hold(20)
    found.add(b"x" * 30)
    found.take()
    found.add(b"x" * 40)
    assert budget.held == 90
    found.sent()
    assert budget.held == 60
    found.finish()
    assert budget.held == 40
    found.leave(reader, 0.0)
    assert (budget.held, budget.take("one", 100)) == (0, None)


@pytest.mark.parametrize(
    ("per_token", "in_all", "limit"), [(50, 1000, "token_bytes"), (1000, 50, "all_bytes")]
)
def test_a_stream_for_which_there_is_no_room_is_cut(per_token: int, in_all: int, limit: str) -> None:
    """Also if each of many streams is small; nothing of it stays counted."""
    said: list[tuple[str, str]] = []
    budget = ByteBudget(per_token, in_all, lambda key, token: said.append((key, token)))
    streams = [stream(share=budget.share("one")) for _ in range(3)]
    readers = [one.attach(lambda: None) for one in streams]
    for one in streams:
        one.add(b"x" * 20)
    assert [one.is_cut for one in streams] == [False, False, True]
    assert said == [(limit, "one")]
    for one, reader in zip(streams, readers, strict=True):
        one.leave(reader, 0.0)
    assert budget.held == 0


def test_a_client_that_does_not_keep_up_is_cut() -> None:
    """Law 6. One message may be larger than the limit: it is taken if nothing waits before it."""
    cut: list[bool] = []
    found = stream(limit=10)
    reader = found.attach(lambda: cut.append(True))
    found.add(b"x" * 50)
    assert not cut
    found.add(MESSAGE)
    assert cut == [True]
    assert not found.is_read_by(reader)
    assert found.take() == b""


def test_a_client_that_comes_back_gets_what_it_missed_and_goes_on() -> None:
    """2025-11-25, "Resumability and Redelivery"."""
    found = stream(keeps=1000)
    reader = found.attach(lambda: None)
    found.add(b"1")
    assert read(found) == ["1"]
    found.add(b"2")
    found.lost(reader)
    found.leave(reader, 5.0)
    found.add(b"3")
    assert found.away_s(7.0) == 2.0
    found.come_back(1)
    found.attach(lambda: None)
    found.add(b"4")
    assert read(found) == ["2", "3", "4"]
    assert found.away_s(9.0) == 0.0


def test_what_a_slow_client_did_not_take_is_kept_for_it() -> None:
    found = stream(limit=10, keeps=1000)
    found.attach(lambda: None)
    found.take()
    numbers = [f"[{number}]" for number in range(8)]
    for number in numbers:
        found.add(number.encode())
    found.come_back(0)
    found.attach(lambda: None)
    assert read(found) == numbers


def test_the_newest_reader_is_the_one() -> None:
    """A client whose network broke comes back before its old connection is known to be dead."""
    cut: list[str] = []
    found = stream(keeps=1000)
    old = found.attach(lambda: cut.append("old"))
    found.take()
    new = found.attach(lambda: cut.append("new"))
    assert cut == ["old"]
    found.lost(old)
    found.leave(old, 1.0)
    assert found.is_read_by(new)
    assert not found.is_read_by(old)
    assert found.is_read


def test_a_silent_stream_has_a_comment_every_time() -> None:
    """supergateway#30, ghst#118: proxies cut what is silent for a minute."""
    found = stream()
    found.attach(lambda: None)
    found.add(MESSAGE)
    found.take()
    found.tick()  # something was sent since the last time
    assert found.take() == b""
    found.tick()
    assert found.take() == COMMENT
    found.tick()
    assert found.take() == COMMENT


@pytest.mark.parametrize("what", ["add", "finish", "lost", "tick"])
def test_whatever_happens_wakes_the_writer(what: str) -> None:
    async def wakes() -> None:
        found = stream()
        reader = found.attach(lambda: None)
        found.take()
        found.tick()
        found.take()
        {
            "add": lambda: found.add(MESSAGE),
            "finish": found.finish,
            "lost": lambda: found.lost(reader),
            "tick": found.tick,
        }[what]()
        await asyncio.wait_for(found.something(), 5)

    asyncio.run(wakes())


@pytest.mark.parametrize("is_sent", [True, False])
def test_an_answer_that_was_too_large_to_keep_is_not_taken_for_sent(is_sent: bool) -> None:
    """Law 2: a client that comes back for it is told so, and does not wait for it."""
    found = stream(keeps=50, limit=1000)
    reader = found.attach(lambda: None)
    found.take()
    found.add(b"x" * 200)
    found.finish()
    if is_sent:
        found.take()
    found.leave(reader, 0)
    assert not found.come_back(0)
    assert found.come_back(1)  # the client has it
