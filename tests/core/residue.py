"""What a broker still holds: every container that can be reached from an object, found by looking.

No list of tables is kept here, so a table that somebody adds is looked at from its first day. What is kept is
the list of those that may have something in them when nobody is there, each with the reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType

from msgspec import Struct

from broker.config.limits import LimitsConfig
from broker.config.schema import Config, ServerConfig
from broker.core.servers.lifecycle import Lifecycle

KEPT = {
    "Registry._table": "the configured servers",
    "Registry._client_info": "the broker's name",
    "Engine.counters": "figures, by a fixed set of words",
    "Server.outcomes": "figures, by a fixed set of words",
    "Server.asked": "figures, by a fixed set of words",
    "Server.dropped": "figures, by a fixed set of words",
    "Attribution._given_up": "the ids of cancelled calls of a process, of a bounded number",
    "CancelPings._open": "the ids of pings that a process has not answered, of a bounded number",
    "Latency._buckets": "figures, of a fixed number",
    "Catalogue._listings": "what the server offers",
    "Catalogue._whole": "what the server offers",
    "Listing.items": "what the server offers",
    "Listing.repeatable": "what the server offers",
    "Agreed.capabilities": "what the server offers",
    "Agreed.server_info": "what the server is called",
    "Handshake._client_info": "the broker's name",
    "Handshake._capabilities": "what the broker offers",
    "Handshake._asked": "the two questions of a handshake",
    "Handshake._refusals": "the two questions of a handshake",
    "Agreed.ignored": "three fields of an answer at most",
    "Lists._holds": "one for each kind of list",
    "Lists._silent": "one for each kind of list",
    "Lists._late": "the ids of the last that were answered or given up, of a bounded number",
    "Catalogue._lacking": "one for each kind of list",
    "Server.ended": "the ids of the last calls, of a bounded number",
    "Server.tolerated": "figures, by a fixed set of words",
    "Server.remarks": "by a fixed set of words, and one for each kind of list",
    "Server._said": "by a fixed set of words, and one for each kind of list",
    "McpSession._asked": "the two questions of a handshake",
    "McpSession._answered": "the ids of the last that were answered, of a bounded number",
    "Lists._rates": "one for each kind of list",
    "Lists._since": "one for each kind of list",
    "Lists._again": "one for each kind of list",
    "Lists._pending": "one for each kind of list",
    "ListenStream._wanted": "which lists are followed",
    "ListenStream._honoured": "which lists are followed",
    "_ListenRequest.filter": "which lists are followed",
    "Health._open": "the broker's last two questions",
    "Descriptors._over": "the names of the last that are over, of a bounded number",
}
"""Class and attribute → why it may have something in it when every client is gone."""

_CONTAINERS = (dict, list, set, frozenset, tuple, deque)
_OPAQUE = (Config, LimitsConfig, ServerConfig, Lifecycle, Enum, type, ModuleType)
_CODE = (FunctionType, MethodType, BuiltinMethodType)


def residue(root: object) -> dict[str, int]:
    """The containers that have something in them and are not among `KEPT`: where, and how many."""
    return {min(names): size for names, size in tables(root) if size and not KEPT.keys() & names}


def tables(root: object) -> list[tuple[set[str], int]]:
    """Every container below: the classes and attributes that it is known by, and its size."""
    held: dict[int, object] = {}
    names: dict[int, set[str]] = {}
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, (*_OPAQUE, *_CODE, str, bytes)):
            continue
        names.setdefault(id(one), set()).add(where)
        if id(one) not in held:
            held[id(one)] = one
            waiting += _below(where, one)
    return [(names[id(one)], len(one)) for one in held.values() if isinstance(one, _CONTAINERS)]


def _below(where: str, one: object) -> Iterator[tuple[str, object]]:
    if isinstance(one, Mapping):
        yield from ((where, value) for value in one.values())
    elif isinstance(one, _CONTAINERS):
        yield from ((where, value) for value in one)
    for name in _attributes(one):
        yield f"{type(one).__name__}.{name}", getattr(one, name, None)


def _attributes(one: object) -> set[str]:
    fields = one.__struct_fields__ if isinstance(one, Struct) else ()
    slots = {name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())}
    return {*fields, *slots, *getattr(one, "__dict__", {})} - {"__weakref__", "__dict__"}
