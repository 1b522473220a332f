"""A server of the backend, with a secret that it needs and one tool that reads."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

TOOL = {
    "name": "now",
    "inputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": True},
}


def answer(request: dict[str, Any]) -> object:
    """The result of a request."""
    if request["method"] == "initialize":
        about = {"name": "weather", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
    if request["method"] == "tools/list":
        return {"tools": [TOOL]}
    if request["method"] == "tools/call":
        keys = [os.environ["WEATHER_API_KEY"], os.environ["CITY_TOKEN"]]
        return {"content": [{"type": "text", "text": f"keys of {[len(key) for key in keys]} characters"}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}), flush=True)
