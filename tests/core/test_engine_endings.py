"""Every other way to the end of a call: cancelled, out of time, its server dead; and what is learnt of it."""

from __future__ import annotations

import pytest

from broker.core.mcp.handshake import PROBE_S, START_UP_S
from broker.core.mcp.methods import Era
from broker.core.servers.lifecycle import Event, State
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import World, ready

META = "io.modelcontextprotocol/"
WANTED = wire.WANTS_PROGRESS
EXTENDS = wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS


# --- cancelled, and out of time ----------------------------------------------------------------------


def test_a_cancelled_call_ends_at_once_and_is_cancelled_upstream() -> None:
    """Law 2: with the broker's id there, and nothing for the late reply."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call(id=70)
    client.say(wire.Cancel(1, 70, "changed my mind"))
    assert client.fault(70).code == Code.CANCELLED
    (cancelled,) = process.got("notifications/cancelled")
    assert cancelled["params"]["requestId"] == process.calls[0]["id"]
    process.reply(process.calls[0], "late")
    assert len(client.endings(70)) == 1
    assert world.engine.servers["time"].errors == 0
    world.assert_empty()


def test_a_cancelled_call_makes_room_for_the_next() -> None:
    """Section 2: its answer, if one comes, is nobody's; nobody waits for it."""
    world = ready(max_in_flight=2)
    process, client = world.processes["time"], world.client()
    first, _, third = client.call(), client.call(), client.call()
    client.say(wire.Cancel(1, first, None))
    process.reply(process.calls[2], "ok")
    assert client.result(third) == "ok"


def test_a_call_that_is_cancelled_in_line_never_gets_to_the_server() -> None:
    """Section 2: there is nothing to cancel upstream either."""
    world = ready(serialized=True)
    process, client = world.processes["time"], world.client()
    client.call()
    waiting = client.call()
    client.say(wire.Cancel(1, waiting, None))
    assert client.fault(waiting).code == Code.CANCELLED
    process.reply(process.calls[0], "ok")
    assert len(process.calls) == 1
    assert not process.got("notifications/cancelled")


def test_a_cancel_that_comes_too_late_is_counted() -> None:
    """Law 9: it crossed the result on its way."""
    world = ready()
    process, client = world.processes["time"], world.client()
    id = client.call()
    process.reply(process.calls[0], "ok")
    client.say(wire.Cancel(1, id, None))
    client.say(wire.Cancel(1, 999, None))
    assert client.result(id) == "ok"
    assert world.engine.counters["late.cancel"] == 2


def test_nobody_cancels_the_call_of_another_connection() -> None:
    """Law 3: an id means what it means on its own connection."""
    world = ready()
    one, two = world.client(b"a"), world.client(b"b")
    id = one.call(id=5)
    two.say(wire.Cancel(1, 5, None))
    assert one.endings(id) == []


@pytest.mark.parametrize(("given_ms", "timeout_s"), [(None, 30.0), (2500, 2.5), (0, 0.0), (-5, 0.0)])
def test_a_call_ends_at_its_deadline(given_ms: int | None, timeout_s: float) -> None:
    """Law 2: the caller's time, else the server's `timeout`; upstream it is cancelled."""
    world = ready()
    process, client = world.processes["time"], world.client()
    id = client.call(timeout_ms=given_ms)
    if timeout_s:
        world.wait(timeout_s - 0.001)
    assert client.endings(id) == []
    world.wait(0.001)
    fault = client.fault(id)
    assert (fault.code, fault.data["timeout_s"]) == (Code.DEADLINE, timeout_s)
    assert len(process.got("notifications/cancelled")) == 1
    world.assert_empty()


def test_a_call_whose_time_is_up_in_line_never_gets_to_the_server() -> None:
    """Law 2: also where its turn comes at the same moment, because the one before ran out of time too."""
    world = ready(serialized=True)
    process, client = world.processes["time"], world.client()
    ids = [client.call() for _ in range(5)]
    last = client.call(timeout_ms=60_000)
    world.wait(30.0)
    assert {client.fault(id).code for id in ids} == {Code.DEADLINE.value}
    assert "waited" in client.fault(ids[1]).message
    assert len(process.calls) == 1
    process.reply(process.calls[0], "late")
    assert len(process.calls) == 2
    process.reply(process.calls[1], "ok")
    assert client.result(last) == "ok"


def test_wake_at_is_the_next_deadline_of_all() -> None:
    """Section 2: the shell sleeps until then, and no longer."""
    world = ready(watchdog_sec=0)
    assert world.engine.wake_at() is None
    client = world.client()
    client.call(timeout_ms=9000)
    client.call(timeout_ms=4000)
    assert world.engine.wake_at() == world.now + 4.0


