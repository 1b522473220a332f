"""`BrokerClient` against a peer that a test moves by hand: one connection, and how it comes and goes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import select
import tempfile
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from client_shim import BrokerClient, errors, wire
from client_shim.asyncio.call import WaitingCalls
from client_shim.asyncio.connection import BrokerConnection
from client_shim.protocol.events import Dropped, Lost, Welcomed
from client_shim.protocol.state import ClientState
from client_shim.transport.dealer import AT_MOST, Dealer
from tests.client_shim.loops import LOOPS, NewLoop
from tests.client_shim.peer import PATIENCE_S, Peer, connections_of, run, until, while_greeting

Run = Callable[[Coroutine[Any, Any, object]], object]


@pytest.fixture(params=list(LOOPS.values()), ids=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Makes an event loop of each kind."""
    make: NewLoop = request.param
    return make


@pytest.fixture
def on_loop(new_loop: NewLoop) -> Run:
    """Runs a test on each kind of event loop."""
    return lambda main: run(main, new_loop)


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where nobody listens yet. At the end no connection to it is left."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        yield f"ipc://{folder}/s"
        assert connections_of(f"ipc://{folder}/s") == []


async def fails(call: Coroutine[Any, Any, Any], kind: type[errors.BrokerError]) -> errors.BrokerError:
    """The error that a call ends in."""
    with pytest.raises(kind) as caught:
        await call
    return caught.value


def wait_until_gone(peer: Peer, who: bytes) -> None:
    """Wait for the end of a connection, with pauses: a flood of questions would keep it busy."""
    end = time.monotonic() + PATIENCE_S
    while peer.reaches(who):
        assert time.monotonic() < end
        time.sleep(0.01)


# --- coming up -----------------------------------------------------------------------------------------


