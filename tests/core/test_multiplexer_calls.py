"""The life of a call through the whole core: to its server and back, and every other way to its end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.lifecycle import Event, State
from broker.core.methods import MODERN_VERSION, Era
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import World

META = "io.modelcontextprotocol/"
WANTED = wire.WANTS_PROGRESS
EXTENDS = wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS


def ready(**table: object) -> World:
    """A broker with one server, "time", that is ready."""
    world = World({"time": table})
    world.start()
    return world


# --- there and back ----------------------------------------------------------------------------------


def test_a_call_gets_to_its_server_and_its_result_back() -> None:
    """Section 2, a request and a reply: the id is the broker's upstream, and the client's own again after."""
    world = ready()
    client = world.client()
    client.say(wire.Request(7, 99, "i-1", "time", "tools/call", None, 0, None), b'{"name":"echo","x":1e999}')
    (request,) = world.processes["time"].calls
    assert request["params"] == {"name": "echo", "x": float("inf")}
    assert request["id"] != 99
    result = rb'{ "a":1.50e1, "b":"\u00e9" }'
    world.processes["time"].say(b'{"jsonrpc":"2.0","id":%d,"result": %b }' % (request["id"], result))
    assert client.inbox == [(wire.Result(7, 99), result)]
    world.assert_empty()


def test_an_error_of_the_server_passes_as_bytes() -> None:
    """Section 3: errors of servers and of the broker are told apart by their kind."""
    world = ready()
    client = world.client()
    id = client.call()
    request = world.processes["time"].calls[0]
    error = b'{"code":-32022, "message":"no","data":{"a":1.0}}'
    world.processes["time"].say(b'{"id":%d,"error":%b}' % (request["id"], error))
    assert client.endings(id) == [(wire.Error(1, id), error)]
    assert (world.mux.servers["time"].calls, world.mux.servers["time"].errors) == (1, 1)


def test_the_same_ids_and_tokens_of_two_clients_do_not_meet() -> None:
    """Law 3: upstream, ids and tokens are the broker's, and are never used again."""
    world = ready()
    process = world.processes["time"]
    one, two = world.client(b"a"), world.client(b"b")
    for client in (one, two):
        client.call(id=5, meta={"progressToken": "p"})
    first, second = process.calls
    assert first["id"] != second["id"]
    for request in (second, first):
        process.progress(request["params"]["_meta"]["progressToken"], request["id"])
        process.reply(request, request["id"])
    for client, request in ((one, first), (two, second)):
        (progress, body), (ending, _) = client.inbox
        assert progress == wire.Notification(1, 5, "time", "notifications/progress")
        assert json.loads(body or b"") == {"progressToken": "p", "progress": request["id"]}
        assert ending == wire.Result(1, 5)
        assert client.result(5) == request["id"]


def test_calls_that_come_before_the_server_is_ready_wait_for_it() -> None:
    """Section 2: a page that opens while `npx` downloads gets its answer."""
    world = World()
    client = world.client()
    world.scripts["time"].mute = {"tools/list"}
    process = world.start()
    id = client.call()
    assert not process.calls
    process.reply(process.got("tools/list")[0], {"tools": [{"name": "echo"}]})
    process.reply(process.calls[0], "ok")
    assert client.result(id) == "ok"


def test_a_server_gets_no_more_calls_than_it_may_have() -> None:
    """Section 3, `serialized`: the next one is written when the one before has ended."""
    world = ready(serialized=True)
    process, client = world.processes["time"], world.client()
    ids = [client.call() for _ in range(3)]
    for number in range(3):
        assert len(process.calls) == number + 1
        process.reply(process.calls[number], number)
    assert [client.result(id) for id in ids] == [0, 1, 2]


def test_a_server_that_does_not_read_gets_nothing_more() -> None:
    """Section 5: its calls wait in line, where they can be taken back."""
    world = ready()
    process, client = world.processes["time"], world.client()
    world.run(world.mux.congested("time", True, world.now))
    client.call()
    assert not process.calls
    world.run(world.mux.congested("time", False, world.now))
    assert len(process.calls) == 1


def test_a_new_process_is_not_congested_by_the_old_one() -> None:
    """Section 5: the pipe that was full is gone with its reader."""
    world = ready()
    world.run(world.mux.congested("time", True, world.now))
    world.exit()
    client = world.client()
    client.call()
    world.wait(1.0)
    assert len(world.processes["time"].calls) == 1


