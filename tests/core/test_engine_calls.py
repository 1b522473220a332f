"""The life of a call through the whole core: to its server and back, with progress and `_meta` on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.base.tolerances import Oddity
from broker.core.effects import Level
from broker.core.mcp.jsonrpc import MAX_BATCH
from broker.core.mcp.methods import MODERN_VERSION, Era
from client_shim import wire
from client_shim.wire import Code
from tests.core.world import World, ready

META = "io.modelcontextprotocol/"
WANTED = wire.WANTS_PROGRESS
EXTENDS = wire.WANTS_PROGRESS | wire.PROGRESS_EXTENDS


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
    world.processes["time"].say(b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (request["id"], error))
    assert client.endings(id) == [(wire.Error(1, id), error)]
    assert (world.engine.servers["time"].calls, world.engine.servers["time"].errors) == (1, 1)


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
    world.run(world.engine.registry.congested, "time", True)
    client.call()
    assert not process.calls
    world.run(world.engine.registry.congested, "time", False)
    assert len(process.calls) == 1


def test_a_new_process_is_not_congested_by_the_old_one() -> None:
    """Section 5: the pipe that was full is gone with its reader."""
    world = ready()
    world.run(world.engine.registry.congested, "time", True)
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
    assert world.engine.counters["dropped.late.reply"] == 1
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
    rogue.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % request["id"])
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


@pytest.mark.parametrize("id", [b'"%dx"', b"%d.5", b"true", b"null", b"[%d]", b"%d9999999999999999999999"])
def test_an_id_of_another_value_is_another_id(id: bytes) -> None:
    """Law 8: it ends nobody's call, and since one is open, somebody is told of it."""
    world = ready()
    process, client = world.processes["time"], world.client()
    call = client.call()
    known = process.calls[0]["id"]
    process.say(b'{"jsonrpc":"2.0","id":%b,"result":1}' % id.replace(b"%d", str(known).encode()))
    assert client.endings(call) == []
    (warning,) = [note for note in world.notes if note.event == "server.odd" and note.level is Level.WARNING]
    assert warning.facts["kind"] == Oddity.UNMATCHED.value
    assert world.engine.servers["time"].tolerated[Oddity.UNMATCHED.value] == 1


@pytest.mark.parametrize(
    ("id", "oddity"),
    [
        (b'"%d"', Oddity.STRING_ID),
        (b'" %d "', Oddity.STRING_ID),
        (b"%d.0", Oddity.FLOAT_ID),
        (b"%d0e-1", Oddity.FLOAT_ID),
    ],
)
def test_an_id_as_a_string_or_a_float_is_the_same_id(id: bytes, oddity: Oddity) -> None:
    """Servers that keep ids as strings or doubles echo them so; both SDKs take the former."""
    world = ready()
    process, client = world.processes["time"], world.client()
    call = client.call()
    known = process.calls[0]["id"]
    process.say(b'{"jsonrpc":"2.0","id":%b,"result":{"x": 1.0}}' % id.replace(b"%d", str(known).encode()))
    assert client.endings(call)[0][1] == b'{"x": 1.0}'
    assert world.engine.servers["time"].tolerated == {oddity.value: 1}


@pytest.mark.parametrize(
    "rest",
    [
        b'"result":NaN}',
        b'"result":{"a":"\xff"}}',
        rb'"result":"\ud800"}',
        b'"result":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'"result":{',
        b'"result":1,"error":{"code":1}}',
        b'"result":null,"error":null}',
        b'"error":"no"}',
        b'"error":null}',
        b'"method":5}',
        b'"jsonrpc":"2.0"}',
    ],
)
def test_a_broken_reply_ends_its_own_call_at_once(rest: bytes) -> None:
    """Section 5: the caller does not wait out its deadline, and its neighbour is left alone."""
    world = ready()
    process, client = world.processes["time"], world.client()
    broken, neighbour = client.call(), client.call()
    process.say(b'{"jsonrpc":"2.0","id":%d,' % process.calls[0]["id"] + rest)
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
    process.say(b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % process.calls[0]["id"])
    assert len(process.calls) == 2


def test_a_batch_is_its_messages() -> None:
    """2025-03-26: "implementations MUST support receiving JSON-RPC batches"."""
    world = ready()
    process, client = world.processes["time"], world.client()
    first, second = client.call(flags=WANTED), client.call()
    one, two = (request["id"] for request in process.calls)
    process.say(
        b'[{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%d,"progress":1}},'
        b'{"jsonrpc":"2.0","id":%d,"result":"one"}, {"jsonrpc":"2.0","id":%d,"result":NaN},'
        b'{"jsonrpc":"2.0","id":%d,"result":"two"}]' % (one, one, 9999, two)
    )
    assert client.inbox == []  # NaN is no JSON: nothing of it can be told apart
    process.say(
        b'[{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%d,"progress":1}},'
        b'{"jsonrpc":"2.0","id":%d,"result":"one"}, {"jsonrpc":"2.0","id":%d,"result":"two"}]'
        % (one, one, two)
    )
    assert [type(message) for message, _ in client.inbox] == [wire.Notification, wire.Result, wire.Result]
    assert (client.result(first), client.result(second)) == ("one", "two")
    assert world.engine.counters["dropped.noise"] == 1


@pytest.mark.parametrize(
    ("line", "counter"),
    [
        (b"Listening on stdio", "dropped.noise"),
        (b"[info] listening", "dropped.noise"),
        (b"[]", "dropped.noise"),
        (b"[1, 2]", "dropped.noise"),
        (b'[{"jsonrpc":"2.0","id":12345,"result":1}]', "dropped.unmatched.reply"),
        (b"[" + b",".join([b"{}"] * (MAX_BATCH + 1)) + b"]", "dropped.noise"),
        (b"", "dropped.noise"),
        (b"{", "dropped.noise"),
        (b'{"id":12345,"result":1}', "dropped.noise"),
        (b'{"jsonrpc":"1.0","id":12345,"result":1}', "dropped.noise"),
        (b'{"jsonrpc":"2.0","id":12345,"result":NaN}', "dropped.broken.line"),
        (b'{"jsonrpc":"2.0","id":12345,"result":1}', "dropped.unmatched.reply"),
        (b'{"jsonrpc":"2.0","id":null,"result":{}}', "dropped.broken.line"),
        (b'{"jsonrpc":"2.0","method":"notifications/x"}', "dropped.notification"),
        (
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
            "dropped.notification",
        ),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}', "dropped.message"),
        (b'{"jsonrpc":"2.0","method":"notifications/progress"}', "dropped.late.progress"),
        (b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}', "dropped.question"),
    ],
)
def test_what_a_server_says_to_nobody_is_counted(line: bytes, counter: str) -> None:
    """Law 9: nothing vanishes, and nobody gets what is not for them."""
    world = ready()
    client = world.client()
    client.call()
    world.processes["time"].say(line)
    assert world.engine.counters[counter] == 1
    assert client.inbox == []
    assert world.notes[-1].facts["server"] == "time"


