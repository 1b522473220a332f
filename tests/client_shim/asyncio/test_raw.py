"""Raw requests, raw notifications and `listen`, over real sockets: bytes pass unread in both directions."""

from __future__ import annotations

import asyncio
import json
import pickle
import tempfile
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client_shim import BrokerClient, errors, wire
from tests.client_shim.asyncio.test_connection import Run, endpoint, fails, new_loop, on_loop
from tests.client_shim.asyncio.test_listening import TOOLS, UPDATED, answer, heard_listen, params, tell
from tests.client_shim.loops import LOOPS, NewLoop
from tests.client_shim.peer import PATIENCE_S, Peer, run, until, while_greeting

__all__ = ["endpoint", "new_loop", "on_loop"]

BODIES = st.sampled_from(
    [
        b"{}",
        b'{"a":1e400,"a":2}',
        b'{"b" : 1.0, "a":\t[]}',
        b'{"code":1e999,"message":"m"}',
        b'{"code":-32601,"message":"m","message":"n","data":1e400}',
        b'{"code":-32601,"message":"m","_meta":{}}',
        b"[" * 5000,
        b"",
    ]
) | st.binary(max_size=100)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@given(told=st.lists(st.tuples(BODIES, BODIES, st.booleans()), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
@example(
    told=[
        (b'{"a":1e400,"a":2}', b'{"b":1e400,"b":2}', True),
        (b"{}", b'{"code":1,"message":"m","data":1e9}', False),
    ]
)
def test_params_results_and_errors_pass_as_the_bytes_that_they_are(
    new_loop: NewLoop, told: list[tuple[bytes, bytes, bool]]
) -> None:
    """Law 7: nothing is decoded and encoded again, neither towards the server nor back."""

    async def main(endpoint: str) -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            for sent, said, is_result in told:
                call = asyncio.ensure_future(client.request_raw("s", "m", sent))
                heard = await peer.heard()
                assert heard.body == sent
                kind = wire.Result if is_result else wire.Error
                peer.send(heard.who, kind(heard.message.channel, heard.message.id), said)
                if is_result:
                    assert await call == said
                    continue
                with pytest.raises((errors.ServerError, errors.InvalidReply)) as caught:
                    await call
                if isinstance(caught.value, errors.ServerError):
                    assert caught.value.raw == said
                    assert pickle.loads(pickle.dumps(caught.value)).raw == said
            await client.aclose()

    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        run(main(f"ipc://{folder}/s"), new_loop)


def test_a_raw_request_has_the_header_of_any_other(on_loop: Run, endpoint: str) -> None:
    """Its timeout, flags and meta; params that are left out stay left out; capabilities are added."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, timeout=7, capabilities={"sampling": {}})
            await while_greeting(peer, client.connect())
            meta = {"progressToken": "p", "io.modelcontextprotocol/logLevel": "debug"}
            for options, flags in (
                ({}, 0),
                ({"on_progress": print, "on_log": print, "meta": meta}, wire.WANTS_PROGRESS),
                ({"progress_extends": True}, wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS),
            ):
                raw = asyncio.ensure_future(client.request_raw("s", "m", **options))
                plain = asyncio.ensure_future(client.request("s", "m", **options))
                first, second = await peer.heard(), await peer.heard()
                assert first.message._replace(id=0, timeout_ms=0) == second.message._replace(
                    id=0, timeout_ms=0
                )
                assert (first.message.flags, first.body, second.body) == (flags, None, None)
                assert first.message.timeout_ms in range(6_900, 7_001)
                peer.result(first)
                peer.result(second)
                assert (await raw, await plain) == (b"{}", {})
            await client.aclose()

    on_loop(main())


def test_raw_progress_and_log_messages_come_in_order_before_the_result(on_loop: Run, endpoint: str) -> None:
    """Law 7 for what is said about a call; what cannot be read passes too, for it is not read."""

    async def main() -> None:
        said: list[tuple[str, bytes]] = []

        async def on_progress(body: bytes) -> None:
            await asyncio.sleep(0)
            said.append(("progress", body))

        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            who = await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(
                client.request_raw(
                    "s", "m", b"{}", on_progress=on_progress, on_log=lambda body: said.append(("log", body))
                )
            )
            heard = await peer.heard()
            expected = [("progress", b'{"progress":1e400}'), ("log", b"\xff"), ("progress", b"?")]
            for kind, body in expected:
                method = "notifications/progress" if kind == "progress" else "notifications/message"
                peer.send(who, wire.Notification(1, heard.message.id, "s", method), body)
            peer.result(heard, b'"done"')
            assert await call == b'"done"'
            assert said == expected
            await client.aclose()

    on_loop(main())


def test_a_raw_call_is_given_up_like_any_other(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laws 2 and 4: it is cancelled when its task is, and ends at its deadline whatever the broker does."""
    monkeypatch.setattr("client_shim.asyncio.connection.GRACE_S", 0.05)
    monkeypatch.setattr("client_shim.protocol.state.GRACE_S", 0.05)

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request_raw("s", "m", b"{}"))
            heard = await peer.heard()
            call.cancel()
            cancel = (await peer.heard()).message
            assert (type(cancel), cancel.id) == (wire.Cancel, heard.message.id)
            late = client.request_raw("s", "m", b"{}", timeout=0.05)
            assert (await fails(late, errors.DeadlineExceeded)).outcome_unknown
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("broken", ["{}", {"a": 1}, bytearray(b"{}"), 5])
def test_raw_params_are_bytes(broken: Any) -> None:
    """Law 10: anything else would break the connection of all clients in the transport."""

    async def main() -> None:
        error = await fails(
            BrokerClient("test", "ipc:///nowhere").request_raw("s", "m", broken), errors.InvalidRequest
        )
        assert "must be bytes" in str(error)
        assert "`m` of server 's'" in str(error)

    asyncio.run(main())


# --- notifications ------------------------------------------------------------------------------------


def test_raw_notifications_are_the_bytes_that_came_in(on_loop: Run, endpoint: str, caplog: Any) -> None:
    """Law 7; a client with no other callback decodes nothing, and listens to nothing before it says so."""

    async def main() -> None:
        raw: list[tuple[str, str, bytes]] = []
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, on_raw_notification=lambda *news: raw.append(news))
            who = await while_greeting(peer, client.connect())
            listening = asyncio.ensure_future(client.listen(["s"]))
            assert params(await heard_listen(peer, "s")) == {"servers": ["s"], "resources": {}}
            assert await listening == {}
            for body in (b'{"a":1e400,"a":2}', b"\xff"):
                peer.send(who, wire.Notification(1, 0, "s", TOOLS), body)
            await until(lambda: len(raw) == 2)
            assert raw == [("s", TOOLS, b'{"a":1e400,"a":2}'), ("s", TOOLS, b"\xff")]
            await client.aclose()

    on_loop(main())
    assert not caplog.records