# --- replies that fit no call ------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["result", "error"])
def test_a_late_reply_is_counted_and_goes_nowhere(late: str) -> None:
    """Law 2: after the ending comes nothing; law 9: and that is counted."""
    world = ready()
    process, client = world.processes["time"], world.client()
    id = client.call()
    process.reply(process.calls[0], "ok")
    if late == "result":
        process.reply(process.calls[0], "again")
    else:
        process.refuse(process.calls[0], -1, "again")
    assert client.result(id) == "ok"
    assert world.mux.counters["dropped.late.reply"] == 1
    assert "server.late.reply" in [note.event for note in world.notes]


def test_a_server_cannot_answer_the_call_of_another() -> None:
    """Law 3: an id counts only from the server that was given it."""
    world = World({"time": {}, "rogue": {}})
    process, rogue = world.start("time"), world.start("rogue")
    client = world.client()
    id = client.call("time", flags=WANTED)
    request = process.calls[0]
    rogue.reply(request, "mine")
    rogue.refuse(request, -1, "mine")
    rogue.progress(request["id"], 1)
    rogue.say(b'{"id":%d,"result":NaN}' % request["id"])
    assert client.inbox == []
    process.reply(request, "ok")
    assert client.result(id) == "ok"


def test_a_server_cannot_answer_a_call_that_it_was_not_given_yet() -> None:
    """Law 3: also not by counting ids up."""
    world = ready(serialized=True)
    process, client = world.processes["time"], world.client()
    client.call()
    waiting = client.call()
    process.say({"jsonrpc": "2.0", "id": process.calls[0]["id"] + 1, "result": "guessed"})
    assert client.endings(waiting) == []


@pytest.mark.parametrize("id", [b'"%d"', b"%d.0", b"true", b"null", b"[%d]", b"%d9999999999999999999999"])
def test_an_id_of_another_type_is_no_id(id: bytes) -> None:
    """Law 8: 1, "1", 1.0 and true are not the same."""
    world = ready()
    process, client = world.processes["time"], world.client()
    call = client.call()
    known = process.calls[0]["id"]
    process.say(b'{"id":%b,"result":1}' % id.replace(b"%d", str(known).encode()))
    assert client.endings(call) == []


@pytest.mark.parametrize(
    "rest",
    [
        b'"result":NaN}',
        b'"result":{"a":"\xff"}}',
        rb'"result":"\ud800"}',
        b'"result":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'"result":{',
        b'"result":1,"error":{}}',
        b'"method":5}',
        b'"jsonrpc":"2.0"}',
    ],
)
def test_a_broken_reply_ends_its_own_call_at_once(rest: bytes) -> None:
    """Section 5: the caller does not wait out its deadline, and its neighbour is left alone."""
    world = ready()
    process, client = world.processes["time"], world.client()
    broken, neighbour = client.call(), client.call()
    process.say(b'{"id":%d,' % process.calls[0]["id"] + rest)
    fault = client.fault(broken)
    assert (fault.code, fault.data["server"]) == (Code.INVALID_REPLY, "time")
    process.reply(process.calls[1], "ok")
    assert client.result(neighbour) == "ok"
    world.assert_empty()


def test_a_broken_reply_makes_room_for_the_next_call() -> None:
    """Law 2: also where the server may have one only."""
    world = ready(serialized=True)
    process, client = world.processes["time"], world.client()
    client.call()
    client.call()
    process.say(b'{"id":%d,"result":NaN}' % process.calls[0]["id"])
    assert len(process.calls) == 2


@pytest.mark.parametrize(
    ("line", "counter"),
    [
        (b"Listening on stdio", "dropped.noise"),
        (b"", "dropped.noise"),
        (b"{", "dropped.broken.line"),
        (b'{"id":12345,"result":NaN}', "dropped.broken.line"),
        (b'{"id":12345,"result":1}', "dropped.late.reply"),
        (b'{"method":"notifications/x"}', "dropped.notification"),
        (b'{"method":"notifications/cancelled","params":{"requestId":1}}', "dropped.notification"),
        (b'{"method":"notifications/message","params":{"data":"x"}}', "dropped.message"),
        (b'{"method":"notifications/progress"}', "dropped.late.progress"),
        (b'{"id":1,"method":"sampling/createMessage"}', "dropped.question"),
    ],
)
def test_what_a_server_says_to_nobody_is_counted(line: bytes, counter: str) -> None:
    """Law 9: nothing vanishes, and nobody gets what is not for them."""
    world = ready()
    client = world.client()
    client.call()
    world.processes["time"].say(line)
    assert world.mux.counters[counter] == 1
    assert client.inbox == []
    assert world.notes[-1].facts["server"] == "time"


def test_what_is_for_people_is_kept_for_them() -> None:
    """Section 2: a banner on stdout and log messages go where stderr goes."""
    world = ready()
    world.processes["time"].say(b"Listening")
    world.processes["time"].say(b'{"method":"notifications/message","params":{"data":"x"}}')
    assert [kept.text for kept in world.kept] == [b"Listening", b'{"data":"x"}']


def test_lines_of_a_process_that_is_gone_are_counted() -> None:
    """Law 9: its last words may come after its end."""
    world = ready()
    world.exit()
    world.run(world.mux.line("time", b'{"id":1,"result":1}', world.now))
    assert world.mux.counters["dropped.late.line"] == 1


def test_questions_of_a_server_are_answered_for_nobody() -> None:
    """Law 8: whose question it is cannot be known behind one process; `ping` is the broker's own."""
    world = ready()
    process = world.processes["time"]
    process.say({"jsonrpc": "2.0", "id": "q1", "method": "sampling/createMessage", "params": {}})
    process.say({"jsonrpc": "2.0", "id": 2, "method": "ping"})
    question, ping = process.lines[-2:]
    assert (question["id"], question["error"]["code"]) == ("q1", -32601)
    assert "shared" in question["error"]["message"]
    assert ping == {"jsonrpc": "2.0", "id": 2, "result": {}}


# --- progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({"flags": WANTED}, 1),
        ({"meta": {"progressToken": "p"}}, "p"),
        ({"meta": {"progressToken": 5}, "flags": WANTED}, 5),
        ({"meta": {"progressToken": 1.5}}, 1),
    ],
)
def test_progress_is_for_who_wants_it_under_its_own_token(fields: dict[str, Any], token: object) -> None:
    """Law 3: upstream the token is the broker's id; the client sees the one it gave, or its request's id."""
    world = ready()
    process, client = world.processes["time"], world.client()
    id = client.call(**fields)
    request = process.calls[0]
    assert request["params"]["_meta"]["progressToken"] == request["id"]
    params = {"progressToken": request["id"], "progress": 1, "message": "今", "extra": [1]}
    process.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    ((message, body),) = client.inbox
    assert message == wire.Notification(1, id, "time", "notifications/progress")
    assert json.loads(body or b"") == {**params, "progressToken": token}


