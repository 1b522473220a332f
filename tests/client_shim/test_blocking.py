"""`BlockingClient` against a peer in a thread: calls, and the same ends as in the asyncio client."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client_shim import BlockingClient, Question, QuestionRefused, blocking, errors, wire
from client_shim.protocol.calls import GRACE_S
from client_shim.protocol.reasons import MAX_ANSWER_BYTES
from tests.client_shim.peer import PATIENCE_S, Heard, Peer


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where nobody listens yet."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        yield f"ipc://{folder}/s"


@contextmanager
def serving(endpoint: str, script: Callable[[Peer, Heard], None]) -> Iterator[None]:
    """A peer in a thread that greets one client and then does what the script says; then it is gone."""
    peer, mishaps = Peer(endpoint), []

    def serve() -> None:
        try:
            with peer:
                hello = peer.receive()
                peer.welcome(hello.who)
                script(peer, hello)
        except BaseException as mishap:
            mishaps.append(mishap)

    thread = threading.Thread(target=serve, name="peer")
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE_S * 2)
        assert not thread.is_alive()
    assert mishaps == []


def test_calls_progress_and_goodbye(endpoint: str) -> None:
    """A whole life: the command line needs no more."""

    def script(peer: Peer, hello: Heard) -> None:
        assert hello.message.client["name"] == "mcp-broker"
        heard = peer.receive()
        for n in (1, 2):
            note = wire.Notification(1, heard.message.id, "s", "notifications/progress")
            peer.send(heard.who, note, b'{"progress":%d}' % n)
        peer.send(heard.who, wire.Question(1, 1, heard.message.id, "s", "elicitation/create"), b"{}")
        assert peer.receive().message == wire.Answer(1, 1, False)
        peer.result(heard, b'{"fine": true}')
        heard = peer.receive()
        assert (heard.message.service, heard.message.method, heard.body) == ("$broker", "ping", None)
        peer.send(heard.who, wire.Fault(1, heard.message.id, "busy", "later", {"retry_after_s": 2}))
        assert peer.receive().message == wire.Goodbye(0, 0, "closed")

    seen: list[float] = []
    with serving(endpoint, script), BlockingClient(endpoint) as client:
        answer = client.request(
            "s", "m", {"a": 1}, on_progress=lambda done, total, message: seen.append(done)
        )
        assert (answer, seen) == ({"fine": True}, [1, 2])
        with pytest.raises(errors.Busy) as refusal:
            client.request(wire.MANAGEMENT, "ping")
        assert refusal.value.retry_after_s == 2.0


def test_a_lost_broker_ends_the_call_and_the_next_one_looks_again(endpoint: str) -> None:
    """Law 8, and then the probe's own words, once the next broker was waited for."""

    def script(peer: Peer, hello: Heard) -> None:
        peer.receive()

    with serving(endpoint, script):
        client = BlockingClient(endpoint, reconnect_s=0.2)
        client.connect()
        with pytest.raises(errors.BrokerLost):
            client.request("s", "m")
    with pytest.raises(errors.NoBroker):
        client.request("s", "m")
    client.close()
    client.close()
    with pytest.raises(errors.ClientClosed):
        client.request("s", "m")


def test_the_first_call_waits_for_a_broker_as_any_other(endpoint: str) -> None:
    """A program that is started before its broker: `connect` says so, and a call waits."""
    client = BlockingClient(endpoint, reconnect_s=PATIENCE_S)
    with pytest.raises(errors.NoBroker):
        client.connect()
    results: list[object] = []
    waiting = threading.Thread(target=lambda: results.append(client.request("s", "m")))
    waiting.start()
    waiting.join(0.05)
    with serving(endpoint, lambda peer, hello: peer.result(peer.receive(), b'"there"')):
        waiting.join(PATIENCE_S)
        assert results == ["there"]
        client.close()


