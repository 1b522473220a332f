"""From one config to the next: the steps of a reload, and what only a restart of the broker can change.

A step is about one server or one section, and needs no other step. What a key needs to take effect is in
the tables below; a key that is in none of them is taken care of by the surest means there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import reduce
from typing import Any

import msgspec
from msgspec import Struct

from broker.config.schema import Config, ServerConfig


class Requires(str, Enum):
    """What it takes for the new value of a key to have effect."""

    NOTHING = "nothing"  # it is read whenever it is needed
    PROCESS = "process"  # a new process of that server
    RESTART = "restart"  # a new broker


_NOTHING: dict[str, frozenset[str]] = {
    "broker": frozenset({"socket_mode", "socket_group"}),
    "limits": frozenset(
        ("calls_per_channel", "calls_per_connection", "calls", "queue_bytes", "starts_at_once", "drain_sec")
    ),
    "servers": frozenset(
        (
            *("timeout", "stateful", "serialized", "max_in_flight", "allow_methods", "doctor"),
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
    """What a change of this key takes. `enabled` starts or ends the server's process."""
    if key in _NOTHING.get(section, ()):
        return Requires.NOTHING
    return Requires.PROCESS if section == "servers" else Requires.RESTART


class Add(Struct, frozen=True):
    """A server that was not there."""

    server: ServerConfig


class Remove(Struct, frozen=True):
    """A server that is no longer there."""

    name: str


class SwitchOn(Struct, frozen=True):
    """A server that did not run, and is to: it was disabled, or its table had a mistake."""

    server: ServerConfig


class SwitchOff(Struct, frozen=True):
    """A server that is now disabled."""

    server: ServerConfig


class Replace(Struct, frozen=True):
    """A server whose process has to be another one, because of these keys."""

    server: ServerConfig
    keys: tuple[str, ...]


class Retune(Struct, frozen=True):
    """A server that keeps its process, although these keys changed."""

    server: ServerConfig
    keys: tuple[str, ...]


class KeepRunning(Struct, frozen=True):
    """A server that goes on as it was, because its new table has mistakes: those are in `server.faults`."""

    server: ServerConfig


class Adjust(Struct, frozen=True):
    """A section of the broker itself of which these keys have new values, at once."""

    section: str
    value: Struct
    keys: tuple[str, ...]


ServerStep = Add | Remove | SwitchOn | SwitchOff | Replace | Retune | KeepRunning
Step = ServerStep | Adjust


class Pending(Struct, frozen=True):
    """A key that has a new value in the file, which a restart of the broker is needed for; and why."""

    path: str
    why: str


class ReloadPlan(Struct, frozen=True):
    """What a reload does: its steps, the config that they lead to, and what has to wait for a restart."""

    config: Config
    steps: tuple[Step, ...]
    pending: tuple[Pending, ...]
    unchanged: tuple[str, ...]


def plan(old: Config, new: Config) -> ReloadPlan:
    """How to come from what the broker runs on to what the file says now."""
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
    """The config after one step."""
    if isinstance(step, Adjust):
        return msgspec.structs.replace(config, **{step.section: step.value})
    if isinstance(step, Remove):
        rest = {name: server for name, server in config.servers.items() if name != step.name}
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
            yield Add(new)
        elif old is not None:
            yield Remove(old.name)
        return
    keys = _changed(old, new)
    if old.runs and new.faults and new.enabled:
        kept = msgspec.structs.replace(old, faults=new.faults, kept=True)
        if kept != old:
            yield KeepRunning(kept)
    elif old.runs != new.runs:
        yield SwitchOn(new) if new.runs else SwitchOff(new)
    elif new.runs and any(requires("servers", key) is Requires.PROCESS for key in keys):
        yield Replace(new, keys)
    elif keys or old.faults != new.faults:
        yield Retune(new, keys)


_NO_KEYS = frozenset({"variables", "faults", "kept"})


def _changed(old: Struct, new: Struct) -> tuple[str, ...]:
    names = (field.name for field in msgspec.structs.fields(new))
    changed = (name for name in names if getattr(old, name) != getattr(new, name))
    return tuple(name for name in changed if name not in _NO_KEYS)  # they follow from the others
