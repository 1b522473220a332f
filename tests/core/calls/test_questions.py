"""What a server asks of its client: answered from the config, passed on to the client of the call, or refused
with the reason; never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.calls.questions import (
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    MAX_QUESTIONS,
    Unanswered,
    refused_since,
)
from broker.core.effects import Level
from broker.core.mcp.meta import CAPABILITIES, LOG_LEVEL
from broker.core.mcp.methods import Era
from client_shim import wire
from tests.core.fake_server import Json, Process
from tests.core.world import ENDINGS, Client, World, ready

ROOTS = ["file:///srv/notes", "file:///srv/maps"]
META = "io.modelcontextprotocol/"


def ask(process: Process, method: str, id: object = "q") -> Any:
    """The server asks something; the answer."""
    process.say({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
    return process.lines[-1]


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "x/y"])
def test_a_question_is_refused_with_what_its_author_can_do(method: str) -> None:
    """Law 8: the broker cannot know which client the question is for."""
    world = ready()
    answer = ask(world.processes["time"], method)
    assert (answer["id"], answer["error"]["code"]) == ("q", -32601)
    assert "input_required" in answer["error"]["message"]
    assert "argument" in answer["error"]["message"]


def test_questions_are_counted_and_told_of_once_for_each_process() -> None:
    """Law 9: loud enough to be seen, and not a line for each of a thousand."""
    world = ready()
    for _ in range(2):
        for id in range(3):
            ask(world.processes["time"], "sampling/createMessage", id)
        world.exit()
        world.wait(5.0)
    levels = [note.level for note in world.notes if note.event == "server.question"]
    assert levels == [Level.WARNING, Level.DEBUG, Level.DEBUG] * 2
    assert world.engine.servers["time"].questions == world.engine.counters["dropped.question"] == 6


def test_roots_are_those_of_the_config() -> None:
    """The capability is declared to servers that have roots in the config, and to no others."""
    world = ready(roots=ROOTS)
    process = world.processes["time"]
    assert ask(process, "roots/list")["result"] == {"roots": [{"uri": uri} for uri in ROOTS]}
    assert process.got("initialize")[0]["params"]["capabilities"] == {"roots": {}}
    assert world.engine.servers["time"].questions == 0


def test_without_roots_in_the_config_it_is_told_of_the_key() -> None:
    """2025-11-25: a client without the capability answers −32601."""
    process = ready().processes["time"]
    answer = ask(process, "roots/list")["error"]
    assert answer["code"] == -32601
    assert "broker.toml" in answer["message"]
    assert process.got("initialize")[0]["params"]["capabilities"] == {}


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list", "ping"])
def test_a_question_of_a_server_that_may_not_ask_gets_no_response(method: str) -> None:
    """2026-07-28, stdio: "The client MUST NOT write JSON-RPC responses". Law 9: it is counted."""
    world = World({"time": {"roots": ROOTS}})
    world.scripts["time"].era = Era.MODERN
    process = world.start()
    before = len(process.lines)
    process.say({"jsonrpc": "2.0", "id": "q", "method": method, "params": {}})
    assert process.lines[before:] == []
    assert world.engine.servers["time"].questions == 1
    assert [note.facts["method"] for note in world.notes if note.event == "server.question"] == [method]


def test_a_question_in_a_result_passes_untouched_and_so_does_the_retry() -> None:
    """Law 7: the broker neither reads nor keeps anything of it."""
    world = World()
    world.scripts["time"].era = Era.MODERN
    process, client = world.start(), world.client()
    capabilities: Json = {META + "clientCapabilities": {"elicitation": {}}}
    id = client.call(meta=capabilities)
    assert process.calls[0]["params"]["_meta"][META + "clientCapabilities"] == {"elicitation": {}}
    wanted = b'{"resultType":"input_required", "inputRequests":{"a":{"method":"x"}},"requestState":"1.0"}'
    process.say(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (process.calls[0]["id"], wanted))
    ((_, body),) = client.endings(id)
    assert body == wanted
    retry = b'{"name":"echo","inputResponses":{"a":{"action":"accept", "n":1.0}},"requestState":"1.0"}'
    client.request("time", "tools/call", body=retry, meta=capabilities)
    sent: Json = process.calls[1]["params"]
    del sent["_meta"]
    assert sent == json.loads(retry)
    assert process.calls[1]["id"] != process.calls[0]["id"]


@pytest.mark.parametrize("era", list(Era))
def test_the_trace_of_a_client_is_the_trace_of_the_call(era: Era) -> None:
    """W3C trace context: `traceparent`, `tracestate` and `baggage` are nobody's but the client's."""
    world = World()
    world.scripts["time"].era = era
    process, client = world.start(), world.client()
    trace = {"traceparent": "00-ab-cd-01", "tracestate": "a=1", "baggage": "k=v"}
    client.call(meta=trace)
    assert trace.items() <= process.calls[0]["params"]["_meta"].items()


# --- questions that reach the client of a call (`asks_within_calls`) ---------------------------------

ASKING: Json = {"serialized": True, "asks_within_calls": True, "answer_timeout": 60.0}
TAKES: Json = {"flags": wire.TAKES_QUESTIONS, "meta": {CAPABILITIES: {"elicitation": {}, "sampling": {}}}}


def asking(**keys: object) -> tuple[World, Process, Client]:
    """A broker whose server asks within calls, and a client."""
    world = ready(**ASKING, **keys)
    return world, world.processes["time"], world.client()


def asks(process: Process, method: str = "elicitation/create", id: object = "q", **params: object) -> None:
    """The server asks something."""
    process.say({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def asked_of(client: Client) -> list[wire.Question]:
    """The questions that a client was sent."""
    return [message for message, _ in client.inbox if isinstance(message, wire.Question)]


def withdrawn(client: Client) -> list[int]:
    """The ids of the questions that were withdrawn at a client."""
    return [message.id for message, _ in client.inbox if isinstance(message, wire.Cancel)]


def answers_to(process: Process, id: object = "q") -> list[Json]:
    """The answers to a question of the server."""
    return [line for line in process.lines if line.get("id") == id and "method" not in line]


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage"])
def test_a_question_and_its_answer_pass_as_bytes(method: str) -> None:
    """Law 7, and the id of the server comes back to it as it was."""
    world, process, client = asking()
    id = client.call(channel=3, **TAKES)
    process.say(b'{"jsonrpc":"2.0","id":1.5,"method":%b,"params":{"x": 1e400}}' % json.dumps(method).encode())
    ((question, body),) = [item for item in client.inbox if isinstance(item[0], wire.Question)]
    assert isinstance(question, wire.Question)
    assert question[0:1] + question[2:] == (3, id, "time", method)
    assert body == b'{"x": 1e400}'
    client.say(wire.Answer(3, question.id, True), b'{"action":"accept", "content":{"a":1.50}}')
    assert answers_to(process, 1.5) == [
        {"jsonrpc": "2.0", "id": 1.5, "result": {"action": "accept", "content": {"a": 1.5}}}
    ]
    process.reply(process.calls[0], "done")
    assert client.result(id) == "done"
    world.assert_empty()


def test_an_error_of_the_client_reaches_the_server() -> None:
    """2025-11-25: a client that has no answer says so with a JSON-RPC error."""
    _, process, client = asking()
    client.call(**TAKES)
    asks(process)
    client.say(wire.Answer(1, asked_of(client)[0].id, False), b'{"code":-1,"message":"no"}')
    assert answers_to(process)[0]["error"] == {"code": -1, "message": "no"}


def test_the_capabilities_are_declared_to_such_a_server_only() -> None:
    """2025-11-25: a server asks only for what its client declares."""
    _, process, _ = asking(roots=ROOTS)
    declared = process.got("initialize")[0]["params"]["capabilities"]
    assert declared == {"roots": {}, "elicitation": {"form": {}}, "sampling": {}}


@pytest.mark.parametrize(
    ("reason", "fields", "params"),
    [
        ("client", {}, {}),
        ("client", {**TAKES, "flags": 0}, {}),
        ("client", {**TAKES, "meta": {CAPABILITIES: {"sampling": {}}}}, {}),
        ("client", {**TAKES, "meta": {CAPABILITIES: {"elicitation": {"url": {}}}}}, {}),
        ("client", TAKES, {"mode": "url"}),
        ("too-large", TAKES, {"message": "x" * MAX_QUESTION_BYTES}),
    ],
)
def test_only_what_the_client_declared_reaches_it(reason: str, fields: Json, params: Json) -> None:
    """2025-11-25: a client is not asked for what it did not declare."""
    world, process, client = asking()
    client.call(**fields)
    asks(process, **params)
    assert (asked_of(client), answers_to(process)[0]["error"]["code"]) == ([], -32601)
    assert world.engine.servers["time"].asked[f"refused.{reason}"] == 1


def test_a_question_after_a_cancel_is_nobodys() -> None:
    """Law 3: the next call must not be asked what the cancelled one wants to know."""
    world, process, client = asking()
    other = world.client(b"other")
    client.say(wire.Cancel(1, client.call(**TAKES), None))
    other.call(**TAKES)
    asks(process)
    assert asked_of(client) == asked_of(other) == []
    assert world.engine.servers["time"].asked["refused.cancelled-call"] == 1


@pytest.mark.parametrize("until", ["late reply", "restart"])
def test_a_question_stays_nobodys_when_a_cancelled_call_has_lost_its_place(until: str) -> None:
    """Law 8: that time passes, or that a ping is answered, proves nothing about the cancelled call."""
    world, process, client = asking(cancel_grace_sec=1.0)
    other = world.client(b"other")
    client.say(wire.Cancel(1, client.call(**TAKES), None))
    world.wait(900.0)
    other.call(timeout_ms=10_000_000, **TAKES)
    assert len(process.calls) == 2
    asks(process)
    assert asked_of(client) == asked_of(other) == []
    assert world.engine.servers["time"].asked["refused.cancelled-earlier"] == 1
    assert "stops_on_cancel" in answers_to(process)[0]["error"]["message"]
    if until == "late reply":
        process.reply(process.calls[0], "late")
    else:
        world.exit()
        world.wait(5.0)
        process = world.processes["time"]
        other.call(**TAKES)
    asks(process, id="r")
    assert len(asked_of(other)) == 1


def test_why_all_questions_are_refused_is_known_until_the_process_is_replaced() -> None:
    """Law 9: `status`, `doctor` and the metrics show it."""
    world, process, client = asking(cancel_grace_sec=1.0)
    server = world.engine.servers["time"]
    assert refused_since(server) is None
    client.say(wire.Cancel(1, client.call(**TAKES), None))
    assert refused_since(server) is None  # it keeps its place, so the next call waits
    world.wait(1.0)
    assert refused_since(server) is Unanswered.CANCELLED_EARLIER
    process.reply(process.calls[0], "late")
    assert refused_since(server) is None
    asks(process)
    assert refused_since(server) is Unanswered.PROVED_WRONG
    world.exit()
    assert refused_since(server) is None


@pytest.mark.parametrize("outcome", ["answered", "withdrawn", "expired", "unusable"])
def test_a_question_is_counted_and_logged_when_it_begins_and_when_it_ends(outcome: str) -> None:
    """Law 9: each has one outcome."""
    world, process, client = asking()
    client.call(**TAKES)
    asks(process)
    (question,) = asked_of(client)
    if outcome == "withdrawn":
        process.tell("cancelled", requestId="q")
    elif outcome == "expired":
        world.wait(60.0)
    else:
        client.say(wire.Answer(1, question.id, True), b"{}" if outcome == "answered" else b"[]")
    assert world.engine.servers["time"].asked == {"asked": 1, outcome: 1}
    told = [note.facts for note in world.notes if note.event.startswith("question.")]
    assert [facts["question"] for facts in told] == [question.id, question.id]
    assert told[1]["outcome"] == outcome


def test_a_question_after_a_cancel_is_no_riddle_where_the_server_stops_on_cancel() -> None:
    """The operator's word, for a server that has read the cancellation. The tripwire watches it, too."""
    world, process, client = asking(stops_on_cancel=True)
    other = world.client(b"other")
    process.script.mute = {"ping"}
    client.say(wire.Cancel(1, client.call(**TAKES), None))
    other.call(**TAKES)
    asks(process)
    assert world.engine.servers["time"].asked["refused.cancelled-call"] == 1
    process.reply(process.got("ping")[-1], {})
    asks(process, id="r")
    assert len(asked_of(other)) == 1
    process.reply(process.calls[1], "done")
    asks(process, id="s")
    assert world.engine.servers["time"].asked["refused.proved-wrong"] == 1


