"""A legacy server that asks during a call, on the standard library alone, and returns the answers unchanged.

The tool `ask` sends a question for each of its `messages` at once, and returns the lines that answer them, in
the order in which they came. With `progress` it reports progress first, and with `again` it asks once more
afterwards. With `takes_back` it cancels its first question once the others are answered; with `then_waits` it
waits until it is cancelled. The tool `whoami` returns its pid.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Json = dict[str, Any]

_last_id = 0


def say(**message: Any) -> None:
    """Write a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def question(message: str) -> int:
    """Ask for a name; return the id."""
    global _last_id
    _last_id += 1
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    say(id=_last_id, method="elicitation/create", params={"message": message, "requestedSchema": schema})
    return _last_id


def answers(ids: set[int]) -> list[str]:
    """Read until each question has an answer; return the lines."""
    found: list[str] = []
    while ids:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        message = json.loads(line, parse_float=str)
        if "method" not in message and message["id"] in ids:
            ids.discard(message["id"])
            found.append(line.strip())
        elif message.get("method") == "ping":
            say(id=message["id"], result={})
    return found


def wait_for_cancellation() -> None:
    """Read until the call is cancelled."""
    for line in iter(sys.stdin.readline, ""):
        message = json.loads(line)
        if message.get("method") == "notifications/cancelled":
            return
        if message.get("method") == "ping":
            say(id=message["id"], result={})


def ask(arguments: Json, token: Any) -> str:
    """Ask, and return what was answered as JSON."""
    if token is not None and arguments.get("progress"):
        say(method="notifications/progress", params={"progressToken": token, "progress": 1})
    ids = [question(message) for message in arguments["messages"]]
    taken_back = ids.pop(0) if arguments.get("takes_back") else None
    found = answers(set(ids))
    if taken_back is not None:
        say(method="notifications/cancelled", params={"requestId": taken_back})
    if token is not None and arguments.get("progress"):
        say(method="notifications/progress", params={"progressToken": token, "progress": 2})
    if "again" in arguments:
        found += answers({question(arguments["again"])})
    if arguments.get("then_waits"):
        wait_for_cancellation()
    return json.dumps(found)


def tool(name: str) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}}


def text(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def result_of(method: str, params: Json) -> Json | None:
    """Return the result of a request; `None` for a method that it does not have."""
    match method:
        case "initialize":
            about = {"name": "asking", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [tool("ask"), tool("whoami")]}
        case "tools/call" if params["name"] == "whoami":
            return text(str(os.getpid()))
        case "tools/call":
            return text(ask(params.get("arguments", {}), params.get("_meta", {}).get("progressToken")))
    return None


def main() -> None:
    """Serve until stdin ends."""
    for line in iter(sys.stdin.readline, ""):
        message = json.loads(line)
        if "method" not in message or "id" not in message:
            continue
        result = result_of(message["method"], message.get("params", {}))
        if result is None:
            say(id=message["id"], error={"code": -32601, "message": "no such method"})
        else:
            say(id=message["id"], result=result)


if __name__ == "__main__":
    main()
