"""A server in a test: a script that answers by itself, and one process of it that a test speaks through."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.core.mcp.methods import MODERN_VERSION, Era

if TYPE_CHECKING:
    from tests.core.world import World

LEGACY_VERSION = "2025-11-25"

Json = dict[str, Any]


@dataclass
class Script:
    """What a fake server does by itself: the handshake and the lists. Calls are the test's to answer."""

    era: Era = Era.LEGACY
    lists: dict[str, list[str]] = field(default_factory=lambda: {"tools/list": ["echo"]})
    capabilities: Json | None = None
    mute: set[str] = field(default_factory=set)
    lacks: set[str] = field(default_factory=set)
    hints: Json = field(default_factory=dict)
    annotations: dict[str, Json] = field(default_factory=dict)

    def answer(self, request: Json) -> Json | None:
        """The answer it gives at once, if it gives one."""
        method = request["method"]
        if "id" not in request or method in self.mute:
            return None
        if method in self.lacks:
            return _error(request, -32601, "no such method")
        if method == "server/discover" and self.era is Era.MODERN:
            return _result(
                request, {"supportedVersions": [MODERN_VERSION], "capabilities": self.offers(), "_meta": {}}
            )
        if method == "initialize" and self.era is Era.LEGACY:
            seen = {"protocolVersion": LEGACY_VERSION, "capabilities": self.offers(), "serverInfo": {}}
            return _result(request, seen)
        if method == "ping" and self.era is Era.LEGACY:
            return _result(request, {})
        if method in ("server/discover", "initialize", "ping"):
            return _error(request, -32601, "no such method")
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return _result(request, {})
        if method == "subscriptions/listen":
            meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
            params = {"_meta": meta, "notifications": request["params"]["notifications"]}
            return {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}
        return self.listing(request) if method.endswith("/list") else None

    def offers(self) -> Json:
        """Its capabilities: those it has a list for, where the test says nothing else."""
        if self.capabilities is not None:
            return self.capabilities
        return {method.partition("/")[0]: {} for method in self.lists}

    def listing(self, request: Json) -> Json:
        """One page with everything."""
        member, key = {
            "tools/list": ("tools", "name"),
            "prompts/list": ("prompts", "name"),
            "resources/list": ("resources", "uri"),
            "resources/templates/list": ("resourceTemplates", "uriTemplate"),
        }[request["method"]]
        names = self.lists.get(request["method"], [])
        items: list[Json] = [{key: name} for name in names]
        for item in items:
            if item[key] in self.annotations:
                item["annotations"] = self.annotations[item[key]]
        return _result(request, {member: items, **self.hints})


def _result(request: Json, result: object) -> Json:
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def _error(request: Json, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}


def _answers(line: bytes) -> set[int]:
    """The id that a line answers, if it does; a server may write it as a string."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return set()
    id = said.get("id") if isinstance(said, dict) and "method" not in said else None
    return {int(id)} if type(id) is int or (isinstance(id, str) and id.isdecimal()) else set()


class Process:
    """One process of a server: all that was written to it, and what it writes."""

    def __init__(self, world: World, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.lines: list[Json] = []
        self.at: dict[int, float] = {}
        self.answered: set[int] = set()
        """The ids of what it was asked, and has answered by and by."""
        self.answered_at_once: set[int] = set()
        self._world = world

    def take(self, line: bytes) -> None:
        """A line on its stdin. It is one line to every reader, and one JSON object."""
        assert line.endswith(b"\n")
        assert len(line.splitlines()) == 1
        message = json.loads(line)
        self.lines.append(message)
        if "id" in message:
            self.at[message["id"]] = self._world.now
        answer = self.script.answer(message) if "method" in message else None
        if answer is not None:
            self.answered_at_once |= {answer["id"]} if "id" in answer else set()
            self._world.lines.append((self, json.dumps(answer).encode()))

    def got(self, method: str) -> list[Json]:
        """What it was sent of one method."""
        return [line for line in self.lines if line.get("method") == method]

    @property
    def calls(self) -> list[Json]:
        """The tools/call requests it got."""
        return self.got("tools/call")

    def say(self, message: Json | bytes) -> None:
        """It writes a line: a message of JSON-RPC, or any bytes."""
        line = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.answered |= _answers(line) & self.at.keys()
        self._world.lines.append((self, line))
        self._world.settle()

    def reply(self, request: Json, result: object) -> None:
        """It answers a request."""
        self.say(_result(request, result))

    def refuse(self, request: Json, code: int, message: str) -> None:
        """It answers a request with an error."""
        self.say(_error(request, code, message))

    def tell(self, method: str, **params: object) -> None:
        """It says something unasked."""
        self.say({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params})

    def progress(self, token: object, progress: float) -> None:
        """It says how far it is."""
        params = {"progressToken": token, "progress": progress}
        self.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
