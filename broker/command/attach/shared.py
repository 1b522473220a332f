"""Tells servers that every host can share from those that belong to one project or one session."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from broker.command.importing.shapes import Table

_PROJECT_VARIABLE = re.compile(
    r"\$\{?(?:workspaceFolder|workspaceRoot|fileWorkspaceFolder|relativeFile|fileDirname|file|cwd|PWD"
    r"|CLAUDE_PROJECT_DIR|ZED_WORKTREE_ROOT|GEMINI_WORKING_DIRECTORY)\b[^}\s]*\}?"
)
_RELATIVE = re.compile(r"\.{1,2}(?:/.*)?")

BROWSER, CODE, SESSION, ROOTS = "browser", "code", "session", "roots"
KINDS = {
    "playwright": BROWSER,
    "puppeteer": BROWSER,
    "chrome-devtools": BROWSER,
    "browser-use": BROWSER,
    "browsermcp": BROWSER,
    "browserbase": BROWSER,
    "browser-tools": BROWSER,
    "selenium": BROWSER,
    "language-server": CODE,
    "serena": CODE,
    "codegraph": CODE,
    "lsp": CODE,
    "task-master": CODE,
    "sequential-thinking": SESSION,
    "desktop-commander": SESSION,
    "tmux": SESSION,
    "terminal": SESSION,
}
"""part of a package's or program's name → why its process belongs to one session or one project"""

_NAME_PARTS = re.compile(r"[a-z0-9]+")


class Bound(NamedTuple):
    """Why a server is bound to a project or a session: a word of `texts`, with its facts."""

    word: str
    facts: dict[str, str]


def bound(entry: Table, folder: str | None) -> Bound | None:
    """Return why a server cannot be shared by all hosts; `None` if it can.

    Args:
        entry: its entry, with the broker's names of keys.
        folder: the project that its entry belongs to.
    """
    if folder is not None:
        return Bound("attach_of_project", {"folder": folder})
    texts = list(_texts(entry))
    if variable := next(filter(None, map(_PROJECT_VARIABLE.search, texts)), None):
        return Bound("attach_variable", {"variable": variable[0]})
    if relative := next(filter(None, _relative(entry)), None):
        return Bound("attach_relative", {"path": relative})
    if entry.get("roots"):
        return Bound("attach_roots", {})
    return _known(entry)


def _texts(entry: Table) -> Iterator[str]:
    args, env = entry.get("args"), entry.get("env")
    words = [entry.get("command"), entry.get("cwd"), *(args if isinstance(args, list) else [])]
    words += env.values() if isinstance(env, dict) else []
    return (word for word in words if isinstance(word, str))


def _relative(entry: Table) -> Iterator[str | None]:
    command, cwd, args = entry.get("command"), entry.get("cwd"), entry.get("args")
    if isinstance(command, str) and "/" in command and not command.startswith(("/", "~", "$")):
        yield command
    if isinstance(cwd, str) and cwd and not cwd.startswith(("/", "~", "$")):
        yield cwd
    yield from (
        arg
        for arg in (args if isinstance(args, list) else [])
        if isinstance(arg, str) and _RELATIVE.fullmatch(arg)
    )


def _known(entry: Table) -> Bound | None:
    """Return why a well-known server is bound, by the parts of the names in its command line."""
    args = entry.get("args")
    words = [str(entry.get("command", "")), *map(str, args if isinstance(args, list) else [])]
    for word in words:
        if word.startswith("-"):
            continue
        parts = _NAME_PARTS.findall(re.sub(r"(?<=.)@[\w.^~-]*$", "", word).lower())
        joined = f"-{'-'.join(parts[-6:])}-"
        for name, kind in KINDS.items():
            if f"-{name}-" in joined:
                return Bound(f"attach_{kind}", {"package": name})
        if "-server-filesystem-" in joined and not any(one.startswith(("/", "~")) for one in words[1:]):
            return Bound("attach_roots", {})
    return None
