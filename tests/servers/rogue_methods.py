"""The methods of `rogue.py`, by era, and the few things it lists."""

from __future__ import annotations

import base64
import os

from tests.servers.rogue_server import (
    BOTH,
    INFO,
    INVALID_PARAMS,
    LEGACY,
    META,
    MODERN,
    MODERN_VERSION,
    RpcError,
)

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from tests.servers.rogue_json import Object
    from tests.servers.rogue_server import Methods, Request

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
NAMES = ("Ada", "Alan", "Grace")
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
NO_SUCH_RESOURCE = -32002  # of the legacy era; the modern one has INVALID_PARAMS

RESOURCES: list[Object] = [
    {"uri": "note://1", "name": "one", "mimeType": "text/plain"},
    {"uri": "note://2", "name": "two", "mimeType": "text/plain"},
    {"uri": "note://pixel", "name": "pixel", "mimeType": "image/png"},
]
TEMPLATES: list[Object] = [{"uriTemplate": "note://{id}", "name": "note", "mimeType": "text/plain"}]
PROMPTS: list[Object] = [
    {"name": "greet", "description": "Greets somebody.", "arguments": [{"name": "name", "required": True}]},
    {"name": "plain", "description": "Takes nothing."},
]
FEATURES = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}


# The handshakes


def initialize(request: Request) -> Object:
    flags = request.server.flags
    version = "1999-01-01" if flags.bad_version else flags.protocol
    return {"protocolVersion": version, "capabilities": _capabilities(request), "serverInfo": INFO}


def discover(request: Request) -> Object:
    return {"supportedVersions": [MODERN_VERSION], "capabilities": _capabilities(request)}


def _capabilities(request: Request) -> Object:
    return {} if request.server.flags.no_capabilities else dict(FEATURES)


# Lists, page by page


def _page(request: Request, key: str, items: list[Object]) -> Object:
    flags, (seed, start) = request.server.flags, _position(request)
    if flags.shuffle:
        items = _shuffled(items, seed)
    end = start + (flags.page_size or len(items))
    result: Object = {key: items[start:end]}
    if end < len(items) or flags.endless_pages:
        second = flags.empty_cursor and start == 0
        result["nextCursor"] = "" if second else f"{seed:x}.{end if end < len(items) else 0:x}"
    return result


def _position(request: Request) -> tuple[int, int]:
    """The seed of the order and the first item, from the cursor."""
    cursor, flags = request.params.get("cursor"), request.server.flags
    if cursor is None:
        # The cursor "" cannot carry a seed.
        return (0 if flags.empty_cursor else int.from_bytes(os.urandom(4), "big")), 0
    if cursor == "" and flags.empty_cursor:
        return 0, flags.page_size
    try:
        seed, start = (int(part, 16) for part in cursor.split("."))
    except (AttributeError, ValueError):
        raise RpcError(INVALID_PARAMS, f"Invalid cursor: {cursor!r}") from None
    return seed, start


def _shuffled(items: list[Object], seed: int) -> list[Object]:
    import random  # a third of the start-up time, and few tests want it

    return random.Random(seed).sample(items, len(items))


# Tools, resources, prompts


def _tools(request: Request) -> list[Object]:
    return [described for described, _ in list(request.server.tools.values())]


def call_tool(request: Request) -> Object | None:
    name = request.params.get("name")
    known = request.server.tools.get(str(name))
    if known is None:
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name}")
    return known[1](request)


def read_resource(request: Request) -> Object:
    uri = str(request.params.get("uri"))
    if uri == "note://pixel":
        return {"contents": [{"uri": uri, "mimeType": "image/png", "blob": PIXEL}]}
    if not uri.startswith("note://"):
        code = INVALID_PARAMS if request.server.era == MODERN else NO_SUCH_RESOURCE
        raise RpcError(code, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": f"note {uri[7:]}"}]}


def subscribe(request: Request) -> Object:
    request.server.subscribed.add(request.params["uri"])
    return {}


def unsubscribe(request: Request) -> Object:
    request.server.subscribed.discard(request.params["uri"])
    return {}


def get_prompt(request: Request) -> Object:
    texts = {"greet": f"Hello, {request.arguments.get('name')}!", "plain": "Hello."}
    name = str(request.params.get("name"))
    if name not in texts:
        raise RpcError(INVALID_PARAMS, f"Unknown prompt: {name}")
    return {"messages": [{"role": "user", "content": {"type": "text", "text": texts[name]}}]}


def complete(request: Request) -> Object:
    begun = request.params["argument"]["value"]
    values = [name for name in NAMES if name.startswith(begun)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


# What only one of the eras has


def set_level(request: Request) -> Object:
    level = request.params.get("level")
    if level not in LEVELS:
        raise RpcError(INVALID_PARAMS, f"Invalid log level: {level!r}")
    request.server.log_level = level
    return {}


def listen(request: Request) -> None:
    """Opens a stream; it is answered only when the tool `end_listens` ends it."""
    server, filter = request.server, request.params["notifications"]
    server.listens[request.id] = filter
    params = {"_meta": {META + "subscriptionId": request.id}, "notifications": filter}
    server.notify("notifications/subscriptions/acknowledged", params)


METHODS: Methods = {
    "initialize": (LEGACY, initialize),
    "ping": (LEGACY, lambda _: {}),
    "logging/setLevel": (LEGACY, set_level),
    "resources/subscribe": (LEGACY, subscribe),
    "resources/unsubscribe": (LEGACY, unsubscribe),
    "server/discover": (MODERN, discover),
    "subscriptions/listen": (MODERN, listen),
    "tools/list": (BOTH, lambda request: _page(request, "tools", _tools(request))),
    "tools/call": (BOTH, call_tool),
    "resources/list": (BOTH, lambda request: _page(request, "resources", RESOURCES)),
    "resources/templates/list": (BOTH, lambda request: _page(request, "resourceTemplates", TEMPLATES)),
    "resources/read": (BOTH, read_resource),
    "prompts/list": (BOTH, lambda request: _page(request, "prompts", PROMPTS)),
    "prompts/get": (BOTH, get_prompt),
    "completion/complete": (BOTH, complete),
}