@pytest.mark.parametrize(("reconnect_s", "timeout_s"), [(0.3, 60.0), (60.0, 0.3), (0.3, None), (0.0, 60.0)])
def test_a_blocking_call_waits_for_the_first_broker_within_its_time(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, reconnect_s: float, timeout_s: float | None
) -> None:
    """Law 2: within its deadline and `reconnect_s`, whichever ends first; later calls do not wait again."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(blocking, "monotonic", lambda: now[0])
    monkeypatch.setattr(blocking, "sleep", sleep)
    client = BlockingClient(endpoint, reconnect_s=reconnect_s, timeout_s=timeout_s)
    with pytest.raises(errors.NoBroker):
        client.request("s", "m")
    assert now[0] == pytest.approx(0.2 if reconnect_s else 0.0)  # a further attempt would come after its time
    if reconnect_s == 0.3:
        now[0] = 0.3
        monkeypatch.delattr(blocking, "sleep")
        with pytest.raises(errors.NoBroker):
            client.request("s", "m")


@pytest.mark.parametrize("how", ["refused", "crossed", "before"])
def test_a_call_that_one_broker_has_not_begun_is_made_at_the_next(endpoint: str, how: str) -> None:
    """Law 2: unseen by the caller, within its time, and under a new id there."""
    connected, ended = threading.Event(), threading.Event()

    def ending(peer: Peer, hello: Heard) -> None:
        assert connected.wait(PATIENCE_S)
        if how != "before":
            heard = peer.receive()
            assert heard.message.timeout_ms == 20_000
        if how == "refused":
            peer.send(heard.who, wire.Fault(1, heard.message.id, "shutting-down", "it ends", {}))
            assert isinstance(peer.receive().message, wire.Goodbye)  # it asks for the next one
            who = peer.receive().who
            peer.send(who, wire.Fault(0, 0, "shutting-down", "it ends", {}))  # and is still too early
        else:
            peer.send(hello.who, wire.Goodbye(0, 0, "it ends", 0))
        ended.set()

    def next_one(peer: Peer, hello: Heard) -> None:
        heard = peer.receive()
        assert (heard.message.id, heard.body) == (1, b'{"a":1}')
        assert heard.message.timeout_ms in range(1, 19_950 if how == "refused" else 20_001)
        peer.result(heard, b'"from the next"')

    def next_broker() -> None:
        first.join(PATIENCE_S)
        with serving(endpoint, next_one):
            pass

    client = BlockingClient(endpoint, timeout_s=20.0)
    with serving(endpoint, ending):
        first = next(thread for thread in threading.enumerate() if thread.name == "peer")
        client.connect()
        connected.set()
        if how == "before":
            assert ended.wait(PATIENCE_S)
        second = threading.Thread(target=next_broker)
        second.start()
        assert client.request("s", "m", {"a": 1}) == "from the next"
        client.close()
    second.join(PATIENCE_S)


def test_a_broker_that_welcomes_and_ends_in_one_breath_is_waited_out(endpoint: str) -> None:
    """Law 2: it is never waited for what such a broker will not say.

    A call that was sent before the fault was read may have been carried out.
    """

    def ending(peer: Peer, hello: Heard) -> None:
        peer.send(hello.who, wire.Fault(1, 9, "shutting-down", "it ends", {}))

    def call() -> None:
        with BlockingClient(endpoint, reconnect_s=0.2) as client:
            client.request("s", "m")

    with serving(endpoint, ending), pytest.raises((errors.BrokerRefused, errors.NoBroker, errors.BrokerLost)):
        call()


@pytest.mark.parametrize("reconnect_s", [0.0, 0.2])
def test_where_no_further_broker_comes_the_end_of_the_wait_is_told(endpoint: str, reconnect_s: float) -> None:
    """Law 10. A call has its own time for that; without one, `reconnect_s`; with 0 nothing is waited for."""

    def ending(peer: Peer, hello: Heard) -> None:
        heard = peer.receive()
        peer.send(heard.who, wire.Fault(1, heard.message.id, "shutting-down", "it ends", {}))

    client = BlockingClient(endpoint, reconnect_s=reconnect_s)
    with serving(endpoint, ending):
        client.connect()
        with pytest.raises(errors.Unavailable if reconnect_s else errors.ShuttingDown):
            client.request("s", "m")
    client.close()


def test_a_broker_that_misses_the_deadline_does_not_hold_the_caller(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 2, from this side."""
    monkeypatch.setattr("client_shim.protocol.state.GRACE_S", GRACE_S / 20)

    def script(peer: Peer, hello: Heard) -> None:
        assert peer.receive().message.timeout_ms == 10
        assert isinstance(peer.receive().message, wire.Cancel)
        assert isinstance(peer.receive().message, wire.Goodbye)

    def call() -> None:
        with BlockingClient(endpoint) as client:
            client.request("s", "m", timeout_s=0.01)

    with serving(endpoint, script), pytest.raises(errors.DeadlineExceeded):
        call()


def test_a_refused_greeting_and_silence_are_told(endpoint: str) -> None:
    """The same errors as from the asyncio client."""
    with pytest.raises(errors.NoBroker):
        BlockingClient(endpoint).connect()
    with Peer(endpoint), pytest.raises(errors.BrokerSilent):
        BlockingClient(endpoint, hello_timeout_s=0.05).connect()


