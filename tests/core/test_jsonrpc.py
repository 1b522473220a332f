"""JSON-RPC lines: what may be passed on, what comes of splicing, and that no line of a server raises."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import jsonrpc
from broker.core.jsonrpc import MAX_DEPTH, Asked, BodyError, Broken, Noise, Reply, Told
from client_shim.wire import Code

keys = st.text(max_size=12).filter(lambda key: key != "_meta")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(keys, values, max_size=5)


def deep(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object with this many levels, itself included."""
    return (
        b'{"a":' + opening * (depth - 1) + (b"" if opening == b"[" else b"1") + closing * (depth - 1) + b"}"
    )


# --- params of a client ------------------------------------------------------------------------------

REFUSED = {
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "minus Infinity": b'{"a":[-Infinity]}',
    "high surrogate alone": rb'{"a":{"b":"\ud800"}}',
    "low surrogate alone": rb'{"a":"\udc00"}',
    "surrogates the wrong way round": rb'{"a":"\udc00\ud800"}',
    "surrogate in a key": rb'{"\ud800":1}',
    "surrogate as UTF-8": b'{"a":"\xed\xa0\x80"}',
    "invalid UTF-8 in a value": b'{"a":"\xff"}',
    "invalid UTF-8 in a key": b'{"\xff":1}',
    "invalid UTF-8 in a name": b'{"name":"\xc3"}',
    "UTF-8 that is too long": b'{"a":"\xc0\xaf"}',
    "one level too deep": deep(MAX_DEPTH + 1),
    "one object too deep": deep(MAX_DEPTH + 1, b'{"a":', b"}"),
    "2,000 deep": deep(2000),
    "200,000 deep": deep(200_000),
    "deep and wide": b'{"b":[[]],"a":' + deep(MAX_DEPTH + 1) + b"}",
    "line feed": b'{"a":1,\n"b":2}',
    "carriage return": b'{"name":"x","arguments":[1,\r{"id":99,"method":"tools/call"}\r,2]}',
    "line end at the end": b"{}\n",
    "line feed in a string": b'{"a":"\n"}',
    "NUL in a string": b'{"a":"\x00"}',
    "escape character in a string": b'{"a":"\x1b"}',
    "tab in a string": b'{"a":"\t"}',
    "NUL behind": b"{}\x00",
    "vertical tab as space": b"{\x0b}",
    "form feed as space": b"\x0c{}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16-le"),
    "text behind": b"{} and more",
    "two objects": b"{}{}",
    "two objects with a space": b"{} {}",
    "array": b"[]",
    "array with an object": b'[{"a":1}]',
    "text": b'"a"',
    "number": b"1",
    "null": b"null",
    "nothing": b"",
    "space": b"  ",
    "not closed": b'{"a":1',
    "trailing comma": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "comment": b'{"a":1/**/}',
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "wrong escape": rb'{"a":"\x41"}',
    "wrong unicode escape": rb'{"a":"\u12g4"}',
    "key without quotes": b"{a:1}",
}
REFUSED_META = {
    "plain": b'{"_meta":{}}',
    "null": b'{"_meta":null}',
    "escaped at the start": rb'{"\u005fmeta":{"progressToken":1}}',
    "escaped further on": rb'{"_m\u0065ta":1}',
    "escaped all over": rb'{"\u005f\u006d\u0065\u0074\u0061":1}',
    "behind others": b'{"name":"x","arguments":{},"_meta":{}}',
    "after a space": b'{ \t"_meta" : 1}',
    "twice": b'{"_meta":1,"_meta":2}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_these_params_are_refused(body: bytes) -> None:
    """Section 5: what is not one line of one JSON object in UTF-8 never gets to a server."""
    with pytest.raises(BodyError, match="the params") as caught:
        jsonrpc.check_params(body)
    assert caught.value.code is Code.INVALID_BODY
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("body", REFUSED_META.values(), ids=REFUSED_META.keys())
def test_a_meta_in_the_params_is_refused(body: bytes) -> None:
    """Law 7: the broker writes the only `_meta`, however a client spells its key."""
    with pytest.raises(BodyError, match="header") as caught:
        jsonrpc.check_params(body)
    assert caught.value.code is Code.META_IN_BODY


PASSED = {
    "empty": b"{}",
    "Chinese": '{"text":"今天天气怎么样"}'.encode(),
    "Japanese": '{"文字":"こんにちは、世界"}'.encode(),
    "emoji": '{"a":"👩‍🚀"}'.encode(),
    "escaped emoji": rb'{"a":"\ud83d\ude00"}',
    "escaped line ends": rb'{"a":"\r\n\u000a\u2028"}',
    "raw line separators of Unicode": '{"a":"\u2028\u2029\u0085"}'.encode(),
    "DEL": b'{"a":"\x7f"}',
    "big integer": b'{"a":' + b"9" * 400 + b"}",
    "very big integer": b'{"a":' + b"9" * 5000 + b"}",
    "number beyond a double": b'{"a":1e999}',
    "minus zero": b'{"a":-0.0e-0}',
    "a key twice": b'{"a":1,"a":2}',
    "as deep as may be": deep(MAX_DEPTH),
    "objects as deep as may be": deep(MAX_DEPTH, b'{"a":', b"}"),
    "wide": b'{"a":[' + b",".join([b"[{}]"] * 2000) + b"]}",
    "brackets in strings": b'{"a":"' + b"[{" * 2000 + b'"}',
    "brackets behind quotes": rb'{"a":"' + rb"\"[\\" * 2000 + b'"}',
    "a `_meta` further in": b'{"arguments":{"_meta":{"a":1}}}',
    "a `_meta` of another spelling": b'{"_Meta":1,"meta":2,"_meta ":3}',
    "a name that is a number": b'{"name":5}',
    "a name that is beyond a double": b'{"name":1e999}',
    "a name that is a very big integer": b'{"name":' + b"9" * 5000 + b"}",
    "a name that is a list": b'{"name":["x"]}',
}


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED.keys())
def test_these_params_pass_as_they_are(body: bytes) -> None:
    """Law 7: what can be passed on is passed on byte by byte."""
    assert jsonrpc.check_params(body).body == body
    assert jsonrpc.check_params(b" \t" + body + b"\t ").body == body


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (None, None),
        (b"{}", None),
        (b'{"name":"x"}', "x"),
        (rb'{"n\u0061me":"\u4eca"}', "今"),
        (b'{"name":""}', ""),
        (b'{"name":null}', None),
        (b'{"name":5}', None),
        (b'{"name":1e999}', None),
        (b'{"name":{"name":"x"}}', None),
        (b'{"arguments":{"name":"x"}}', None),
        (b'{"name":"x","name":"y"}', "y"),
    ],
)
def test_the_name_is_that_of_the_params(body: bytes | None, name: str | None) -> None:
    """Law 10: the broker names the tool as the server will read it, or none."""
    assert jsonrpc.check_params(body).name == name


