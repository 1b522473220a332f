"""A conversation on a channel of a real broker: what the shell around it adds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.conversation.effects import FinishRequest, SendMessage
from broker.gateway.conversation.listen_refusals import ListenRefusals
from broker.gateway.conversation.running_calls import Parking
from broker.gateway.conversation.session import LIST_CHANGES, Session, pause_s
from broker.gateway.conversation.subscriptions import UPDATED, Interests
from client_shim import wire
from tests.client_shim.peer import PATIENCE_S, Heard, Peer, until
from tests.e2e.harness import rogue, running, script
from tests.gateway.bridges import INITIALIZE, MODERN_META

LISTENS = b'{"servers":["one"]}'
"""The broker tells of changes."""


def line(id: int, method: str, params: Any = None) -> jsonrpc.Incoming:
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}
    return jsonrpc.read(json.dumps(message).encode())


class Client:
    """Sends requests into a session, and waits for the answers."""

    def __init__(self, endpoint: str, server: str = "one", **options: Any) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.finished: list[bytes] = []
        self.session = Session(server, self._take, endpoint=endpoint, **options)
        self.session.stream_opened()

    def _take(self, effect: SendMessage | FinishRequest) -> None:
        if isinstance(effect, FinishRequest):
            self.finished.append(effect.request)
        else:
            self.heard.put_nowait(json.loads(effect.message))

    async def ask(self, id: int, method: str, params: Any = None) -> Any:
        self.session.received(line(id, method, params))
        return await asyncio.wait_for(self.heard.get(), 30)


def test_a_broker_that_never_comes_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for (20 s; here less), for a host gives up on `initialize` after 30 s.

    The short time for a server that still starts does not apply to the broker.
    """
    monkeypatch.setattr("broker.gateway.conversation.requests.DISCOVER_S", 0.01)

    async def main() -> None:
        client = Client(f"ipc://{tmp_path}/no.sock", reconnect_s=0.5)
        began = asyncio.get_running_loop().time()
        error = (await client.ask(0, "initialize", INITIALIZE))["error"]
        assert asyncio.get_running_loop().time() - began >= 0.4
        assert error["data"]["code"] == "no-broker"
        assert "mcp-broker" in error["data"]["hint"]
        assert client.finished == [b"0"]
        await client.session.aclose()

    asyncio.run(main())


def test_a_stream_that_was_opened_without_a_broker_hears_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when no call waits for a broker any more. What may have changed meanwhile is told."""
    monkeypatch.setattr("broker.gateway.conversation.session.LISTEN_AGAIN_S", 0.02)
    monkeypatch.setattr("broker.gateway.conversation.session.LISTENS_SOON_S", 0.0)
    with running({"one": rogue()}) as broker:
        opened = ClientSession("2025-11-25", {}, {"name": "test", "version": "1"})

        async def main() -> None:
            await asyncio.to_thread(broker.stop)
            client = Client(broker.endpoint, opened=opened, reconnect_s=0.05)
            error = (await client.ask(1, "tools/call", {"name": "echo", "arguments": {}}))["error"]
            assert error["data"]["code"] == "no-broker"
            await asyncio.to_thread(broker.start)
            heard = [(await asyncio.wait_for(client.heard.get(), 30))["method"] for _ in range(3)]
            assert heard == list(LIST_CHANGES)
            await client.session.aclose()

        asyncio.run(main())


def test_a_broker_that_refuses_to_tell_of_changes_is_not_asked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: the refusal is counted, logged and told to the client. The next stream asks once more."""
    monkeypatch.setattr("broker.gateway.conversation.session.LISTEN_AGAIN_S", 0.0)

    async def main() -> None:
        refusals = ListenRefusals()
        with Peer(f"ipc://{tmp_path}/broker.sock") as peer:
            client = await opened_at(peer, name="gateway: phone", refusals=refusals)
            await refuse_listen(peer, client, {"hint": "wait"})
            client.session.received(line(1, "tools/call", {"name": "echo"}))
            peer.result(await heard_of(peer, "tools/call"))  # no other `listen` came before it
            assert (await asyncio.wait_for(client.heard.get(), PATIENCE_S))["id"] == 1
            client.session.stream_closed()
            client.session.stream_opened()
            peer.result(await heard_of(peer, "listen"), b'{"servers":["one"]}')
            assert await client.session.listening() is None
            await client.session.aclose()
        assert refusals.count == 1

    asyncio.run(main())
    (logged,) = [one for one in caplog.records if one.message == "gateway.not_listening"]
    assert (logged.client, logged.server) == ("gateway: phone", "one")  # type: ignore[attr-defined]


