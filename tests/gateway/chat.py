"""A conversation driven by hand: plain data in, what it sends as plain data out."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.client_session import ClientSession
from broker.gateway.conversation.conversation import Conversation
from broker.gateway.conversation.effects import (
    BrokerFault,
    CancelCall,
    Effect,
    FinishRequest,
    ListenTo,
    MakeCall,
    Outcome,
    SendMessage,
    ServerRefusal,
    ServerResult,
)
from broker.gateway.conversation.parked_calls import ParkedCalls

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}

DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2025-06-18"],
    "capabilities": {"tools": {}, "resources": {"subscribe": True}},
    "instructions": "be kind",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "one", "version": "1.2"}},
}


class Chat:
    """Says things for a client and for the broker; keeps all effects."""

    def __init__(
        self, session: ClientSession | None = None, parked: ParkedCalls | None = None, server: str = "one"
    ) -> None:
        self.parked = ParkedCalls(map("state-{}".format, count(1)).__next__) if parked is None else parked
        self.conversation = Conversation(server, lambda: "nonce", self.parked, session)
        self.effects: list[Effect] = []

    def take(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        return effects

    def say(self, message: Any) -> list[Effect]:
        text = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
        return self.take(self.conversation.received(jsonrpc.read(text)))

    def ask(self, id: Any, method: str, params: Any = None, meta: Any = None) -> list[Effect]:
        if meta is not None:
            params = {**(params or {}), "_meta": meta}
        return self.say({"id": id, "method": method, **({} if params is None else {"params": params})})

    def modern(self, id: Any, method: str, params: Any = None, **meta: Any) -> list[Effect]:
        return self.ask(id, method, params, {**MODERN, **meta})

    def initialize(self, capabilities: Any = None, version: str = "2025-11-25") -> list[Effect]:
        """Open a legacy session of a server that is ready."""
        self.take(self.conversation.stream_opened())
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info}
        made = call(self.ask("open", "initialize", params))
        return self.result(made.call, DISCOVERED)

    def result(self, call: int, result: Any) -> list[Effect]:
        body = result if isinstance(result, bytes) else json.dumps(result).encode()
        return self.reply(call, ServerResult(body))

    def subscribe(self, id: Any, **wanted: Any) -> list[Effect]:
        """Subscribe as a modern client, at a server that is ready; return what follows."""
        effects = self.modern(id, "subscriptions/listen", {"notifications": wanted})
        made = [one for one in effects if isinstance(one, MakeCall)]
        return self.result(made[0].call, DISCOVERED) if made else effects

    def error(self, call: int, error: Any) -> list[Effect]:
        return self.reply(call, ServerRefusal(json.dumps(error).encode()))

    def fault(self, call: int, code: str, message: str = "no", hint: str = "", **data: Any) -> list[Effect]:
        return self.reply(call, BrokerFault(code, message, hint, data))

    def reply(self, call: int, outcome: Outcome) -> list[Effect]:
        return self.take(self.conversation.replied(call, outcome))


def sent(effects: list[Effect]) -> list[Any]:
    """The messages to the client, as plain data."""
    return [json.loads(one.message) for one in effects if isinstance(one, SendMessage)]


def call(effects: list[Effect]) -> MakeCall:
    """The one call to the server."""
    (found,) = [one for one in effects if isinstance(one, MakeCall)]
    return found


def listens(effects: list[Effect]) -> list[ListenTo]:
    return [one for one in effects if isinstance(one, ListenTo)]


def cancels(effects: list[Effect]) -> list[int]:
    return [one.call for one in effects if isinstance(one, CancelCall)]


def finished(effects: list[Effect]) -> list[bytes]:
    return [one.request for one in effects if isinstance(one, FinishRequest)]
