"""What each tool of `rogue.py` does, in both eras."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable

import pytest

from tests.servers.driver import META, MODERN_META, Driven, Object, legacy, modern, with_keys
from tests.servers.rogue_replies import BAD_REPLIES
from tests.servers.rogue_tools import TABLE

Start = Callable[..., Driven]
both_eras = pytest.mark.parametrize("start", [legacy, modern])


# Tools: what it was sent, and how it answers


def test_echo_and_whoami_quote_what_came() -> None:
    """Guards the two tools by which tests see what reached the server: not one byte is another."""
    with legacy() as server:
        arguments = r'{ "b":1.50,"a" : "\u00e9\/é", "n":[1e2 ,-0],"b":{"_meta":2} }'
        params = '{"arguments":%s, "name":"%s"}'
        line = '{"id":71,"params":' + params + ' ,"method":"tools/call","jsonrpc":"2.0"}\n'
        server.write((line % (arguments, "echo")).encode())
        assert server.answer(71)["result"]["content"][0]["text"] == arguments
        sent = (line % (arguments, "whoami")).encode()
        server.write(sent)
        me = json.loads(server.answer(71)["result"]["content"][0]["text"])
        assert me["params"] == params % (arguments, "whoami")
        assert base64.b64decode(me["line"]) == sent
        assert (me["pid"], me["session"]) == (server.process.pid, os.getsid(server.process.pid))


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("empty", {}, {"content": [], "isError": False}),
        ("big", {"bytes": 3}, {"content": [{"type": "text", "text": "xxx"}], "isError": False}),
        ("fail", {"text": "no"}, {"content": [{"type": "text", "text": "no"}], "isError": True}),
        ("jsonrpc_error", {"code": 7, "message": "m"}, {"code": 7, "message": "m"}),
        ("jsonrpc_error", {"data": [1]}, {"code": -32000, "message": "it went wrong", "data": [1]}),
        ("no_such_tool", {}, {"code": -32602, "message": "Unknown tool: no_such_tool"}),
    ],
)
def test_plain_endings(tool: str, arguments: Object, expected: Object) -> None:
    """Guards the tools whose ending is known beforehand."""
    with legacy() as server:
        ended = server.ask("tools/call", {"name": tool, "arguments": arguments})
        assert ended.get("result", ended.get("error")) == expected


def test_big_is_as_big_as_asked() -> None:
    """Guards `big`: more than any pipe holds, as text and as an image."""
    with legacy() as server:
        assert len(server.call("big", bytes=3_000_000)) == 3_000_000
        image = server.answer(server.begin_call("big", bytes=1_000_001, kind="image"))["result"]["content"][0]
        assert (image["type"], len(base64.b64decode(image["data"]))) == ("image", 1_000_001)


GOOD = (
    rb'\{"jsonrpc":"2.0","id":2,"result":\{"content":\[\{"type":"text","text":"fine"\}\],"isError":false\}\}'
)
BROKEN = {
    "nan": rb".*:NaN\}\}\n",
    "surrogate": rb'.*"text":"\\ud800".*\n',
    "utf8": rb'.*"text":"\xff".*\n',
    "deep": rb".*\[{20000}\]{20000}\}\}\n",
    "truncated": rb'\{"jsonrpc":"2.0","id":2,.*[^}]\n',
    "result_not_object": rb'\{"jsonrpc":"2.0","id":2,"result":\[1\]\}\n',
    "batch": rb"\[" + GOOD + rb"\]\n",
    "no_result": rb'\{"jsonrpc":"2.0","id":2\}\n',
    "both": GOOD[:-2] + rb',"error":\{.*\}\}\n',
    "wrong_id": GOOD.replace(b"2,", b"987654321,") + rb"\n",
    "null_id": GOOD.replace(b"2,", b"null,") + rb"\n",
    "string_id": GOOD.replace(b"2,", b'"2",') + rb"\n",
    "twice": GOOD + rb"\n" + GOOD + rb"\n",
    "garbage_before": rb"Debugger [^{]*\n" + GOOD + rb"\n",
    "cr": GOOD.replace(b'2,"', b'2,\r"') + rb"\n",
    "id_last": rb'\{"result":\{.*\},"id":2,"jsonrpc":"2.0"\}\n',
    "byte_by_byte": GOOD + rb"\n",
}


@pytest.mark.parametrize("kind", BAD_REPLIES)
def test_bad_replies(kind: str) -> None:
    """Guards `bad_reply`: what is on the pipe, byte for byte, before the next answer."""
    with legacy("--serial") as server:
        assert server.begin_call("bad_reply", kind=kind) == 2
        server.begin_call("echo", mark="next")
        lines = [server.out.line()]
        while b"next" not in lines[-1]:
            lines.append(server.out.line())
        assert re.fullmatch(BROKEN[kind], b"".join(lines[:-1]))


def test_endless_reply_has_no_end() -> None:
    """Guards `endless_reply`: so many bytes, no line end, and nothing after it."""
    with legacy() as server:
        server.begin_call("endless_reply", bytes=200_000)
        begun = server.out.take(200_000)
        server.send(id=9, method="ping")
        server.end_input()
        assert b"\n" not in begun + server.out.rest()


# Tools: when it answers


@both_eras
def test_hang_answers_never_and_cancel_is_recorded(start: Start) -> None:
    """Guards `hang`, `cancelled`, `requests`: a cancelled call has no answer and others go on meanwhile."""
    with start() as server:
        hung = server.begin_call("hang")
        assert server.call("echo", a=1) == {"a": 1}
        server.cancel(hung)
        assert server.call("cancelled") == [hung]
        assert server.call("requests")["notifications/cancelled"] == 1
        assert server.call("violations") == []
        server.end_input()
        assert server.out.rest() == b""


@pytest.mark.parametrize(("flags", "order"), [((), ["echo", "hang"]), (("--serial",), ["hang", "echo"])])
def test_serial_serves_in_turn(flags: tuple[str, ...], order: list[str]) -> None:
    """Guards `--serial`, and `hang` with `late`: a call waits for the one before it, or does not."""
    with legacy(*flags) as server:
        hung = server.begin_call("hang", late=True)
        names = {hung: "hang", server.begin_call("echo"): "echo"}
        answered = []
        if order[0] == "echo":
            answered.append(server.message()["id"])
        server.cancel(hung)
        while len(answered) < 2:
            answered.append(server.message()["id"])
        assert [names[id] for id in answered] == order


def test_sleep_takes_its_time() -> None:
    """Guards `sleep`: it answers, and not before."""
    with legacy() as server:
        begun = time.monotonic()
        assert server.call("sleep", seconds=0.2) == "slept"
        assert time.monotonic() - begun >= 0.2


@both_eras
def test_progress_goes_under_the_token(start: Start) -> None:
    """Guards `progress`: the request's token, another's, none; and once more after the answer."""
    with start() as server:
        server.call("progress", steps=1)
        server.call("progress", steps=2, meta={"progressToken": "mine"})
        server.call("progress", steps=1, token=77)
        server.call("progress", steps=0, late=True, token="late")
        told = [server.until_unasked("notifications/progress")["params"] for _ in range(4)]
        reported = [(report["progressToken"], report["progress"]) for report in told]
        assert reported == [("mine", 1), ("mine", 2), (77, 1), ("late", 1)]


# Tools: what it says unasked


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list", "ping"])
def test_ask_in_the_legacy_era(method: str) -> None:
    """Guards `ask`: a request goes out, and the tool returns what comes back, result or error."""
    with legacy() as server:
        for ending in ({"result": {"fine": 1}}, {"error": {"code": 5, "message": "no"}}):
            asking = server.begin_call("ask", method=method)
            question = server.until_unasked(method)
            server.send(id=question["id"], **ending)
            assert json.loads(server.answer(asking)["result"]["content"][0]["text"]) == ending


def test_ask_in_the_modern_era() -> None:
    """Guards `ask`: `input_required` and a retry; -32021 without the capability; a request where `anyway`."""
    call = {"name": "ask", "arguments": {"method": "roots/list"}}
    with modern() as server:
        assert server.ask("tools/call", call)["error"]["data"] == {"requiredCapabilities": {"roots": {}}}
        server.meta = with_keys(MODERN_META, clientCapabilities={"roots": {}})
        wanted = server.ask("tools/call", call)["result"]
        assert wanted["resultType"] == "input_required"
        assert wanted["inputRequests"]["question"]["method"] == "roots/list"
        retry = call | {"inputResponses": {"question": {"roots": []}}, "requestState": wanted["requestState"]}
        answered = server.ask("tools/call", retry)["result"]["content"][0]["text"]
        assert json.loads(answered) == {"result": {"roots": []}}
        server.begin_call("ask", method="roots/list", anyway=True)
        assert server.until_unasked("roots/list")["id"] == 0


def test_log_respects_the_level() -> None:
    """Guards `log`: legacy, everything until `logging/setLevel`; modern, only a request that opts in."""
    with legacy() as server:
        assert server.call("log", level="debug", text="x", times=3) == 3
        server.ask("logging/setLevel", {"level": "error"})
        assert server.call("log", level="warning") == 0
        assert [message["params"]["data"] for message in server.unasked] == ["x"] * 3
    with modern() as server:
        assert server.call("log", level="error") == 0
        assert server.call("log", level="error", meta=with_keys({}, logLevel="error")) == 1
        assert server.unasked.pop()["params"]["level"] == "error"


CHANGES = [
    ("add_tool", {"name": "new"}, "notifications/tools/list_changed"),
    ("remove_tool", {"name": "empty"}, "notifications/tools/list_changed"),
    ("list_changed", {"of": "prompts"}, "notifications/prompts/list_changed"),
    ("list_changed", {"of": "resources"}, "notifications/resources/list_changed"),
    ("touch", {"uri": "note://1"}, "notifications/resources/updated"),
]


@pytest.mark.parametrize(("tool", "arguments", "method"), CHANGES)
def test_changes_are_announced_plainly_in_the_legacy_era(tool: str, arguments: Object, method: str) -> None:
    """Guards the tools that change something: one notification; for a resource only while subscribed."""
    with legacy() as server:
        server.ask("resources/subscribe", {"uri": "note://1"})
        assert server.call("subscribed")["uris"] == ["note://1"]
        assert server.call(tool, **arguments) == 1
        assert [message["method"] for message in server.unasked] == [method]
        server.ask("resources/unsubscribe", {"uri": "note://1"})
        assert server.call("touch", uri="note://1") == 0


@pytest.mark.parametrize(("tool", "arguments", "method"), CHANGES)
def test_changes_go_to_the_streams_in_the_modern_era(tool: str, arguments: Object, method: str) -> None:
    """Guards `subscriptions/listen`: acknowledged first, tagged with its id, only what was asked for."""
    wanted = {f"{of}ListChanged": True for of in ("tools", "prompts", "resources")}
    with modern() as server:
        assert server.call(tool, **arguments) == 0
        server.call("add_tool", name="empty")
        all, none = (
            server.begin("subscriptions/listen", {"notifications": filter})
            for filter in (wanted | {"resourceSubscriptions": ["note://1"]}, {})
        )
        assert len(server.call("subscribed")["listens"]) == 2
        assert server.call(tool, **arguments) == 1
        tags = [(said["method"], said["params"]["_meta"][META + "subscriptionId"]) for said in server.unasked]
        acknowledged = "notifications/subscriptions/acknowledged"
        assert tags == [(acknowledged, all), (acknowledged, none), (method, all)]
        server.cancel(all)
        assert server.call("end_listens") == 1
        assert server.answer(none)["result"]["_meta"][META + "subscriptionId"] == none


def test_add_and_remove_change_the_list() -> None:
    """Guards `add_tool` and `remove_tool`: the list, and what can be called."""
    with legacy() as server:
        server.call("add_tool", name="new")
        server.call("remove_tool", name="empty")
        names = [tool["name"] for tool in server.ask("tools/list")["result"]["tools"]]
        assert set(names) == (set(TABLE) | {"new"}) - {"empty"}
        assert server.call("new") == "new"
        assert "error" in server.ask("tools/call", {"name": "empty"})
