"""A call that one broker has not begun is kept, and made again at the next: against peers moved by hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from client_shim import BrokerClient, errors, wire
from tests.client_shim.asyncio.test_connection import Run, endpoint, new_loop, on_loop
from tests.client_shim.peer import PATIENCE_S, Heard, Peer, connections_of, until, while_greeting

__all__ = ["endpoint", "new_loop", "on_loop"]


@pytest.mark.parametrize("how", ["refused", "crossed", "wrong instance"])
def test_a_call_that_one_broker_has_not_begun_goes_to_the_next(on_loop: Run, endpoint: str, how: str) -> None:
    """Law 2: unseen by its caller, with the time that is left, under a new id; what was begun is not sent."""

    async def main() -> None:
        client, seen = BrokerClient("test", endpoint, timeout=20), list[float]()
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            begun = asyncio.ensure_future(client.request("s", "slow"))
            first = await peer.heard()
            kept = asyncio.ensure_future(
                client.request("s", "quick", {"a": 1}, on_progress=lambda done, *_: seen.append(done))
            )
            who, request, _ = await peer.heard()
            if how == "refused":
                peer.send(who, wire.Fault(1, request.id, "shutting-down", "it ends", {}))
                await until(lambda: not client.connected)
                peer.result(first, b'"to the end"')
                assert await begun == "to the end"
            elif how == "wrong instance":
                peer.send(who, wire.Fault(1, request.id, "wrong-instance", "another", {}))
            else:
                peer.send(who, wire.Goodbye(0, 0, "it ends", first.message.id))
            later = asyncio.ensure_future(client.request("s", "later"))
            await asyncio.sleep(0.05)  # of its time
            if how != "refused":
                assert (await fails_in(begun)).outcome_unknown
            assert not kept.done()
        with Peer(endpoint, "i2") as second:
            await second.greet()
            heard = {one.message.method: one for one in [await second.heard() for _ in range(2)]}
            again = heard["quick"]
            assert (again.message.instance, again.body) == ("i2", b'{"a":1}')
            assert again.message.timeout_ms in range(1, 19_975)
            note = wire.Notification(1, again.message.id, "s", "notifications/progress")
            second.send(again.who, note, b'{"progress":1}')
            for method in heard:
                second.result(heard[method], json.dumps(method).encode())
            assert (await kept, await later, seen) == ("quick", "later", [1])
            (connection,) = connections_of()
            assert connection.counts["kept for the next broker"] >= 1
            await client.aclose()

    on_loop(main())


async def fails_in(call: asyncio.Future[Any]) -> errors.BrokerError:
    """The error that a call under way ends in."""
    await asyncio.wait([call])
    error = call.exception()
    assert isinstance(error, errors.BrokerError)
    return error


async def kept_call(peer: Peer, client: BrokerClient, timeout: float | None = None) -> asyncio.Task[Any]:
    """A call that a broker has refused, because it ends."""
    call = asyncio.ensure_future(client.request("s", "quick", timeout=timeout))
    who, request, _ = await peer.heard()
    peer.send(who, wire.Fault(1, request.id, "shutting-down", "it ends", {}))
    await until(lambda: not client.connected)
    return call


def test_who_turns_away_from_a_kept_call_leaves_nothing_of_it(on_loop: Run, endpoint: str) -> None:
    """Law 4: a cancel, or the end of its client, while no broker has it: the next one hears nothing of it."""

    async def main() -> None:
        client, other = BrokerClient("test", endpoint), BrokerClient("other", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            await other.connect()
            cancelled = await kept_call(peer, client)
            closed = asyncio.ensure_future(other.request("s", "other"))
            await asyncio.sleep(0)
            cancelled.cancel()
            await other.aclose()
            assert isinstance(await fails_in(closed), errors.ClientClosed)
            await asyncio.wait([cancelled])
            assert cancelled.cancelled()
        with Peer(endpoint, "i2") as second:
            await second.greet()
            call = asyncio.ensure_future(client.request("s", "next"))
            heard = await second.heard()
            assert heard.message.method == "next"
            second.result(heard)
            await call
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("gone", [False, True], ids=["the broker drains on", "the broker is gone"])
def test_a_kept_call_ends_with_its_own_time(on_loop: Run, endpoint: str, gone: bool) -> None:
    """Law 2, and law 10: what is in the way is said, and that it was not carried out."""

    async def main() -> None:
        client = BrokerClient("test", endpoint, reconnect_s=0.01)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            call = await kept_call(peer, client, timeout=0.5)
            if gone:
                peer.close()
            error = await fails_in(call)
            assert isinstance(error, errors.NoBroker if gone else errors.BrokerRefused)
            assert not error.outcome_unknown
            await client.aclose()

    on_loop(main())


def test_a_call_is_refused_by_one_broker_after_the_other_and_ends_in_time(
    on_loop: Run, endpoint: str
) -> None:
    """A loop with an end and with pauses: at the latest with the time of the call."""

    async def main() -> None:
        client, refused = BrokerClient("test", endpoint), 0
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "quick", timeout=1))
            while not call.done():
                heard = await next_of(peer, call)
                if heard is not None and isinstance(heard.message, wire.Hello):
                    peer.welcome(heard.who)
                elif heard is not None and isinstance(heard.message, wire.Request):
                    refused += 1
                    peer.send(heard.who, wire.Fault(1, heard.message.id, "shutting-down", "it ends", {}))
                    peer.send(heard.who, wire.Goodbye(0, 0, "it ends", 0))
            assert isinstance(await fails_in(call), (errors.Unavailable, errors.DeadlineExceeded))
            assert 2 <= refused <= 15, "one each tenth of a second"
            await client.aclose()

    on_loop(main())


async def next_of(peer: Peer, call: asyncio.Future[Any]) -> Heard | None:
    """The next message, unless the call ends before there is one."""
    await until(lambda: peer.has_mail() or call.done())
    return None if call.done() else await peer.heard()


def test_a_kept_call_whose_next_broker_speaks_another_version_is_told_so(on_loop: Run, endpoint: str) -> None:
    """Law 10: an upgrade that went half way. Waiting would not help, and the call was not carried out."""

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            call = await kept_call(peer, client, timeout=PATIENCE_S)
        with Peer(endpoint, "i2") as second:
            who = (await second.heard()).who
            second.send(who, wire.Fault(0, 0, "wire-version", "no", {"versions": [2]}))
            error = await fails_in(call)
            assert isinstance(error, errors.WrongWireVersion)
            assert not error.outcome_unknown
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize(("server", "method"), [("$broker", "ping"), ("s", "tools/list")])
def test_a_call_that_only_reads_is_made_again_at_the_next_broker_once(
    on_loop: Run, endpoint: str, server: str, method: str
) -> None:
    """A `listen` that is lost with its broker must not leave a client deaf; one that kills brokers ends."""

    async def main() -> None:
        client = BrokerClient("test", endpoint, reconnect_s=PATIENCE_S)
        calls: list[asyncio.Future[Any]] = []
        for instance in range(3):
            with Peer(endpoint, str(instance)) as peer:
                if instance == 0:
                    await while_greeting(peer, client.connect())
                    calls = [
                        asyncio.ensure_future(client.listen(["s"])),
                        asyncio.ensure_future(client.request(server, method)),
                    ]
                else:
                    await peer.greet()
                heard = {one.message.method: one for one in [await peer.heard() for _ in calls]}
                assert set(heard) == {"listen", method} if instance < 2 else {"listen"}
                if instance == 1:
                    peer.result(heard["listen"])
                    assert await calls.pop(0) == {}
        assert isinstance(await fails_in(calls[0]), errors.BrokerLost)
        await client.aclose()

    on_loop(main())


def test_what_a_channel_listens_to_is_asked_of_the_next_broker(on_loop: Run, endpoint: str) -> None:
    """Refused by one that ends: it has listened to nothing yet, so nothing can have changed meanwhile."""

    async def main() -> None:
        heard: list[str] = []
        client = BrokerClient("test", endpoint, on_list_changed=lambda server, _: heard.append(server))
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            who, listen, _ = await peer.heard()
            assert listen.method == "listen"
            peer.send(who, wire.Fault(1, listen.id, "shutting-down", "it ends", {}))
            await until(lambda: not client.connected)
        with Peer(endpoint, "i2") as second:
            await second.greet()
            again = await second.heard()
            assert again.message.method == "listen"
            second.result(again, b'{"servers":["s"]}')
            call = asyncio.ensure_future(client.ping())
            second.result(await second.heard())
            await call
            assert heard == []
            await client.aclose()

    on_loop(main())


def test_so_many_calls_are_kept_and_no_more(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 6: as many as an outbox holds, and as many bytes; the others are told at once, and go on."""
    monkeypatch.setattr("client_shim.protocol.outbox.MAX_MESSAGES", 3)
    monkeypatch.setattr("client_shim.protocol.outbox.MAX_BYTES", 10_000)

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            kept = [await kept_call(peer, client)]
            kept += [asyncio.ensure_future(client.request("s", "more", {"x": "x" * 9000})) for _ in range(3)]
            await until(lambda: sum(call.done() for call in kept) == 2)
            busy = [await fails_in(call) for call in kept if call.done()]
            assert [type(error) for error in busy] == [errors.Busy] * 2
            assert "wait for a broker already" in str(busy[0])
            await client.aclose()
            await asyncio.gather(*kept, return_exceptions=True)

    on_loop(main())