def test_who_did_not_ask_for_progress_gets_none() -> None:
    """Law 3: the id of a call is no token until its client wants one."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call()
    assert "_meta" not in process.calls[0]["params"]
    process.progress(process.calls[0]["id"], 1)
    assert client.inbox == []
    assert world.mux.counters["dropped.late.progress"] == 1


@pytest.mark.parametrize("token", ["p", "1", None, True, 1.0, [1], {}, 10**30, -1])
def test_progress_under_a_token_that_the_broker_did_not_give_is_dropped(token: object) -> None:
    """Law 3: a server that echoes what it finds in the arguments reaches nobody by it."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call(meta={"progressToken": "p"})
    process.progress(token, 1)
    assert client.inbox == []


def test_progress_after_the_ending_is_dropped() -> None:
    """Law 2: nothing after it."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call(flags=WANTED)
    process.reply(process.calls[0], "ok")
    process.progress(process.calls[0]["id"], 1)
    assert len(client.inbox) == 1


def test_progress_extends_the_deadline_for_who_says_so() -> None:
    """Section 3, `PROGRESS_EXTENDS`: each notification starts the time anew."""
    world = ready()
    process, client = world.processes["time"], world.client()
    plain = client.call(timeout_ms=10_000, flags=WANTED)
    extended = client.call(timeout_ms=10_000, flags=EXTENDS)
    for _ in range(3):
        world.wait(9.0)
        for request in process.calls:
            process.progress(request["id"], world.now)
    assert client.fault(plain).code == Code.DEADLINE
    assert client.endings(extended) == []
    world.wait(10.0)
    assert client.fault(extended).code == Code.DEADLINE


# --- `_meta` upstream --------------------------------------------------------------------------------


def test_a_legacy_server_gets_no_meta_that_it_does_not_know() -> None:
    """Law 7: the body of a call without one is the client's own."""
    world = ready()
    client = world.client()
    client.call()
    client.call(meta={META + "logLevel": "debug", "traceparent": "00-ab"})
    first, second = world.processes["time"].calls
    assert first["params"] == {"name": "echo", "arguments": {}}
    assert second["params"]["_meta"] == {"traceparent": "00-ab"}


