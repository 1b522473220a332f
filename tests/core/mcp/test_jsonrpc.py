"""Params of clients: what may be passed on, and what comes of splicing `_meta` into it."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mcp import jsonrpc
from broker.core.mcp.jsonrpc import BodyError
from broker.core.mcp.nesting import MAX_DEPTH
from client_shim.wire import Code
from tests.core.json_text import deep, objects

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
    "deep in a long text": b'{"b":"' + b"x" * 5000 + b'","a":' + deep(MAX_DEPTH) + b"}",
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
    "as deep as may be in a long text": b'{"b":"' + b"x" * 5000 + b'","a":' + deep(MAX_DEPTH - 1) + b"}",
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
    assert not jsonrpc.check_params(b'{"cursor": null}').has_cursor  # "whether a non-null value was provided"
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
