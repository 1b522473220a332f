"""`BlockingClient` against a peer in a thread: calls, and the same ends as in the asyncio client."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from client_shim import BlockingClient, errors, wire
from client_shim.state import GRACE_S
from tests.client.peer import PATIENCE_S, Heard, Peer


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

    thread = threading.Thread(target=serve)
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
    """Law 8, and then the probe's own words."""

    def script(peer: Peer, hello: Heard) -> None:
        peer.receive()

    with serving(endpoint, script):
        client = BlockingClient(endpoint)
        client.connect()
        with pytest.raises(errors.BrokerLost):
            client.request("s", "m")
    with pytest.raises(errors.NoBroker):
        client.request("s", "m")
    client.close()
    client.close()
    with pytest.raises(errors.ClientClosed):
        client.request("s", "m")


def test_a_broker_that_misses_the_deadline_does_not_hold_the_caller(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 2, from this side."""
    monkeypatch.setattr("client_shim.state.GRACE_S", GRACE_S / 20)

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