def test_a_passing_refusal_does_not_leave_a_stream_deaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 9: `listen` is repeated, and what may have changed is told. It is counted and told once."""
    monkeypatch.setattr("broker.gateway.conversation.session.LISTEN_AGAIN_S", 0.0)

    async def main() -> None:
        refusals = ListenRefusals()
        with Peer(f"ipc://{tmp_path}/broker.sock") as peer:
            client = await opened_at(peer, refusals=refusals)
            peer.result(await heard_of(peer, "listen"), LISTENS)
            client.session.received(line(1, "resources/subscribe", {"uri": "x:a"}))
            peer.result(await heard_of(peer, "listen"), LISTENS)
            assert (await asyncio.wait_for(client.heard.get(), PATIENCE_S))["id"] == 1
            client.session.stream_closed()
            peer.result(await heard_of(peer, "listen"), LISTENS)
            await until(lambda: client.session.is_idle)
            monkeypatch.setattr("broker.gateway.conversation.session.LISTENS_SOON_S", 0.0)
            client.session.stream_opened()
            missed = await asyncio.wait_for(client.heard.get(), PATIENCE_S)
            assert (missed["method"], missed["params"]) == (UPDATED, {"uri": "x:a"})
            await refuse_listen(peer, client, {"retry_after_s": 0.0})
            refuse(peer, await heard_of(peer, "listen"), {"retry_after_s": 0.0})
            peer.result(await heard_of(peer, "listen"), LISTENS)
            told = [await asyncio.wait_for(client.heard.get(), PATIENCE_S) for _ in range(4)]
            assert [one["method"] for one in told] == [*LIST_CHANGES, UPDATED]
            assert await client.session.listening() is None
            await client.session.aclose()
        assert refusals.count == 1

    asyncio.run(main())


def test_a_cancelled_request_leaves_no_stream_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 9: nobody waits for the `listen` of a cancelled subscription, so it is repeated as any other."""
    monkeypatch.setattr("broker.gateway.conversation.session.LISTEN_AGAIN_S", 0.0)

    async def main() -> None:
        with Peer(f"ipc://{tmp_path}/broker.sock") as peer:
            client = await opened_at(peer)
            peer.result(await heard_of(peer, "listen"), LISTENS)
            client.session.received(line(1, "resources/subscribe", {"uri": "x:a"}))
            asked = await heard_of(peer, "listen")
            client.session.cancelled(b"1")
            refuse(peer, asked, {"retry_after_s": 0.0})
            peer.result(await heard_of(peer, "listen"), LISTENS)
            await until(lambda: client.session.is_idle)
            await client.session.aclose()

    asyncio.run(main())


def test_what_the_broker_tells_of_after_a_refusal_can_be_taken_back() -> None:
    """Law 6: it keeps telling of what was wanted before, which counts for the token until then."""
    interests = Interests(frozenset({"x:a"}))
    assert interests.news() == (False, frozenset({"x:a"}))
    interests.has_session = interests.has_stream = True
    assert interests.news() == (True, frozenset({"x:a"}))
    interests.unheard()
    interests.has_stream, interests.uris = False, frozenset()
    assert interests.news() == (False, frozenset())
    assert interests.news() is None


@pytest.mark.parametrize(
    ("advised_s", "waits"), [(1.0, [2, 4, 8, 16, 32, 60, 60]), (10.0, [10, 20, 40, 60, 60]), (99.0, [60, 60])]
)
def test_a_refused_listen_is_repeated_less_and_less_often(advised_s: float, waits: list[int]) -> None:
    """Law 5: the broker throttles a connection with many refusals, and the streams of a token share one."""
    wait_s, seen = 0.0, []
    for _ in waits:
        wait_s = pause_s(advised_s, wait_s)
        seen.append(wait_s)
    assert seen == waits


