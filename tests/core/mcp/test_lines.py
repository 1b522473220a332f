"""Lines of servers: what they are, whose they are, and that none of them raises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.tolerances import Oddity
from broker.core.mcp import lines
from broker.core.mcp.jsonrpc import Broken, Noise, ServerNotification, ServerReply, ServerRequest
from broker.core.mcp.nesting import MAX_DEPTH
from tests.core.json_text import deep, values

# --- lines of a server -------------------------------------------------------------------------------


def kind_of(line: bytes) -> object:
    """What was read, with its bytes."""
    seen = lines.read(line)
    if isinstance(seen, ServerReply):
        result = None if seen.result is None else bytes(seen.result)
        return ("reply", seen.id, result, None if seen.error is None else bytes(seen.error))
    if isinstance(seen, ServerRequest):
        return ("asked", seen.id, seen.method, None if seen.params is None else bytes(seen.params))
    if isinstance(seen, ServerNotification):
        return ("told", seen.method, None if seen.params is None else bytes(seen.params))
    return ("broken", seen.id) if isinstance(seen, Broken) else "noise"


V = b'{"jsonrpc":"2.0",'
REPLY = ("reply", 1, b'{"a": 1.0}', None)
ERROR = ("reply", 1, None, b'{"code":1}')


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (V + b'"id":1,"result":{"a":1}}', ("reply", 1, b'{"a":1}', None)),
        (b' {"id" : 1 , "result" : null, "jsonrpc":"2.0"} \r', ("reply", 1, b"null", None)),
        (V + b'"id":"a","error":{"code":1}}', ("reply", "a", None, b'{"code":1}')),
        (V + b'"id":' + b"9" * 25 + b',"result":1}', ("reply", int("9" * 25), b"1", None)),
        (V + b'"id":2,"method":"ping"}', ("asked", 2, "ping", None)),
        (V + b'"id":"2","method":"ping"}', ("asked", "2", "ping", None)),
        (V + b'"id":2.0,"method":"ping"}', ("asked", 2.0, "ping", None)),
        (V + b'"id":"q","method":"m","params":{"a": 1}}', ("asked", "q", "m", b'{"a": 1}')),
        (V + b'"method":"n"}', ("told", "n", None)),
        (V + b'"id":1}', ("broken", 1)),
        (V + b'"id":1,"result":1,"error":{"code":1}}', ("broken", 1)),
        (V + b'"id":"1","result":1,"error":{"code":1}}', ("broken", 1)),
        (V + b'"id":1,"error":"no"}', ("broken", 1)),
        (V + b'"id":1,"error":null}', ("broken", 1)),
        (V + b'"id":1,"result":null,"error":null}', ("broken", 1)),
        (V + b'"id":null,"error":{"code":-32700}}', ("broken", None)),
        (V + b'"result":1}', ("broken", None)),
        (b'{"jsonrpc":"2.0"}', ("broken", None)),
        (V + b'"id":1,"result":NaN}', ("broken", 1)),
        (V + b'"id":"1","result":NaN}', ("broken", 1)),
        (b'{"id":1,"result":NaN,"jsonrpc":"2.0"}', ("broken", 1)),
        (V + rb'"id":1,"result":"\ud800"}', ("broken", 1)),
        (V + b'"id":1,"result":"\xff"}', ("broken", 1)),
        (V + b'"id":1,"result":' + deep(MAX_DEPTH) + b"}", ("broken", 1)),
        (V + b'"id":1,"result":' + deep(2000) + b"}", ("broken", 1)),
        (V + b'"id":1,"result":{}', ("broken", 1)),
        (V + b'"id":true,"result":{}}', ("broken", None)),
        (V + b'"id":1.5,"result":{}}', ("broken", None)),
        (V + b'"id":[1],"result":{}}', ("broken", None)),
        (V + b'"id":1,"method":5}', ("broken", 1)),
        (V + b'"id":[1],"method":"m"}', ("broken", None)),
        (V + b'"id":1,"method":"m","result":{}}', ("broken", None)),
        (V + b'"id":' + b"9" * 5000 + b',"result":{}}', ("broken", None)),
        (b"", "noise"),
        (b"   ", "noise"),
        (b"Server running on stdio", "noise"),
        (b"\x1b[32mServer running\x1b[0m", "noise"),
        (b'[{"id":1,"result":{}}]', "noise"),
        (b'"id"', "noise"),
        (b"\xff\xfe", "noise"),
        (b"{}", "noise"),
        (b"{", "noise"),
        (b'{"id":1,"result":{}}', "noise"),
        (b'{"id":1,"result":NaN}', "noise"),
        (b'{"id":1,"result":{"jsonrpc":"2.0","a":NaN}}', "noise"),
        (b'{"jsonrpc":2.0,"id":1,"result":{}}', "noise"),
        (b'{"jsonrpc":"1.0","id":1,"result":{}}', "noise"),
        (b'{"jsonrpc":null,"id":1,"result":{}}', "noise"),
        (b'{"level":30,"id":1,"error":{"code":1},"method":"GET"}', "noise"),
        (b"{'jsonrpc': '2.0', 'id': 1, 'result': {}}", "noise"),
        (b'INFO {"jsonrpc":"2.0","id":1,"result":{}}', "noise"),
    ],
)
def test_what_a_line_is(line: bytes, kind: object) -> None:
    """Law 8: a line is what it says it is, or it is of no use. Only JSON-RPC 2.0 settles anything."""
    assert kind_of(line) == kind


@pytest.mark.parametrize(
    ("line", "kind", "odd"),
    [
        (V + b'"id":"1","result":{"a": 1.0}}', REPLY, [Oddity.STRING_ID]),
        (V + b'"id":" 1 ","result":{"a": 1.0}}', REPLY, [Oddity.STRING_ID]),
        (V + b'"id":"+1","result":{"a": 1.0}}', REPLY, [Oddity.STRING_ID]),
        (V + b'"id":"01","result":{"a": 1.0}}', REPLY, [Oddity.STRING_ID]),
        (V + b'"id":"1_0","result":{"a": 1.0}}', ("reply", "1_0", b'{"a": 1.0}', None), []),
        (V + b'"id":1.0,"result":{"a": 1.0}}', REPLY, [Oddity.FLOAT_ID]),
        (V + b'"id":10e-1,"error":{"code":1}}', ERROR, [Oddity.FLOAT_ID]),
        (V + b'"id":1,"result":{"a": 1.0},"error":null}', REPLY, [Oddity.NULL_MEMBER]),
        (V + b'"id":1,"result":null,"error":{"code":1}}', ERROR, [Oddity.NULL_MEMBER]),
        (V + b'"id":1,"method":null,"params":null,"result":{"a": 1.0}}', REPLY, []),
        (V + b'"id":1,"result":{"a": 1.0},"error":{}}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":{"a": 1.0},"error":[ ]}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":{"a": 1.0},"error":""}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":{"a": 1.0},"error":false}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":{"a": 1.0},"error":"none"}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":{"a": 1.0},"error":true}', REPLY, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":1,"result":"","error":{"code":1}}', ERROR, [Oddity.EMPTY_MEMBER]),
        (V + b'"id":null,"method":"n"}', ("told", "n", None), [Oddity.NULL_ID]),
        (
            V + b'"id":true,"method":"notifications/n"}',
            ("told", "notifications/n", None),
            [Oddity.NULL_ID],
        ),
        (V + b'"method":"n","params":null}', ("told", "n", None), [Oddity.NULL_MEMBER]),
        (V + b'"method":"n","params":[ ]}', ("told", "n", None), [Oddity.PARAMS]),
        (V + b'"id":3,"method":"m","params":[]}', ("asked", 3, "m", None), [Oddity.PARAMS]),
        (b"\xef\xbb\xbf" + V + b'"id":1,"result":{"a": 1.0}}', REPLY, [Oddity.BYTE_ORDER_MARK]),
        (b"\x1b[0m" + V + b'"id":1,"result":{"a": 1.0}}\x1b[K\r', REPLY, [Oddity.ANSI]),
        (
            b"\xef\xbb\xbf\x1b[?25l " + V + b'"id":"1","result":{"a": 1.0},"error":null}',
            REPLY,
            [Oddity.BYTE_ORDER_MARK, Oddity.ANSI, Oddity.NULL_MEMBER, Oddity.STRING_ID],
        ),
        (b'{"level":30,"id":1}', "noise", [Oddity.NOT_JSON_RPC]),
        (b'{"level":30}', "noise", []),
        (V + b'"id":1,"msg":"working on it"}', "noise", [Oddity.NO_MESSAGE]),
        (V + b'"id":1,"level":"warn","error":"upstream 502"}', "noise", [Oddity.NO_MESSAGE]),
        (V + b'"id":1,"ms":3,"error":null}', "noise", [Oddity.NO_MESSAGE]),
        (V + b'"ts":1,"payload":{"id":1,"result":{}}}', "noise", [Oddity.NO_MESSAGE]),
        (
            V + rb'"id":1,"result":{"NaN": "-Infinity \"NaN", "a": [NaN,-Infinity , Infinity]}}',
            ("reply", 1, rb'{"NaN": "-Infinity \"NaN", "a": [null,null , null]}', None),
            [Oddity.NOT_FINITE],
        ),
        (
            V + b'"id":"1","error":{"code":1,"data":NaN}}',
            ("reply", 1, None, b'{"code":1,"data":null}'),
            [Oddity.NOT_FINITE, Oddity.STRING_ID],
        ),
        (V + b'"method":"n","params":{"x":NaN}}', ("told", "n", b'{"x":null}'), [Oddity.NOT_FINITE]),
        (V + b'"id":1,"result":{"a":"NaN",}}', ("broken", 1), []),
        (V + b'"id":1,"result":{"a":NaN,}}', ("broken", 1), [Oddity.NOT_FINITE]),
        (V + b'"id":1,"result":{"a": 1.0}} \r', REPLY, []),
        (V + b'"id":1,"result":{"a": 1.0},"ts":5,"session":null}', REPLY, []),
    ],
)
def test_what_is_put_up_with(line: bytes, kind: object, odd: list[Oddity]) -> None:
    """Strict in what we send, patient in what we take: the body stays the bytes it came in."""
    assert kind_of(line) == kind
    assert list(lines.read(line).odd) == odd


@pytest.mark.parametrize("before", [b"> ", b"\x1b]0;title\x07", b"mcp (1.0) {ready} > ", "❯ ".encode()])
def test_an_answer_behind_a_prompt(before: bytes) -> None:
    """Only the handshake looks for it: elsewhere such a line is a log line that shows an answer."""
    line = before + V + b'"id":1,"result":{"a": 1.0}}'
    assert isinstance(lines.read(line), Noise)
    seen = lines.read_behind(line)
    assert isinstance(seen, ServerReply)
    assert (seen.id, seen.odd) == (1, (Oddity.PREFIX,))
    for other in (
        b'> {"id":1,"result":{}}',
        before + V + b'"id":1,"method":"ping"}',
        before,
        line[len(before) :],
    ):
        assert isinstance(lines.read_behind(other), Noise)


def _json(number: Callable[[float], object]) -> st.SearchStrategy[object]:
    numbers = st.floats().map(number)
    leaves = st.none() | st.integers() | numbers | st.text() | st.sampled_from(["NaN", '"Infinity', "-NaN\\"])
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(result=st.dictionaries(st.text(), _json(lambda one: one)), ascii=st.booleans())
def test_numbers_that_json_does_not_have_are_null(result: dict[str, object], ascii: bool) -> None:
    """Python writes NaN and its reader takes it, others do not: pandas brings it into many a result."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, ensure_ascii=ascii)
    seen = lines.read(line.encode(errors="replace"))
    assert isinstance(seen, ServerReply)
    assert seen.result is not None
    assert json.loads(bytes(seen.result)) == plain(json.loads(json.dumps(result)))


