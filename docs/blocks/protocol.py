"""The tables of `docs/protocol.md`, from `client_shim.wire`."""

from __future__ import annotations

from typing import Any, get_type_hints

from broker.core.clients.notifications import Notifications
from broker.management.commands import COMMANDS
from client_shim import wire
from docs.blocks.markdown import TEXTS, Language, code, sentence, table

_SHAPES: dict[wire.Kind, Any] = {kind: getattr(wire, kind.name.title()) for kind in wire.Kind}

_TYPES = {
    str: "string",
    int: "integer",
    bool: "boolean",
    list[int]: "array of integers",
    dict[str, Any]: "map",
    dict[str, int]: "map of integers",
    str | None: "string or nil",
    int | None: "integer or nil",
    dict[str, Any] | None: "map or nil",
}

_INSTANCE = "b97c253f864c1560"

SAMPLES: list[wire.Message] = [
    wire.Hello(0, 0, [wire.VERSION], {"name": "demo", "version": "0.1.0", "pid": 4711}),
    wire.Welcome(
        0,
        0,
        _INSTANCE,
        "0.1.0",
        {"max_message_bytes": 33554432, "credit_bytes": 8388608, "request_credit_bytes": 8388608},
    ),
    wire.Request(1, 1, _INSTANCE, "time", "tools/call", 30000, wire.WANTS_PROGRESS, None),
    wire.Result(1, 1),
    wire.Error(1, 2),
    wire.Fault(1, 3, "unknown-server", "there is no server 'tme'", {"blame": "caller", "server": "tme"}),
    wire.Notification(1, 1, "time", "notifications/progress"),
    wire.Cancel(1, 1, "no longer wanted"),
    wire.Credit(0, 0, 2097152),
    wire.Question(1, 1, 4, "time", "elicitation/create"),
    wire.Answer(1, 1, False),
    wire.Goodbye(0, 0, "the broker is shutting down", 4),
]
"""One of each kind."""


def kinds(_: Language) -> str:
    """Return every kind: its number, who sends it, whether it has a body."""
    rows = (
        [str(int(kind)), kind.name, TEXTS["kinds"][kind.name.lower()], _body(shape), sentence(shape.__doc__)]
        for kind, shape in _SHAPES.items()
    )
    return table(("number", "kind", "direction", "body", "meaning"), rows)


def _body(shape: type[wire.Message]) -> str:
    if shape is wire.Request:
        return "may have one"
    return "none" if shape in wire.WITHOUT_BODY else "has one"


def fields_of(kind: wire.Kind) -> dict[str, Any]:
    """Return the fields of a kind after channel and id, with their types."""
    return dict(list(get_type_hints(_SHAPES[kind]).items())[2:])


def fields(_: Language) -> str:
    """Return the fields of every kind that has fields."""
    rows = [
        [kind.name, code(name), _type(kind, name, type_), TEXTS["fields"][kind.name.lower()][name]]
        for kind in wire.Kind
        for name, type_ in fields_of(kind).items()
    ]
    return table(("kind", "field", "type", "meaning"), rows)


def _type(kind: wire.Kind, name: str, type_: Any) -> str:
    if name in _SHAPES[kind]._field_defaults:
        return f"{_TYPES[type_].removesuffix(' or nil')}, may be left out"
    return _TYPES[type_]


def examples(_: Language) -> str:
    """Return one message of each kind with the bytes of its header."""
    pairs = (f"{message}\n{wire.encode(message).hex(' ')}" for message in SAMPLES)
    return "\n".join(["```text", "\n\n".join(pairs), "```"])


def management(_: Language) -> str:
    """Return the methods of `$broker`."""
    answered = {**COMMANDS, "listen": Notifications.listen}
    rows = ([code(name), sentence(command.__doc__)] for name, command in answered.items())
    return table(("method", "what it does"), rows)