# --- questions -----------------------------------------------------------------------------------------


def test_a_question_is_answered_in_the_thread_of_the_call(endpoint: str) -> None:
    """Between two messages: what comes meanwhile is handled afterwards, and the answer is sent once."""
    threads: list[threading.Thread] = []
    seen: list[float] = []

    def script(peer: Peer, hello: Heard) -> None:
        heard = peer.receive()
        assert heard.message.flags == wire.WANTS_PROGRESS | wire.TAKES_QUESTIONS
        assert heard.message.meta == {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
        peer.send(heard.who, wire.Question(1, 7, heard.message.id, "s", "elicitation/create"), b'{"n":1}')
        note = wire.Notification(1, heard.message.id, "s", "notifications/progress")
        peer.send(heard.who, note, b'{"progress":1}')
        answer = peer.receive()
        assert (answer.message, answer.body) == (wire.Answer(1, 7, True), b'{"n":1}')
        peer.result(heard)
        assert peer.receive().message == wire.Goodbye(0, 0, "closed")

    def echo(question: Question) -> dict[str, object]:
        threads.append(threading.current_thread())
        params: dict[str, object] = question.params
        return params

    with serving(endpoint, script), BlockingClient(endpoint, on_question=echo) as client:
        client.request("s", "m", on_progress=lambda done, *_: seen.append(done))
    assert (threads, seen) == ([threading.current_thread()], [1])


def refuse(question: Question) -> dict[str, object]:
    """A callback that refuses."""
    raise QuestionRefused(-1, "no")


@pytest.mark.parametrize(
    ("callback", "code"),
    [(refuse, -1), (lambda _: 1 // 0, -32603), (lambda _: {"x": "x" * MAX_ANSWER_BYTES}, -32603)],
)
def test_a_blocking_callback_that_does_not_answer(
    endpoint: str, caplog: pytest.LogCaptureFixture, callback: Any, code: int
) -> None:
    """It refuses, fails, or answers too much: the server gets an error, and the call goes on."""

    def script(peer: Peer, hello: Heard) -> None:
        heard = peer.receive()
        peer.send(heard.who, wire.Question(1, 7, heard.message.id, "s", "elicitation/create"), b"{}")
        answer = peer.receive()
        assert answer.message == wire.Answer(1, 7, False)
        assert json.loads(answer.body or b"")["code"] == code
        peer.result(heard, b'"on it goes"')
        peer.receive()

    with serving(endpoint, script), BlockingClient(endpoint) as client:
        assert client.request("s", "m", on_question=callback) == "on it goes"
    assert ("`m` of server 's'" in caplog.text) is (code == -32603)


def test_a_question_that_is_withdrawn_while_it_is_answered_has_no_answer(endpoint: str) -> None:
    """The withdrawal is read when the callback returns, before anything is sent."""
    asked, withdrawn = threading.Event(), threading.Event()

    def script(peer: Peer, hello: Heard) -> None:
        heard = peer.receive()
        peer.send(heard.who, wire.Question(1, 7, heard.message.id, "s", "elicitation/create"), b"{}")
        assert asked.wait(PATIENCE_S)
        peer.send(heard.who, wire.Cancel(1, 7, "no longer"))
        peer.result(heard)
        withdrawn.set()
        assert peer.receive().message == wire.Goodbye(0, 0, "closed")

    with serving(endpoint, script), BlockingClient(endpoint) as client:

        def slow(question: Question) -> dict[str, object]:
            asked.set()
            assert withdrawn.wait(PATIENCE_S)
            dealer = client._dealer
            assert dealer is not None
            assert dealer.sockets[0].poll(PATIENCE_S * 1000)
            return {}

        assert client.request("s", "m", on_question=slow) == {}


def test_a_blocking_call_whose_result_asks_is_made_again(endpoint: str) -> None:
    """As in the asyncio client: one callback for servers of both eras."""

    def script(peer: Peer, hello: Heard) -> None:
        first = peer.receive()
        asks = {"q": {"method": "elicitation/create", "params": {"n": 1}}}
        result = {"resultType": "input_required", "inputRequests": asks, "requestState": "z"}
        peer.result(first, json.dumps(result).encode())
        again = peer.receive()
        assert json.loads(again.body or b"") == {"a": 1, "inputResponses": {"q": {}}, "requestState": "z"}
        assert again.message.timeout_ms <= first.message.timeout_ms
        peer.result(again, b'"done"')
        peer.receive()

    with serving(endpoint, script), BlockingClient(endpoint, timeout_s=20) as client:
        assert client.request("s", "m", {"a": 1}, on_question=lambda _: {}) == "done"
