"""Changes entries with Claude Code's own command: a running Claude Code writes its file from its memory.

Source: the help of `claude mcp add-json` and `claude mcp remove`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Container, Mapping

from broker.command.attach.texts import AttachError
from broker.command.importing.shapes import Table

_TIMEOUT_S = 60.0
_SCOPE = ("--scope", "user")


def command() -> str | None:
    """Return the path of Claude Code's command; `None` if it is not installed."""
    return shutil.which("claude")


def replace(program: str, entries: Mapping[str, Table], existing: Container[str]) -> None:
    """Put entries into the user's scope. Their values are visible in the process list for a moment.

    Args:
        existing: the entries that are there, and so have to be removed first.

    Raises:
        AttachError: the command failed; the message names the entry.
    """
    for name, entry in entries.items():
        if name in existing:
            _run(program, name, "remove", name, *_SCOPE)
        _run(program, name, "add-json", name, json.dumps(entry, ensure_ascii=False), *_SCOPE)


def _run(program: str, name: str, *args: str) -> None:
    try:
        done = subprocess.run(
            [program, "mcp", *args],
            cwd=os.path.expanduser("~"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AttachError("attach_claude", entry=name, problem=type(error).__name__) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [
            f"exit status {done.returncode}"
        ]
        raise AttachError("attach_claude", entry=name, problem=lines[-1])