@pytest.mark.parametrize(
    "line",
    [
        b'{"level":"debug","id":%d,"result":{"rows":3},"message":"query done"}',
        b'{"level":"warn","id":%d,"error":"upstream 502, trying again"}',
        b'{"id":%d,"method":"tools/call","params":{"name":"echo"}}',
        b'{"jsonrpc":2.0,"id":%d,"result":{}}',
        b'{"jsonrpc":"1.0","id":%d,"result":{}}',
        b'{"message":{"jsonrpc":"2.0","id":%d,"result":{}},"id":%d,"result":{}}',
        b'{"id":%d,"result":NaN}',
        b'{"id":%d,"result":{"jsonrpc":"2.0"},',
        b'[{"id":%d,"result":{}}]',
        b"{",
        b'  "id": %d,',
        b'  "result": {},',
        b"}",
    ],
)
def test_a_line_that_is_no_json_rpc_settles_nothing(line: bytes) -> None:
    """Law 3: a caller was once given the rows of a log line, with `is_error` false."""
    world = ready()
    process, client = world.processes["time"], world.client()
    call = client.call()
    process.say(line.replace(b"%d", str(process.calls[0]["id"]).encode()))
    assert not client.endings(call)
    process.reply(process.calls[0], {"content": []})
    assert client.result(call) == {"content": []}


def test_what_is_for_people_is_kept_for_them() -> None:
    """Section 2: a banner on stdout and log messages go where stderr goes."""
    world = ready()
    world.processes["time"].say(b"Listening")
    world.processes["time"].say(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}')
    assert [kept.text for kept in world.kept] == [b"Listening", b'{"data":"x"}']


def test_lines_of_a_process_that_is_gone_are_counted() -> None:
    """Law 9: its last words may come after its end."""
    world = ready()
    world.exit()
    world.run(world.engine.replies.line, "time", b'{"jsonrpc":"2.0","id":1,"result":1}')
    assert world.engine.counters["dropped.late.line"] == 1


def test_questions_of_a_server_are_answered_for_nobody() -> None:
    """Law 8: whose question it is cannot be known behind one process; `ping` is the broker's own."""
    world = ready()
    process = world.processes["time"]
    process.say({"jsonrpc": "2.0", "id": "q1", "method": "sampling/createMessage", "params": {}})
    process.say({"jsonrpc": "2.0", "id": 2, "method": "ping"})
    question, ping = process.lines[-2:]
    assert (question["id"], question["error"]["code"]) == ("q1", -32601)
    assert "input_required" in question["error"]["message"]
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
    assert world.engine.counters["dropped.late.progress"] == 1


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


def test_to_who_does_not_read_only_the_newest_progress_waits_and_before_its_result() -> None:
    """Law 6: a flood of progress is coalesced and takes no memory; law 2: none comes after the result."""
    world = World(credit_bytes=65_536, outbox_bytes=65_536)
    process, client = world.start(), world.client()
    large, first, second = client.call(), client.call(flags=WANTED), client.call(flags=WANTED)
    process.reply(process.calls[0], "x" * 70_000)
    client.inbox.clear()
    for done in range(5000):
        process.progress(process.calls[1]["id"], done)
        process.progress(process.calls[2]["id"], -done)
    process.reply(process.calls[1], "done")
    assert client.inbox == []
    assert world.closed == {}
    assert world.engine.counters["replaced.progress"] == 2 * 4999
    client.say(wire.Credit(0, 0, 70_000))
    told = [(message.id, json.loads(body or b"")) for message, body in client.inbox]
    assert told == [
        (first, {"progressToken": first, "progress": 4999}),
        (second, {"progressToken": second, "progress": -4999}),
        (first, "done"),
    ]
    assert large not in {id for id, _ in told}


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
