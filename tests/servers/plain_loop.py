"""A server without an SDK: it reads a line, handles it, writes the answer, and reads the next line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> object:
    """The result of a request."""
    if request["method"] == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "loop"},
        }
    if request["method"] == "tools/list":
        return {"tools": [{"name": "blocks", "inputSchema": {"type": "object"}}]}
    if request["method"] == "tools/call":
        folder = Path(request["params"]["arguments"]["folder"])
        (folder / "begun").touch()
        time.sleep(0.3)
        (folder / "over").touch()
        return {"content": [{"type": "text", "text": "done"}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}), flush=True)