def test_raw_and_decoded_callbacks_stand_side_by_side(on_loop: Run, endpoint: str) -> None:
    """One that fails keeps nothing from the other."""

    async def main() -> None:
        seen: list[object] = []

        def on_raw(*_: object) -> None:
            raise ZeroDivisionError("a bug of the caller")

        with Peer(endpoint) as peer:
            client = BrokerClient(
                "test",
                endpoint,
                on_raw_notification=on_raw,
                on_resource_updated=lambda *news: seen.append(news),
            )
            who = await while_greeting(peer, client.connect())
            tell(peer, who, UPDATED, {"uri": "u"})
            await until(lambda: seen == [("s", "u")])
            await client.aclose()

    on_loop(main())


def test_a_client_is_told_of_the_loss_of_the_broker_and_of_its_return(on_loop: Run, endpoint: str) -> None:
    """The first connection is no news. The return comes before what may have changed meanwhile."""

    async def main() -> None:
        news: list[object] = []
        client = BrokerClient(
            "test",
            endpoint,
            on_connection=news.append,
            on_raw_notification=lambda _, method, body: news.append((method, body)),
        )
        for instance in range(3):
            with Peer(endpoint, instance=str(instance)) as peer:
                if instance == 0:
                    await while_greeting(peer, client.connect())
                    listening = asyncio.ensure_future(client.listen((), {"s": ["u"]}))
                    await heard_listen(peer)
                    await listening
                else:
                    await peer.greet()
                    await heard_listen(peer)
                    await until(lambda: len(news) == 3)
                    assert news == [False, True, (UPDATED, b'{"uri": "u"}')]
                    news.clear()
        await until(lambda: bool(news))
        assert news == [False]
        await client.aclose()

    on_loop(main())


# --- listen -------------------------------------------------------------------------------------------

