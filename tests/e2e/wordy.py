"""An MCP server that says, wherever it can say anything, what the environment variable `WORDS` holds.

`SCHEMA` is the `inputSchema` of its tools, in JSON. With `MUTE` its list of tools is an error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

WORDS = json.loads(os.environ.get("WORDS", '"words"'))
SCHEMA = json.loads(os.environ.get("SCHEMA", '{"type": "object"}'))
ERROR = {"error": {"code": -32000, "message": WORDS, "data": WORDS}}
INFO = {"name": WORDS, "version": WORDS}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The ending of a request: `result` or `error`."""
    if method == "initialize":
        version = params["protocolVersion"]
        hello = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
        return {"result": {**hello, "instructions": WORDS}}
    if method == "tools/list" and "MUTE" not in os.environ:
        tool = {"description": WORDS, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}
        names = (f"get{WORDS}", "list_fails", "show_error", "say")
        return {"result": {"tools": [{"name": name, **tool} for name in names]}}
    if method == "tools/call" and params["name"] != "show_error":
        content = [{"type": "text", "text": WORDS}, {"type": "image", "mimeType": WORDS, "data": WORDS}]
        return {"result": {"content": content, "isError": params["name"] != "say"}}
    return ERROR


def main() -> None:
    """Serve until stdin ends."""
    print(f"error: {WORDS}", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        token = message.get("params", {}).get("_meta", {}).get("progressToken")
        if token is not None:
            said = {"progressToken": token, "progress": 1, "message": WORDS}
            print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": said}))
        ending = answer(message["method"], message.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **ending}), flush=True)


if __name__ == "__main__":
    main()
