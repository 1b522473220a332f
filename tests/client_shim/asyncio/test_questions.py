"""`on_question` of `BrokerClient` against a peer that a test moves by hand: questions during a call."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client_shim import BrokerClient, Question, QuestionRefused, RawQuestion, errors, wire
from client_shim.asyncio import connection as connections
from client_shim.asyncio.pool import connection_pool
from client_shim.protocol import calls
from client_shim.protocol.reasons import MAX_ANSWER_BYTES
from tests.client_shim.asyncio.test_connection import Run, endpoint, new_loop, on_loop
from tests.client_shim.peer import Heard, Peer, until, while_greeting

__all__ = ["endpoint", "new_loop", "on_loop"]

YES: dict[str, Any] = {"action": "accept", "content": {"size": "L"}}
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


class Asking(Peer):
    """A peer that asks questions about one call."""

    call: Heard

    def ask(
        self, id: int, params: bytes = b'{"message":"Which?"}', method: str = "elicitation/create"
    ) -> None:
        """Ask a question about the call."""
        message = self.call.message
        self.send(self.call.who, wire.Question(message.channel, id, message.id, "s", method), params)

    def withdraw(self, id: int) -> None:
        """Take a question back."""
        self.send(self.call.who, wire.Cancel(self.call.message.channel, id, "no longer"))

    async def answer(self, id: int) -> tuple[bool, Any]:
        """The answer to a question, which must come next."""
        heard = await self.heard()
        assert isinstance(heard.message, wire.Answer), heard
        assert (heard.message.channel, heard.message.id) == (self.call.message.channel, id)
        return heard.message.ok, json.loads(heard.body or b"")


class Asked:
    """A callback that waits until it is told what to answer, and notes what happens to it."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self, question: Question) -> dict[str, Any]:
        self.questions.append(question)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return YES


@asynccontextmanager
async def calling(
    endpoint: str, of_client: Any = None, **options: Any
) -> AsyncIterator[tuple[BrokerClient, Asking, asyncio.Future[Any]]]:
    """A client, its peer, and the call about which the peer asks; at the end no task is left."""
    tasks = asyncio.all_tasks()
    with Asking(endpoint) as peer:
        client = BrokerClient("test", endpoint, on_question=of_client)
        await while_greeting(peer, client.connect())
        call = asyncio.ensure_future(client.call_tool("s", "t", **options))
        peer.call = await peer.heard()
        yield client, peer, call
        await client.aclose()
        await asyncio.gather(call, return_exceptions=True)
    await until(lambda: asyncio.all_tasks() == tasks)


# --- an answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
def test_the_callback_answers_a_question(on_loop: Run, endpoint: str, is_async: bool) -> None:
    """It gets plain data; the request has said that it answers, and what."""

    async def later(question: Question) -> dict[str, Any]:
        assert question == Question("s", "elicitation/create", {"message": "Which?"})
        return YES

    def at_once(question: Question) -> dict[str, Any]:
        assert question.params["message"] == "Which?"
        return YES

    async def main() -> None:
        async with calling(endpoint, later if is_async else at_once) as (_, peer, call):
            assert peer.call.message.flags & wire.TAKES_QUESTIONS
            assert peer.call.message.meta == {CAPABILITIES: {"elicitation": {}}}
            peer.ask(7)
            assert await peer.answer(7) == (True, YES)
            peer.result(peer.call, b'{"content":[]}')
            assert (await call).content == []

    on_loop(main())


def test_the_call_goes_on_while_a_question_is_open(on_loop: Run, endpoint: str) -> None:
    """Progress and further questions do not wait for a person; the result ends the question."""

    async def main() -> None:
        asked, seen = Asked(), list[float]()
        async with calling(endpoint, asked, on_progress=lambda done, *_: seen.append(done)) as (
            _,
            peer,
            call,
        ):
            peer.ask(7)
            peer.ask(8)
            await until(lambda: len(asked.questions) == 2)
            note = wire.Notification(1, peer.call.message.id, "s", "notifications/progress")
            peer.send(peer.call.who, note, b'{"progress":1}')
            await until(lambda: seen == [1])
            asked.go.set()
            assert {(await peer.heard()).message.id for _ in range(2)} == {7, 8}
            peer.result(peer.call)
            await call

    on_loop(main())