REFUSED = {"code": "unknown-server", "message": "there is no such server", "hint": "add it"}
SERVERS = st.sampled_from(["s", "t", "gone"])
URIS = st.sampled_from(["u", "v", "w"])
LISTEN = st.tuples(
    st.none() | st.sets(SERVERS), st.dictionaries(SERVERS, st.sets(URIS, min_size=1), max_size=3)
)
STEPS = st.lists(LISTEN | st.tuples(st.sampled_from(["add", "remove"]), SERVERS, URIS), max_size=8)


def listen_params(servers: set[str] | None, resources: dict[str, set[str]]) -> dict[str, object]:
    """The params of `listen` as docs/protocol.md has them, in one order."""
    return {
        "servers": None if servers is None else sorted(servers),
        "resources": {server: sorted(uris) for server, uris in sorted(resources.items()) if uris},
    }


async def answer_listens(peer: Peer, heard: list[Any], done: asyncio.Future[Any]) -> None:
    """Answer every `listen` until the call is over; the server "gone" is refused."""
    while not done.done():
        if not peer.has_mail():
            await asyncio.sleep(0.0005)
            continue
        message = await peer.heard()
        wants = params(message)
        heard.append(wants)
        named = {*(wants["servers"] or ()), *wants["resources"]}
        refused = {"not_subscribed": {"gone": REFUSED}} if "gone" in named else {}
        peer.result(message, json.dumps({"servers": [], **refused}).encode())


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_the_broker_always_knows_all_that_a_client_listens_to(
    new_loop: NewLoop, steps: list[tuple[Any, ...]]
) -> None:
    """Each `listen` replaces all, each subscription changes one; the next broker is told the same."""

    async def main(endpoint: str) -> None:
        servers: set[str] | None = set()
        resources: dict[str, set[str]] = {}
        heard: list[Any] = [listen_params(servers, resources)]
        client = BrokerClient("test", endpoint, reconnect_s=PATIENCE_S)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            for step in steps:
                call: asyncio.Future[Any]
                if step[0] == "add":
                    call = asyncio.ensure_future(client.subscribe_resource(*step[1:]))
                    if step[1] != "gone":
                        resources.setdefault(step[1], set()).add(step[2])
                elif step[0] == "remove":
                    call = asyncio.ensure_future(client.unsubscribe_resource(*step[1:]))
                    resources.get(step[1], set()).discard(step[2])
                else:
                    call = asyncio.ensure_future(client.listen(*step))
                    servers, resources = step[0], {server: set(uris) for server, uris in step[1].items()}
                await answer_listens(peer, heard, call)
                if step[0] == "add" and step[1] == "gone":
                    assert isinstance(call.exception(), errors.UnknownServer)
                elif step[0] in ("add", "remove"):
                    await call
                else:
                    refused = await call
                    assert list(refused) == ["gone"] * ("gone" in {*(step[0] or ()), *step[1]})
                    assert all(isinstance(error, errors.UnknownServer) for error in refused.values())
                assert heard[-1] == listen_params(servers, resources)
        if heard[-1] != listen_params(set(), {}):
            with Peer(endpoint, instance="next") as peer:
                await peer.greet()
                assert params(await heard_listen(peer)) == heard[-1]
        await client.aclose()

    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        run(main(f"ipc://{folder}/s"), new_loop)


def test_a_listen_that_fails_leaves_what_was_listened_to(on_loop: Run, endpoint: str) -> None:
    """Law 10: the error is the caller's, and the next broker hears what was accepted last."""

    async def main() -> None:
        client = BrokerClient("test", endpoint, reconnect_s=PATIENCE_S)
        with Peer(endpoint) as peer:
            who = await while_greeting(peer, client.connect())
            listening = asyncio.ensure_future(client.listen(["s"]))
            await heard_listen(peer, "s")
            await listening
            failing = asyncio.ensure_future(fails(client.listen(None, {"s": ["u"]}), errors.Busy))
            heard = await peer.heard()
            peer.send(who, wire.Fault(1, heard.message.id, "busy", "no room", {}))
            await failing
        with Peer(endpoint, "i2") as peer:
            await peer.greet()
            again = await peer.heard()
            assert params(again) == {"servers": ["s"], "resources": {}}
            answer(peer, again, "s")
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("given_", [("time", None), (None, {"notes": "note://today"})])
def test_a_name_in_place_of_a_collection_is_refused(given_: tuple[Any, Any]) -> None:
    """Law 10: its letters would be taken for servers."""

    async def main() -> None:
        await fails(BrokerClient("test", "ipc:///nowhere").listen(*given_), errors.InvalidRequest)

    asyncio.run(main())