def test_a_cursor_is_seen_whatever_it_is() -> None:
    """The broker gives no cursors: every one of them is somebody else's."""
    assert not jsonrpc.check_params(None).has_cursor
    assert not jsonrpc.check_params(b'{"a":{"cursor":1}}').has_cursor
    assert jsonrpc.check_params(b'{"cursor":""}').has_cursor
    assert jsonrpc.check_params(b'{"cursor":1e999}').has_cursor


# --- `_meta` -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [b"binary", {b"key": 1}, float("nan"), float("inf"), msgpack.Timestamp(1), msgpack.ExtType(5, b"x")],
    ids=["bytes", "key of bytes", "NaN", "Infinity", "timestamp", "extension"],
)
def test_a_meta_that_is_not_json_is_refused(value: object) -> None:
    """Law 7: msgpack carries more than JSON does; the broker does not turn it into something else."""
    with pytest.raises(BodyError, match="`_meta`") as caught:
        jsonrpc.check_meta({"k": value})
    assert caught.value.code is Code.INVALID_BODY


@pytest.mark.parametrize("depth", [MAX_DEPTH, 1000])
def test_a_meta_that_is_too_deep_is_refused(depth: int) -> None:
    """Law 6: `_meta` may nest as deep as a body may, and no deeper."""
    meta: dict[str, Any] = {}
    for _ in range(depth - 1):
        meta = {"a": meta}
    if depth > MAX_DEPTH:
        with pytest.raises(BodyError):
            jsonrpc.check_meta(meta)
    else:
        jsonrpc.check_meta(meta)
        with pytest.raises(BodyError, match="deeper"):
            jsonrpc.check_meta({"a": meta})