def test_a_refusal_of_what_is_no_longer_wanted_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 2: it refuses no later stream. Repeated, it would replace the newer `listen`."""
    monkeypatch.setattr("broker.gateway.conversation.session.LISTEN_AGAIN_S", 0.0)
    monkeypatch.setattr("broker.gateway.conversation.session.LISTENS_SOON_S", 0.0)

    async def main() -> None:
        with Peer(f"ipc://{tmp_path}/broker.sock") as peer:
            client = await opened_at(peer)
            await refuse_listen(peer, client, {"retry_after_s": 0.3})
            assert await client.session.listening() is not None
            client.session.stream_closed()
            client.session.stream_opened()
            assert await client.session.listening() is None  # the broker has not answered yet
            for _ in range(2):
                peer.result(await heard_of(peer, "listen"), LISTENS)
            await until(lambda: client.session.is_idle)
            assert not peer.has_mail()
            await client.session.aclose()

    asyncio.run(main())


async def opened_at(peer: Peer, **options: Any) -> Client:
    """A client that has opened a session, and whose `listen` the broker has not answered."""
    can = {"supportedVersions": ["2025-11-25"], "capabilities": {"tools": {}, "logging": {}}}
    client = Client(peer.endpoint, **options)
    opening = asyncio.create_task(client.ask(0, "initialize", INITIALIZE))
    await peer.greet()
    peer.result(await heard_of(peer, "ping"))
    peer.result(await heard_of(peer, "server/discover"), json.dumps(can).encode())
    assert "result" in await opening
    return client


async def refuse_listen(peer: Peer, client: Client, data: dict[str, Any]) -> None:
    """Refuse a `listen`; its client is told."""
    refuse(peer, await heard_of(peer, "listen"), data)
    told = await asyncio.wait_for(client.heard.get(), PATIENCE_S)
    assert (told["method"], told["params"]["level"]) == ("notifications/message", "warning")
    assert "all is taken" in told["params"]["data"]


def refuse(peer: Peer, heard: Heard, data: dict[str, Any]) -> None:
    """Refuse a request."""
    peer.send(heard.who, wire.Fault(1, heard.message.id, "busy", "all is taken", data))


async def heard_of(peer: Peer, method: str) -> Heard:
    """The next request, which must be of this method."""
    heard = await peer.heard()
    assert heard.message.method == method, heard
    return heard


def test_a_server_that_never_gets_ready_does_not_hold_up_initialize() -> None:
    """A host would give up; the lists are told of once the server is there."""
    with running({"one": {"command": "sleep", "args": ["600"]}}, ready=False) as broker:

        async def main() -> None:
            client = Client(broker.endpoint)
            result = (await client.ask(0, "initialize", INITIALIZE))["result"]
            assert result["capabilities"]["tools"] == {"listChanged": True}
            await client.session.aclose()

        asyncio.run(main())


def test_two_clients_of_one_process_are_asked_each_their_own() -> None:
    """Law 3: questions lost, or sent to another client, are the worst that a gateway can do."""
    with running({"one": script("tests/servers/everything.py")}) as broker:

        async def one(name: str) -> str:
            client = Client(broker.endpoint)
            await client.ask(0, "initialize", INITIALIZE)
            call = {"name": "test_input_required_result_elicitation", "arguments": {}}
            question = await client.ask(1, "tools/call", call)
            assert question["method"] == "elicitation/create"
            answer = {"action": "accept", "content": {"name": name}}
            client.session.received(
                jsonrpc.read(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": answer}).encode())
            )
            result = await asyncio.wait_for(client.heard.get(), 30)
            await client.session.aclose()
            text: str = result["result"]["content"][0]["text"]
            return text

        async def main() -> None:
            names = [f"host {number}" for number in range(8)]
            assert await asyncio.gather(*map(one, names)) == [f"Hello, {name}!" for name in names]

        asyncio.run(main())


def test_a_parked_call_that_nobody_resumes_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """Law 6: also where the broker leaves its question open for longer."""
    asking = script("tests/servers/asking.py", serialized=True, asks_within_calls=True)
    with running({"one": asking}) as broker, caplog.at_level("INFO", logger="mcp-broker"):

        async def main() -> None:
            parking = Parking(parked_s=0.2)
            client = Client(broker.endpoint, parking=parking)
            meta = {**MODERN_META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
            params = {"name": "ask", "arguments": {"messages": ["Who?"]}, "_meta": meta}
            result = (await client.ask(1, "tools/call", params))["result"]
            assert (result["resultType"], len(parking.calls), client.session.is_idle) == (
                "input_required",
                1,
                True,
            )
            await asyncio.to_thread(broker.wait, lambda seen: seen["servers"][0]["in_flight"] == 0)
            assert (len(parking.calls), parking.calls.counts["cancelled"]) == (0, 1)
            again = {**params, "requestState": result["requestState"]}
            assert (await client.ask(2, "tools/call", again))["error"]["code"] == -32602
            await client.session.aclose()

        asyncio.run(main())
    assert [one.reason for one in caplog.records if one.message == "gateway.parked_call_cancelled"] == [  # type: ignore[attr-defined]
        "nobody has resumed it for 0.2 s"
    ]


def test_what_nobody_knows_passes_both_ways() -> None:
    """Unknown fields are not stripped, and numbers keep their spelling (law 7)."""
    with running({"one": rogue()}) as broker:

        async def main() -> None:
            heard: asyncio.Queue[bytes] = asyncio.Queue()

            def take(effect: SendMessage | FinishRequest) -> None:
                if isinstance(effect, SendMessage):
                    heard.put_nowait(effect.message)

            session = Session("one", take, endpoint=broker.endpoint)
            session.received(line(0, "initialize", INITIALIZE))
            await heard.get()
            params = b'{"name":"echo","arguments":{"n":1e400}}'
            said = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params
            session.received(jsonrpc.read(said))
            assert b"1e400" in await asyncio.wait_for(heard.get(), 30)
            await session.aclose()

        asyncio.run(main())


def test_a_session_that_is_closed_leaves_no_task() -> None:
    """Law 4: its calls are cancelled at the server."""
    with running({"one": script("tests/servers/sdk2_server.py")}) as broker:

        async def main() -> None:
            client = Client(broker.endpoint)
            await client.ask(0, "initialize", INITIALIZE)
            client.session.received(line(1, "tools/call", {"name": "slow", "arguments": {"delay_s": 600}}))
            await asyncio.to_thread(broker.wait, lambda seen: seen["servers"][0]["in_flight"] == 1)
            await client.session.aclose()
            assert client.session.is_idle
            assert len(client.finished) == 2
            await asyncio.to_thread(broker.wait, lambda seen: seen["servers"][0]["in_flight"] == 0)

        asyncio.run(main())
