"""Any order of what a client says and a broker answers: one answer for each request, and nothing is left.

Law 2 (one answer), law 3 (no crosstalk: ids and tokens are those that the client gave), law 6 (bounded). The
same holds of the questions of a legacy server: each has one answer at most, from the one that was asked it,
and none after its end; the parked calls are those whose questions are open.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.conversation.effects import (
    AnswerQuestion,
    BrokerFault,
    CancelCall,
    CollectQuestions,
    Effect,
    FinishRequest,
    ListenTo,
    MakeCall,
    ParkCall,
    ResumeCall,
    SendMessage,
    ServerRefusal,
    ServerResult,
)
from tests.gateway.chat import DISCOVERED, MODERN, Chat

IDS = st.sampled_from([0, "0", "\u00e9"])
TOKENS = st.sampled_from([None, 0, "0", 2**70])
PASSED = ("tools/call", "tools/call", "tools/call", "resources/read", "tools/list")
LEGACY = st.sampled_from(
    [*PASSED, "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
NEW = st.sampled_from([*PASSED, "server/discover", "subscriptions/listen", "ping"])
PARAMS = {
    "resources/subscribe": {"uri": "x:a"},
    "resources/unsubscribe": {"uri": "x:a"},
    "logging/setLevel": {"level": "info"},
    "subscriptions/listen": {
        "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["x:a", "x:b"]}
    },
}
ASKS = {**MODERN, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
QUESTION = {"method": "elicitation/create", "params": {}}
RESULTS = st.sampled_from(
    [
        DISCOVERED,
        {"content": []},
        {"resultType": "input_required", "requestState": "s"},
        {"resultType": "input_required", "inputRequests": {"a": QUESTION, "b": QUESTION}},
        {"resultType": "input_required", "inputRequests": {"a": QUESTION}, "requestState": "t"},
        {"resultType": "input_required", "inputRequests": {"a": {"method": "odd"}}},
    ]
)
FAULTS = st.sampled_from(["server-starting", "method-refused", "broker-lost", "unknown-server"])
NOTICES = st.sampled_from(
    [
        ("notifications/tools/list_changed", b"{}"),
        ("notifications/resources/updated", b'{"uri":"x:a"}'),
        ("notifications/resources/updated", b"{}"),
        ("$broker/not_subscribed", b'{"uri":null}'),
    ]
)


SESSION = ClientSession("2025-11-25", {"elicitation": {}}, {"name": "test", "version": "1"})


class Model(RuleBasedStateMachine):
    """Says anything in any order, and checks every effect against what may come."""

    def __init__(self) -> None:
        super().__init__()
        self.chat = Chat(SESSION)
        self.open: dict[bytes, bool] = {}
        """id → whether an answer was sent"""
        self.tokens: dict[bytes, Any] = {}
        self.cancelled: set[bytes] = set()
        self.calls: set[int] = set()
        self.listens: set[int] = set()
        self.last_call = 0
        self.questions: dict[str, bytes] = {}
        self.asked: set[str] = set()
        self.methods: dict[bytes, str] = {}
        """id → method of a modern request"""
        self.takes: set[int] = set()
        """The calls during which the server may ask."""
        self.place: dict[int, tuple[str, int]] = {}
        """number of an open question of a legacy server → its call, or its parked call"""
        self.last_question = 0
        self.to_answer: dict[int, str] = {}
        """number of a question → what its answer has to name"""
        self.collects: set[int] = set()
        self.parked: set[int] = set()
        self.states: dict[str, tuple[str, int]] = {}
        """state → the method of its request, and the number of the parked call"""
        self.last_parked = 0

    # --- what the client does ----------------------------------------------------------------------------

    @rule(id=IDS, method=LEGACY, token=TOKENS)
    def legacy_request(self, id: Any, method: str, token: Any) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}}}
        self._ask(id, method, PARAMS.get(method, params if method == "initialize" else {}), {}, token)

    @rule(id=IDS, method=NEW, token=TOKENS)
    def modern_request(self, id: Any, method: str, token: Any) -> None:
        key = json.dumps(id, ensure_ascii=False).encode()
        if key not in self.open:
            self.methods[key] = method
        self._ask(id, method, PARAMS.get(method, {}), ASKS, token)

    def _ask(self, id: Any, method: str, params: Any, meta: Any, token: Any) -> None:
        key = json.dumps(id, ensure_ascii=False).encode()
        is_new = key not in self.open
        if is_new:
            self.open[key] = False
            self.tokens[key] = token
        given = meta if token is None else {**meta, "progressToken": token}
        effects = self.chat.ask(id, method, {**params, "_meta": given})
        if not is_new:
            assert [json.loads(one.message)["id"] for one in effects if isinstance(one, SendMessage)] == [
                None
            ]
        self._check(effects)

    @rule(id=IDS)
    def cancel(self, id: Any) -> None:
        self._cancelled(id)
        self._check(self.chat.say({"method": "notifications/cancelled", "params": {"requestId": id}}))

    @rule(id=IDS)
    def cut_stream(self, id: Any) -> None:
        key = self._cancelled(id)
        self._check(self.chat.take(self.chat.conversation.cancelled(key)))

    def _cancelled(self, id: Any) -> bytes:
        key = json.dumps(id, ensure_ascii=False).encode()
        if key in self.open:
            self.cancelled.add(key)
        return key

    @rule(data=st.data(), fails=st.booleans())
    def answer_question(self, data: st.DataObject, fails: bool) -> None:
        id = data.draw(st.sampled_from([*self.asked, "nonce-0", "1"]))
        self.questions.pop(id, None)
        answer = {"error": {"code": 1, "message": id}} if fails else {"result": {"to": id}}
        self._check(self.chat.say({"id": id, **answer}))

    @rule(line=st.sampled_from([b"{", b"[]", b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', b"3"]))
    def malformed(self, line: bytes) -> None:
        (sent,) = self.chat.say(line)
        assert isinstance(sent, SendMessage)
        assert json.loads(sent.message)["id"] is None

    @rule(opens=st.booleans())
    def stream(self, opens: bool) -> None:
        conversation = self.chat.conversation
        self._check(self.chat.take(conversation.stream_opened() if opens else conversation.stream_closed()))

    @precondition(lambda self: self.states)
    @rule(id=IDS, data=st.data(), params=st.sampled_from([{}, {}, {"name": "other"}]), answers=st.booleans())
    def repeat_request(self, id: Any, data: st.DataObject, params: Any, answers: bool) -> None:
        """Also with a state that was used before, or that belongs to another request."""
        key = json.dumps(id, ensure_ascii=False).encode()
        state = data.draw(st.sampled_from([*self.states, "foreign"]))
        method = data.draw(st.sampled_from(["tools/call", "resources/read"]))
        of, parked = self.states.get(state, ("", 0))
        asked = sorted(number for number, (kind, _) in self.place.items() if kind == "parked")
        names = data.draw(st.sets(st.sampled_from(asked))) if asked and answers else set()
        given = {f"question-{number}": {"to": f"question-{number}"} for number in names}
        if key in self.open:
            return
        self.methods[key] = method
        resumes = parked in self.parked and of == method and not params
        before = len(self.parked)
        self._ask(id, method, {**params, "requestState": state, "inputResponses": given}, ASKS, None)
        assert before - len(self.parked) == resumes

    @precondition(lambda self: self.collects)
    @rule(data=st.data())
    def collected(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.collects)))
        self.collects.discard(call)
        self._check(self.chat.take(self.chat.conversation.collected(call)))

    # --- what the server asks ----------------------------------------------------------------------------

    @precondition(lambda self: self.takes & self.calls or self.parked)
    @rule(data=st.data(), method=st.sampled_from(["elicitation/create"] * 3 + ["sampling/createMessage"]))
    def server_asks(self, data: st.DataObject, method: str) -> None:
        calls = [("call", one) for one in sorted(self.takes & self.calls)]
        place = data.draw(st.sampled_from(calls + [("parked", one) for one in sorted(self.parked)]))
        self.last_question += 1
        number = self.last_question
        self.place[number], self.to_answer[number] = place, f"question-{number}"
        decides = self.chat.conversation if place[0] == "call" else self.chat.parked
        effects = decides.asked(place[1], number, method, b"{}")
        for one in effects:
            if isinstance(one, SendMessage):
                self.to_answer[number] = json.loads(one.message)["id"]
        self._check(effects)

    @precondition(lambda self: self.place)
    @rule(data=st.data())
    def question_is_withdrawn(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.place)))
        kind, call = self.place.pop(number)
        if kind == "call":
            self._check(self.chat.conversation.withdrawn(call, number))
            assert self.to_answer[number] not in self.questions
        else:
            self._check_parked(self.chat.parked.withdrawn(call, number))

    @precondition(lambda self: self.parked)
    @rule(data=st.data(), expires=st.booleans())
    def parked_call_leaves(self, data: st.DataObject, expires: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.parked)))
        calls = self.chat.parked
        effects = calls.release(number, "late") if expires else calls.replied(number, ServerResult(b"{}"))
        assert [type(one) for one in effects] == ([CancelCall] if expires else [])
        self._check_parked([CancelCall(number)])

    def _check_parked(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, CancelCall)
            self.parked.remove(effect.call)
            self._forget("parked", effect.call)

    def _forget(self, kind: str, call: int) -> None:
        self.place = {number: one for number, one in self.place.items() if one != (kind, call)}

    def _move(self, before: tuple[str, int], after: tuple[str, int]) -> None:
        self.place = {number: after if one == before else one for number, one in self.place.items()}

    # --- what the broker does ----------------------------------------------------------------------------

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), result=RESULTS)
    def result(self, data: st.DataObject, result: Any) -> None:
        self._end(data, ServerResult(json.dumps(result).encode()))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), code=FAULTS)
    def fault(self, data: st.DataObject, code: str) -> None:
        self._end(data, BrokerFault(code, "it failed", "mend it"))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), error=st.sampled_from([b'{"code":-32002,"message":"m"}', b"[]"]))
    def refusal(self, data: st.DataObject, error: bytes) -> None:
        self._end(data, ServerRefusal(error))

    def _end(self, data: st.DataObject, outcome: Any) -> None:
        call = data.draw(st.sampled_from(sorted(self.calls)))
        self.calls.discard(call)
        self._forget("call", call)
        self._check(self.chat.reply(call, outcome))

    @rule(data=st.data(), progress=st.booleans())
    def said_about_a_call(self, data: st.DataObject, progress: bool) -> None:
        """Also about calls that are over, or that never were."""
        call = data.draw(st.integers(0, self.last_call + 1))
        conversation = self.chat.conversation
        say = conversation.progressed if progress else conversation.logged
        self._check(say(call, b'{"progressToken":99,"progress":1}'))

    @rule(notice=NOTICES)
    def notified(self, notice: tuple[str, bytes]) -> None:
        self._check(self.chat.conversation.notified(*notice))

    # --- the end -----------------------------------------------------------------------------------------

    @rule(keeps=st.booleans())
    def ended(self, keeps: bool) -> None:
        if keeps:  # a subscription may end without an answer: its client makes it again
            self.cancelled |= set(self.open)
        self._check(self.chat.conversation.ended("it ends", keeps_subscriptions=keeps))
        assert not self.open
        assert self.chat.conversation.holds == 0

    @rule()
    def closed(self) -> None:
        self.cancelled |= set(self.open)
        self._check(self.chat.conversation.closed())
        assert not self.open
        assert self.chat.conversation.holds == 0

    # --- what may come -------------------------------------------------------------------------------------

    def _check(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage():
                    self._sent(effect)
                case FinishRequest(request=id):
                    answered = self.open.pop(id)
                    assert answered or id in self.cancelled
                    self.cancelled.discard(id)
                    self.questions = {name: one for name, one in self.questions.items() if one != id}
                case MakeCall(call=call) | ListenTo(call=call):
                    assert call == self.last_call + 1
                    self.listens |= {call} if isinstance(effect, ListenTo) else set()
                    self.last_call = call
                    self.calls.add(call)
                    if isinstance(effect, MakeCall) and effect.takes_questions:
                        self.takes.add(call)
                case CancelCall(call=call):
                    self.calls.remove(call)  # once, and only of what is under way
                    self._forget("call", call)
                case CollectQuestions(call=call):
                    self.collects.add(call)
                case AnswerQuestion():
                    self._answered(effect)
                case ParkCall(call=call, parked=parked):
                    assert parked == self.last_parked + 1
                    self.last_parked = parked
                    self.calls.remove(call)
                    self.parked.add(parked)
                    self._move(("call", call), ("parked", parked))
                case ResumeCall(call=call, parked=parked):
                    assert call == self.last_call + 1
                    self.last_call = call
                    self.parked.remove(parked)
                    self.calls.add(call)
                    self.takes.add(call)
                    self._move(("parked", parked), ("call", call))

    def _answered(self, answer: AnswerQuestion) -> None:
        assert self.place.pop(answer.question) == ("call", answer.call), "an answer to no open question"
        body = json.loads(answer.body)
        assert (body["to"] if answer.ok else body["message"]) == self.to_answer[answer.question] or (
            not answer.ok and body["code"] == -32601
        )

    def _sent(self, sent: SendMessage) -> None:
        message = json.loads(sent.message)
        assert b"\n" not in sent.message
        if sent.belongs_to is not None:
            assert sent.belongs_to in self.open, "a message for a request that is over"
        if "method" not in message:
            assert (sent.code is not None) == ("error" in message)
            if message["id"] is not None:
                assert json.dumps(message["id"], ensure_ascii=False).encode() == sent.belongs_to
                assert not self.open[sent.belongs_to], "a second answer"
                self.open[sent.belongs_to] = True
                state = message.get("result", {}).get("requestState", "")
                if state.startswith("mcp-broker:"):
                    assert state not in self.states
                    self.states[state] = (self.methods[sent.belongs_to], self.last_parked)
        elif "id" in message:
            assert message["id"] not in self.asked, "the id of a question is used again"
            assert sent.belongs_to is not None
            self.asked.add(message["id"])
            self.questions[message["id"]] = sent.belongs_to
        elif message["method"] == "notifications/progress":
            token = message["params"]["progressToken"]
            assert sent.belongs_to is not None
            assert (type(token), token) == (type(self.tokens[sent.belongs_to]), self.tokens[sent.belongs_to])
        elif message["method"] == "notifications/cancelled":
            assert self.questions.pop(message["params"]["requestId"]) == sent.belongs_to

    @invariant()
    def it_holds_what_is_open(self) -> None:
        conversation = self.chat.conversation
        assert set(self.open) == {id for id in self.open if conversation.is_open(id)}
        assert set(conversation._questions._open) == {json.dumps(id).encode() for id in self.questions}
        assert self.calls - self.listens == set(conversation._requests._by_call) - self.listens, (
            "a call was forgotten"
        )

    @invariant()
    def parked_calls_are_those_with_open_questions(self) -> None:
        held = {one.number: set(one.questions) for one in self.chat.parked._by_number.values()}
        assert held == {
            parked: {number for number, place in self.place.items() if place == ("parked", parked)}
            for parked in self.parked
        }
        assert all(held.values())

    def teardown(self) -> None:
        self.closed()
        self._check_parked(self.chat.parked.closed("its owner is gone"))
        assert not self.place
        assert not self.parked


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=400, stateful_step_count=50, deadline=None)