def test_no_meta_and_any_json_pass() -> None:
    """Law 7: what JSON has passes."""
    jsonrpc.check_meta(None)
    jsonrpc.check_meta({"a": [1, 2.5, "今", None, True, {}, 2**64 - 1]})


# --- splicing ----------------------------------------------------------------------------------------


@given(objects, st.none() | objects, st.booleans())
def test_any_object_is_spliced_into_one_line(params: dict[str, Any], meta: Any, ascii_only: bool) -> None:
    """Law 7: the server reads the same params, and the broker's `_meta` as the only one."""
    body = json.dumps(params, ensure_ascii=ascii_only).encode()
    line = jsonrpc.request_line(7, "tools/call", jsonrpc.check_params(body).body, meta)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    request = json.loads(line)
    spliced = request.pop("params")
    assert request == {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    assert spliced.pop("_meta", None) == (meta or None)
    assert spliced == params


@pytest.mark.parametrize("body", [b"{}", b"{ \t}", b'{"a":1}', b'{ \t "a":1 }', b'{"}":1}'])
def test_splicing_minds_spaces_and_the_empty_object(body: bytes) -> None:
    """Law 7: no comma too many, none too few."""
    line = jsonrpc.request_line(1, "m", jsonrpc.check_params(body).body, {"k": "v"})
    assert json.loads(line)["params"] == {"_meta": {"k": "v"}, **json.loads(body)}


def test_a_body_is_spliced_byte_by_byte() -> None:
    """Law 7: also what a parser would have changed."""
    body = rb'{"a":1.50e1,"a":"\u00e9","b":1e999 , "c":9999999999999999999999}'
    assert body[1:] in jsonrpc.request_line(1, "m", body, {"k": 1})
    assert body in jsonrpc.request_line(1, "m", body)


def test_every_line_that_is_built_is_one_line_of_json() -> None:
    """Section 5: names are JSON-encoded, never pasted."""
    nasty = 'x","id":9,\r\n"method":"tools/call'
    lines: dict[bytes, dict[str, Any]] = {
        jsonrpc.request_line(1, nasty): {"id": 1, "method": nasty, "params": {}},
        jsonrpc.notification_line(nasty): {"method": nasty},
        jsonrpc.notification_line("n", {"reason": nasty}): {"method": "n", "params": {"reason": nasty}},
        jsonrpc.result_line(nasty, {"a": nasty}): {"id": nasty, "result": {"a": nasty}},
        jsonrpc.error_line(nasty, -32601, nasty): {"id": nasty, "error": {"code": -32601, "message": nasty}},
    }
    for line, message in lines.items():
        assert len(line.splitlines()) == 1
        assert line.endswith(b"\n")
        assert json.loads(line) == {"jsonrpc": "2.0", **message}


# --- lines of a server -------------------------------------------------------------------------------


def kind_of(line: bytes) -> object:
    """What was read, with its bytes."""
    seen = jsonrpc.read(line)
    if isinstance(seen, Reply):
        result = None if seen.result is None else bytes(seen.result)
        return ("reply", seen.id, result, None if seen.error is None else bytes(seen.error))
    if isinstance(seen, Asked):
        return ("asked", seen.id, seen.method, None if seen.params is None else bytes(seen.params))
    if isinstance(seen, Told):
        return ("told", seen.method, None if seen.params is None else bytes(seen.params))
    return ("broken", seen.id) if isinstance(seen, Broken) else "noise"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}', ("reply", 1, b'{"a":1}', None)),
        (b' {"id" : 1 , "result" : null} \r', ("reply", 1, b"null", None)),
        (b'{"id":"a","error":{"code":1}}', ("reply", "a", None, b'{"code":1}')),
        (b'{"id":' + b"9" * 25 + b',"result":1}', ("reply", int("9" * 25), b"1", None)),
        (b'{"id":2,"method":"ping"}', ("asked", 2, "ping", None)),
        (b'{"id":"q","method":"m","params":{"a": 1}}', ("asked", "q", "m", b'{"a": 1}')),
        (b'{"method":"n","params":[ ]}', ("told", "n", b"[ ]")),
        (b'{"method":"n"}', ("told", "n", None)),
        (b'{"id":null,"method":"n"}', ("broken", None)),
        (b'{"id":1}', ("broken", 1)),
        (b'{"id":1,"result":1,"error":{}}', ("broken", 1)),
        (b'{"id":null,"error":{"code":-32700}}', ("broken", None)),
        (b'{"result":1}', ("broken", None)),
        (b"{}", ("broken", None)),
        (b'{"id":1,"result":NaN}', ("broken", 1)),
        (rb'{"id":1,"result":"\ud800"}', ("broken", 1)),
        (b'{"id":1,"result":"\xff"}', ("broken", 1)),
        (b'{"id":1,"result":' + deep(MAX_DEPTH) + b"}", ("broken", 1)),
        (b'{"id":1,"result":' + deep(2000) + b"}", ("broken", 1)),
        (b'{"id":1,"result":{}', ("broken", 1)),
        (b'{"id":true,"result":{}}', ("broken", None)),
        (b'{"id":1.5,"result":{}}', ("broken", None)),
        (b'{"id":1,"method":5}', ("broken", 1)),
        (b'{"id":' + b"9" * 5000 + b',"result":{}}', ("broken", None)),
        (b"", "noise"),
        (b"   ", "noise"),
        (b"Server running on stdio", "noise"),
        (b'[{"id":1,"result":{}}]', "noise"),
        (b'"id"', "noise"),
        (b"\xff\xfe", "noise"),
        (b'\xef\xbb\xbf{"id":1,"result":{}}', "noise"),
    ],
)
def test_what_a_line_is(line: bytes, kind: object) -> None:
    """Law 8: a line is what it says it is, or it is of no use; it is never made into something near it."""
    assert kind_of(line) == kind