def test_log_messages_after_a_cancel_are_nobodys() -> None:
    """Law 8: by the same rule as questions."""
    world, process, client = asking(cancel_grace_sec=1.0)
    client.say(wire.Cancel(1, client.call(meta={LOG_LEVEL: "info"}), None))
    world.wait(900.0)
    client.inbox.clear()
    client.call(meta={LOG_LEVEL: "info"})
    process.tell("message", level="info", data="x")
    assert (client.inbox, len(world.kept)) == ([], 1)


def test_a_question_while_the_broker_has_a_request_open_is_nobodys() -> None:
    """Law 8: it may belong to the reading of a list."""
    world, process, client = asking()
    client.call(**TAKES)
    process.script.mute = {"tools/list"}
    process.tell("tools/list_changed")
    world.wait(1.0)
    asks(process)
    assert asked_of(client) == []
    assert world.engine.servers["time"].asked["refused.own-request"] == 1


def test_a_question_without_a_call_ends_the_questions_of_that_process() -> None:
    """The tripwire: the operator's word was wrong. The next process is believed again."""
    world, process, client = asking()
    asks(process)
    id = client.call(**TAKES)
    asks(process, id="r")
    assert asked_of(client) == []
    assert world.engine.servers["time"].asked["refused.proved-wrong"] == 2
    assert [note.level for note in world.notes if note.event == "server.asks_without_call"] == [Level.WARNING]
    process.reply(process.calls[0], "done")
    assert client.result(id) == "done"
    world.exit()
    world.wait(5.0)
    client.call(**TAKES)
    asks(world.processes["time"])
    assert len(asked_of(client)) == 1