def test_a_callback_of_the_call_replaces_that_of_the_client(on_loop: Run, endpoint: str) -> None:
    """And a call of the same client without its own has the client's."""

    async def main() -> None:
        async with calling(endpoint, lambda _: {"of": "client"}, on_question=lambda _: YES) as (
            client,
            peer,
            call,
        ):
            peer.ask(7)
            assert await peer.answer(7) == (True, YES)
            peer.result(peer.call)
            await call
            second = asyncio.ensure_future(client.read_resource("s", "r:1"))
            peer.call = await peer.heard()
            peer.ask(8)
            assert await peer.answer(8) == (True, {"of": "client"})
            peer.result(peer.call)
            await second

    on_loop(main())


def test_without_a_callback_questions_are_refused(on_loop: Run, endpoint: str) -> None:
    """The request does not say that it takes any; a broker that asks nevertheless gets an error."""

    async def main() -> None:
        async with calling(endpoint) as (_, peer, _):
            assert (peer.call.message.flags, peer.call.message.meta) == (0, None)
            peer.ask(7, method="sampling/createMessage")
            ok, error = await peer.answer(7)
            assert (ok, error["code"]) == (False, -32601)

    on_loop(main())


def test_a_raw_callback_gets_and_gives_bytes(on_loop: Run, endpoint: str) -> None:
    """For a program that passes questions on. The client's own callback answers where it gives none."""

    async def raw(question: RawQuestion) -> bytes:
        assert question == RawQuestion("s", "elicitation/create", b'{"n":1e999}')
        return b'{"a":1, "a":2}'

    async def main() -> None:
        async with calling(endpoint, lambda _: YES) as (client, peer, _):
            for callback, expected in ((raw, b'{"a":1, "a":2}'), (None, json.dumps(YES).encode())):
                call = asyncio.ensure_future(client.request_raw("s", "m", b"{}", on_question=callback))
                peer.call = await peer.heard()
                assert peer.call.message.flags == wire.TAKES_QUESTIONS
                assert peer.call.message.meta == {CAPABILITIES: {"elicitation": {}}}
                peer.ask(7 if callback else 8, b'{"n":1e999}')
                body = (await peer.heard()).body or b""
                assert body.replace(b" ", b"") == expected.replace(b" ", b"")
                peer.result(peer.call)
                await call

    on_loop(main())


def test_capabilities_that_are_given_stay(on_loop: Run, endpoint: str) -> None:
    """Of the client, or in the `meta` of the call: the callback answers what these declare."""

    async def main() -> None:
        with Asking(endpoint) as peer:
            client = BrokerClient("t", endpoint, capabilities={"sampling": {}}, on_question=lambda _: YES)
            await while_greeting(peer, client.connect())
            for meta, declared in ((None, {"sampling": {}}), ({CAPABILITIES: {"roots": {}}}, {"roots": {}})):
                call = asyncio.ensure_future(client.call_tool("s", "t", meta=meta))
                peer.call = await peer.heard()
                assert peer.call.message.meta == {CAPABILITIES: declared}
                peer.ask(7)
                ok, error = await peer.answer(7)
                assert (ok, error["code"]) == (False, -32601)
                peer.result(peer.call)
                await call
            ping = asyncio.ensure_future(client.ping())
            heard = await peer.heard()
            assert (heard.message.flags, heard.message.meta) == (0, None), "the broker itself asks nothing"
            peer.result(heard)
            await ping
            await client.aclose()

    on_loop(main())


# --- no answer -------------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[Question], dict[str, Any]]:
    """A callback that raises this."""

    def callback(question: Question) -> dict[str, Any]:
        raise error

    return callback