def test_a_result_is_the_bytes_it_came_in() -> None:
    """Law 7: spaces, escapes, doubled keys and numbers beyond a double included."""
    result = rb'{ "a" :1.50e1, "a":"\u00e9", "b" : 1e999,"c":[ ] }'
    reply = jsonrpc.read(b'{"jsonrpc":"2.0", "result" : ' + result + b' ,"id":1}')
    assert isinstance(reply, Reply)
    assert reply.result is not None
    assert bytes(reply.result) == result


@given(values)
def test_any_result_is_the_bytes_it_came_in(value: object) -> None:
    """Law 7, for all of JSON."""
    result = json.dumps(value, ensure_ascii=False).encode()
    reply = jsonrpc.read(b'{"id":1,"result": ' + result + b"\t}")
    assert isinstance(reply, Reply)
    assert reply.result is not None
    assert bytes(reply.result) == result


@given(st.binary(max_size=80))
def test_no_bytes_of_a_server_raise(line: bytes) -> None:
    """Law 5: whatever a server writes, reading it goes well."""
    assert isinstance(jsonrpc.read(line), (Reply, Asked, Told, Broken, Noise))
    assert isinstance(jsonrpc.read(b'{"id":1,' + line), (Reply, Asked, Told, Broken, Noise))


@given(values, st.data())
def test_no_damaged_line_raises(value: object, data: st.DataObject) -> None:
    """Law 5, near to what is right: one byte of a good line is another."""
    line = bytearray(json.dumps({"jsonrpc": "2.0", "id": 5, "result": value, "method": "m"}).encode())
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    jsonrpc.read(bytes(line))


