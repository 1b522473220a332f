"""Structure-aware messages: each begins as a right one of its kind, and has odd parts.

Sources: JSON-RPC 2.0, MCP 2025-11-25 and 2026-07-28 for lines; `docs/protocol.md` for frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from client_shim import wire
from tests.fuzz.odd import Odd

_NOTIFICATIONS = [
    "progress",
    "message",
    "cancelled",
    "tools/list_changed",
    "resources/list_changed",
    "prompts/list_changed",
    "resources/updated",
    "subscriptions/acknowledged",
    "roots/list_changed",
    "elicitation/complete",
    "x",
]
_QUESTIONS = ("ping", "roots/list", "sampling/createMessage", "elicitation/create", "q" * 300)
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
METHODS = (
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/subscribe",
    "ping",
    "completion/complete",
    "x/y",
)
MANAGEMENT = ("ping", "status", "servers", "listen", "logs", "restart", "x")


class Lines:
    """What a server writes.

    Args:
        odd: draws the odd parts.
    """

    def __init__(self, odd: Odd) -> None:
        self._odd = odd

    def line(self, ids: Sequence[object]) -> bytes:
        """One line; `ids` are those that the server was sent, which it may answer or name."""
        kinds = (self._reply, self._reply, self._error, self._notification, self._question, self._noise)
        if self._odd.chance(15):
            return b"[%b]" % b",".join(self.line(ids) for _ in range(self._odd.rng.randrange(6)))
        return self._odd.rng.choice(kinds)(ids).replace(b"\n", b" ")

    def _id(self, ids: Sequence[object]) -> bytes:
        if ids and not self._odd.chance(4):
            id = self._odd.rng.choice(ids[-12:])
            shape = self._odd.rng.choice((b"%b", b"%b", b"%b", b'"%b"', b"%b.0", b"%be0"))
            return shape % str(id).encode()
        return self._odd.json()

    def _reply(self, ids: Sequence[object]) -> bytes:
        rng = self._odd.rng
        result = rng.choice((self._odd.object(), self._listing(), self._opening(), self._odd.json()))
        return self._odd.members({"jsonrpc": b'"2.0"', "id": self._id(ids), "result": result})

    def _listing(self) -> bytes:
        rng = self._odd.rng
        item = self._odd.members({"name": b'"echo"', "uri": b'"r:1"', "inputSchema": b'{"type":"object"}'})
        kind = rng.choice((b"tools", b"resources", b"prompts", b"resourceTemplates"))
        cursor = rng.choice(
            (b"", b',"nextCursor":""', b',"nextCursor":"c"', b',"nextCursor":%b' % self._odd.json())
        )
        return b'{"%b":[%b]%b}' % (kind, b",".join([item] * rng.randrange(3)), cursor)

    def _opening(self) -> bytes:
        usual = {
            "capabilities": self._odd.rng.choice((b'{"tools":{"listChanged":true}}', b"{}", self._odd.json()))
        }
        if self._odd.chance(2):
            return self._odd.members(
                {**usual, "protocolVersion": b'"2025-11-25"', "serverInfo": b'{"name":"x"}'}
            )
        return self._odd.members({**usual, "supportedVersions": b'["2026-07-28"]'})

    def _error(self, ids: Sequence[object]) -> bytes:
        error = self._odd.members({"code": b"-32601", "message": b'"no"', "data": self._odd.json()})
        return self._odd.members({"jsonrpc": b'"2.0"', "id": self._id(ids), "error": error})

    def _notification(self, ids: Sequence[object]) -> bytes:
        params = {
            "progressToken": self._id(ids),
            "progress": self._odd.json(),
            "uri": b'"r:%d"' % self._odd.rng.randrange(4),
            "level": b'"info"',
            "data": self._odd.json(),
            "notifications": self._odd.json(),
            "_meta": b'{"%b":%b}' % (_SUBSCRIPTION.encode(), self._id(ids)),
        }
        method = b'"notifications/%b"' % self._odd.rng.choice(_NOTIFICATIONS).encode()
        return self._odd.members({"jsonrpc": b'"2.0"', "method": method, "params": self._odd.members(params)})

    def _question(self, ids: Sequence[object]) -> bytes:
        method = b'"%b"' % self._odd.rng.choice(_QUESTIONS).encode()
        return self._odd.members(
            {"jsonrpc": b'"2.0"', "id": self._id(ids), "method": method, "params": self._odd.json()}
        )

    def _noise(self, _: Sequence[object]) -> bytes:
        rng = self._odd.rng
        return rng.choice(
            (self._odd.json(), self._odd.object(), rng.randbytes(rng.randrange(40)), b"Listening on x")
        )


class Frames:
    """What either end of the wire sends.

    Args:
        odd: draws the odd parts.
        instance: the id of the broker.
        services: the names that requests are for.
    """

    def __init__(self, odd: Odd, instance: str, services: Sequence[str]) -> None:
        self._odd = odd
        self._instance = instance
        self._services = services

    def of_client(self) -> tuple[bytes, bytes | None]:
        """A header and a body as a client may send them."""
        rng = self._odd.rng
        channel, id = rng.randrange(4), rng.randrange(40)
        service = rng.choice((*self._services, wire.MANAGEMENT))
        method = rng.choice(MANAGEMENT if service == wire.MANAGEMENT else METHODS)
        meta = rng.choice((None, {}, {"progressToken": 1}, self._odd.plain()))
        timeout_ms = rng.choice((None, 0, 10, 5000, self._odd.plain()))
        kinds: list[tuple[type[Any], list[Any]]] = [
            (wire.Request, [self._instance, service, method, timeout_ms, rng.randrange(4), meta]),
            (wire.Request, [self._instance, service, method, timeout_ms, rng.randrange(4), meta]),
            (wire.Hello, [[wire.VERSION], {"name": self._odd.plain()}]),
            (wire.Cancel, [None]),
            (wire.Credit, [rng.choice((0, 256, 2000, self._odd.plain()))]),
            (wire.Answer, [True]),
            (wire.Goodbye, ["done"]),
            (wire.Result, []),
        ]
        return self._frame(channel, id, *rng.choice(kinds)), self._params()

    def of_broker(self, ids: Sequence[int]) -> tuple[bytes, bytes | None]:
        """A header and a body as a broken broker may send them; `ids` are those of the client's calls."""
        rng = self._odd.rng
        channel, id = rng.randrange(3), rng.choice((*ids, 0, 99, 2**63 - 1))
        code = rng.choice([*(one.value for one in wire.Code), "new-code"])
        kinds: list[tuple[type[Any], list[Any]]] = [
            (wire.Result, []),
            (wire.Error, []),
            (wire.Fault, [code, "words", {"subject": self._odd.plain(), "hint": self._odd.plain()}]),
            (wire.Fault, [code, "words", self._odd.plain()]),
            (
                wire.Notification,
                ["time", rng.choice(("notifications/progress", "notifications/message", "x"))],
            ),
            (wire.Question, [rng.choice((*ids, 5)), "time", "elicitation/create"]),
            (wire.Welcome, ["i", "1", {"max_message_bytes": self._odd.plain()}]),
            (wire.Credit, [1]),
            (wire.Cancel, [rng.choice((None, "over"))]),
            *([(wire.Goodbye, ["over"])] if self._odd.chance(12) else []),
        ]
        kind, fields = rng.choice(kinds)
        usual = None if kind in wire.WITHOUT_BODY else self._body_of(kind)
        body = usual if not self._odd.chance(8) else rng.choice((None, self._odd.json(), b"{}"))
        return self._frame(channel, id, kind, fields), body

    def _body_of(self, kind: type[Any]) -> bytes:
        if kind is wire.Error:
            return self._error_object()
        if kind is wire.Result:
            return self._odd.members({"content": b"[%b]" % self._content(), "isError": b"false"})
        about = {
            "progress": b"1",
            "total": b"2",
            "message": b'"m"',
            "level": b'"info"',
            "data": self._odd.json(),
        }
        return self._odd.members(about)

    def _content(self) -> bytes:
        kind = self._odd.rng.choice((b"text", b"image", b"audio", b"resource_link", b"resource", b"x"))
        usual = {"type": b'"%b"' % kind, "text": b'"t"', "data": b'"eA=="', "mimeType": b'"image/png"'}
        link = {
            "uri": b'"r:1"',
            "name": b'"n"',
            "description": b'"d"',
            "resource": b'{"uri":"r:1","text":"t"}',
        }
        return self._odd.members({**usual, **link})

    def _error_object(self) -> bytes:
        return self._odd.members({"code": b"1", "message": b'"no"', "data": self._odd.json()})

    def _params(self) -> bytes | None:
        rng = self._odd.rng
        listen = b'{"servers":["odd","gone"],"resources":{"odd":["r:1"]}}'
        call = {"name": b'"echo"', "arguments": self._odd.json()}
        return rng.choice(
            (None, b"{}", listen, self._odd.members(call), self._odd.object(), self._odd.json())
        )

    def _frame(self, channel: int, id: int, kind: type[Any], fields: list[Any]) -> bytes:
        """The header frame; now and then with an odd element, one too many, one too few, or mangled."""
        rng = self._odd.rng
        elements = [wire.VERSION, _KINDS[kind], channel, id, *fields]
        if self._odd.chance(6):
            elements[rng.randrange(len(elements))] = self._odd.plain()
        if self._odd.chance(20):
            elements = elements[: rng.randrange(len(elements))] if self._odd.chance(2) else [*elements, 1]
        return self._odd.mangled(msgpack.packb(elements))


_KINDS: dict[type[Any], int] = {
    wire.Hello: wire.Kind.HELLO,
    wire.Welcome: wire.Kind.WELCOME,
    wire.Request: wire.Kind.REQUEST,
    wire.Result: wire.Kind.RESULT,
    wire.Error: wire.Kind.ERROR,
    wire.Fault: wire.Kind.FAULT,
    wire.Notification: wire.Kind.NOTIFICATION,
    wire.Cancel: wire.Kind.CANCEL,
    wire.Credit: wire.Kind.CREDIT,
    wire.Question: wire.Kind.QUESTION,
    wire.Answer: wire.Kind.ANSWER,
    wire.Goodbye: wire.Kind.GOODBYE,
}