def test_connecting_without_a_broker_fails_at_once_and_may_be_tried_again(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10: `connect` says at once what is wrong. Next time it looks again, also for the endpoint."""

    async def main() -> None:
        client = BrokerClient("test", reconnect_s=PATIENCE_S * 9)
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", f"{endpoint}-not-there")
        for _ in range(2):
            assert isinstance(await fails(client.connect(), errors.NoBroker), ConnectionError)
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            await client.aclose()

    on_loop(main())


def test_the_first_call_waits_for_a_broker_as_any_other(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that is started before its broker; by default it looks again where that may be."""

    async def main() -> None:
        client = BrokerClient("test", reconnect_s=PATIENCE_S)
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", f"{endpoint}-not-there")
        calls = [asyncio.ensure_future(client.request("s", f"m{n}")) for n in range(2)]
        await asyncio.sleep(0.05)
        monkeypatch.setenv("MCP_BROKER_ENDPOINT", endpoint)
        with Peer(endpoint) as peer:
            await peer.greet()
            for heard in [await peer.heard() for _ in calls]:
                peer.result(heard, json.dumps(heard.message.method).encode())
            assert await asyncio.gather(*calls) == ["m0", "m1"]
            (connection,) = connections_of()
            assert connection.endpoint == endpoint
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize(("reconnect_s", "timeout"), [(0.3, 60.0), (60.0, 0.3), (0.3, None)])
def test_a_call_waits_for_the_first_broker_within_its_time(
    on_loop: Run, endpoint: str, reconnect_s: float, timeout: float | None
) -> None:
    """Law 2: within its deadline and `reconnect_s`, whichever ends first."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client, began = BrokerClient("test", endpoint, reconnect_s=reconnect_s), loop.time()
        await fails(client.request("s", "m", timeout=timeout), errors.NoBroker)
        assert loop.time() - began > 0.29, "no loop's clock is coarser than 1 ms"
        await client.aclose()

    on_loop(main())


def test_not_every_call_waits_again_for_a_broker_that_was_never_there(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that asks five servers for their tools; also for a client that comes later."""

    async def main() -> None:
        clients = [BrokerClient("test", endpoint, reconnect_s=0.01) for _ in range(2)]
        await fails(clients[0].request("s", "m"), errors.NoBroker)
        monkeypatch.delattr(WaitingCalls, "wait")
        for client in clients:
            await fails(client.request("s", "m", timeout=60), errors.NoBroker)
        for client in clients:
            await client.aclose()

    on_loop(main())


def test_a_call_that_no_broker_will_ever_take_does_not_wait(on_loop: Run, endpoint: str) -> None:
    """Law 10: what is wrong with the endpoint itself is said at once."""

    async def main() -> None:
        client = BrokerClient("test", "ipc://relative/path", reconnect_s=PATIENCE_S * 9)
        await asyncio.wait_for(fails(client.ping(), errors.InvalidEndpoint), PATIENCE_S)
        await client.aclose()

    on_loop(main())


def test_who_meets_a_broker_that_is_ending_waits_for_the_next(on_loop: Run, endpoint: str) -> None:
    """What is called during a restart is answered by the new broker, also by who is new there."""

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        with Peer(endpoint) as ending:
            calling = asyncio.ensure_future(client.request("s", "quick"))
            for _ in range(2):  # it may be asked again before it is gone
                who = (await ending.heard()).who
                ending.send(who, wire.Fault(0, 0, wire.Code.SHUTTING_DOWN.value, "over", {}))
        with Peer(endpoint, "i2") as second:
            await second.greet()
            second.result(await second.heard(), b'"answered"')
            assert await calling == "answered"
            await client.aclose()

    on_loop(main())


def test_a_broker_that_does_not_greet_is_silent(on_loop: Run, endpoint: str) -> None:
    """The socket is open, and that is all: an error of its own, after the time that was set."""

    async def main() -> None:
        with Peer(endpoint):
            await fails(BrokerClient("test", endpoint, hello_timeout_s=0.05).connect(), errors.BrokerSilent)

    on_loop(main())


def test_what_came_while_the_loop_was_busy_is_in_time(
    on_loop: Run, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline is the broker's: what this process spent elsewhere is not held against it."""
    monkeypatch.setattr("client_shim.asyncio.connection.GRACE_S", 0.05)
    monkeypatch.setattr("client_shim.protocol.state.GRACE_S", 0.05)

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint, timeout=1)  # long enough to get all of them there
            await while_greeting(peer, client.connect())
            calls = [asyncio.ensure_future(client.request("s", "slow")) for _ in range(70)]
            for heard in [await peer.heard() for _ in calls]:
                peer.result(heard)
            time.sleep(1.2)  # noqa: ASYNC251  the loop is blocked on purpose, beyond all deadlines
            assert await asyncio.gather(*calls) == [{}] * 70
            await client.aclose()

    on_loop(main())


def test_more_answers_come_at_once_than_are_read_in_one_go(on_loop: Run, endpoint: str) -> None:
    """The file descriptor tells of them once. None is left lying, though nothing is sent meanwhile."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            calls = [asyncio.ensure_future(client.request("s", "any")) for _ in range(3 * AT_MOST)]
            first, *others = [await peer.heard() for _ in calls]
            peer.result(first)
            await calls[0]  # there is nothing more to read, and the client knows
            for heard in others:
                peer.result(heard)
            time.sleep(0.2)  # noqa: ASYNC251  the loop is blocked on purpose, until they are there
            assert await asyncio.wait_for(asyncio.gather(*calls), PATIENCE_S) == [{}] * 3 * AT_MOST
            await client.aclose()

    on_loop(main())


def test_all_clients_of_a_loop_share_one_connection(on_loop: Run, endpoint: str) -> None:
    """Every client is a numbered channel, and one hello is said for all of them."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            clients = [BrokerClient(f"client {n}", endpoint) for n in range(3)]
            await while_greeting(peer, asyncio.gather(*(client.connect() for client in clients)))
            pings = [asyncio.ensure_future(client.ping()) for client in clients]
            heard = [await peer.heard() for _ in clients]
            assert {one.who for one in heard} == {heard[0].who}
            assert [(one.message.channel, one.message.id) for one in heard] == [(1, 1), (2, 2), (3, 3)]
            for one in reversed(heard):
                peer.result(one)
            await asyncio.gather(*pings)
            for client in clients:
                await client.aclose()
            goodbyes = [(await peer.heard()).message for _ in clients]
            assert [goodbye.channel for goodbye in goodbyes] == [1, 2, 0], "the last one ends the connection"

    on_loop(main())


def test_clients_that_name_their_connection_share_it_with_those_of_the_same_name(
    on_loop: Run, endpoint: str
) -> None:
    """The broker's limits are by connection: users of one program that name theirs do not share them."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            names = ("", "a", "b")
            firsts = [BrokerClient("test", endpoint, connection=name) for name in names]
            keys = {await while_greeting(peer, client.connect()) for client in firsts}
            assert len(keys) == len(connections_of()) == 3
            seconds = [BrokerClient("test", endpoint, connection=name) for name in names]
            for client in seconds:
                await asyncio.wait_for(client.connect(), PATIENCE_S)  # no hello is needed
            assert len(connections_of()) == 3
            for client in (*firsts, *seconds):
                await client.aclose()
            assert connections_of() == []

    on_loop(main())


# --- calls -----------------------------------------------------------------------------------------------


def test_progress_comes_in_order_before_the_result_and_may_fail(
    on_loop: Run, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An asynchronous callback is awaited each time; what it raises is logged and breaks nothing."""

    async def main() -> None:
        seen: list[tuple[float, float | None, str | None]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            await asyncio.sleep(0)
            seen.append((progress, total, message))
            if progress == 1:
                raise ZeroDivisionError("a bug of the caller")

        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.call_tool("s", "t", on_progress=on_progress))
            heard = await peer.heard()
            assert heard.message.flags == wire.WANTS_PROGRESS
            assert heard.body == b'{"name":"t","arguments":{}}'
            note = wire.Notification(1, 1, "s", "notifications/progress")
            for body in (b'{"progress":1,"total":2,"message":"one"}', b'{"progress":"?"}', b'{"progress":2}'):
                peer.send(heard.who, note, body)
            peer.result(heard, b'{"content":[{"type":"text","text":"done"}]}')
            result = await call
            assert (result.content[0].text, result.isError) == ("done", False)
            assert seen == [(1, 2, "one"), (2, None, None)]
            await client.aclose()

    on_loop(main())
    assert "a bug of the caller" in caplog.text


def test_a_cancelled_call_is_cancelled_at_the_broker(on_loop: Run, endpoint: str) -> None:
    """Law 4: the server need not work for somebody who has gone; the connection goes on."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "slow", timeout=30))
            heard = await peer.heard()
            assert heard.message.timeout_ms in range(29_000, 30_001)
            call.cancel()
            assert isinstance((await peer.heard()).message, wire.Cancel)
            peer.result(heard, b'"too late"')
            again = asyncio.ensure_future(client.request("s", "quick"))
            peer.result(await peer.heard(), b'"in time"')
            assert await again == "in time"
            assert call.cancelled()
            await client.aclose()

    on_loop(main())


def test_a_call_that_is_cancelled_while_its_caller_hears_of_progress_is_cancelled_too(
    on_loop: Run, endpoint: str
) -> None:
    """Law 4: the callback runs in the caller's task, and what cancels that cancels the call."""

    async def main() -> None:
        hearing = asyncio.Event()

        async def on_progress(*_: object) -> None:
            hearing.set()
            await asyncio.sleep(PATIENCE_S)

        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "slow", on_progress=on_progress))
            heard = await peer.heard()
            note = wire.Notification(1, heard.message.id, "s", "notifications/progress")
            peer.send(heard.who, note, b'{"progress":1}')
            await hearing.wait()
            call.cancel()
            assert isinstance((await peer.heard()).message, wire.Cancel)
            assert call.cancelled()
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("turns", range(6))
def test_a_call_that_is_cancelled_as_its_end_arrives_has_one_of_the_two(
    on_loop: Run, endpoint: str, turns: int
) -> None:
    """Law 2: however the two meet, and the connection goes on."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "slow"))
            peer.result(await peer.heard(), b'"the end"')
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled() or call.result() == "the end"
            again = asyncio.ensure_future(client.request("s", "quick"))
            heard = await peer.heard()
            while isinstance(heard.message, wire.Cancel):
                heard = await peer.heard()
            peer.result(heard, b'"in time"')
            assert await again == "in time"
            await client.aclose()

    on_loop(main())


@pytest.mark.parametrize("kind", ["task", 5, None])
def test_a_result_of_a_type_that_there_is_not_is_the_server_s_mistake(
    on_loop: Run, endpoint: str, kind: object
) -> None:
    """2026-07-28: it "MUST be considered invalid". `request` gives plain data, whatever it is."""

    async def main() -> None:
        body = json.dumps({"resultType": kind, "content": []}).encode()
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(fails(client.call_tool("s", "t"), errors.InvalidReply))
            peer.result(await peer.heard(), body)
            assert repr(kind) in str(await call)
            raw = asyncio.ensure_future(client.request("s", "tools/call"))
            peer.result(await peer.heard(), body)
            assert (await raw)["resultType"] == kind
            await client.aclose()

    on_loop(main())


def test_closing_ends_the_calls_from_any_task_and_twice(on_loop: Run, endpoint: str) -> None:
    """Closed sometimes twice, sometimes from another task than the one that opened it."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            call = asyncio.ensure_future(client.request("s", "slow"))
            await peer.heard()
            await asyncio.gather(*(asyncio.ensure_future(client.aclose()) for _ in range(2)))
            with pytest.raises(errors.ClientClosed):
                await call
            await fails(client.ping(), errors.ClientClosed)

    on_loop(main())


