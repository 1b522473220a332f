"""The routes of the MCP methods: one table per protocol era.

Sources: the schemas of the revisions 2025-11-25 and 2026-07-28, and the changelog of the latter for removed
methods.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Any

from msgspec import Struct

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")


class Era(str, Enum):
    """The era of a server's protocol: a handshake opens a session, or every request has the metadata."""

    LEGACY = "legacy"
    MODERN = "modern"


class Route(Enum):
    """Who answers a method."""

    SERVER = "server"
    CATALOGUE = "catalogue"
    BROKER = "broker"
    NOBODY = "nobody"


class Rule(Struct, frozen=True):
    """The route of a method; for `NOBODY`, why it is refused and what to do instead."""

    route: Route
    why: str = ""


_SERVER, _CATALOGUE, _BROKER = Rule(Route.SERVER), Rule(Route.CATALOGUE), Rule(Route.BROKER)


def _nobody(why: str) -> Rule:
    return Rule(Route.NOBODY, why)


NO_TASKS = "tasks are not passed on: their ids are not bound to the client that started them"
_TASKS = _nobody(NO_TASKS)
_LISTEN = (
    "the broker subscribes for all its clients: send it `listen` (docs/protocol.md), which tells of changes"
)
_SUBSCRIBE = _nobody(_LISTEN)
_GONE = "the revision 2026-07-28 of the protocol has no such method; "

_EVERY_ERA = {
    "tools/call": _SERVER,
    "resources/read": _SERVER,
    "prompts/get": _SERVER,
    "completion/complete": _SERVER,
    "tools/list": _CATALOGUE,
    "resources/list": _CATALOGUE,
    "resources/templates/list": _CATALOGUE,
    "prompts/list": _CATALOGUE,
    "server/discover": _CATALOGUE,
    "subscriptions/listen": _SUBSCRIBE,
    "tasks/get": _TASKS,
    "tasks/result": _TASKS,
    "tasks/list": _TASKS,
    "tasks/cancel": _TASKS,
}

TASK_EXTENSION = "io.modelcontextprotocol/tasks"


def in_effect(capabilities: Any) -> Any:
    """Return capabilities without those that the broker does not pass on: tasks, in either era."""
    if not isinstance(capabilities, dict):
        return capabilities
    rest = {name: value for name, value in capabilities.items() if name != "tasks"}
    extensions = rest.get("extensions")
    if isinstance(extensions, dict) and TASK_EXTENSION in extensions:
        rest["extensions"] = {name: one for name, one in extensions.items() if name != TASK_EXTENSION}
    return rest


METHODS: dict[Era, dict[str, Rule]] = {
    Era.LEGACY: {
        **_EVERY_ERA,
        "initialize": _nobody("the broker has opened the session; `server/discover` tells what was agreed"),
        "ping": _BROKER,
        "logging/setLevel": _nobody(
            "the log level is the server's, not a client's; set it in the server's own config"
        ),
        "resources/subscribe": _SUBSCRIBE,
        "resources/unsubscribe": _SUBSCRIBE,
    },
    Era.MODERN: {
        **_EVERY_ERA,
        "initialize": _nobody(_GONE + "`server/discover` tells what the server can do"),
        "ping": _nobody(_GONE + "use `server/discover`, or ping the broker"),
        "logging/setLevel": _nobody(_GONE + "put `io.modelcontextprotocol/logLevel` into `_meta`"),
        "resources/subscribe": _nobody(_GONE + _LISTEN),
        "resources/unsubscribe": _nobody(_GONE + _LISTEN),
        "tasks/update": _TASKS,
    },
}
"""era → method → rule. A method in neither table needs the server's `allow_methods`."""

FROM_MEMORY = frozenset(
    method
    for rules in METHODS.values()
    for method, rule in rules.items()
    if rule.route in (Route.CATALOGUE, Route.BROKER)
)
"""The methods that the broker answers itself: they need neither a place at the server nor its lease."""


def rule_for(method: str, era: Era, allowed: Collection[str]) -> Rule | None:
    """Return the rule for `method` on a server of this era; `None` for an unknown method."""
    rule = METHODS[era].get(method)
    if rule is None and method in allowed and not method.startswith("notifications/"):
        return _SERVER
    return rule
