"""Compares two configs: the steps of a reload, and the keys that need a restart of the broker.

A step is about one server or one section, and needs no other step. The tables below tell what a key requires;
a key that is in no table requires the surest means.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import reduce
from typing import Any

import msgspec
from msgspec import Struct

from broker.config.schema import Config, ServerConfig
from broker.config.server_tables import TABLES


class Requires(str, Enum):
    """What the new value of a key requires in order to take effect."""

    NOTHING = "nothing"  # it is read when it is used
    PROCESS = "process"  # a new process of that server
    RESTART = "restart"  # a new broker


_NOTHING: dict[str, frozenset[str]] = {
    "broker": frozenset({"socket_mode", "socket_group", "authorized_keys", "max_running", "memory_high"}),
    "authorized": frozenset({"names", "faults", "grants"}),
    "limits": frozenset(
        ("calls_per_channel", "calls_per_connection", "calls", "queue_bytes", "starts_at_once", "drain_sec")
    ),
    "servers": frozenset(
        (
            *("timeout", "stateful", "serialized", "max_in_flight", "allow_methods", *TABLES),
            *("answer_timeout", "stops_on_cancel", "cancel_grace_sec", "lease_sec"),
            *("start", "idle_stop_sec"),
            *("restart", "restart_sec", "start_limit_burst", "start_limit_interval_sec"),
            *("timeout_start_sec", "timeout_stop_sec"),
        )
    ),
}

_WHY = {
    "broker.endpoint": "clients are connected where it was",
    "limits.max_message_bytes": "clients were told it when they connected",
    "limits.credit_bytes": "clients were told it when they connected",
    "limits.outbox_bytes": "it holds for the connections that there are",
    "limits.connections": "the socket was made for so many",
}
_WHY_ELSE = "the broker reads it once, when it starts"


def requires(section: str, key: str) -> Requires:
    """Return what a change of this key requires. `enabled` starts or ends the server's process."""
    if key in _NOTHING.get(section, ()):
        return Requires.NOTHING
    return Requires.PROCESS if section == "servers" else Requires.RESTART


class Change(str, Enum):
    """What happens to a server, in the words of a reload's answer."""

    ADD = "added"
    REMOVE = "removed"
    ENABLE = "enabled"  # it was disabled, or its table had a mistake
    DISABLE = "disabled"
    REPLACE = "restarted"  # it needs another process because of the keys
    RETUNE = "retuned"  # it keeps its process
    KEEP = "kept"  # it keeps its earlier table, because its new one has mistakes: `server.faults`


ENDS = frozenset({Change.REMOVE, Change.DISABLE, Change.REPLACE})
"""Changes that end a process."""


class ServerStep(Struct, frozen=True):
    """One change of a server: its table (the last one, if it is removed), and the keys that changed."""

    change: Change
    server: ServerConfig
    keys: tuple[str, ...] = ()


class Adjust(Struct, frozen=True):
    """These keys of a section of the broker itself change at once."""

    section: str
    value: Struct
    keys: tuple[str, ...]


Step = ServerStep | Adjust


class Pending(Struct, frozen=True):
    """A key whose new value needs a restart of the broker, and why."""

    path: str
    why: str


class ReloadPlan(Struct, frozen=True):
    """What a reload does: its steps, the config after them, and the keys that need a restart."""

    config: Config
    steps: tuple[Step, ...]
    pending: tuple[Pending, ...]
    unchanged: tuple[str, ...]


def plan(old: Config, new: Config) -> ReloadPlan:
    """Return the plan from the current config to the content of the file."""
    steps: list[Step] = []
    pending: list[Pending] = []
    for section in _sections():
        adjusted, waits = _section(section, getattr(old, section), getattr(new, section))
        steps += adjusted
        pending += waits
    unchanged: list[str] = []
    for name in sorted(old.servers.keys() | new.servers.keys()):
        its = list(_server(old.servers.get(name), new.servers.get(name)))
        steps += its
        unchanged += [] if its else [name]
    return ReloadPlan(reduce(applied, steps, old), tuple(steps), tuple(pending), tuple(unchanged))


def applied(config: Config, step: Step) -> Config:
    """Return the config after one step."""
    if isinstance(step, Adjust):
        return msgspec.structs.replace(config, **{step.section: step.value})
    if step.change is Change.REMOVE:
        rest = {name: server for name, server in config.servers.items() if name != step.server.name}
        return msgspec.structs.replace(config, servers=rest)
    return msgspec.structs.replace(config, servers={**config.servers, step.server.name: step.server})


def _sections() -> list[str]:
    names = [field.name for field in msgspec.structs.fields(Config)]
    return [name for name in names if name != "servers"]


def _section(section: str, old: Any, new: Any) -> tuple[list[Step], list[Pending]]:
    keys = _changed(old, new)
    now = tuple(key for key in keys if requires(section, key) is Requires.NOTHING)
    later = [key for key in keys if key not in now]
    value = msgspec.structs.replace(old, **{key: getattr(new, key) for key in now})
    steps: list[Step] = [Adjust(section, value, now)] if now else []
    return steps, [_pending(f"{section}.{key}") for key in later]


def _pending(path: str) -> Pending:
    return Pending(path, _WHY.get(path, _WHY_ELSE))


def _server(old: ServerConfig | None, new: ServerConfig | None) -> Iterator[ServerStep]:
    if old is None or new is None:
        if new is not None:
            yield ServerStep(Change.ADD, new)
        elif old is not None:
            yield ServerStep(Change.REMOVE, old)
        return
    keys = tuple(key for key in _changed(old, new) if key not in _NO_KEYS)
    if old.runs and new.faults and new.enabled:
        kept = msgspec.structs.replace(old, faults=new.faults, kept=True)
        if kept != old:
            yield ServerStep(Change.KEEP, kept)
    elif old.runs != new.runs:
        yield ServerStep(Change.ENABLE if new.runs else Change.DISABLE, new)
    elif new.runs and any(requires("servers", key) is Requires.PROCESS for key in keys):
        yield ServerStep(Change.REPLACE, new, keys)
    elif keys or old.faults != new.faults:
        yield ServerStep(Change.RETUNE, new, keys)


_NO_KEYS = frozenset({"variables", "faults", "kept"})
"""Fields of a server that follow from other fields."""


def _changed(old: Struct, new: Struct) -> tuple[str, ...]:
    names = (field.name for field in msgspec.structs.fields(new))
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
