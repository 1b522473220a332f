"""Faults of the broker as JSON-RPC errors."""

from __future__ import annotations

from typing import Any

from broker.gateway.conversation import jsonrpc
from broker.gateway.conversation.effects import BrokerFault

_CODES = {
    "invalid-body": jsonrpc.INVALID_PARAMS,
    "meta-in-body": jsonrpc.INVALID_PARAMS,
    "invalid-params": jsonrpc.INVALID_PARAMS,
    "unknown-tool": jsonrpc.INVALID_PARAMS,
    "too-large": jsonrpc.INVALID_PARAMS,
    "unknown-method": jsonrpc.METHOD_NOT_FOUND,
    "method-refused": jsonrpc.METHOD_NOT_FOUND,
}
"""The codes of the broker that JSON-RPC has a code for. All others are internal errors."""

STILL_STARTING = frozenset(
    {"server-starting", "server-down", "server-died", "deadline-exceeded", "busy", "invalid-reply"}
)
"""The server may be ready later. A session can be opened nevertheless: a host that is refused gives up."""


def code_of(fault: BrokerFault) -> int:
    """Return the code of the JSON-RPC error for a fault."""
    return _CODES.get(fault.code, jsonrpc.INTERNAL_ERROR)


def message_of(fault: BrokerFault) -> str:
    """Return the message: hosts show nothing else, so it has the hint too."""
    return f"{fault.message}; {fault.hint}" if fault.hint else fault.message


def data_of(fault: BrokerFault) -> dict[str, Any]:
    """Return the data of the error, for programs: the broker's own code, the hint, and what the fault has."""
    return {**fault.data, "code": fault.code, "hint": fault.hint}
