"""Converts an entry of a host's file to the keys of the broker's tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Table = dict[str, object]

_ADDRESSES = ("url", "serverUrl", "httpUrl", "uri", "baseUrl")
_PROGRAMS = ("command", "cmd")
_TYPES = ("stdio", "local", "remote", "sse", "http", "streamable-http", "streamable_http", "streamableHttp")
_GOOSE_OWN = ("builtin", "platform", "frontend", "inline_python")

_MEANT = {
    "cmd": "command",
    "arguments": "args",
    "environment": "env",
    "envs": "env",
    "workingDirectory": "cwd",
    "working_directory": "cwd",
    "env_vars": "env_inherit",
}
"""key of a host → key of the broker"""


def is_server(entry: object) -> bool:
    """Return whether this is the entry of a server, by its keys."""
    if not isinstance(entry, dict):
        return False
    return runs_here(entry) or any(entry.get(key) for key in _ADDRESSES)


def runs_here(entry: Mapping[str, Any]) -> bool:
    """Return whether the entry names a program or a type of server. A `url` alone proves nothing."""
    types = {entry.get(key) for key in ("type", "transport") if isinstance(entry.get(key), str)}
    return any(entry.get(key) for key in _PROGRAMS) or bool(types & {*_TYPES, *_GOOSE_OWN})


def flat(entry: Mapping[str, Any]) -> Table:
    """Return an entry with the broker's names of keys. Further keys stay."""
    found: Table = {key: value for key, value in entry.items() if value is not None}
    for key in ("transport", "command"):  # of Continue's JSON; of Zed before 2025-10
        if isinstance(inner := found.get(key), dict):
            del found[key]
            found |= {"command" if name == "path" else name: value for name, value in inner.items()}
    for key, meant in _MEANT.items():
        if key in found and meant not in found:
            found[meant] = found.pop(key)
    if isinstance(command := found.get("command"), list) and command:
        rest = found.get("args", [])
        found["command"] = command[0]
        found["args"] = [*command[1:], *rest] if isinstance(rest, list) else rest
    found["env"] = _env(found.get("env"), found.pop("env_keys", None))
    found["env_inherit"] = _names(found.get("env_inherit"))
    return {key: value for key, value in found.items() if value is not None}


def _env(env: Any, keys: object) -> object:
    """Return the variables, also from a list of `NAME=value` or of objects with `name` and `value`."""
    if isinstance(env, list):
        pairs = [one.partition("=")[::2] if isinstance(one, str) else _pair(one) for one in env]
        env = dict(pairs) if all(name for name, _ in pairs) else env
    if isinstance(keys, list) and isinstance(env or {}, dict):  # Goose keeps their values elsewhere
        return {str(key): f"${{{key}}}" for key in keys} | dict(env or {})
    return env


def _pair(one: object) -> tuple[str, object]:
    return (str(one.get("name", "")), one.get("value")) if isinstance(one, dict) else ("", None)


def _names(names: object) -> object:
    """Return the names in `env_vars` of Codex: texts, or tables with `name`."""
    if not isinstance(names, list):
        return names
    return [one.get("name", one) if isinstance(one, dict) else one for one in names]


def own_of_host(entry: Mapping[str, Any]) -> str | None:
    """Return the type of an entry that is built into its host; `None` for another entry."""
    if (kind := entry.get("type")) in _GOOSE_OWN:
        return str(kind)
    if "uses" in entry and not is_server(entry):  # a block of Continue's hub
        return "uses"
    is_extension = entry.get("source") == "extension" or isinstance(entry.get("settings"), dict)
    return "extension" if is_extension and not is_server(entry) else None


def remote(entry: Mapping[str, Any]) -> str | None:
    """Return the transport of a remote server; `None` for stdio."""
    kinds = [
        kind for key in ("type", "transport", "transportType") if isinstance(kind := entry.get(key), str)
    ]
    addresses = [key for key in _ADDRESSES if entry.get(key)]
    if any(kind in ("stdio", "local") for kind in kinds) and entry.get("command"):
        return None
    far = [kind for kind in kinds if re.sub(r"[-_]", "", kind).lower() in _REMOTE]
    return next(iter((*(kind for kind in far if kind != "remote"), *addresses, *far)), None)


_REMOTE = ("remote", "sse", "http", "https", "streamable", "streamablehttp", "httpstream", "ws", "websocket")