# --- going down --------------------------------------------------------------------------------------------


def test_a_lost_broker_ends_the_calls_and_the_next_ones_wait_for_it(on_loop: Run, endpoint: str) -> None:
    """Law 8 for what was under way; then `reconnect_s`, within the call's own deadline, for the rest."""

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
            calls = [asyncio.ensure_future(client.request("s", "slow")) for _ in range(3)]
            for _ in calls:
                await peer.heard()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, errors.BrokerLost)
            assert outcome.outcome_unknown
        await fails(client.request("s", "quick", timeout=0.05), errors.NoBroker)
        waiting = asyncio.ensure_future(client.request("s", "quick"))
        with Peer(endpoint, "i2") as second:
            await second.greet()
            heard = await second.heard()
            assert (heard.message.instance, heard.message.id) == ("i2", 1)
            second.result(heard, b'"back"')
            assert await waiting == "back"
            await client.aclose()

    on_loop(main())


def test_a_lost_broker_is_looked_for_also_when_nobody_calls(on_loop: Run, endpoint: str) -> None:
    """What a server says unasked must arrive again, and `status` must show the client."""

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        with Peer(endpoint) as peer:
            await while_greeting(peer, client.connect())
        with Peer(endpoint) as second:
            await second.greet()
            await client.aclose()

    on_loop(main())


