"""Questions of legacy servers during a call, to clients of both eras; sans-io.

`test_conversation.py` has those of modern servers, which are in results. The sources are MCP 2025-11-25,
Elicitation, and 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from broker.gateway.byte_budget import ByteBudget
from broker.gateway.conversation.effects import (
    AnswerQuestion,
    CollectQuestions,
    Effect,
    MakeCall,
    ParkCall,
    ResumeCall,
    ServerResult,
)
from broker.gateway.conversation.parked_calls import ParkedCalls
from tests.gateway.chat import DISCOVERED, Chat, call, cancels, finished, sent

ELICIT, SAMPLE = "elicitation/create", "sampling/createMessage"
FORM = b'{"message":"Who?","requestedSchema":{"x":1e400}}'
DECLARED: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
PARAMS = {"name": "t", "arguments": {"a": 1, "b": 2}}


def legacy(**capabilities: Any) -> tuple[Chat, MakeCall]:
    """A legacy client with a call under way."""
    chat = Chat()
    chat.initialize(capabilities or {"elicitation": {}})
    return chat, call(chat.ask(1, "tools/call", PARAMS))


def modern(parked: ParkedCalls | None = None) -> tuple[Chat, MakeCall]:
    """A modern client with a call under way."""
    chat = Chat(parked=parked)
    return chat, call(chat.modern(1, "tools/call", PARAMS, **DECLARED))


def answers(effects: list[Effect]) -> list[AnswerQuestion]:
    return [one for one in effects if isinstance(one, AnswerQuestion)]


def ask(chat: Chat, call: int, number: int = 1, method: str = ELICIT, params: bytes = FORM) -> list[Effect]:
    return chat.take(chat.conversation.asked(call, number, method, params))


def parked(chat: Chat, call: int, *numbers: int) -> str:
    """Ask these questions during a call; return the state of the parked call."""
    for number in numbers or (1,):
        ask(chat, call, number)
    (answer,) = sent(chat.take(chat.conversation.collected(call)))
    state: str = answer["result"]["requestState"]
    return state


def again(
    chat: Chat, id: Any, state: Any, params: Any = PARAMS, method: str = "tools/call", **given: Any
) -> Any:
    """Repeat a request with answers."""
    named = {name.replace("_", "-"): one for name, one in given.items()}
    return chat.modern(id, method, {**params, "inputResponses": named, "requestState": state}, **DECLARED)


# --- who is asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "takes"),
    [
        ({}, False),
        ({"roots": {}}, False),
        ({"elicitation": {}}, True),
        ({"elicitation": {"form": {}, "url": {}}}, True),
        ({"elicitation": {"url": {}}}, False),
        ({"sampling": {"tools": {}}}, True),
        ({"sampling": True}, False),
    ],
)
@pytest.mark.parametrize("is_modern", [False, True])
def test_a_call_takes_the_questions_that_its_client_declared(
    capabilities: Any, takes: bool, is_modern: bool
) -> None:
    """The broker never sends a question to any other one."""
    chat = Chat()
    if is_modern:
        declared = {"io.modelcontextprotocol/clientCapabilities": capabilities}
        made = call(chat.modern(1, "tools/call", PARAMS, **declared))
    else:
        chat.initialize(capabilities)
        made = call(chat.ask(1, "tools/call", PARAMS))
    assert made.takes_questions is takes
    assert made.meta is not None
    assert made.meta["io.modelcontextprotocol/clientCapabilities"] == capabilities


@pytest.mark.parametrize("method", ["completion/complete", "tools/list"])
def test_a_modern_client_is_asked_by_three_methods_only(method: str) -> None:
    """2026-07-28, "Supported Requests": no other one can be answered with `input_required`."""
    chat = Chat()
    made = call(chat.modern(1, method, **DECLARED))
    assert not made.takes_questions
    (refused,) = answers(ask(chat, made.call))
    assert (refused.ok, json.loads(refused.body)["code"]) == (False, -32601)


@pytest.mark.parametrize(("chat", "made"), [legacy(), modern()])
def test_a_client_is_not_asked_what_it_did_not_declare(chat: Chat, made: MakeCall) -> None:
    effects = ask(chat, made.call, 1, SAMPLE, b"{}")
    (refused,) = answers(effects)
    assert (refused.call, refused.question, refused.ok) == (made.call, 1, False)
    assert json.loads(refused.body)["code"] == -32601
    assert sent(effects) == []


# --- a legacy client --------------------------------------------------------------------------------------


def test_a_question_is_a_request_and_its_answer_goes_back_as_it_came() -> None:
    """Law 7: neither is decoded."""
    chat, made = legacy()
    (asked,) = ask(chat, made.call, 7)
    assert asked.belongs_to == b"1"  # type: ignore[union-attr]
    assert asked.message.endswith(b'"method":"elicitation/create","params":' + FORM + b"}")  # type: ignore[union-attr]
    id = json.loads(asked.message)["id"].encode()  # type: ignore[union-attr]
    answer = b'{"action":"accept","content":{"n":1e400,"n":2}}'
    assert chat.say(b'{"jsonrpc":"2.0","id":"%b","result":%b}' % (id, answer)) == [
        AnswerQuestion(made.call, 7, True, answer)
    ]
    assert chat.say(b'{"jsonrpc":"2.0","id":"%b","result":{}}' % id) == []  # law 2: one answer
    assert chat.conversation.dropped["stray answer"] == 1
    chat.result(made.call, {})
    assert chat.conversation.holds == 0


def test_an_error_of_the_client_is_the_answer_and_the_call_goes_on() -> None:
    chat, made = legacy()
    (question,) = sent(ask(chat, made.call))
    error = b'{"code":-1,"message":"no","data":1e400}'
    effects = chat.say(b'{"jsonrpc":"2.0","id":"%b","error":%b}' % (question["id"].encode(), error))
    assert effects == [AnswerQuestion(made.call, 1, False, error)]
    assert sent(chat.result(made.call, {}))[0]["id"] == 1


@pytest.mark.parametrize("ends", ["withdrawn", "result", "fault", "cancelled", "ended"])
def test_a_question_is_withdrawn_once_no_answer_is_wanted(ends: str) -> None:
    """Before the answer to its request: nothing follows that."""
    chat, made = legacy()
    (question,) = sent(ask(chat, made.call))
    conversation = chat.conversation
    effects = {
        "withdrawn": lambda: conversation.withdrawn(made.call, 1),
        "result": lambda: chat.result(made.call, {}),
        "fault": lambda: chat.fault(made.call, "server-died"),
        "cancelled": lambda: conversation.cancelled(b"1"),
        "ended": lambda: conversation.ended("the gateway is stopped"),
    }[ends]()
    withdrawal, *rest = sent(effects)
    assert withdrawal["method"] == "notifications/cancelled"
    assert withdrawal["params"]["requestId"] == question["id"]
    assert [one["id"] for one in rest] == ([] if ends in ("withdrawn", "cancelled") else [1])
    assert chat.say({"id": question["id"], "result": {}}) == []
    assert conversation.dropped["stray answer"] == 1
    assert conversation.withdrawn(made.call, 1) == []


def test_a_question_about_a_call_that_is_over_reaches_nobody() -> None:
    chat, made = legacy()
    chat.result(made.call, {})
    assert ask(chat, made.call) == []
    assert chat.conversation.dropped["late question"] == 1


# --- a modern client --------------------------------------------------------------------------------------


def test_a_question_parks_the_call_and_the_repeated_request_resumes_it() -> None:
    """It is one call at the server: its outcome answers the second request."""
    chat, made = modern()
    assert ask(chat, made.call) == [CollectQuestions(made.call)]
    effects = chat.take(chat.conversation.collected(made.call))
    (answer,) = sent(effects)
    state = answer["result"].pop("requestState")
    assert isinstance(effects[0], ParkCall)
    assert finished(effects) == [b"1"]
    assert cancels(effects) == []
    assert b'"params":' + FORM in effects[1].message  # type: ignore[union-attr]
    assert answer["result"]["resultType"] == "input_required"
    assert answer["result"]["inputRequests"].keys() == {"question-1"}
    assert (chat.conversation.holds, len(chat.parked)) == (0, 1)
    resumed, given = again(chat, 2, state, question_1={"action": "accept"})
    assert resumed == ResumeCall(effects[0].parked, made.call + 1)
    assert given == AnswerQuestion(resumed.call, 1, True, b'{"action": "accept"}')
    (answer,) = sent(chat.result(resumed.call, {"content": []}))
    assert (answer["id"], answer["result"]["resultType"]) == (2, "complete")
    assert (chat.conversation.holds, len(chat.parked)) == (0, 0)


def test_what_is_asked_at_once_is_one_result_and_what_follows_a_next_round() -> None:
    chat, made = modern()
    ask(chat, made.call, 1)
    assert ask(chat, made.call, 2) == []  # the moment is running
    (answer,) = sent(chat.conversation.collected(made.call))
    assert answer["result"]["inputRequests"].keys() == {"question-1", "question-2"}
    parked = next(one for one in chat.parked._by_number.values())
    chat.parked.asked(parked.number, 3, ELICIT, b"{}")  # while nobody is there
    resumed, *rest = again(chat, 2, parked.state, question_2={}, question_9={})
    assert rest == [AnswerQuestion(resumed.call, 2, True, b"{}"), CollectQuestions(resumed.call)]
    (answer,) = sent(chat.conversation.collected(resumed.call))
    assert answer["result"]["inputRequests"].keys() == {"question-1", "question-3"}
    assert answer["result"]["requestState"] != parked.state


def test_a_retry_without_answers_is_asked_again() -> None:
    """2026-07-28, "Error Handling": rather than an error."""
    chat, made = modern()
    state = parked(chat, made.call)
    resumed, collects = again(chat, 2, state)
    assert collects == CollectQuestions(resumed.call)


def test_a_retry_that_declares_less_is_not_asked_again() -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    resumed, refused = chat.modern(2, "tools/call", {**PARAMS, "requestState": state})
    assert isinstance(refused, AnswerQuestion)
    assert (refused.call, refused.ok) == (resumed.call, False)  # type: ignore[union-attr]


def test_an_outcome_that_comes_before_the_question_is_sent_is_the_answer() -> None:
    chat, made = modern()
    ask(chat, made.call)
    (answer,) = sent(chat.result(made.call, {"content": []}))
    assert answer["result"]["resultType"] == "complete"
    assert chat.conversation.collected(made.call) == []
    assert len(chat.parked) == 0


def test_a_question_that_is_withdrawn_before_it_is_sent_is_not_asked() -> None:
    chat, made = modern()
    ask(chat, made.call)
    assert chat.conversation.withdrawn(made.call, 1) == []
    assert chat.conversation.collected(made.call) == []
    assert chat.conversation.is_open(b"1")


def test_a_cancelled_request_parks_nothing() -> None:
    chat, made = modern()
    ask(chat, made.call)
    assert cancels(chat.conversation.cancelled(b"1")) == [made.call]
    assert chat.conversation.collected(made.call) == []


# --- `requestState` ---------------------------------------------------------------------------------------


OTHERS = [
    {"params": {**PARAMS, "name": "other"}},
    {"params": {**PARAMS, "arguments": {"a": 1, "b": 3}}},
    {"params": {**PARAMS, "more": 1}},
    {"method": "prompts/get"},
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_state_is_bound_to_its_request_which_can_still_be_repeated(other: Any) -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    effects = again(chat, 2, state, question_1={}, **other)
    assert sent(effects)[0]["error"]["code"] == -32602
    assert answers(effects) == []
    assert isinstance(again(chat, 3, state, question_1={})[0], ResumeCall)


def test_a_request_is_the_same_however_its_json_is_written() -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    members = {"arguments": {"b": 2, "a": 1}, "name": "t"}
    assert isinstance(again(chat, 2, state, members)[0], ResumeCall)


def test_of_large_params_the_bytes_are_compared() -> None:
    """Law 5: to decode them would hold everybody up. The order of the outermost members does not matter."""
    chat = Chat()
    large = {"name": "t", "arguments": {"a": "x" * 100_000, "b": 2}}
    state = parked(chat, call(chat.modern(1, "tools/call", large, **DECLARED)).call)
    turned = {"name": "t", "arguments": {"b": 2, "a": "x" * 100_000}}
    assert sent(again(chat, 2, state, turned))[0]["error"]["code"] == -32602
    same = {"arguments": large["arguments"], "name": "t"}
    assert isinstance(again(chat, 3, state, same)[0], ResumeCall)


def test_params_that_python_cannot_hold_are_compared_as_bytes() -> None:
    chat = Chat()
    meta = (
        b'"_meta":%b'
        % json.dumps({**DECLARED, "io.modelcontextprotocol/protocolVersion": "2026-07-28"}).encode()
    )

    def say(id: int, number: bytes, more: bytes = b"") -> list[Effect]:
        params = b'{"name":"t","arguments":{"n":%b},%b%b}' % (number, meta, more)
        return chat.say(b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":%b}' % (id, params))

    made = call(say(1, b"1e400"))
    state = b',"requestState":"%b"' % parked(chat, made.call).encode()
    assert sent(say(2, b"1e401", state))[0]["error"]["code"] == -32602
    assert isinstance(say(3, b"1e400", state)[0], ResumeCall)


def test_a_state_is_good_for_one_use() -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    again(chat, 2, state, question_1={})
    (refused,) = sent(again(chat, 3, state, question_1={}))
    assert refused["error"]["code"] == -32602
    assert "used before" in refused["error"]["message"]


def test_a_state_of_another_owner_or_server_is_unknown() -> None:
    """Law 3. The parked calls of each owner are a table of its own; another server is another request."""
    mine = ParkedCalls(map("{}".format, count(1)).__next__)
    chat, made = modern(mine)
    state = parked(chat, made.call)
    other = Chat()
    (refused,) = sent(again(other, 2, state, question_1={}))
    assert refused["error"]["code"] == -32602
    elsewhere = Chat(parked=mine, server="two")
    (refused,) = sent(again(elsewhere, 2, state, question_1={}))
    assert refused["error"]["code"] == -32602
    colleague = Chat(parked=mine)  # the same owner, by another request of HTTP
    assert isinstance(again(colleague, 2, state, question_1={})[0], ResumeCall)


@pytest.mark.parametrize("responses", [3, [], {"question-1": 3}, {"question-1": None}])
def test_malformed_answers_are_refused_and_the_state_stays_good(responses: Any) -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    given = {**PARAMS, "inputResponses": responses, "requestState": state}
    (refused,) = sent(chat.modern(2, "tools/call", given, **DECLARED))
    assert refused["error"]["code"] == -32602
    assert isinstance(again(chat, 3, state, question_1={})[0], ResumeCall)


@pytest.mark.parametrize("state", ["forged", 7, None])
def test_answers_that_nobody_asked_for_begin_no_call_at_a_legacy_server(state: Any) -> None:
    """It would ignore them, and carry the call out a second time."""
    chat = Chat()
    made = call(again(chat, 1, state, question_1={}))
    assert made.method == "server/discover"
    (refused,) = sent(chat.result(made.call, DISCOVERED))
    assert refused["error"]["code"] == -32602


@pytest.mark.parametrize("versions", [["2026-07-28"], ["2025-11-25", "2026-07-28"], []])
def test_answers_pass_to_a_modern_server_and_to_one_that_is_not_known(versions: list[str]) -> None:
    chat = Chat()
    made = call(again(chat, 1, "its own", user={}))
    passed = call(chat.result(made.call, {**DISCOVERED, "supportedVersions": versions}))
    assert json.loads(passed.params or b"") == {
        **PARAMS,
        "inputResponses": {"user": {}},
        "requestState": "its own",
    }


# --- what happens to a parked call ------------------------------------------------------------------------


def test_progress_and_logs_belong_to_the_request_that_resumed_the_call() -> None:
    chat = Chat()
    meta = {**DECLARED, "io.modelcontextprotocol/logLevel": "info"}
    made = call(chat.modern(1, "tools/call", PARAMS, **meta, progressToken="first"))
    assert (made.wants_progress, made.wants_log) == (True, True)
    state = parked(chat, made.call)
    assert chat.parked.progressed(1, b'{"progress":1}') == []
    assert chat.parked.logged(1, b"{}") == []
    assert set(chat.parked.dropped) == {"progress of a parked call", "log message of a parked call"}
    params = {**PARAMS, "requestState": state}
    resumed = chat.modern(2, "tools/call", params, **DECLARED, progressToken="second")[0]
    assert isinstance(resumed, ResumeCall)
    (message,) = sent(chat.conversation.progressed(resumed.call, b'{"progressToken":1,"progress":2}'))
    assert message["params"] == {"progressToken": "second", "progress": 2}
    assert chat.conversation.logged(resumed.call, b"{}") == []  # it did not ask for log messages


def test_a_parked_call_without_a_question_is_cancelled() -> None:
    """`answer_timeout` of the broker withdraws the questions."""
    chat, made = modern()
    state = parked(chat, made.call, 1, 2)
    assert chat.parked.withdrawn(1, 1) == []
    assert cancels(chat.parked.withdrawn(1, 2)) == [1]
    assert sent(again(chat, 2, state, question_1={}))[0]["error"]["code"] == -32602


def test_a_parked_call_that_ends_is_no_longer_there() -> None:
    chat, made = modern()
    state = parked(chat, made.call)
    chat.parked.replied(1, ServerResult(b"{}"))
    (refused,) = sent(again(chat, 2, state))
    assert "the call has ended" in refused["error"]["message"]
    assert chat.parked.withdrawn(1, 1) == []


def test_parked_calls_are_bounded() -> None:
    """Law 6. What is too much is refused to the server, and the call goes on."""
    parked_calls = ParkedCalls(map("{}".format, count(1)).__next__, limit=1)
    chat, made = modern(parked_calls)
    parked(chat, made.call)
    second = call(chat.modern(2, "tools/call", PARAMS, **DECLARED))
    ask(chat, second.call)
    (refused,) = answers(chat.conversation.collected(second.call))
    assert (refused.ok, parked_calls.dropped["question without room"]) == (False, 1)
    assert chat.conversation.is_open(b"2")


def test_the_bytes_of_parked_calls_are_bounded() -> None:
    """Law 6. What is too much is refused to the server, before and after the call is parked."""
    full: list[str] = []
    budget = ByteBudget(300, 10_000, lambda limit, _: full.append(limit))
    parked_calls = ParkedCalls(map("{}".format, count(1)).__next__, share=budget.share("token"))
    chat, made = modern(parked_calls)
    ask(chat, made.call, params=b"{" + b" " * 1000 + b"}")
    (refused,) = answers(chat.conversation.collected(made.call))
    assert (refused.ok, full, budget.held) == (False, ["token_bytes"], 0)
    parked(chat, made.call, 2)
    held = budget.held
    assert held > len(FORM)
    assert parked_calls.asked(1, 3, ELICIT, FORM) == []
    assert budget.held == held + len(FORM)
    (refused,) = answers(parked_calls.asked(1, 4, ELICIT, b"{" + b" " * 1000 + b"}"))
    assert (refused.call, refused.question, refused.ok) == (1, 4, False)
    assert parked_calls.dropped["question without room"] == 2


@pytest.mark.parametrize("ends", ["resumed", "withdrawn", "replied", "released", "closed"])
def test_what_is_held_for_a_parked_call_is_given_back_with_it(ends: str) -> None:
    """Law 6: at every way out, once."""
    budget = ByteBudget(10_000, 10_000)
    chat, made = modern(ParkedCalls(map("{}".format, count(1)).__next__, share=budget.share("token")))
    state = parked(chat, made.call, 1, 2)
    assert budget.held > 2 * len(FORM)
    chat.parked.withdrawn(1, 1)
    match ends:
        case "resumed":
            again(chat, 2, state, question_2={})
        case "withdrawn":
            chat.parked.withdrawn(1, 2)
        case "replied":
            chat.parked.replied(1, ServerResult(b"{}"))
        case "released":
            chat.parked.release(1, "it is late")
        case _:
            chat.parked.closed("it is gone")
    assert (budget.held, len(chat.parked)) == (0, 0)
    chat.parked.closed("it is gone")
    assert budget.held == 0


def test_all_parked_calls_of_an_owner_that_is_gone_are_cancelled() -> None:
    """Law 4."""
    chat, made = modern()
    parked(chat, made.call)
    assert cancels(chat.parked.closed("it is gone")) == [1]
    assert len(chat.parked) == 0
