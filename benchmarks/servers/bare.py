"""An MCP server without an SDK: lines of JSON in, lines of JSON out, as fast as Python can.

It offers `echo(text)` and `blob(size)`, and answers everything that has come in with one write.
"""

from __future__ import annotations

import json
import os
from typing import Any

TOOLS = [
    {
        "name": "echo",
        "description": "Returns the text.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
    {
        "name": "blob",
        "description": "Returns a text of this size.",
        "inputSchema": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]},
    },
]

_READ_BYTES = 1 << 16
_blobs: dict[int, str] = {}


def answer(line: bytes) -> bytes:
    """Return the answer to one line, or nothing for a notification."""
    message = json.loads(line)
    id = message.get("id")
    if id is None:
        return b""
    result = _result(message["method"], message.get("params") or {})
    if result is None:
        error = '{"code":-32601,"message":"there is no such method"}'
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (json.dumps(id).encode(), error.encode())
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (json.dumps(id).encode(), result.encode())


def _result(method: str, params: dict[str, Any]) -> str | None:
    if method == "tools/call":
        return _called(params["name"], params["arguments"])
    if method == "initialize":
        info = {"name": "bare", "version": "1"}
        protocol = params.get("protocolVersion", "2025-06-18")
        return json.dumps({"protocolVersion": protocol, "capabilities": {"tools": {}}, "serverInfo": info})
    if method == "tools/list":
        return json.dumps({"tools": TOOLS})
    return "{}" if method == "ping" else None


def _called(tool: str, arguments: dict[str, Any]) -> str:
    if tool == "blob":
        size = arguments["size"]
        if size not in _blobs:
            _blobs[size] = f'{{"content":[{{"type":"text","text":"{"x" * size}"}}]}}'
        return _blobs[size]
    return f'{{"content":[{{"type":"text","text":{json.dumps(arguments["text"])}}}]}}'


def main() -> None:
    """Serve until stdin is closed."""
    unread = b""
    while chunk := os.read(0, _READ_BYTES):
        *lines, unread = (unread + chunk).split(b"\n")
        _write(b"".join(map(answer, lines)))


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    main()