@pytest.mark.parametrize(
    ("callback", "error"),
    [
        (raising(QuestionRefused(-1, "no", {"n": 1})), {"code": -1, "message": "no", "data": {"n": 1}}),
        (raising(QuestionRefused(-1, "no")), {"code": -1, "message": "no"}),
        (raising(QuestionRefused(0, "", raw=b'{"code":5,"message":"x","y":1}')), {"code": 5, "y": 1}),
    ],
)
def test_a_callback_may_refuse(on_loop: Run, endpoint: str, callback: Any, error: dict[str, Any]) -> None:
    """With a JSON-RPC error of its choice, which is sent as it is."""

    async def main() -> None:
        async with calling(endpoint, callback) as (_, peer, _):
            peer.ask(7)
            ok, sent = await peer.answer(7)
            assert not ok
            assert error.items() <= sent.items()

    on_loop(main())


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        (raising(ZeroDivisionError("by what?")), "by what?"),
        (raising(QuestionRefused(1, "m", {"data": object()})), "which is not JSON"),
        (lambda _: "L", "must be an object"),
        (lambda _: {"content": {"size": b"L"}}, "it.content.size is of type bytes"),
        (lambda _: {"content": "x" * MAX_ANSWER_BYTES}, "the broker takes"),
    ],
)
def test_a_callback_that_fails_is_logged_and_the_server_told(
    on_loop: Run, endpoint: str, caplog: pytest.LogCaptureFixture, callback: Any, says: str
) -> None:
    """Law 10: the log says what is wrong; the server learns nothing of the inside of the client."""

    async def main() -> None:
        async with calling(endpoint, callback) as (_, peer, call):
            peer.ask(7)
            message = "the client failed to answer the question"
            assert await peer.answer(7) == (False, {"code": -32603, "message": message})
            peer.result(peer.call)
            await call

    caplog.clear()
    on_loop(main())
    assert says in caplog.text
    assert "tool 't' of server 's'" in caplog.text


def test_a_callback_that_is_cancelled_from_within_is_an_answer_too(on_loop: Run, endpoint: str) -> None:
    """Its server must not wait for it."""

    async def callback(question: Question) -> dict[str, Any]:
        raise asyncio.CancelledError

    async def main() -> None:
        async with calling(endpoint, callback) as (_, peer, _):
            peer.ask(7)
            assert (await peer.answer(7))[0] is False

    on_loop(main())


@pytest.mark.parametrize("how", ["withdrawn", "result", "cancelled", "closed", "channel", "lost"])
def test_the_callback_is_cancelled_when_no_answer_is_wanted(on_loop: Run, endpoint: str, how: str) -> None:
    """And no ANSWER is sent, though the callback returns one: it must not reach another question."""

    async def main() -> None:
        asked = Asked()

        async def stubborn(question: Question) -> dict[str, Any]:
            try:
                return await asked(question)
            except asyncio.CancelledError:
                return YES

        async with calling(endpoint, stubborn) as (client, peer, call):
            bystander = BrokerClient("test", endpoint)  # or the last channel would close the connection
            await bystander.connect()
            peer.ask(7)
            await until(lambda: bool(asked.questions))
            match how:
                case "withdrawn":
                    peer.withdraw(7)
                case "result":
                    peer.result(peer.call)
                case "cancelled":
                    call.cancel()
                    await peer.heard()
                case "closed":
                    await client.aclose()
                    await peer.heard()
                case "channel":
                    peer.send(peer.call.who, wire.Goodbye(1, 0, "over"))
                case "lost":
                    peer.send(peer.call.who, wire.Goodbye(0, 0, "over", peer.call.message.id))
            await until(lambda: asked.cancelled == 1)
            await asyncio.sleep(0.01)
            while peer.has_mail():
                assert not isinstance((await peer.heard()).message, wire.Answer)
            await bystander.aclose()

    on_loop(main())


def test_a_question_that_is_withdrawn_at_once_is_not_asked(on_loop: Run, endpoint: str) -> None:
    """The callback runs a little later than the message came."""

    async def main() -> None:
        asked = Asked()
        async with calling(endpoint, asked) as (_, peer, call):
            peer.ask(7)
            peer.withdraw(7)
            time.sleep(0.1)  # noqa: ASYNC251  both have arrived when the loop looks
            peer.result(peer.call)
            await call
            assert asked.questions == []

    on_loop(main())


def test_the_answer_of_one_broker_is_not_given_to_the_next(on_loop: Run, endpoint: str) -> None:
    """Law 3: its questions may have the same ids."""

    async def main() -> None:
        asked = Asked()

        async def stubborn(question: Question) -> dict[str, Any]:
            try:
                return await asked(question)
            except asyncio.CancelledError:
                await asked.go.wait()
                return {"for": "the first"}

        async with calling(endpoint, stubborn) as (client, first, call):
            first.ask(7)
            await until(lambda: bool(asked.questions))
            first.send(first.call.who, wire.Goodbye(0, 0, "over", first.call.message.id))
            with pytest.raises(errors.BrokerLost):
                await call
            again = asyncio.ensure_future(client.call_tool("s", "t", on_question=Asked()))
            await first.greet()
            first.call = await first.heard()
            first.ask(7)
            asked.go.set()
            await asyncio.sleep(0.05)
            assert not first.has_mail()
            first.result(first.call)
            await again

    on_loop(main())


