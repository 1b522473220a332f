"""A result that asks (`input_required`, MCP 2026-07-28): the callback answers, and the call is made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from client_shim import BrokerClient, Question, QuestionRefused, errors
from client_shim.protocol.input_required import MAX_QUESTIONS, MAX_ROUNDS
from tests.client_shim.asyncio.test_connection import Run, endpoint, new_loop, on_loop
from tests.client_shim.peer import Heard, Peer, while_greeting

__all__ = ["endpoint", "new_loop", "on_loop"]

FORM: dict[str, Any] = {"method": "elicitation/create", "params": {"message": "Which?"}}
DONE = {"content": [], "resultType": "complete"}


def asking(requests: Any = None, state: Any = None) -> dict[str, Any]:
    """A result that asks."""
    fields = {"inputRequests": requests, "requestState": state}
    given = {name: value for name, value in fields.items() if value is not None}
    return {"resultType": "input_required", **given}


async def calling(
    endpoint: str, *results: dict[str, Any], timeout: float | None = None, **options: Any
) -> tuple[Any, list[Heard]]:
    """Make a call to a server with these results; the last one, or the error, and the requests."""
    with Peer(endpoint) as peer:
        client = BrokerClient("test", endpoint, timeout=timeout)
        await while_greeting(peer, client.connect())
        call = asyncio.ensure_future(client.call_tool("s", "t", {"a": 1}, **options))
        heard = []
        for result in results:
            heard.append(await peer.heard())
            peer.result(heard[-1], json.dumps(result).encode())
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        assert not peer.has_mail()
        await client.aclose()
        return outcome, heard


def params(heard: Heard) -> dict[str, Any]:
    """The params of a request beside those of the tool."""
    all_params: dict[str, Any] = json.loads(heard.body or b"")
    assert (all_params.pop("name"), all_params.pop("arguments")) == ("t", {"a": 1})
    return all_params


def test_a_result_that_asks_is_answered_and_the_call_made_again(on_loop: Run, endpoint: str) -> None:
    """As often as it asks, each time with the state of the last result only."""
    asked: list[Question] = []

    async def answer(question: Question) -> dict[str, Any]:
        asked.append(question)
        return {"n": len(asked)}

    async def main() -> None:
        results = [asking({"x": FORM, "y": FORM}, "one"), asking({"z": FORM}), asking(None, "three"), DONE]
        outcome, heard = await calling(endpoint, *results, on_question=answer)
        assert outcome.raw == DONE
        assert [params(one) for one in heard] == [
            {},
            {"inputResponses": {"x": {"n": 1}, "y": {"n": 2}}, "requestState": "one"},
            {"inputResponses": {"z": {"n": 3}}},
            {"requestState": "three"},
        ]
        assert asked == [Question("s", "elicitation/create", FORM["params"])] * 3

    on_loop(main())


def test_without_a_callback_the_caller_has_the_result(on_loop: Run, endpoint: str) -> None:
    """As before there were callbacks."""

    async def main() -> None:
        outcome, _ = await calling(endpoint, asking({"x": FORM}, "s"))
        assert outcome.input_required

    on_loop(main())


def test_a_raw_result_stays_as_it_is(on_loop: Run, endpoint: str) -> None:
    """A program that passes messages on does so with these."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, on_question=lambda _: {})
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request_raw("s", "tools/call", b"{}"))
            body = json.dumps(asking({"x": FORM})).encode()
            peer.result(await peer.heard(), body)
            assert await call == body
            await client.aclose()

    on_loop(main())


def test_the_answers_do_not_use_up_the_time_of_the_call(on_loop: Run, endpoint: str) -> None:
    """But the rounds do: together they have the timeout."""

    async def think(question: Question) -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return {}

    async def main() -> None:
        _, heard = await calling(endpoint, asking({"x": FORM}), DONE, timeout=5, on_question=think)
        first, again = (one.message.timeout_ms for one in heard)
        assert first == 5000
        assert 4700 < again <= 5000

    on_loop(main())


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (asking(), "neither"),
        (asking({}), "neither"),
        (asking([FORM]), "no object"),
        (asking({str(n): FORM for n in range(MAX_QUESTIONS + 1)}), "no object of at most"),
        (asking({"x": "y"}), "no method"),
        (asking({"x": {"method": 1}}), "no method"),
    ],
)
def test_questions_that_cannot_be_read_end_the_call(
    on_loop: Run, endpoint: str, result: dict[str, Any], says: str
) -> None:
    """Law 10: the error says that it is the server's mistake."""

    async def main() -> None:
        outcome, _ = await calling(endpoint, result, on_question=lambda _: {})
        assert isinstance(outcome, errors.InvalidReply)
        assert says in str(outcome)

    on_loop(main())


def test_a_server_that_asks_without_end_is_not_followed(on_loop: Run, endpoint: str) -> None:
    """Law 6. Nobody is asked the last time."""
    asked: list[Question] = []

    def answer(question: Question) -> dict[str, Any]:
        asked.append(question)
        return {}

    async def main() -> None:
        results = [asking({"x": FORM})] * (MAX_ROUNDS + 1)
        outcome, _ = await calling(endpoint, *results, on_question=answer)
        assert isinstance(outcome, errors.InvalidReply)
        assert len(asked) == MAX_ROUNDS

    on_loop(main())


async def refuse(question: Question) -> dict[str, Any]:
    """A callback that refuses."""
    raise QuestionRefused(-1, "no")


@pytest.mark.parametrize(
    ("callback", "question", "raised", "says"),
    [
        (refuse, FORM, QuestionRefused, "no"),
        (lambda _: {}, {"method": "roots/list"}, QuestionRefused, "does not answer"),
        (lambda _: {}, {**FORM, "params": {"mode": "url"}}, QuestionRefused, "elicitation.url"),
        (lambda _: None, FORM, TypeError, "must be an object"),
        (lambda _: {"x": b""}, FORM, errors.InvalidRequest, "inputResponses.x.x is of type bytes"),
        (lambda _: 1 // 0, FORM, ZeroDivisionError, "zero"),
    ],
)
def test_a_question_in_a_result_that_is_not_answered_ends_the_call(
    on_loop: Run,
    endpoint: str,
    callback: Callable[[Question], Awaitable[dict[str, Any]]],
    question: dict[str, Any],
    raised: type[Exception],
    says: str,
) -> None:
    """The server waits for nothing, so its caller is told, and no further request is made."""

    async def main() -> None:
        outcome, _ = await calling(endpoint, asking({"x": question}), on_question=callback)
        assert isinstance(outcome, raised)
        assert says in str(outcome)

    on_loop(main())


def test_a_round_ends_with_the_task_of_the_caller(on_loop: Run, endpoint: str) -> None:
    """The callback runs in it."""
    ended: list[str] = []

    async def think(question: Question) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")
        return {}

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.wait_for(client.call_tool("s", "t", on_question=think), 0.2)
            task = asyncio.ensure_future(call)
            peer.result(await peer.heard(), json.dumps(asking({"x": FORM})).encode())
            with pytest.raises(asyncio.TimeoutError):
                await task
            assert ended == ["cancelled"]
            await client.aclose()

    on_loop(main())
