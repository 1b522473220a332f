"""How the tests of `mcp-broker import` write down a host's file, and look at what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli
from click.testing import Result

from broker.base.secrets import PLACEHOLDER
from broker.config.loading import load

Run = Callable[..., Result]
Write = Callable[[str, object], Path]


def programs(folder: Path, *names: str) -> Path:
    """A folder with these programs, which need not do anything."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def one(**keys: Any) -> dict[str, Any]:
    """What a file says that has one server, `it`; it runs npx unless `keys` say otherwise."""
    return {"mcpServers": {"it": {"command": "npx", **keys}}}


def servers(path: Path | str = "broker.toml") -> dict[str, Any]:
    """The servers of a file, which the broker takes once its variables are set."""
    text = Path(path).read_text(encoding="utf-8")
    mapping = tomli.loads(text)
    load(mapping, dict.fromkeys(PLACEHOLDER.findall(text), ""))
    found: dict[str, Any] = mapping["servers"]
    return found


def placed(value: Any, **places: object) -> Any:
    """A value with `{folder}` and the like filled in, at any depth."""
    text = json.dumps(value)
    for name, path in places.items():
        text = text.replace(f"{{{name}}}", str(path))
    return json.loads(text)