def test_a_call_whose_question_was_answered_is_not_made_again(on_loop: Run, endpoint: str) -> None:
    """Law 8: though it only reads. What was answered cannot be taken back."""

    async def main() -> None:
        async with calling(endpoint, lambda _: YES) as (client, peer, _):
            reading = asyncio.ensure_future(client.list_tools("s"))
            peer.call = await peer.heard()
            peer.ask(7)
            assert await peer.answer(7) == (True, YES)
            peer.send(peer.call.who, wire.Goodbye(0, 0, "over", peer.call.message.id))
            with pytest.raises(errors.BrokerLost):
                await reading

    on_loop(main())


# --- time, contexts, memory ------------------------------------------------------------------------------


def test_the_deadline_of_a_call_stands_still_while_a_question_is_open(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would give the call up while a person thinks. Afterwards it is as strict as before."""
    monkeypatch.setattr(calls, "GRACE_S", 0.0)
    monkeypatch.setattr(connections, "GRACE_S", 0.0)

    async def main(closes: str) -> None:
        asked, timeout_s = Asked(), 0.2
        async with calling(endpoint, asked, timeout=timeout_s) as (_, peer, call):
            peer.ask(7)
            await until(lambda: bool(asked.questions))
            await asyncio.sleep(2 * timeout_s)
            assert not call.done()
            if closes == "answer":
                asked.go.set()
                assert await peer.answer(7) == (True, YES)
            else:
                peer.withdraw(7)
            with pytest.raises(errors.DeadlineExceeded):
                await call

    for closes in ("answer", "withdrawal"):
        on_loop(main(closes))


def test_the_callback_runs_in_the_context_of_the_caller(on_loop: Run, endpoint: str) -> None:
    """In a copy of it: which page calls is known, and what a callback sets is its own."""
    page = contextvars.ContextVar[str]("page")
    seen: list[str] = []

    async def callback(question: Question) -> dict[str, Any]:
        seen.append(page.get("nobody's"))
        page.set("of the callback")
        return YES

    async def main() -> None:
        async with calling(endpoint, callback) as (client, peer, _):
            for name in ("a", "b"):
                page.set(name)
                call = asyncio.ensure_future(client.call_tool("s", "t"))
                peer.call = await peer.heard()
                for id in (1, 2):
                    peer.ask(id)
                    await peer.answer(id)
                peer.result(peer.call)
                await call
        assert seen == ["a", "a", "b", "b"]

    on_loop(main())


def test_nothing_of_a_question_stays(on_loop: Run, endpoint: str) -> None:
    """Law 4: neither its context nor its callback, without the garbage collector; not of a withdrawn one."""
    page = contextvars.ContextVar[object]("page")

    class Page:
        def __init__(self) -> None:
            self.asked = Asked()

        async def callback(self, question: Question) -> dict[str, Any]:
            return await self.asked(question)

    async def main() -> None:
        async with calling(endpoint) as (client, peer, _):
            tasks = asyncio.all_tasks()

            async def visit(how: str) -> weakref.ref[Page]:
                of_page = Page()
                page.set(of_page)
                call = asyncio.ensure_future(client.call_tool("s", "t", on_question=of_page.callback))
                peer.call = await peer.heard()
                peer.ask(7)
                await until(lambda: bool(of_page.asked.questions))
                if how == "answered":
                    of_page.asked.go.set()
                    await peer.answer(7)
                elif how == "withdrawn":
                    peer.withdraw(7)
                    await until(lambda: of_page.asked.cancelled == 1)
                peer.result(peer.call)
                await call
                return weakref.ref(of_page)

            for how in ("answered", "withdrawn", "ended"):
                gc.collect()
                gc.disable()
                try:
                    page_of_call = await asyncio.ensure_future(visit(how))
                    await until(lambda: asyncio.all_tasks() == tasks)
                    await until(lambda page=page_of_call: page() is None)  # type: ignore[misc]
                finally:
                    gc.enable()
            (connection,) = connection_pool().connections
            assert len(connection._calls) == 1

    on_loop(main())
