"""Stdio servers as they are in the field: ordinary, but for what `ODDITIES` says of the name in argv[1].

Each oddity is a function of each message that the server is about to write. It gives what is written instead,
as bytes or messages. The rest is a plain server of the revision 2024-11-05 with one tool.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False  # it starts without typing, as a plain server does
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]
    Written = list[Message | bytes]
    Oddity = Callable[[Message, Message], Written]

TEXT = "the real answer 你好"
TOOL = {"name": "hello", "description": "says hello", "inputSchema": {"type": "object", "properties": {}}}


def _answer(request: Message) -> Message:
    method, is_modern = request["method"], "--modern" in sys.argv
    result: Message | None = None
    if method == "server/discover" and is_modern:
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    elif method == "initialize" and not is_modern:
        info = {"name": "odd", "version": "1"}
        result = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        result = {"tools": [TOOL]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": TEXT}]}
    elif method == "ping":
        result = {}
    if result is None:
        error = {"code": -32601, "message": "no such method"}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def _encode(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()


# What it does to every message


def _with_id(change: Callable[[int], object]) -> Oddity:
    return lambda request, answer: [{**answer, "id": change(answer["id"])}]


def _raw_id(template: bytes) -> Oddity:
    """The id written in this way, which `json` would not write."""

    def odd(request: Message, answer: Message) -> Written:
        rest = _encode({key: value for key, value in answer.items() if key != "id"})
        return [b'{"id":' + template % answer["id"] + b"," + rest[1:]]

    return odd


def _beside(**members: object) -> Oddity:
    return lambda request, answer: [{**members, **answer}]


def _around(before: bytes = b"", after: bytes = b"") -> Oddity:
    return lambda request, answer: [before + _encode(answer) + after]


def _first(*lines: bytes) -> Oddity:
    """Log lines before every answer; `%d` in one is the id of the request."""

    def odd(request: Message, answer: Message) -> Written:
        logged = [line.replace(b"%d", b"%d" % answer["id"]) for line in lines]
        return [*logged, answer]

    return odd


def _log(**members: object) -> Oddity:
    return lambda request, answer: [{"level": "info", "id": answer["id"], **members}, answer]


# What it does to the answer of one method


def _on(method: str, change: Callable[[Message], Written]) -> Oddity:
    return lambda request, answer: change(answer) if request["method"] == method else [answer]


def _result(method: str, **fields: object) -> Oddity:
    """Fields of the result are these; `None` stands for null, and `...` for absent."""

    def change(answer: Message) -> Written:
        merged = {**answer["result"], **fields}
        return [{**answer, "result": {key: one for key, one in merged.items() if one is not ...}}]

    return _on(method, change)


def _probe(*written: Message | bytes | None, **members: object) -> Oddity:
    """To `server/discover` it answers with these members, or writes something else."""

    def change(answer: Message) -> Written:
        if members:
            return [{"jsonrpc": "2.0", "id": answer["id"], **members}]
        return [line for line in written if line is not None]

    return _on("server/discover", change)


def _ends(request: Message, answer: Message) -> Written:
    if request["method"] == "server/discover":
        sys.exit(1)
    return [answer]


def _refuses_and_ends(request: Message, answer: Message) -> Written:
    """Its first message must be `initialize`: it refuses any other and ends, as some servers in Rust do."""
    _seen.append(request["method"])
    if _seen[0] == "server/discover" and len(_seen) > 1:
        sys.exit(1)
    return [answer]


def _refuses_all(request: Message, answer: Message) -> Written:
    """The same, but it goes on and refuses whatever comes."""
    _seen.append(request["method"])
    refused = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32600, "message": "not initialized"}}
    return [refused if _seen[0] == "server/discover" else answer]


_seen: list[str] = []


def _closes(request: Message, answer: Message) -> Written:
    """Its connection ends at the probe, and its process does not."""
    if request["method"] == "server/discover":
        os.close(1)
        time.sleep(100.0)
    return [answer]


def _prompt(request: Message, answer: Message) -> Written:
    """A prompt without a line end stands before the first answer, whatever that is to."""
    _seen.append(request["method"])
    return [b"> " + _encode(answer)] if len(_seen) == 1 else [answer]


def _fatal(*methods: str, declares: Message) -> Oddity:
    """It ends at lists that it does not have."""
    says = _result("initialize", capabilities=declares)

    def odd(request: Message, answer: Message) -> Written:
        if request["method"] in methods:
            sys.exit(1)
        return says(request, answer)

    return odd


def _hangs(request: Message, answer: Message) -> Written:
    while request["method"] == "server/discover":
        time.sleep(100.0)
    return [answer]


def _twice(request: Message, answer: Message) -> Written:
    return [answer, answer]


_late: list[Message] = []


def _late_probe(request: Message, answer: Message) -> Written:
    """The answer to the probe comes behind the next one."""
    if request["method"] == "server/discover":
        _late.append(answer)
        return []
    return [answer, *(_late.pop() for _ in range(len(_late)))]


def _notes(request: Message, answer: Message) -> Written:
    """Notifications and requests of every odd kind, before each answer."""
    version = {"jsonrpc": "2.0"}
    return [
        {**version, "id": None, "method": "notifications/message", "params": {"data": "x"}},
        {**version, "method": "notifications/message", "params": None},
        {**version, "method": "notifications/tools/list_changed", "params": []},
        {**version, "method": "notifications/progress", "params": {"progressToken": str(answer["id"])}},
        {**version, "method": "notifications/progress", "params": {"progressToken": None, "progress": "1"}},
        {**version, "method": "notifications/unheard/of", "params": 5},
        {**version, "method": "x"},
        {**version, "id": "a-1", "method": "ping", "params": None},
        {**version, "id": 7.0, "method": "roots/list"},
        {**version, "id": None, "result": {}},
        {**version, "id": None, "error": {"code": -32700, "message": "Parse error"}},
        {**version, "id": "nobody", "result": {}},
        {**version, "id": True, "result": {}},
        {**version, "result": {}},
        {**version},
        answer,
    ]


def _pretty(request: Message, answer: Message) -> Written:
    """A debug print of the same answer over several lines, and of the request."""
    printed = json.dumps({"id": answer["id"], "result": {"rows": 3}}, indent=2).encode()
    return [printed, str(request).encode(), answer]


def _pages(cursor: Callable[[int], object]) -> Oddity:
    count = [0]

    def change(answer: Message) -> Written:
        count[0] += 1
        return [{**answer, "result": {**answer["result"], "nextCursor": cursor(count[0])}}]

    return _on("tools/list", change)


_TOOLS: Message = {"tools": {}, "resources": {}, "prompts": {}}
_MUTE = _result("initialize", capabilities=_TOOLS)


def _mute(request: Message, answer: Message) -> Written:
    silent = request["method"] in ("resources/list", "resources/templates/list", "prompts/list")
    return [] if silent else _MUTE(request, answer)


_RESULTS: dict[str, object] = {
    "empty": {},
    "null": None,
    "string": "Method not found",
    "list": [],
    "true": True,
    "is-error": {"isError": True, "content": [{"type": "text", "text": "no"}]},
    "no-versions": {"supportedVersions": [], "capabilities": {}},
    "versions-null": {"supportedVersions": None, "capabilities": {}},
    "version-string": {"supportedVersions": "2026-07-28", "capabilities": {}},
    "versions-numbers": {"supportedVersions": [20260728], "capabilities": {}},
    "newer": {"supportedVersions": ["2027-01-01"], "capabilities": {}},
    "older": {"supportedVersions": ["2024-11-05"], "capabilities": {}},
    "no-capabilities": {"supportedVersions": ["2026-07-28"]},
    "as-initialize": {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {}},
}

_ERRORS: dict[str, object] = {
    "string": "Method not found",
    "null": None,
    "empty": {},
    "list": [],
    "true": True,
    "code-string": {"code": "METHOD_NOT_FOUND", "message": "no"},
    "code-float": {"code": -32601.0, "message": "no"},
    "code-huge": {"code": 10**30, "message": "no"},
    "no-code": {"message": "no"},
    "no-message": {"code": -32601},
    "message-object": {"code": -32601, "message": {"text": "no"}},
    "data-null": {"code": -32601, "message": "no", "data": None},
    "unsupported": {"code": -32022, "message": "no", "data": {"supported": ["2024-11-05"]}},
    "disjoint": {"code": -32022, "message": "no", "data": {"supported": ["2027-01-01"]}},
    "mismatch": {"code": -32020, "message": "no"},
}

_FIELDS: dict[str, dict[str, object]] = {
    "capabilities": {
        "null": None,
        "absent": ...,
        "empty": {},
        "list": [],
        "true": True,
        "names": ["tools"],
        "tools-list": {"tools": []},
        "tools-true": {"tools": True},
        "tools-null": {"tools": None},
        "others-null": {"tools": {}, "resources": None, "prompts": None, "logging": None},
    },
    "serverInfo": {"null": None, "absent": ..., "string": "odd", "list": []},
    "instructions": {"null": None, "number": 5, "list": []},
}

ODDITIES: dict[str, Oddity] = {
    "plain": lambda request, answer: [answer],
    # ids
    "id-string": _with_id(str),
    "id-spaced-string": _with_id(lambda id: f" {id} "),
    "id-plus": _with_id(lambda id: f"+{id}"),
    "id-zeros": _with_id(lambda id: f"00{id}"),
    "id-float": _with_id(float),
    "id-exponent": _raw_id(b"%d0e-1"),
    # members
    "error-null": _beside(error=None),
    "result-null": _beside(result=None),
    "method-null": _beside(method=None, params=None),
    "error-empty-object": lambda request, answer: [{"error": {}, **answer}],
    "error-empty-list": lambda request, answer: [{"error": [], **answer}],
    "error-empty-string": lambda request, answer: [{"error": "", **answer}],
    "error-false": lambda request, answer: [{"error": False, **answer}],
    "more-members": _beside(ts=1.5, session=None, meta={"id": 1}),
    # lines
    "crlf": _around(after=b"\r"),
    "spaces": _around(b" \t", b" \t\r"),
    "blank-lines": _first(b"", b"  ", b"\r"),
    "mark-on-every-line": _around(b"\xef\xbb\xbf"),
    "colours": _around(b"\x1b[0m", b"\x1b[K"),
    "twice": _twice,
    "batch": lambda request, answer: [b"[" + _encode(answer) + b"]"],
    # stdout that is no message
    "log-error": _log(error="upstream 502, trying again"),
    "log-result": _log(result={"rows": 3}),
    "log-error-object": _log(error={"code": 1, "message": "no"}),
    "log-method": _log(method="GET", params={}),
    "log-version": _log(jsonrpc=2.0, result={"rows": 3}),
    "log-old-version": _log(jsonrpc="1.0", result={"rows": 3}),
    "log-inside": _log(message={"jsonrpc": "2.0", "id": 1, "result": {}}, result={}),
    "log-no-message": _log(jsonrpc="2.0", msg="working on it"),
    "log-no-error": _log(jsonrpc="2.0", error="upstream 502, trying again"),
    "log-list": _first(b'[{"id":%d,"result":{}}]'),
    "log-nan": _first(b'{"id":%d,"result":NaN}'),
    "log-cut": _first(b'{"id":%d,"result":{"jsonrpc":"2.0",'),
    "log-pretty": _pretty,
    "log-binary": _first(b"\xff\xfe\x00\x80", b"\x1b[31merror\x1b[0m", "⠋ 加载中…".encode()),
    "echo": lambda request, answer: [{key: request[key] for key in ("id", "method")}, answer],
    "notes": _notes,
    # the probe
    **{f"probe-{name}": _probe(result=result) for name, result in _RESULTS.items()},
    **{f"probe-error-{name}": _probe(error=error) for name, error in _ERRORS.items()},
    "probe-neither": _on("server/discover", lambda answer: [{"jsonrpc": "2.0", "id": answer["id"]}]),
    "probe-both": _probe(result={}, error={"code": 1, "message": "no"}),
    "probe-id-null": _probe({"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "no"}}),
    "probe-text": _probe(b"Error: unknown method server/discover"),
    "probe-stack": _probe(b"Traceback (most recent call last):", b'  File "x.py", line 1', b"KeyError: 'x'"),
    "probe-nan": _on("server/discover", lambda a: [b'{"jsonrpc":"2.0","id":%d,"result":NaN}' % a["id"]]),
    "probe-no-version": _on("server/discover", lambda a: [{"id": a["id"], "error": {"code": -32601}}]),
    "probe-late": _late_probe,
    "probe-silent": _probe(),
    "probe-ends": _ends,
    "probe-refused-then-ends": _refuses_and_ends,
    "probe-refused-then-all": _refuses_all,
    "probe-closes": _closes,
    "probe-hangs": _hangs,
    # initialize
    **{
        f"initialize-{field}-{name}": _result("initialize", **{field: value})
        for field, values in _FIELDS.items()
        for name, value in values.items()
    },
    "initialize-more": _result("initialize", _meta=None, extra={"a": [1]}),
    "initialize-first-revision": _result("initialize", protocolVersion="2024-10-07"),
    # lists
    "cursor-empty": _pages(lambda count: ""),
    "cursor-null": _pages(lambda count: None),
    "cursor-number": _pages(lambda count: 2),
    "cursor-object": _pages(lambda count: {"page": 2}),
    "cursor-again": _pages(lambda count: "again"),
    "cursor-endless": _pages(str),
    "item-null": _result("tools/list", tools=[None, TOOL]),
    "item-string": _result("tools/list", tools=["hello", TOOL]),
    "item-no-name": _result("tools/list", tools=[{"title": "no name"}, TOOL]),
    "item-name-null": _result("tools/list", tools=[{"name": None}, TOOL]),
    "item-name-number": _result("tools/list", tools=[{"name": 5}, TOOL]),
    "item-twice": _result("tools/list", tools=[TOOL, TOOL]),
    "list-hints": _result("tools/list", ttlMs=None, cacheScope=5, resultType=None, _meta=None),
    "list-nan": _on(
        "tools/list",
        lambda a: [b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[%b],"x":NaN}}' % (a["id"], _encode(TOOL))],
    ),
    "list-mute": _mute,
    "list-fatal": _fatal("resources/list", "prompts/list", declares=_TOOLS),
    "list-fatal-templates": _fatal("resources/templates/list", declares=_TOOLS),
    "list-fatal-undeclared": _fatal("resources/list", "prompts/list", declares={}),
    "prompt": _prompt,
    "list-empty-answers": lambda request, answer: [
        {"jsonrpc": "2.0", "id": answer["id"], "result": answer.get("result", {})}
    ],
}


def _slow(request: Message, answer: Message) -> Written:
    """It is asked in the older way too, and answers the first question first."""
    if request["method"] == "server/discover":
        time.sleep(5.0)
    return [answer]


_DISCOVERY: dict[str, dict[str, object]] = {
    "capabilities": {
        "empty": {},
        "others-null": {"tools": {}, "resources": None},
        "absent": ...,
        "list": [],
    },
    "supportedVersions": {"more": ["2027-01-01", "2026-07-28"], "odd": ["2026-07-28", None, 5]},
    "instructions": {"null": None, "number": 5},
    "_meta": {"null": None, "list": [], "info": {"io.modelcontextprotocol/serverInfo": "odd"}},
    "resultType": {"null": None, "number": 5},
    "ttlMs": {"null": None, "string": "5", "negative": -1},
    "cacheScope": {"null": None, "other": "shared"},
}

MODERN: dict[str, Oddity] = {
    **{
        name: ODDITIES[name]
        for name in (
            *("plain", "id-string", "id-float", "error-null", "error-empty-list", "crlf", "colours", "twice"),
            *("mark-on-every-line", "log-result", "log-error", "echo", "notes"),
            *("cursor-empty", "cursor-again", "item-null", "list-hints"),
        )
    },
    **{
        f"discover-{field}-{name}": _result("server/discover", **{field: value})
        for field, values in _DISCOVERY.items()
        for name, value in values.items()
    },
    "discover-slow": _slow,
}
"""The same for a server of the revision 2026-07-28, with `--modern`."""


def main() -> None:
    """Answer every request until stdin ends."""
    odd = (MODERN if "--modern" in sys.argv else ODDITIES)[sys.argv[1]]
    out = sys.stdout.buffer
    if "--banner" in sys.argv:
        out.write(b"\xef\xbb\xbf\x1b[32m* odd server\x1b[0m\r\n\nlistening on stdio\n")
    if "--mark" in sys.argv:
        out.write(b"\xef\xbb\xbf")
    out.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and "method" in request:
            for written in odd(request, _answer(request)):
                out.write(_encode(written) + b"\n")
            out.flush()


if __name__ == "__main__":
    main()
