"""Names of imported servers."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from itertools import pairwise

from broker.command.importing.hosts import Found
from broker.command.importing.shapes import flat
from broker.config.names import derived, normal, why_not


def valid_name(name: str) -> str:
    """Return the name of a server in `broker.toml`: its own if valid, else one derived from it.

    A derived name depends on the original only, so every import derives the same; no two originals share one.
    """
    return derived(name) if why_not(normal(name)) else normal(name)


_RUNNERS = (
    *("npx", "uvx", "bunx", "pnpx", "uv", "pnpm", "yarn", "bun", "npm", "pipx", "deno", "docker", "podman"),
    *("node", "python", "python3", "sh", "bash", "tsx", "ts-node"),
)
_WITH_VALUE = ("--from", "--with", "--directory", "--project", "--package", "-p", "--python", "-c", "--cwd")
_STEPS = ("run", "exec", "dlx", "tool", "x", "start")


def name_of(entry: object) -> str:
    """Return a name for a server without one, made from its package or script."""
    table = flat(entry) if isinstance(entry, dict) else {}
    args = table.get("args")
    command = str(table.get("command", ""))
    words = command.split() + [str(arg) for arg in (args if isinstance(args, list) else [])]
    program = os.path.basename(words[0]) if words else ""
    candidates = [
        word
        for before, word in pairwise(words)
        if not word.startswith("-") and word not in _STEPS and "=" not in word and before not in _WITH_VALUE
    ]
    chosen = candidates[-1 if program in ("docker", "podman") else 0] if candidates else program
    if program not in _RUNNERS:
        chosen = program
    base = re.sub(r"(?<=.)@.*|==.*|:[^/]*$|\.(?:py|js|mjs|cjs|ts|sh|exe)$", "", os.path.basename(chosen))
    return valid_name(base) if base else "server"


def distinct_names(found: Sequence[Found]) -> list[str]:
    """Return the names of one file's servers. Servers of different projects get different names."""
    names = [valid_name(one.name) if one.name else name_of(one.entry) for one in found]
    places = list(zip(names, (one.folder for one in found), strict=True))
    beside = [_beside(name, folder) if names.count(name) > 1 else name for name, folder in places]
    return [
        name if name == names[at] or beside.count(name) == 1 else derived(f"{names[at]}/{found[at].folder}")
        for at, name in enumerate(beside)
    ]


def _beside(name: str, folder: str | None) -> str:
    """Return the name with that of its project's folder appended."""
    return name if folder is None else valid_name(f"{name}-{os.path.basename(folder.rstrip('/')) or 'root'}")