# --- the id of a broken line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}', 7),
        (b'{"result":{"id":1,"a":[{"id":2}]},"id": -7 ,"x":NaN}', -7),
        (b'{"id":"abc","result":NaN}', "abc"),
        (b'{"result":"\\"id\\":5,","id":7,NaN}', 7),
        (b'{"result":{"id":7,"a":NaN', None),
        (b'{"result":["id",7,NaN],"id":8,', 8),
        (b'{"id":12', None),
        (b'{"id":12 ', None),
        (b'{"id":12.5,NaN}', None),
        (b'{"id":1e3,NaN}', None),
        (b'{"id":null,NaN}', None),
        (b'{"id":[1],NaN}', None),
        (b'{"id":"a\\u0062",NaN}', None),
        (b'{"id":' + b"1" * 5000 + b",NaN}", None),
        (b"no json, id:7", None),
        (b'"id":7,', None),
        (b"", None),
    ],
)
def test_the_id_of_a_broken_line(line: bytes, id: object) -> None:
    """Section 5 and law 8: the call ends at once with the id of the line itself, whole or not at all."""
    assert jsonrpc.recover_id(line) == id


@given(st.integers(0, 2**63 - 1), values, st.data())
def test_a_line_that_was_cut_gives_its_own_id_or_none(id: int, value: object, data: st.DataObject) -> None:
    """Law 3: no id from inside of a result, and none that was cut short, ends another call."""
    members = {"id": id, "result": {"id": 1, "inner": value}, "jsonrpc": "2.0"}
    order = data.draw(st.permutations(list(members)))
    line = json.dumps({key: members[key] for key in order}).encode()
    cut = data.draw(st.integers(0, len(line)))
    assert jsonrpc.recover_id(line) == id
    assert jsonrpc.recover_id(line[:cut]) in (id, None)


def test_a_string_without_an_end_is_read_once() -> None:
    """Law 5: with a look at the rest for each quote in it, this line would take longer than the test may."""
    assert jsonrpc.recover_id(b'{"id":1,"result":"' + rb"\"" * 400_000) == 1


# --- depth -------------------------------------------------------------------------------------------


def depth_of(value: object) -> int:
    """The reference: levels of arrays and objects."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


_tricky = st.text(alphabet='[]{}"\\a,:', max_size=8)
nests = st.recursive(
    _tricky | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_tricky, inner, max_size=3),
    max_leaves=12,
)


@given(nests, st.integers(0, 6))
def test_depth_is_that_of_a_simple_count(value: object, limit: int) -> None:
    """Section 5: brackets in strings are no brackets, however their quotes are escaped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonrpc, "MAX_DEPTH", limit)
        assert jsonrpc._is_deep(json.dumps(value).encode()) == (depth_of(value) > limit)


# --- progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "token"),
    [
        (b'{"progressToken":5,"progress":1}', 5),
        (b'{"progressToken":"5"}', "5"),
        (b'{"progress":1}', None),
        (b"[]", None),
        (b"null", None),
        (b'{"progressToken":1e999}', None),
        (b'{"progressToken":5,"progress":1e999}', None),
    ],
)
def test_whose_progress_it_is(params: bytes, token: object) -> None:
    """Law 8: progress that cannot be read is nobody's."""
    assert jsonrpc.read_progress(memoryview(params)).token == token
    assert jsonrpc.read_progress(None).token is None


@given(objects, st.integers() | st.text())
def test_progress_keeps_all_but_its_token(rest: dict[str, Any], token: int | str) -> None:
    """Law 3: the client sees its own token, and everything else as the server said it."""
    rest.pop("progressToken", None)
    params = json.dumps({"progressToken": 99, **rest}).encode()
    seen = jsonrpc.read_progress(memoryview(params))
    assert seen.token == 99
    assert json.loads(jsonrpc.progress_body(seen, token)) == {"progressToken": token, **rest}
