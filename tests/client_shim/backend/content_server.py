"""An MCP server whose tools answer with one kind of content each: what `rogue.py` does not have."""

from __future__ import annotations

import json
import sys
from typing import Any

PIXEL = "iVBORw0KGgo="
TEXT = {"uri": "note://1", "mimeType": "text/markdown", "text": "# Hello"}
LINK = {"type": "resource_link", "uri": "file:///menu.pdf", "name": "menu.pdf"}


def resource(mime_type: str, **contents: str) -> dict[str, Any]:
    """An embedded resource."""
    return {"type": "resource", "resource": {"uri": "note://2", "mimeType": mime_type, **contents}}


RESULTS: dict[str, dict[str, Any]] = {
    "texts": {"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "漢字"}]},
    "image": {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]},
    "audio": {"content": [{"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}]},
    "text_resource": {"content": [{"type": "resource", "resource": TEXT}]},
    "image_resource": {"content": [resource("image/png", blob=PIXEL)]},
    "binary_resource": {"content": [resource("application/pdf", blob="JVBERg==")]},
    "link": {"content": [{**LINK, "mimeType": "application/pdf", "description": "What there is."}]},
    "titled_link": {"content": [{**LINK, "title": "The menu"}]},
    "structured": {"content": [], "structuredContent": {"city": "福岡", "high_c": 21}},
    "structured_image": {
        "content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}],
        "structuredContent": {"width": 1},
    },
    "structured_text": {"content": [{"type": "text", "text": '{"a": 1}'}], "structuredContent": {"a": 1}},
    "nothing": {},
    "extras": {"content": [{"type": "text", "text": "x", "url": "http://u", "altText": "alt", "size": 7}]},
    "metadata": {"content": [], "metadata": {"liveViewData": {"url": "http://v"}}, "_meta": {"own": 1}},
    "odd_metadata": {"content": [], "metadata": ["no object"]},
    "error": {"content": [{"type": "text", "text": "no such machine"}], "isError": True},
    "two_texts_error": {
        "content": [{"type": "text", "text": "no such machine"}, {"type": "resource", "resource": TEXT}],
        "isError": True,
    },
    "mute_error": {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}], "isError": True},
    "question": {"resultType": "input_required", "inputRequests": {}, "requestState": "s"},
    "odd_content": {"content": "hello"},
}
"""tool → what it answers."""

HELLO: dict[str, Any] = {"capabilities": {"tools": {}}, "serverInfo": {"name": "content", "version": "1"}}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a request, where there is one."""
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], **HELLO}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in RESULTS]}
    return RESULTS[params["name"]] if method == "tools/call" else None


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params", {}))
        ending = (
            {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
        )
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **ending}), flush=True)


if __name__ == "__main__":
    main()
