"""Questions of a legacy server through gateway and broker, to clients of both eras at both doors.

GATEWAY, "The four cells": a legacy client is asked by a request on the stream of its own, a modern one by the
result of its request, which it repeats. It is one call at the server in each case.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.gateway.tokens import digest_of
from tests.e2e.harness import RunningBroker, running, script, wait_until
from tests.gateway.bridges import MODERN_META, Bridge, gateway_of, sockets_of, wait_for_sockets
from tests.gateway.gateways import META, Answer, Http, Legacy, RunningGateway, close_all, gateway

DECLARED: dict[str, Any] = {META + "clientCapabilities": {"elicitation": {}}}
ASKING: dict[str, Any] = {"serialized": True, "asks_within_calls": True}
ANSWER = {"action": "accept", "content": {"name": "Ann"}}
CLIENTS = 24
BOTH = pytest.mark.parametrize("held", [False, True], ids=["relay", "held"])


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    server = script("tests/servers/asking.py", **ASKING)
    hasty = script("tests/servers/asking.py", **ASKING, answer_timeout=0.5)
    with running({"asking": server, "hasty": hasty}) as found:
        yield found
        assert all(server["restarts"] == 0 for server in found.status()["servers"])  # law 1


@pytest.fixture(scope="module")
def door(broker: RunningBroker) -> Iterator[RunningGateway]:
    tokens: dict[str, Any] = {"tokens.other": {"sha256": digest_of("other").hex()}}
    with gateway(broker, gateway={"sockets": str(sockets_of(broker))}, **tokens) as found:
        wait_for_sockets(broker, "asking", "hasty")
        yield found


@pytest.fixture
def client(door: RunningGateway, broker: RunningBroker) -> Iterator[Http]:
    yield door.http("asking")
    close_all()
    is_over(broker, door)


def is_over(broker: RunningBroker, door: RunningGateway) -> None:
    """Wait until no call is open, parked or not (law 4)."""
    wait_until(lambda: not any(server["in_flight"] for server in broker.status()["servers"]), door.log)
    wait_until(lambda: door.figures()["parked"] == 0, door.log)


def call(*messages: str, **arguments: Any) -> dict[str, Any]:
    """The params of a call that asks these questions."""
    return {"name": "ask", "arguments": {"messages": messages, **arguments}, "_meta": DECLARED}


def again(params: dict[str, Any], asked: Any, **answers: Any) -> dict[str, Any]:
    """The params of a repeated request; `answers` are by the message of the question."""
    by_message = {one["params"]["message"]: name for name, one in asked["inputRequests"].items()}
    given = {by_message[message]: answer for message, answer in answers.items()}
    return {**params, "inputResponses": given, "requestState": asked["requestState"]}


def lines_of(message: Any) -> list[str]:
    """The lines that answered the server, as it got them."""
    lines: list[str] = json.loads(message["result"]["content"][0]["text"])
    return lines


# --- HTTP, legacy clients -----------------------------------------------------------------------------------


def test_a_legacy_client_is_asked_on_the_stream_of_its_request(client: Http) -> None:
    """Law 7: the answer reaches the server in the bytes that the client sent."""
    session = client.initialized(elicitation={})
    stream = session.stream("tools/call", call("Who?"))
    question = stream.next()
    assert question is not None
    assert question["method"] == "elicitation/create"
    assert question["params"]["message"] == "Who?"
    answer = b'{"action":"accept","content":{"n":1e400,"n":2}}'
    respond(session, question["id"], answer)
    assert answer.decode() in lines_of(stream.next())[0]
    assert stream.next() is None


def respond(session: Legacy, id: str, result: bytes, kind: bytes = b"result") -> None:
    body = b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (json.dumps(id).encode(), kind, result)
    assert session.send("POST", body).status == 202


def test_an_error_of_the_client_is_the_answer(client: Http) -> None:
    session = client.initialized(elicitation={})
    stream = session.stream("tools/call", call("Who?"))
    question = stream.next()
    assert question is not None
    error = b'{"code":-1,"message":"rejected","data":[1e400]}'
    respond(session, question["id"], error, b"error")
    assert error.decode() in lines_of(stream.next())[0]


def test_a_client_that_declared_nothing_is_not_asked(client: Http) -> None:
    """The broker refuses the question to the server."""
    answer = client.initialized().ask("tools/call", call("Who?"))
    assert '"code":-32601' in lines_of(answer.message)[0]
    answer = client.ask("tools/call", {**call("Who?"), "_meta": {}})
    assert '"code":-32601' in lines_of(answer.message)[0]


def test_nobody_answers_the_question_of_another_client(client: Http, door: RunningGateway) -> None:
    """Law 3: neither another session nor another token."""
    session = client.initialized(elicitation={})
    stream = session.stream("tools/call", call("Who?"))
    question = stream.next()
    assert question is not None
    others = [client, Http(door.port, client.path, {"authorization": "Bearer other"})]
    for one in others:
        respond(one.initialized(elicitation={}), question["id"], b'{"action":"decline"}')
    respond(session, question["id"], json.dumps(ANSWER).encode())
    (line,) = lines_of(stream.next())
    assert json.loads(line)["result"] == ANSWER


def test_a_question_that_is_not_answered_in_time_is_withdrawn(door: RunningGateway) -> None:
    """`answer_timeout`: the client is told, the server gets an error, and the call goes on."""
    session, dropped = door.http("hasty").initialized(elicitation={}), door.figures()["dropped"]
    stream = session.stream("tools/call", call("Who?"))
    question, withdrawal = stream.next(), stream.next()
    assert question is not None
    assert withdrawal is not None
    assert withdrawal["method"] == "notifications/cancelled"
    assert withdrawal["params"]["requestId"] == question["id"]
    respond(session, question["id"], json.dumps(ANSWER).encode())  # late
    assert "answer_timeout" in lines_of(stream.next())[0]
    assert door.figures()["dropped"] == dropped + 1  # law 9


def test_a_question_that_its_server_takes_back_is_withdrawn(client: Http) -> None:
    session = client.initialized(elicitation={})
    stream = session.stream("tools/call", call("First?", "Second?", takes_back=True))
    questions = {one["params"]["message"]: one["id"] for one in (stream.next(), stream.next()) if one}
    respond(session, questions["Second?"], json.dumps(ANSWER).encode())
    withdrawal = stream.next()
    assert withdrawal is not None
    assert withdrawal["method"] == "notifications/cancelled"
    assert withdrawal["params"]["requestId"] == questions["First?"]
    assert len(lines_of(stream.next())) == 1


# --- HTTP, modern clients -----------------------------------------------------------------------------------


def test_a_modern_client_repeats_its_request_and_the_same_call_goes_on(
    client: Http, broker: RunningBroker, door: RunningGateway
) -> None:
    params, calls = call("Who?"), broker.server("asking")["calls"]
    asked = client.ask("tools/call", params).message["result"]
    assert asked["resultType"] == "input_required"
    (question,) = asked["inputRequests"].values()
    assert (question["method"], question["params"]["message"]) == ("elicitation/create", "Who?")
    assert (broker.server("asking")["in_flight"], door.figures()["parked"]) == (1, 1)
    result = client.ask("tools/call", again(params, asked, **{"Who?": ANSWER})).message
    assert result["result"]["resultType"] == "complete"
    assert json.loads(lines_of(result)[0])["result"] == ANSWER
    assert broker.server("asking")["calls"] == calls + 1


def test_each_question_is_answered_in_a_round_of_its_own(client: Http) -> None:
    """Two that are asked at once and a later one: what a round leaves out is asked again."""
    params = call("First?", "Second?", again="Third?")
    result = client.ask("tools/call", params).message["result"]
    seen = []
    while result["resultType"] == "input_required":
        message = next(iter(result["inputRequests"].values()))["params"]["message"]
        seen.append(message)
        result = client.ask("tools/call", again(params, result, **{message: ANSWER})).message["result"]
    assert seen == ["First?", "Second?", "Third?"]
    assert len(lines_of({"result": result})) == 3


def test_progress_belongs_to_the_request_that_resumed_the_call(client: Http) -> None:
    params = {**call("Who?", progress=True), "_meta": {**DECLARED, "progressToken": "first"}}
    first = client.ask("tools/call", params).messages
    assert [one["params"]["progressToken"] for one in first[:-1]] == ["first"]
    params["_meta"] = {**DECLARED, "progressToken": "second"}
    second = client.ask("tools/call", again(params, first[-1]["result"], **{"Who?": ANSWER})).messages
    assert [(one["params"]["progressToken"], one["params"]["progress"]) for one in second[:-1]] == [
        ("second", 2)
    ]


def refused(answer: Answer) -> str:
    """The message of a refusal of a state."""
    assert (answer.status, answer.message["error"]["code"]) == (400, -32602)
    message: str = answer.message["error"]["message"]
    return message


def test_a_state_is_of_one_owner_one_request_and_one_use(client: Http, door: RunningGateway) -> None:
    """What a hostile client may try. The call is left alone, and its owner can still answer."""
    params, dropped = call("Who?"), door.figures()["dropped"]
    asked = client.ask("tools/call", params).message["result"]
    good = again(params, asked, **{"Who?": ANSWER})
    other = Http(door.port, client.path, {"authorization": "Bearer other"})
    assert "no call that waits for you" in refused(other.ask("tools/call", good))
    assert "another request" in refused(client.ask("tools/call", {**good, "arguments": {"messages": []}}))
    assert "another request" in refused(door.http("hasty").ask("tools/call", good))
    for forged in (asked["requestState"] + "x", asked["requestState"][:-1], "mcp-broker:", "x", 3):
        assert refused(client.ask("tools/call", {**good, "requestState": forged}))
    assert len(lines_of(client.ask("tools/call", good).message)) == 1
    assert "used before" in refused(client.ask("tools/call", good))
    assert door.figures()["dropped"] == dropped + 7  # law 9: those with a state of the gateway's form


def test_a_parked_call_ends_with_its_questions(door: RunningGateway, broker: RunningBroker) -> None:
    """Law 4, law 6: nobody repeats the request, so the call is cancelled, and the server is free."""
    hasty, params = door.http("hasty"), call("Who?")
    asked = hasty.ask("tools/call", params).message["result"]
    is_over(broker, door)
    assert "the call has ended" in refused(hasty.ask("tools/call", again(params, asked, **{"Who?": ANSWER})))
    assert hasty.call("whoami") == broker.server("hasty")["pid"]


def test_a_client_that_leaves_after_it_resumed_cancels_the_call(client: Http, broker: RunningBroker) -> None:
    """As it does any other call of it; the fixture waits for that."""
    params = call("Who?", then_waits=True)
    asked = client.ask("tools/call", params).message["result"]
    stream = client.stream("tools/call", again(params, asked, **{"Who?": ANSWER}))
    assert broker.server("asking")["in_flight"] == 1
    stream.close()


# --- sockets and `connect` ----------------------------------------------------------------------------------


@BOTH
def test_a_legacy_host_is_asked_by_a_request(door: RunningGateway, broker: RunningBroker, held: bool) -> None:
    with Bridge(broker, "asking", held=held) as bridge:
        bridge.initialize()
        id = bridge.start("tools/call", {"name": "ask", "arguments": {"messages": ["Who?"]}})
        question = bridge.hear()
        assert question["method"] == "elicitation/create"
        bridge.say({"id": question["id"], "result": ANSWER})
        (line,) = lines_of(bridge.answer(id))
        assert json.loads(line)["result"] == ANSWER


@BOTH
def test_a_modern_host_repeats_its_request(door: RunningGateway, broker: RunningBroker, held: bool) -> None:
    meta = {**MODERN_META, **DECLARED}
    with Bridge(broker, "asking", held=held) as bridge, Bridge(broker, "asking", held=held) as other:
        params = {**call("Who?"), "_meta": meta}
        asked = bridge.ask("tools/call", params)["result"]
        assert asked["resultType"] == "input_required"
        good = again(params, asked, **{"Who?": ANSWER})
        assert other.ask("tools/call", good)["error"]["code"] == -32602  # another connection, another owner
        (line,) = lines_of(bridge.ask("tools/call", good))
        assert json.loads(line)["result"] == ANSWER
        assert bridge.ask("tools/call", good)["error"]["code"] == -32602


@BOTH
def test_a_modern_host_that_is_gone_leaves_no_parked_call(
    door: RunningGateway, broker: RunningBroker, held: bool
) -> None:
    """Law 4."""
    with Bridge(broker, "asking", held=held) as bridge:
        params = {**call("Who?"), "_meta": {**MODERN_META, **DECLARED}}
        assert bridge.ask("tools/call", params)["result"]["resultType"] == "input_required"
        assert broker.server("asking")["in_flight"] == 1
        bridge.close()
        is_over(broker, door)


# --- everybody at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_many_clients_are_asked_each_their_own(client: Http, broker: RunningBroker, era: str) -> None:
    """Law 3: both doors, one process, and each question and answer at the client of its call."""

    def over_http(name: str) -> str:
        one = Http(client.port, client.path, client.headers)
        if era == "modern":
            params = call(name)
            asked = one.ask("tools/call", params).message["result"]
            return lines_of(one.ask("tools/call", again(params, asked, **{name: {"to": name}})).message)[0]
        session = one.initialized(elicitation={})
        stream = session.stream("tools/call", call(name))
        question = stream.next()
        assert question is not None
        assert question["params"]["message"] == name
        respond(session, question["id"], json.dumps({"to": name}).encode())
        return lines_of(stream.next())[0]

    def over_socket(name: str) -> str:
        with Bridge(broker, "asking") as bridge:
            if era == "modern":
                params = {**call(name), "_meta": {**MODERN_META, **DECLARED}}
                asked = bridge.ask("tools/call", params)["result"]
                return lines_of(bridge.ask("tools/call", again(params, asked, **{name: {"to": name}})))[0]
            bridge.initialize()
            id = bridge.start("tools/call", {"name": "ask", "arguments": {"messages": [name]}})
            question = bridge.hear()
            assert question["params"]["message"] == name
            bridge.say({"id": question["id"], "result": {"to": name}})
            return lines_of(bridge.answer(id))[0]

    with ThreadPoolExecutor(8) as pool:
        names = [f"client {number}" for number in range(CLIENTS)]
        ways = [over_http if number % 4 else over_socket for number in range(CLIENTS)]
        lines = list(pool.map(lambda way, name: way(name), ways, names))
    assert [json.loads(line)["result"] for line in lines] == [{"to": name} for name in names]


# --- restarts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_host_is_told_when_the_gateway_that_asked_it_is_gone(
    broker: RunningBroker, door: RunningGateway, number: signal.Signals
) -> None:
    """Its question is withdrawn, its request is an error, and the server serves the next call."""
    door.stop()
    second = gateway_of(broker, "second")
    try:
        wait_for_sockets(broker, "asking")
        with Bridge(broker, "asking") as bridge:
            bridge.initialize()
            id = bridge.start("tools/call", {"name": "ask", "arguments": {"messages": ["Who?"]}})
            question = bridge.hear()
            second.stop(number)
            error = bridge.answer(id)["error"]
            (withdrawal,) = bridge.unasked
            assert withdrawal["method"] == "notifications/cancelled"
            assert withdrawal["params"]["requestId"] == question["id"]
            assert "whether the request was carried out is unknown" in error["message"]
            second.start()
            wait_for_sockets(broker, "asking")
            assert (
                int(bridge.call("whoami")["result"]["content"][0]["text"]) == broker.server("asking")["pid"]
            )
    finally:
        second.stop()
        door.start()
        wait_for_sockets(broker, "asking", "hasty")
    is_over(broker, door)


def test_a_broker_that_is_killed_ends_what_is_asked() -> None:
    """Law 2: the legacy client is told, and the modern one when it repeats its request."""
    servers = {name: script("tests/servers/asking.py", **ASKING) for name in ("one", "two")}
    with running(servers) as broker, gateway(broker) as door:
        stream = door.http("one").initialized(elicitation={}).stream("tools/call", call("Who?"))
        question = stream.next()
        assert question is not None
        client, params = door.http("two"), call("Who?")
        asked = client.ask("tools/call", params).message["result"]
        broker.process.kill()
        broker.process.wait()
        broker.start()
        withdrawal, ended = stream.next(), stream.next()
        assert withdrawal is not None
        assert withdrawal["params"]["requestId"] == question["id"]
        assert ended is not None
        assert ended["error"]["data"]["outcome"] == "unknown"
        wait_until(lambda: door.figures()["parked"] == 0, door.log)
        assert "the call has ended" in refused(
            client.ask("tools/call", again(params, asked, **{"Who?": ANSWER}))
        )
        broker.wait_ready()
        assert client.call("whoami") == broker.server("two")["pid"]


def test_a_state_of_before_a_restart_is_refused(broker: RunningBroker, door: RunningGateway) -> None:
    client, params = door.http("asking"), call("Who?")
    asked = client.ask("tools/call", params).message["result"]
    door.stop()
    wait_until(lambda: broker.server("asking")["in_flight"] == 0, broker.log)
    door.start()
    given = again(params, asked, **{"Who?": ANSWER})
    assert "the gateway was restarted" in refused(client.ask("tools/call", given))