# --- a server that dies ------------------------------------------------------------------------------


def test_a_death_ends_what_was_sent_and_keeps_what_waits() -> None:
    """Law 8: whether a call that was sent happened is unknown; one that was not sent is still to come."""
    world = ready(max_in_flight=2)
    client = world.client()
    ids = [client.call() for _ in range(4)]
    world.exit(reason="it was killed by SIGKILL")
    for id in ids[:2]:
        fault = client.fault(id)
        assert (fault.code, fault.data["outcome"]) == (Code.SERVER_DIED, "unknown")
        assert "SIGKILL" in fault.message
    assert [client.endings(id) for id in ids[2:]] == [[], []]
    world.wait(1.0)
    process = world.processes["time"]
    for request in process.calls:
        process.reply(request, "ok")
    assert [client.result(id) for id in ids[2:]] == ["ok", "ok"]
    assert world.spawned["time"] == 2
    world.assert_empty()


def test_a_call_that_cannot_wait_for_the_next_start_is_told_so_at_once() -> None:
    """Law 10: with the time of the next try; who has the time waits."""
    world = ready(serialized=True, restart_sec=10.0)
    client = world.client()
    client.call()
    short, long = client.call(timeout_ms=9000), client.call(timeout_ms=11_000)
    world.exit()
    fault = client.fault(short)
    assert (fault.code, fault.data["retry_after_s"]) == (Code.SERVER_DOWN, 10.0)
    assert client.endings(long) == []
    assert client.fault(client.call(timeout_ms=9000)).code == Code.SERVER_DOWN
    world.wait(10.0)
    world.processes["time"].reply(world.processes["time"].calls[0], "ok")
    assert client.result(long) == "ok"


def test_a_broken_server_takes_no_calls_however_much_time_they_have() -> None:
    """Law 10: it has failed too often to wait for; the error says when a call has it tried again."""
    world = ready(serialized=True, start_limit_burst=1)
    client = world.client()
    client.call()
    waiting = client.call(timeout_ms=3_600_000)
    world.exit()
    assert world.lifecycles["time"].state is State.BROKEN
    late = client.call(timeout_ms=3_600_000)
    for id in (waiting, late):
        fault = client.fault(id)
        assert (fault.code, fault.data["retry_after_s"]) == (Code.SERVER_DOWN, 30.0)
        assert "tried again in 300 s, or by the first call in 30 s" in fault.data["hint"]


def test_a_stop_ends_what_waits() -> None:
    """Law 10: a stopped server is not coming back by itself."""
    world = ready(serialized=True)
    client = world.client()
    sent, waiting = client.call(), client.call()
    world.stop()
    assert client.fault(sent).code == Code.SERVER_DIED
    assert client.fault(waiting).code == Code.SERVER_DOWN
    assert client.fault(client.call()).code == Code.SERVER_DOWN
    world.assert_empty()


def test_a_restart_keeps_what_waits() -> None:
    """Section 3, `mcp-broker restart`: calls in line are for the new process."""
    world = ready(serialized=True)
    client = world.client()
    sent, waiting = client.call(), client.call()
    world.slow_to_end.add("time")
    world.stop()
    world.feed("time", Event.START)
    third = client.call()
    world.bury("time")
    assert client.fault(sent).code == Code.SERVER_DIED
    process = world.processes["time"]
    process.reply(process.calls[0], "ok")
    process.reply(process.calls[1], "ok")
    assert [client.result(id) for id in (waiting, third)] == ["ok", "ok"]


def test_a_reply_of_the_old_process_is_not_taken_from_the_new_one() -> None:
    """Section 5: ids are never used again, so what the old one was asked is nobody's in the new one."""
    world = ready()
    client = world.client()
    id = client.call()
    old = world.processes["time"].calls[0]
    world.exit()
    world.wait(1.0)
    world.processes["time"].reply(old, "from the grave")
    assert client.fault(id).code == Code.SERVER_DIED
    assert world.engine.counters["dropped.late.reply"] == 1


# --- the era -----------------------------------------------------------------------------------------


def test_a_server_that_dies_of_the_probe_is_started_again_without_it() -> None:
    """Section 5: at once, at no cost, and its next process is not probed either."""
    world = World({"time": {"start_limit_burst": 1}})
    world.scripts["time"].mute = {"server/discover"}
    world.start()
    world.exit()
    process = world.processes["time"]
    assert [line["method"] for line in process.lines][:1] == ["initialize"]
    assert world.lifecycles["time"].state is State.READY
    assert world.lifecycles["time"].restarts == 0
    assert world.engine.servers["time"].remembered is Era.LEGACY


