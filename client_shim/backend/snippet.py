"""A server of a backend's registry, as a table for `broker.toml`."""

from __future__ import annotations

import json
import re
from typing import Any

_NO_COMMAND = 'command = ""  # write its program here: the registry of this backend names none'


def toml_table(name: str, entry: Any) -> str:
    """Return the `[servers.NAME]` table of an entry, ready to be pasted.

    It has the names of environment variables only: the broker takes the values from its own environment.

    Args:
        entry: has the attributes `command`, `args`, `env` and `cwd`. A table without a command says so.
    """
    command, args, env, cwd = (getattr(entry, key, None) for key in ("command", "args", "env", "cwd"))
    lines = [f"[servers.{_key(name)}]", f"command = {_string(command)}" if command else _NO_COMMAND]
    if args:
        lines.append(f"args = [{', '.join(map(_string, args))}]")
    if env:
        variables = (f"{_key(key)} = {_string('${' + key + '}')}" for key in env)
        lines.append(f"env = {{ {', '.join(variables)} }}")
    if cwd:
        lines.append(f"cwd = {_string(cwd)}")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _string(value: object) -> str:
    """Return a TOML basic string: as in JSON, but with DEL escaped."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