def test_a_modern_server_gets_version_and_capabilities_on_every_request() -> None:
    """Section 5: `_meta` with version and capabilities is required on each request; the client's are kept."""
    world = World()
    world.scripts["time"].era = Era.MODERN
    process = world.start()
    client = world.client()
    client.call(meta={META + "clientInfo": {"name": "page"}}, flags=WANTED)
    (request,) = process.calls
    assert request["params"]["_meta"] == {
        META + "protocolVersion": MODERN_VERSION,
        META + "clientInfo": {"name": "page"},
        META + "clientCapabilities": {},
        "progressToken": request["id"],
    }


# --- cancelled, and out of time ----------------------------------------------------------------------


def test_a_cancelled_call_ends_at_once_and_is_cancelled_upstream() -> None:
    """Law 2: with the broker's id there, and nothing for the reply that comes all the same."""
    world = ready()
    process, client = world.processes["time"], world.client()
    client.call(id=70)
    client.say(wire.Cancel(1, 70, "changed my mind"))
    assert client.fault(70).code == Code.CANCELLED
    (cancelled,) = process.got("notifications/cancelled")
    assert cancelled["params"]["requestId"] == process.calls[0]["id"]
    process.reply(process.calls[0], "late")
    assert len(client.endings(70)) == 1
    assert world.mux.servers["time"].errors == 0
    world.assert_empty()


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
    assert world.mux.counters["late.cancel"] == 2


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
    assert len(process.calls) == 2
    process.reply(process.calls[1], "ok")
    assert client.result(last) == "ok"


def test_wake_at_is_the_next_deadline_of_all() -> None:
    """Section 2: the shell sleeps until then, and no longer."""
    world = ready()
    assert world.mux.wake_at() is None
    client = world.client()
    client.call(timeout_ms=9000)
    client.call(timeout_ms=4000)
    assert world.mux.wake_at() == world.now + 4.0


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
    assert world.mux.counters["dropped.late.reply"] == 1


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
    assert world.mux.servers["time"].remembered is Era.LEGACY


def test_a_stop_during_the_probe_teaches_nothing() -> None:
    """Law 8: the server did not end of the probe, so its era is as unknown as before."""
    world = World()
    world.scripts["time"].mute = {"server/discover"}
    world.start()
    world.stop()
    assert world.mux.servers["time"].remembered is None
    assert world.start().lines[0]["method"] == "server/discover"


def test_a_remembered_era_that_fails_is_forgotten() -> None:
    """Section 5: an update may have made a modern server of it."""
    world = ready()
    assert world.mux.servers["time"].remembered is Era.LEGACY
    world.scripts["time"].era = Era.MODERN
    world.exit()
    world.wait(1.0)
    assert world.lifecycles["time"].state is State.BACKOFF
    world.wait(2.0)
    assert (world.lifecycles["time"].state, world.mux.servers["time"].era) == (State.READY, Era.MODERN)


def test_a_silent_server_is_ended_when_its_start_takes_too_long() -> None:
    """Section 2: the probe, then initialize, then the end, each at its time."""
    world = World({"time": {"timeout_start_sec": 40.0}})
    world.scripts["time"].mute = {"server/discover", "initialize"}
    process = world.start()
    world.run(world.mux.tick(world.now))
    world.wait(24.9)
    assert [line["method"] for line in process.lines] == ["server/discover"]
    world.wait(0.1)
    assert [line["method"] for line in process.lines] == ["server/discover", "initialize"]
    world.wait(15.0)
    assert world.lifecycles["time"].state is State.BACKOFF
    assert world.lifecycles["time"].last_error == "it was not ready within 40 s"


def test_stderr_is_a_sign_of_life() -> None:
    """Section 5: the probe's time starts at the first output."""
    world = World()
    world.scripts["time"].mute = {"server/discover"}
    world.start()
    before = world.mux.wake_at()
    world.mux.heard("time", world.now)
    after = world.mux.wake_at()
    assert before is not None
    assert after is not None
    assert after < before
    world.mux.heard("time", world.now + 100)
    assert world.mux.wake_at() == after


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
    server = world.mux.servers["time"]
    assert (server.calls, server.errors, server.latency.count) == (2, 1, 2)
    assert server.latency.quantile_ms(0.5) == pytest.approx(500, rel=0.05)
    connection = world.mux.sessions.get(client.key)
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
    process.say(b'{"id":1,"result":"sk-hunter2",NaN}')
    assert len(world.notes) > 4
    assert "sk-hunter2" not in repr(world.notes)