@pytest.mark.parametrize("how", ["reply", "cancel", "server took it back", "died", "expired"])
def test_a_question_that_is_over_is_withdrawn(how: str) -> None:
    """Law 2: the client hears of it before the end of its call, and an answer after that is late."""
    world, process, client = asking()
    call = client.call(**TAKES)
    asks(process)
    (question,) = asked_of(client)
    if how == "reply":
        process.reply(process.calls[0], "done")
    elif how == "cancel":
        client.say(wire.Cancel(1, call, None))
    elif how == "server took it back":
        process.tell("cancelled", requestId="q")
    elif how == "died":
        world.exit()
    else:
        world.wait(60.0)
    assert withdrawn(client) == [question.id]
    assert not any(isinstance(message, ENDINGS) for message, _ in client.inbox[:-1])
    client.say(wire.Answer(1, question.id, True), b"{}")
    assert world.engine.counters["late.answer"] == 1
    told = answers_to(process)
    assert len(told) == (how not in ("server took it back", "died"))
    assert all("error" in answer for answer in told)


@pytest.mark.parametrize("how", ["channel", "lost"])
def test_a_question_ends_with_its_client(how: str) -> None:
    """Law 4: the server is not left waiting, and a channel that is closed hears nothing more."""
    world, process, client = asking()
    client.call(**TAKES)
    asks(process)
    client.inbox.clear()
    if how == "channel":
        client.say(wire.Goodbye(1, 0, "closed"))
    else:
        world.cut(client)
    assert client.inbox == []
    assert "error" in answers_to(process)[0]
    process.reply(process.calls[0], "late")
    world.assert_empty()