def test_what_arrived_before_the_loss_is_not_lost(on_loop: Run, endpoint: str) -> None:
    """libzmq throws it away when it is set to never reconnect, which is why it is not (see dealer.py)."""

    async def main() -> None:
        client = BrokerClient("test", endpoint)
        peer = Peer(endpoint)
        who = await while_greeting(peer, client.connect())
        calls = [asyncio.ensure_future(client.request("s", "slow")) for _ in range(200)]
        for heard in [await peer.heard() for _ in calls]:
            peer.result(heard, b'"%d"' % heard.message.id)
        peer.send(who, wire.Goodbye(0, 0, "shutting down"))
        peer.close()
        time.sleep(0.2)  # noqa: ASYNC251  the loop does not read; libzmq's thread sees the end meanwhile
        assert await asyncio.gather(*calls) == [str(n) for n in range(1, 201)]
        await client.aclose()

    on_loop(main())


def test_a_loss_is_told_after_what_arrived_before_it(endpoint: str) -> None:
    """Though it is as much as is read in one go: until then the file descriptor tells of the loss."""
    state = ClientState({"name": "test", "version": "0", "pid": 1}, time.monotonic())
    with Peer(endpoint) as peer:
        dealer = Dealer(endpoint, state)
        dealer.flush()
        who = peer.receive().who
        peer.welcome(who)
        assert dealer.sockets[0].poll(PATIENCE_S * 1000)
        assert [type(event) for event in dealer.receive(time.monotonic())] == [Welcomed]
        for _ in range(AT_MOST):
            peer.send(who, wire.Result(1, 1), b"{}")
    monitor = dealer.filenos[1]
    assert select.select([monitor], [], [], PATIENCE_S)[0], "the loss is not noticed"
    assert [type(event) for event in dealer.receive(time.monotonic())] == [Dropped] * AT_MOST
    assert select.select([monitor], [], [], 0)[0]
    assert [type(event) for event in dealer.receive(time.monotonic())] == [Lost]
    assert not dealer.has_work()
    dealer.close()


def test_closing_while_waiting_for_a_broker_ends_the_wait(on_loop: Run, endpoint: str) -> None:
    """Law 2: also of a call that was never sent."""

    async def main() -> None:
        clients = [BrokerClient("test", endpoint, reconnect_s=PATIENCE_S * 9) for _ in range(2)]
        with Peer(endpoint) as peer:
            await while_greeting(peer, asyncio.gather(*(client.connect() for client in clients)))
        await until(lambda: not clients[0].connected)
        for client in clients:
            waiting = asyncio.ensure_future(client.ping())
            await asyncio.sleep(0)
            await client.aclose()
            with pytest.raises(errors.ClientClosed):
                await waiting

    on_loop(main())


# --- forgotten ---------------------------------------------------------------------------------------


