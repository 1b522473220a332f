"""The conversation of one MCP client with one server: both eras of the client on both eras of the server.

The specification is MCP 2025-11-25 for legacy clients, and 2026-07-28 for modern ones.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.gateway.conversation import eras
from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.conversation.conversation import MAX_OPEN
from broker.gateway.conversation.effects import SendMessage
from broker.gateway.conversation.questions import MAX_ROUNDS
from broker.gateway.conversation.requests import DISCOVER_S
from tests.gateway.chat import DISCOVERED, MODERN, Chat, call, cancels, finished, listens, sent

ELICIT = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {}}}
SAMPLE = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 3}}


def opened(**capabilities: Any) -> Chat:
    chat = Chat()
    chat.initialize(capabilities)
    return chat


def test_the_versions_are_those_of_the_broker() -> None:
    """The gateway must not import the core; both must speak the same revisions."""
    from broker.core.mcp import meta, methods

    assert (eras.MODERN_VERSION, eras.LEGACY_VERSIONS) == (methods.MODERN_VERSION, methods.LEGACY_VERSIONS)
    keys = (meta.PROTOCOL_VERSION, meta.CLIENT_INFO, meta.CAPABILITIES, meta.LOG_LEVEL, meta.SUBSCRIPTION_ID)
    ours = (
        eras.PROTOCOL_VERSION,
        eras.CLIENT_INFO,
        eras.CAPABILITIES,
        eras.LOG_LEVEL,
        eras.SUBSCRIPTION_ID,
    )
    assert ours == keys


# --- opening ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*eras.LEGACY_VERSIONS, "2026-07-28", "1999-01-01"])
def test_initialize_is_answered_from_what_the_broker_knows(version: str) -> None:
    """A version that the gateway speaks is agreed to, and else the newest legacy one."""
    (answer,) = sent(Chat().initialize(version=version))
    result = answer["result"]
    assert result["protocolVersion"] == (version if version in eras.LEGACY_VERSIONS else "2025-11-25")
    assert result["serverInfo"] == {"name": "one", "version": "1.2"}
    assert result["instructions"] == "be kind"
    assert result["capabilities"] == {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
    }


@pytest.mark.parametrize("code", ["server-starting", "server-down", "deadline-exceeded", "busy"])
def test_initialize_does_not_wait_for_a_server_that_starts(code: str) -> None:
    """A host gives up on `initialize` after 30 s; of the lists it is told once the server is there."""
    chat = Chat()
    chat.take(chat.conversation.stream_opened())
    made = call(chat.ask(0, "initialize", {"protocolVersion": "2025-11-25"}))
    assert made.timeout_s == DISCOVER_S < 30
    answered = chat.fault(made.call, code)
    (answer,) = sent(answered)
    assert answer["result"]["capabilities"]["tools"] == {"listChanged": True}
    assert answer["result"]["serverInfo"]["name"] == "one"
    assert [one.lists for one in listens(answered)] == [True]


def test_initialize_for_a_server_that_is_not_configured_is_an_error_with_a_hint() -> None:
    chat = Chat()
    made = call(chat.ask(0, "initialize", {"protocolVersion": "2025-11-25"}))
    (answer,) = sent(chat.fault(made.call, "unknown-server", "there is no 'one'", "add it"))
    assert answer["error"]["message"] == "there is no 'one'; add it"
    assert answer["error"]["data"] == {"code": "unknown-server", "hint": "add it"}


def test_a_modern_client_discovers_the_gateway_and_not_the_version_of_the_server() -> None:
    chat = Chat()
    made = call(chat.modern(1, "server/discover"))
    (answer,) = sent(chat.result(made.call, DISCOVERED))
    result = answer["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
    assert result["_meta"] == DISCOVERED["_meta"]


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({**MODERN, "io.modelcontextprotocol/protocolVersion": "1900-01-01"}, -32022),
        ({**MODERN, "io.modelcontextprotocol/protocolVersion": 3}, -32022),
        ({"io.modelcontextprotocol/protocolVersion": "2026-07-28"}, -32602),
        ({**MODERN, "io.modelcontextprotocol/clientCapabilities": "all"}, -32602),
        ({**MODERN, "io.modelcontextprotocol/logLevel": "loud"}, -32602),
        ({"io.modelcontextprotocol/clientCapabilities": {}}, -32602),
        ({}, -32602),
    ],
)
def test_a_modern_request_must_say_what_it_is(meta: dict[str, Any], code: int) -> None:
    """MCP 2026-07-28, basic, per-request protocol fields."""
    effects = Chat().ask(1, "tools/list", meta=meta)
    (answer,) = sent(effects)
    assert answer["error"]["code"] == code
    assert [one.code for one in effects if isinstance(one, SendMessage)] == [code]
    assert finished(effects) == [b"1"]
    if code == -32022:
        assert answer["error"]["data"]["supported"] == ["2026-07-28"]


@pytest.mark.parametrize("method", sorted(eras.REMOVED - {"initialize"}))
def test_a_modern_request_has_no_legacy_method(method: str) -> None:
    (answer,) = sent(Chat().modern(1, method, {"uri": "x:y", "level": "info"}))
    assert answer["error"]["code"] == -32601


@pytest.mark.parametrize("method", ["server/discover", "subscriptions/listen"])
def test_a_legacy_request_has_no_modern_method(method: str) -> None:
    (answer,) = sent(opened().ask(1, method))
    assert answer["error"]["code"] == -32601


def test_ping_is_answered_at_once() -> None:
    """Also before `initialize` was answered."""
    assert sent(Chat().ask("p", "ping")) == [{"jsonrpc": "2.0", "id": "p", "result": {}}]


# --- the four cells: results and errors -------------------------------------------------------------------


def test_a_legacy_client_gets_the_bytes_of_the_server() -> None:
    """Law 7: numbers that Python cannot hold, duplicate keys and spaces pass."""
    chat = opened()
    made = call(chat.ask(7, "tools/call", {"name": "t", "arguments": {}}))
    body = b'{"content":[],"x": 1e400 ,"x":-0.0,"resultType":"complete"}'
    effects = chat.result(made.call, body)
    assert effects[0] == SendMessage(b'{"jsonrpc":"2.0","id":7,"result":%b}' % body, b"7")
    assert finished(effects) == [b"7"]


def test_params_pass_as_bytes_without_their_meta() -> None:
    """The broker writes the only `_meta`: it travels beside the params."""
    chat = opened()
    line = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"a.b/c":1,'
    line += b'"progressToken":7},"arguments":{"n":1e400,"n": -0,\r\n"s":"\\u00e9"}}}'
    made = call(chat.say(line))
    assert made.params == b'{"name":"t","arguments":{"n":1e400,"n": -0,  "s":"\\u00e9"}}'
    assert made.meta is not None
    assert made.meta["a.b/c"] == 1
    assert "progressToken" not in made.meta
    assert made.wants_progress


def test_a_modern_client_of_a_modern_server_gets_the_bytes() -> None:
    chat = Chat()
    made = call(chat.modern(1, "tools/list"))
    assert made.meta == MODERN
    body = b'{"resultType":"complete","ttlMs":5,"cacheScope":"public","tools":[]}'
    assert chat.result(made.call, body)[0] == SendMessage(
        b'{"jsonrpc":"2.0","id":1,"result":%b}' % body, b"1"
    )


@pytest.mark.parametrize(
    ("method", "legacy", "added"),
    [
        ("tools/call", b'{"content":[]}', {"resultType": "complete"}),
        ("prompts/get", b"{ }", {"resultType": "complete"}),
        ("tools/list", b'{"tools":[]}', {"resultType": "complete", "ttlMs": 1000, "cacheScope": "private"}),
        ("resources/read", b"{}", {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}),
        ("resources/read", b'{"resultType":"input_required"}', {}),
        ("prompts/list", b'{"resultType":"complete","ttlMs":9}', {"cacheScope": "private"}),
    ],
)
def test_a_modern_client_of_a_legacy_server_gets_what_its_era_demands(
    method: str, legacy: bytes, added: dict[str, Any]
) -> None:
    """`resultType` on every result, `ttlMs` and `cacheScope` on lists and reads that are complete."""
    chat = Chat()
    made = call(chat.modern(1, method, {"uri": "x:y"}))
    (answer,) = sent(chat.result(made.call, legacy))
    assert answer["result"] == {**added, **json.loads(legacy)}


@pytest.mark.parametrize(("code", "modern"), [(-32002, -32602), (-32042, -32603), (-32601, -32601), (5, 5)])
def test_codes_that_the_modern_era_gave_up_are_translated(code: int, modern: int) -> None:
    """MCP 2026-07-28, error codes: −32002 and −32042 must not be emitted."""
    error = {"code": code, "message": "no such thing", "data": {"uri": "x:y"}}
    new, old = Chat(), opened()
    (answer,) = sent(new.error(call(new.modern(1, "resources/read")).call, error))
    assert answer["error"] == {**error, "code": modern}
    (answer,) = sent(old.error(call(old.ask(1, "resources/read")).call, error))
    assert answer["error"] == error


@pytest.mark.parametrize(
    ("fault", "code"),
    [("unknown-tool", -32602), ("method-refused", -32601), ("server-died", -32603), ("no-broker", -32603)],
)
def test_a_fault_of_the_broker_is_an_error_with_the_hint(fault: str, code: int) -> None:
    """Law 10: every error tells the reader what to do next. Hosts show the message only."""
    chat = opened()
    effects = chat.fault(call(chat.ask(1, "tools/call")).call, fault, "it broke", "mend it", server="one")
    (answer,) = sent(effects)
    assert answer["error"] == {
        "code": code,
        "message": "it broke; mend it",
        "data": {"server": "one", "code": fault, "hint": "mend it"},
    }


def test_a_legacy_request_says_to_a_modern_server_who_asks() -> None:
    """The broker drops this again for a legacy server."""
    chat = opened(elicitation={}, roots={"listChanged": True})
    meta = call(chat.ask(1, "tools/call", {"name": "t"})).meta
    assert meta == {
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "roots": {"listChanged": True}},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/logLevel": "info",
    }


def test_the_log_level_of_a_legacy_client_goes_with_its_requests() -> None:
    chat = opened()
    assert sent(chat.ask(1, "logging/setLevel", {"level": "error"}))[0]["result"] == {}
    assert sent(chat.ask(2, "logging/setLevel", {"level": "loud"}))[0]["error"]["code"] == -32602
    made = call(chat.ask(3, "tools/call"))
    assert made.wants_log
    assert made.meta is not None
    assert made.meta["io.modelcontextprotocol/logLevel"] == "error"
    (message,) = sent(chat.conversation.logged(made.call, b'{"level":"error","data":1}'))
    assert message["params"] == {"level": "error", "data": 1}


def test_a_modern_request_without_a_log_level_gets_no_log_messages() -> None:
    assert not call(Chat().modern(1, "tools/call")).wants_log


# --- progress and cancellation ----------------------------------------------------------------------------


@pytest.mark.parametrize("token", [5, "5", "\u00e9", 0, -1, 2**70])
def test_progress_has_the_token_of_the_client(token: int | str) -> None:
    """The same JSON type and value, also of an integer that is too large for the wire."""
    chat = opened()
    made = call(chat.ask(1, "tools/call", {"name": "t"}, {"progressToken": token}))
    (message,) = sent(chat.conversation.progressed(made.call, b'{"progressToken":77,"progress":0.5}'))
    assert message["params"] == {"progressToken": token, "progress": 0.5}


def test_without_a_token_there_is_no_progress() -> None:
    chat = opened()
    made = call(chat.ask(1, "tools/call", {"name": "t"}))
    assert not made.wants_progress
    assert chat.conversation.progressed(made.call, b'{"progressToken":77,"progress":0.5}') == []


def test_progress_stops_with_the_answer() -> None:
    """MCP, progress: notifications MUST stop after completion."""
    chat = opened()
    made = call(chat.ask(1, "tools/call", {"name": "t"}, {"progressToken": 1}))
    chat.result(made.call, {})
    assert chat.conversation.progressed(made.call, b'{"progressToken":77,"progress":1}') == []


def test_a_cancelled_request_has_no_answer() -> None:
    chat = opened()
    made = call(chat.ask(1, "tools/call"))
    effects = chat.say({"method": "notifications/cancelled", "params": {"requestId": 1}})
    assert (cancels(effects), finished(effects), sent(effects)) == ([made.call], [b"1"], [])
    assert chat.result(made.call, {}) == []
    assert chat.conversation.holds == 0


@pytest.mark.parametrize("params", [None, {}, {"requestId": 9}, {"requestId": [1]}, {"requestId": "1"}])
def test_an_invalid_cancellation_is_ignored(params: Any) -> None:
    """MCP, cancellation. The string "1" is another id than the number 1."""
    chat = opened()
    call(chat.ask(1, "tools/call"))
    assert chat.say({"method": "notifications/cancelled", "params": params}) == []


# --- ids and malformed messages ---------------------------------------------------------------------------


def test_a_second_request_under_an_open_id_does_not_end_the_first() -> None:
    chat = opened()
    made = call(chat.ask("a", "tools/call"))
    (refusal,) = sent(chat.say(b'{"jsonrpc":"2.0","id":"\\u0061","method":"tools/call"}'))
    assert refusal["id"] is None
    assert refusal["error"]["code"] == -32600
    (answer,) = sent(chat.result(made.call, {"content": []}))
    assert answer["id"] == "a"
    call(chat.ask("a", "tools/call"))  # the id is free again


@pytest.mark.parametrize(
    ("line", "id", "code"),
    [
        (b"{", None, -32700),
        (b"\xff", None, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\xff"}}', None, -32700),
        (b'{"a":' * 100_000, None, -32700),
        (b"[" * 100_000, None, -32600),
        (b"3", None, -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', None, -32600),
        (b'{"id":1,"method":"ping"}', 1, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 1, -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600),
        (b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % (b"x" * 2000), None, -32600),
        (b'{"jsonrpc":"2.0","id":"x","method":7}', "x", -32600),
        (b'{"jsonrpc":"2.0","id":"x","method":"ping","result":{}}', "x", -32600),
        (b'{"jsonrpc":"2.0","id":"x","method":"ping","params":[1]}', "x", -32600),
        (b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"_meta":3}}', "x", -32602),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":{}}}}',
            1,
            -32602,
        ),
        (b'{"jsonrpc":"2.0","id":1}', None, -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', None, -32600),
    ],
)
def test_a_malformed_message_is_refused(line: bytes, id: Any, code: int) -> None:
    """JSON-RPC 2.0: the id of the request, or null where it cannot be read."""
    (answer,) = sent(Chat().say(line))
    assert (answer["id"], answer["error"]["code"]) == (id, code)


def test_requests_of_one_client_are_bounded() -> None:
    """Law 6."""
    chat = opened()
    for id in range(MAX_OPEN):
        call(chat.ask(id, "tools/call"))
    effects = chat.ask(MAX_OPEN, "tools/call")
    assert "open" in sent(effects)[0]["error"]["message"]
    assert finished(effects) == [b"%d" % MAX_OPEN]
    assert len(cancels(chat.conversation.closed())) == MAX_OPEN
    assert chat.conversation.holds == 0


# --- what a modern server asks of a legacy client ---------------------------------------------------------


def asking(*requests: Any, state: Any = "s\u00e9") -> dict[str, Any]:
    named = {f"q{number}": one for number, one in enumerate(requests)}
    return {"resultType": "input_required", "inputRequests": named, "requestState": state}


def test_a_question_becomes_a_request_and_its_answer_a_retry() -> None:
    """MCP 2026-07-28, MRTR, said in the words of 2025-11-25."""
    chat = opened(elicitation={}, sampling={})
    params = {"name": "t", "arguments": {"x": 1}}
    made = call(chat.ask(1, "tools/call", params, {"progressToken": "p"}))
    asked = chat.result(made.call, asking(ELICIT, SAMPLE))
    first, second = sent(asked)
    assert [first["method"], second["method"]] == ["elicitation/create", "sampling/createMessage"]
    assert first["params"] == ELICIT["params"]
    assert all(one.belongs_to == b"1" for one in asked if isinstance(one, SendMessage))
    assert chat.say({"id": second["id"], "result": {"role": "assistant"}}) == []
    again = call(chat.say(b'{"jsonrpc":"2.0","id":"%b","result":{"n":1e400}}' % first["id"].encode()))
    assert again.params == (
        b'{"name":"t","arguments":{"x": 1},'
        b'"inputResponses":{"q0":{"n":1e400},"q1":{"role": "assistant"}},"requestState":"s\\u00e9"}'
    )
    assert (again.method, again.meta, again.wants_progress) == (made.method, made.meta, True)
    (answer,) = sent(chat.result(again.call, {"content": []}))
    assert answer["id"] == 1
    assert chat.conversation.holds == 0


def test_a_state_without_questions_is_given_back_at_once() -> None:
    chat = opened()
    made = call(chat.ask(1, "tools/call", {"name": "t"}))
    again = call(chat.result(made.call, {"resultType": "input_required", "requestState": "s"}))
    assert again.params == b'{"name":"t","requestState":"s"}'


def test_a_server_may_ask_eight_times() -> None:
    chat = opened(elicitation={})
    made = call(chat.ask(1, "prompts/get", {"name": "t"}))
    for _ in range(MAX_ROUNDS):
        (question,) = sent(chat.result(made.call, asking(ELICIT)))
        made = call(chat.say({"id": question["id"], "result": {"action": "decline"}}))
    (answer,) = sent(chat.result(made.call, asking(ELICIT)))
    assert answer["error"]["code"] == -32603
    assert chat.conversation.holds == 0


@pytest.mark.parametrize(
    ("capabilities", "question", "needed"),
    [
        ({}, ELICIT, {"elicitation": {}}),
        ({"elicitation": {}}, SAMPLE, {"sampling": {}}),
        ({"sampling": {}}, {"method": "roots/list"}, {"roots": {}}),
        (
            {"elicitation": {"form": {}}},
            {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x"}},
            {"elicitation": {"url": {}}},
        ),
    ],
)
def test_a_capability_that_was_not_declared_is_an_error(
    capabilities: Any, question: Any, needed: dict[str, Any]
) -> None:
    """The client is never asked what it did not declare."""
    chat = opened(**capabilities)
    made = call(chat.ask(1, "tools/call"))
    (answer,) = sent(chat.result(made.call, asking(question)))
    assert answer["error"]["code"] == -32021
    assert answer["error"]["data"] == {"requiredCapabilities": needed}


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": {"a": 3}},
        asking({"method": "tools/call"}),
        asking(*[ELICIT] * 100),
    ],
)
def test_a_question_that_makes_no_sense_is_an_error(result: Any) -> None:
    chat = opened(elicitation={})
    (answer,) = sent(chat.result(call(chat.ask(1, "tools/call")).call, result))
    assert answer["error"]["code"] == -32603
    assert chat.conversation.holds == 0


def test_a_client_that_cannot_answer_ends_its_request() -> None:
    """The other questions of the round are withdrawn."""
    chat = opened(elicitation={}, sampling={})
    made = call(chat.ask(1, "tools/call"))
    first, second = sent(chat.result(made.call, asking(ELICIT, SAMPLE)))
    withdrawn, answer = sent(chat.say({"id": first["id"], "error": {"code": -1, "message": "rejected"}}))
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == second["id"]
    assert "rejected (-1)" in answer["error"]["message"]
    assert chat.say({"id": second["id"], "result": {}}) == []
    assert chat.conversation.holds == 0


def test_a_cancelled_request_withdraws_its_questions() -> None:
    chat = opened(elicitation={})
    (question,) = sent(chat.result(call(chat.ask(1, "tools/call")).call, asking(ELICIT)))
    effects = chat.say({"method": "notifications/cancelled", "params": {"requestId": 1}})
    (withdrawn,) = sent(effects)
    assert withdrawn["params"]["requestId"] == question["id"]
    assert finished(effects) == [b"1"]
    assert chat.conversation.holds == 0


def test_a_question_of_another_conversation_is_not_answered_here() -> None:
    """Law 3: the ids of questions cannot be guessed or repeated after a restart."""
    chat = opened(elicitation={})
    chat.result(call(chat.ask(1, "tools/call")).call, asking(ELICIT))
    for id in (1, "1", "other-1", "nonce-2"):
        assert chat.say({"id": id, "result": {}}) == []
    assert chat.conversation.dropped["stray answer"] == 4


def test_an_elicitation_by_url_has_an_id_for_a_legacy_client() -> None:
    """`elicitationId` must be there in 2025-11-25, and is gone in 2026-07-28."""
    chat = opened(elicitation={"url": {}})
    url = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x", "message": "m"}}
    (question,) = sent(chat.result(call(chat.ask(1, "tools/call")).call, asking(url)))
    assert question["params"] == {**url["params"], "elicitationId": question["id"]}  # type: ignore[dict-item]


def test_a_modern_client_gets_the_question_itself() -> None:
    chat = Chat()
    made = call(chat.modern(1, "tools/call", {"name": "t"}))
    (answer,) = sent(chat.result(made.call, asking(ELICIT)))
    assert answer["result"] == asking(ELICIT)


# --- subscriptions ----------------------------------------------------------------------------------------


def test_a_legacy_client_hears_of_lists_once_it_has_a_stream() -> None:
    chat = Chat()
    made = call(chat.ask(0, "initialize", {"protocolVersion": "2025-11-25"}))
    assert listens(chat.result(made.call, DISCOVERED)) == []
    assert chat.conversation.notified("notifications/tools/list_changed", b"{}") == []
    (listen,) = listens(chat.conversation.stream_opened())
    assert listen.lists
    (message,) = chat.conversation.notified("notifications/tools/list_changed", b"{}")
    assert isinstance(message, SendMessage)
    assert message.belongs_to is None
    (listen,) = listens(chat.conversation.stream_closed())
    assert not listen.lists


def test_a_legacy_client_subscribes_to_a_resource() -> None:
    chat = opened()
    (listen,) = listens(chat.ask(1, "resources/subscribe", {"uri": "x:a"}))
    assert listen.uris == {"x:a"}
    assert sent(chat.result(listen.call, {}))[0]["result"] == {}
    assert len(chat.conversation.notified("notifications/resources/updated", b'{"uri":"x:a/part"}')) == 1
    assert chat.conversation.notified("notifications/resources/updated", b'{"uri":"x:b"}') == []
    (listen,) = listens(chat.ask(2, "resources/unsubscribe", {"uri": "x:a"}))
    assert listen.uris == frozenset()


def test_a_server_that_does_not_tell_of_resources_refuses_a_subscription() -> None:
    chat = opened()
    (listen,) = listens(chat.ask(1, "resources/subscribe", {"uri": "x:a"}))
    effects = chat.fault(listen.call, "method-refused")
    assert sent(effects)[0]["error"]["code"] == -32601
    assert [one.uris for one in listens(effects)] == [frozenset()]


def test_a_modern_client_listens() -> None:
    """MCP 2026-07-28, subscriptions: the acknowledgment first, then what was asked for, each with the id."""
    chat = Chat()
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}
    (listen,) = listens(chat.subscribe("s", **wanted))
    assert (listen.lists, listen.uris) == (True, frozenset({"x:a"}))
    assert chat.conversation.notified("notifications/tools/list_changed", b"{}") == []
    tag = {"io.modelcontextprotocol/subscriptionId": "s"}
    (acknowledged,) = sent(chat.result(listen.call, {}))
    assert acknowledged["params"] == {"_meta": tag, "notifications": wanted}
    (message,) = chat.conversation.notified(
        "notifications/resources/updated", b'{"uri":"x:a","_meta":{"k":1}}'
    )
    assert isinstance(message, SendMessage)
    assert message.belongs_to == b'"s"'
    assert json.loads(message.message)["params"] == {"uri": "x:a", "_meta": {"k": 1, **tag}}
    assert chat.conversation.notified("notifications/prompts/list_changed", b"{}") == []
    (ended,) = sent(chat.conversation.ended("the gateway ends"))
    assert ended["result"] == {"resultType": "complete", "_meta": tag}
    assert chat.conversation.holds == 0


def test_a_modern_subscription_is_acknowledged_without_what_the_server_lacks() -> None:
    chat = Chat()
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["x:a"]}
    (listen,) = listens(chat.subscribe(1, **wanted))
    effects = chat.fault(listen.call, "method-refused")
    assert sent(effects)[0]["params"]["notifications"] == {"toolsListChanged": True}
    assert [one.uris for one in listens(effects)] == [frozenset()]
    assert chat.conversation.notified("notifications/prompts/list_changed", b"{}") == []


def test_every_list_of_a_server_that_still_starts_is_acknowledged() -> None:
    """It may turn out to have them."""
    chat = Chat()
    wanted = {"toolsListChanged": True, "promptsListChanged": True}
    made = call(chat.modern(1, "subscriptions/listen", {"notifications": wanted}))
    (listen,) = listens(chat.fault(made.call, "server-starting"))
    assert sent(chat.result(listen.call, {}))[0]["params"]["notifications"] == wanted


def test_a_subscription_at_a_server_that_is_unknown_fails() -> None:
    """Law 2: with one answer, and nothing is listened to."""
    chat = Chat()
    made = call(chat.modern(1, "subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
    effects = chat.fault(made.call, "unknown-server")
    assert ("error" in sent(effects)[0], finished(effects), chat.conversation.holds) == (True, [b"1"], 0)


def test_a_cancelled_subscription_is_no_longer_listened_to() -> None:
    chat = Chat()
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}
    (listen,) = listens(chat.subscribe(1, **wanted))
    chat.result(listen.call, {})
    effects = chat.take(chat.conversation.cancelled(b"1"))
    assert (sent(effects), finished(effects)) == ([], [b"1"])
    assert [(one.lists, one.uris) for one in listens(effects)] == [(False, frozenset())]


def test_two_subscriptions_hear_each_their_own() -> None:
    chat = Chat()
    for id, name in ((1, "tools"), (2, "resources")):
        (listen,) = listens(chat.subscribe(id, **{f"{name}ListChanged": True}))
        chat.result(listen.call, {})
    (message,) = chat.conversation.notified("notifications/resources/list_changed", b"{}")
    assert isinstance(message, SendMessage)
    assert message.belongs_to == b"2"


# --- the end ----------------------------------------------------------------------------------------------


def test_what_is_open_when_the_gateway_ends_is_answered() -> None:
    """Law 2, and law 8: it cannot know whether the server carried it out."""
    chat = opened()
    made = call(chat.ask(1, "tools/call"))
    effects = chat.conversation.ended("the gateway is stopped")
    (answer,) = sent(effects)
    assert answer["error"]["message"] == (
        "the gateway is stopped; whether the request was carried out is unknown"
    )
    assert (cancels(effects), finished(effects)) == ([made.call], [b"1"])
    assert chat.conversation.holds == 0


def test_a_session_that_was_opened_earlier_goes_on() -> None:
    """A legacy session outlives a restart of the gateway."""
    chat = opened(elicitation={})
    session = chat.conversation.session
    assert session == ClientSession("2025-11-25", {"elicitation": {}}, {"name": "test", "version": "1"})
    assert call(Chat(session).ask(1, "tools/call")).meta == call(chat.ask(1, "tools/call")).meta