def test_an_answer_of_another_client_or_channel_leaves_the_question_open() -> None:
    """Law 3: only the client that was asked can answer."""
    world, process, client = asking()
    client.call(**TAKES)
    asks(process)
    (question,) = asked_of(client)
    world.client(b"other").say(wire.Answer(1, question.id, True), b'{"from":"other"}')
    client.say(wire.Answer(2, question.id, True), b'{"from":"another channel"}')
    assert (answers_to(process), world.engine.counters["wrong.answer"]) == ([], 2)
    client.say(wire.Answer(1, question.id, True), b'{"from":"client"}')
    client.say(wire.Answer(1, question.id, True), b'{"from":"client, again"}')
    assert [answer["result"] for answer in answers_to(process)] == [{"from": "client"}]


UNFIT = {
    "a list": (True, b"[]"),
    "two lines": (True, b'{"a":\n1}'),
    "no JSON": (True, b"{"),
    "no UTF-8": (True, b'{"a":"\xff"}'),
    "an error without a code": (False, b'{"message":"no"}'),
    "too large": (True, b'{"a":"%b"}' % (b"x" * MAX_ANSWER_BYTES)),
}


@pytest.mark.parametrize(("ok", "body"), UNFIT.values(), ids=UNFIT.keys())
def test_an_answer_that_cannot_be_written_to_a_server_is_an_error_there(ok: bool, body: bytes) -> None:
    """DESIGN, JSON that is not one line: a client must not put messages on the server's stdin."""
    world, process, client = asking()
    client.call(**TAKES)
    asks(process)
    client.say(wire.Answer(1, asked_of(client)[0].id, ok), body)
    (answer,) = answers_to(process)
    assert "cannot be used" in answer["error"]["message"]
    assert world.engine.counters["unusable.answer"] == 1