def test_a_forgotten_client_is_released(on_loop: Run, endpoint: str) -> None:
    """Law 4: the backend never closes its clients. That is the leak that this project exists to end."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            kept, forgotten = BrokerClient("kept", endpoint), BrokerClient("forgotten", endpoint)
            await while_greeting(peer, kept.connect())
            await forgotten.connect()
            del forgotten
            gc.collect()
            assert (await peer.heard()).message == wire.Goodbye(2, 0, "forgotten")
            del kept
            gc.collect()
            assert (await peer.heard()).message == wire.Goodbye(0, 0, "forgotten")

    on_loop(main())


def test_the_end_of_the_loop_says_goodbye_for_all(on_loop: Run, endpoint: str) -> None:
    """`asyncio.run(main())` without closing anything leaves no connection behind."""
    with Peer(endpoint) as peer:
        client = BrokerClient("test", endpoint)
        on_loop(while_greeting(peer, client.connect()))
        assert peer.receive().message == wire.Goodbye(0, 0, "its event loop ended")
        assert connections_of(endpoint) == []


def test_a_client_of_many_loops_keeps_no_connection_of_the_earlier_ones(on_loop: Run, endpoint: str) -> None:
    """Law 6: a script that calls `asyncio.run` for each request has one client for as long as it runs."""
    with Peer(endpoint) as peer:
        client, seen = BrokerClient("test", endpoint), list[weakref.ref[BrokerConnection]]()
        for _ in range(3):
            on_loop(while_greeting(peer, client.connect()))
            assert peer.receive().message == wire.Goodbye(0, 0, "its event loop ended")
            joined = client._membership._joined
            assert joined is not None
            seen.append(weakref.ref(joined.connection))
        del joined
        gc.collect()
        assert [connection() is None for connection in seen] == [True, True, False]


def test_a_loop_that_is_just_closed_is_cleared_up_by_the_next_client(
    new_loop: NewLoop, endpoint: str
) -> None:
    """Some do not end their loops as `asyncio.run` does; then nobody tells the connection."""
    with Peer(endpoint) as peer:
        lost, left = new_loop(), BrokerClient("left", endpoint)
        who = lost.run_until_complete(while_greeting(peer, left.connect()))
        lost.close()
        assert peer.reaches(who)
        run(while_greeting(peer, left.connect()), new_loop)
        wait_until_gone(peer, who)


def test_a_loop_that_is_closed_with_calls_pending_leaves_no_complaint(
    new_loop: NewLoop, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can be told any more; what was left is let go by the next client, without a word on stderr."""
    with Peer(endpoint) as peer:
        lost, left = new_loop(), BrokerClient("left", endpoint)
        who = lost.run_until_complete(while_greeting(peer, left.connect()))
        call = lost.create_task(left.request("s", "slow"))
        lost.run_until_complete(peer.heard())
        lost.close()
        pending: Any = call
        pending._log_destroy_pending = False  # that it is dropped is the test's own fault
        del call, left, pending
        gc.collect()
        another = BrokerClient("another", endpoint)
        run(while_greeting(peer, another.connect()), new_loop)
        gc.collect()
        wait_until_gone(peer, who)
    assert capsys.readouterr().err == ""


def test_a_client_of_another_running_loop_is_refused(new_loop: NewLoop, endpoint: str) -> None:
    """Sockets are not shared between threads. It says what to do instead."""

    async def main() -> None:
        with Peer(endpoint) as peer:
            client = BrokerClient("test", endpoint)
            await while_greeting(peer, client.connect())
            with pytest.raises(RuntimeError, match="one for each loop"):
                await asyncio.to_thread(run, client.ping(), new_loop)
            await asyncio.to_thread(run, client.aclose(), new_loop)
            assert isinstance((await peer.heard()).message, wire.Goodbye)

    run(main(), new_loop)


def test_the_context_of_the_first_caller_is_not_kept(on_loop: Run, endpoint: str) -> None:
    """Context variables hold requests and traces; a connection outlives them all."""

    class Trace:
        """Something large."""

    variable: contextvars.ContextVar[Trace] = contextvars.ContextVar("variable")

    async def first(client: BrokerClient, trace: Trace) -> None:
        variable.set(trace)
        del trace
        await client.connect()

    async def main() -> None:
        with Peer(endpoint) as peer:
            client, trace = BrokerClient("test", endpoint), Trace()
            kept = weakref.ref(trace)
            work = asyncio.ensure_future(first(client, trace))
            del trace
            await while_greeting(peer, work)
            del work
            await asyncio.sleep(0)
            gc.collect()
            assert kept() is None
            await client.aclose()

    on_loop(main())