def test_a_server_that_refuses_the_probe_and_then_everything_is_next_asked_without_it() -> None:
    """Whatever came of the start: it may take nothing after a wrong first message. It is no verdict."""
    world = World({"time": {"timeout_start_sec": 40.0}})
    world.scripts["time"].mute = {"initialize"}
    assert [line["method"] for line in world.start().lines] == ["server/discover", "initialize"]
    firsts = []
    for _ in range(3):
        world.feed("time", Event.TIMEOUT)
        while "time" not in world.processes:
            world.wait(0.5)
        firsts.append(world.processes["time"].lines[0]["method"])
    assert firsts == ["initialize", "server/discover", "initialize"]


def test_a_second_answer_to_a_question_of_the_handshake_is_no_unmatched_one() -> None:
    """No request waits for it, so it is counted as late and not as unmatched."""
    world = ready()
    world.client().call()
    ids = [line["id"] for line in world.processes["time"].lines if "id" in line][:-1]
    for id in ids:
        world.processes["time"].reply({"id": id}, {})
    assert (world.engine.counters["dropped.late.reply"], len(ids)) == (len(ids), 3)
    assert world.engine.servers["time"].tolerated["unmatched-answer"] == 0


def test_a_stop_during_the_probe_teaches_nothing() -> None:
    """Law 8: the server did not end of the probe, so its era is as unknown as before."""
    world = World()
    world.scripts["time"].mute = {"server/discover"}
    world.start()
    world.stop()
    assert world.engine.servers["time"].remembered is None
    assert world.start().lines[0]["method"] == "server/discover"


def test_a_remembered_era_that_fails_is_forgotten() -> None:
    """Section 5: an update may have made a modern server of it. It is asked at once, in the same process."""
    world = ready()
    assert world.engine.servers["time"].remembered is Era.LEGACY
    world.scripts["time"].era = Era.MODERN
    world.exit()
    world.wait(1.0)
    assert [line["method"] for line in world.processes["time"].lines][:2] == ["initialize", "server/discover"]
    assert (world.lifecycles["time"].state, world.engine.servers["time"].era) == (State.READY, Era.MODERN)


def test_a_silent_server_is_ended_when_its_start_takes_too_long() -> None:
    """Section 2: the probe, then initialize, then the end, each at its time."""
    world = World({"time": {"timeout_start_sec": 40.0}})
    world.scripts["time"].mute = {"server/discover", "initialize"}
    process = world.start()
    world.run(world.engine.tick)
    world.wait(START_UP_S + PROBE_S - 0.1)
    assert [line["method"] for line in process.lines] == ["server/discover"]
    world.wait(0.1)
    assert [line["method"] for line in process.lines] == ["server/discover", "initialize"]
    world.wait(40.0 - START_UP_S - PROBE_S)
    assert world.lifecycles["time"].state is State.BACKOFF
    assert "within 40 s (timeout_start_sec = 40;" in str(world.lifecycles["time"].last_error)


@pytest.mark.parametrize("output", ["stdout", "stderr"])
def test_output_is_a_sign_of_life(output: str) -> None:
    """Section 5: the probe's time starts at the first output, whatever it is."""
    world = World()
    world.scripts["time"].mute = {"server/discover"}
    process = world.start()
    before = world.engine.wake_at()
    if output == "stderr":
        world.run(world.engine.registry.heard, "time")
    else:
        process.say(b"Listening on stdio")
    after = world.engine.wake_at()
    assert before is not None
    assert after is not None
    assert after < before
    world.engine.registry.heard("time", world.now + 100)
    assert world.engine.wake_at() == after


# --- figures -----------------------------------------------------------------------------------------


def test_the_figures_of_status_count_calls_errors_and_time() -> None:
    """Section 3: what `status` shows of a server and of a client."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call()
    client.call()
    world.wait(0.5)
    process.reply(process.calls[0], "ok")
    process.refuse(process.calls[1], -1, "no")
    server = world.engine.servers["time"]
    assert (server.calls, server.errors, server.latency.count) == (2, 1, 2)
    assert server.latency.quantile_ms(0.5) == pytest.approx(500, rel=0.05)
    connection = world.engine.connections.get(client.key)
    assert connection is not None
    assert connection.calls == 2


def test_the_log_has_no_body_of_anybody() -> None:
    """Law 10: the log names server, method and outcome; never what was said."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.request("time", "tools/call", {"name": "echo", "arguments": {"k": "sk-hunter2"}})
    process.reply(process.calls[0], "sk-hunter2")
    process.reply(process.calls[0], "sk-hunter2")
    process.say(b"sk-hunter2")
    process.say(b'{"jsonrpc":"2.0","id":1,"result":"sk-hunter2",NaN}')
    assert len(world.notes) > 4
    assert "sk-hunter2" not in repr(world.notes)