def test_a_result_is_the_bytes_it_came_in() -> None:
    """Law 7: spaces, escapes, doubled keys and numbers beyond a double included."""
    result = rb'{ "a" :1.50e1, "a":"\u00e9", "b" : 1e999,"c":[ ] }'
    reply = lines.read(b'{"jsonrpc":"2.0", "result" : ' + result + b' ,"id":1}')
    assert isinstance(reply, ServerReply)
    assert reply.result is not None
    assert bytes(reply.result) == result


@given(values)
def test_any_result_is_the_bytes_it_came_in(value: object) -> None:
    """Law 7, for all of JSON."""
    result = json.dumps(value, ensure_ascii=False).encode()
    beside = b"" if value is None else b',"error":null'
    reply = lines.read(b'{"jsonrpc":"2.0","id":1,"result": ' + result + b"\t" + beside + b"}")
    assert isinstance(reply, ServerReply)
    assert reply.result is not None
    assert bytes(reply.result) == result


@given(st.binary(max_size=80))
def test_no_bytes_of_a_server_raise(line: bytes) -> None:
    """Law 5: whatever a server writes, reading it goes well."""
    assert isinstance(lines.read(line), (ServerReply, ServerRequest, ServerNotification, Broken, Noise))
    assert isinstance(
        lines.read(b'{"id":1,' + line), (ServerReply, ServerRequest, ServerNotification, Broken, Noise)
    )


@given(values, st.data())
def test_no_damaged_line_raises(value: object, data: st.DataObject) -> None:
    """Law 5, near to what is right: one byte of a good line is another."""
    line = bytearray(json.dumps({"jsonrpc": "2.0", "id": 5, "result": value, "method": "m"}).encode())
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    lines.read(bytes(line))