def test_the_time_of_the_call_stands_still_while_a_question_is_open() -> None:
    """GATEWAY: a person may think longer than the call may take, and `answer_timeout` bounds it."""
    world, process, client = asking(timeout=10.0)
    id = client.call(**TAKES)
    world.wait(8.0)
    asks(process)
    world.wait(50.0)
    client.say(wire.Answer(1, asked_of(client)[0].id, True), b"{}")
    world.wait(1.9)
    assert client.endings(id) == []
    asks(process, id="r")
    world.wait(60.0)
    assert len(withdrawn(client)) == 1
    assert client.endings(id) == []
    world.wait(0.2)
    assert client.fault(id).code == wire.Code.DEADLINE


def test_open_questions_are_bounded() -> None:
    """Law 6: a server that asks without end is refused."""
    world, process, client = asking()
    client.call(**TAKES)
    for id in range(1000, 1000 + MAX_QUESTIONS + 3):
        asks(process, id=id)
    assert len(asked_of(client)) == MAX_QUESTIONS == len(world.engine.dispatch.questions)
    assert world.engine.servers["time"].asked["refused.too-many"] == 3


def test_log_messages_of_such_a_server_reach_the_caller_that_asked_for_them() -> None:
    """The same rule as for questions; those of any other legacy server are kept for the log."""
    world, process, client = asking()
    id = client.call(meta={LOG_LEVEL: "info"})
    process.tell("message", level="info", data="x")
    ((message, body),) = client.inbox
    assert (message.id, json.loads(body or b"")) == (id, {"level": "info", "data": "x"})
    process.reply(process.calls[0], "done")
    process.tell("message", level="info", data="y")
    client.call()
    process.tell("message", level="info", data="z")
    assert len(world.kept) == 2


def test_a_call_whose_question_was_answered_is_not_sent_again() -> None:
    """A person is not asked the same a second time by the next process."""
    world = World({"time": ASKING})
    world.scripts["time"].lists = {"tools/list": ["echo"]}
    world.scripts["time"].annotations = {"echo": {"readOnlyHint": True}}
    process, client = world.start(), world.client()
    id = client.call(**TAKES)
    asks(process)
    client.say(wire.Answer(1, asked_of(client)[0].id, True), b"{}")
    world.exit()
    assert client.fault(id).data["not_sent_again"] == "answer"
