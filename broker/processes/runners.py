"""Commands that download a package or an image before the server runs: `npx`, `uvx`, `docker run` and others.

Their first start takes as long as the download, and ending it loses what was downloaded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import dropwhile, takewhile

_ALONE = frozenset({"npx", "pnpx", "bunx", "uvx", "pipx", "dnx"})
_WITH: dict[str, tuple[tuple[str, ...], ...]] = {
    "npm": (("exec",), ("x",), ("init",), ("create",)),
    "pnpm": (("dlx",), ("exec",)),
    "yarn": (("dlx",), ("exec",)),
    "bun": (("x",),),
    "uv": (("run",), ("tool", "run"), ("x",)),
    "deno": (("run",), ("x",)),
    "go": (("run",),),
    "cargo": (("run",),),
    "docker": (("run",), ("container", "run")),
    "podman": (("run",), ("container", "run")),
    "nerdctl": (("run",),),
}
"""program → the subcommands with which it downloads what it runs"""

_WRAPPERS = frozenset(
    {"env", "exec", "nice", "ionice", "nohup", "time", "timeout", "stdbuf", "setsid", "corepack"}
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh", "busybox"})
_SKIPPED = re.compile(r"-.*|[A-Za-z_]\w*=.*|[\d.]+[smhd]?", re.DOTALL)
"""Options, assignments and numbers, which may stand between a wrapper and its command."""

_VALUED = frozenset(
    (
        *("--context", "-H", "--host", "--config", "-c", "-l", "--log-level", "--directory", "--project"),
        *("--prefix", "--cache-dir", "--config-file", "--python", "-p", "-C", "--dir", "--filter", "-w"),
        *("--workspace", "--cwd"),
    )
)
"""Options before the subcommand that have a value."""

_DEEPEST = 4


def runner_of(command: str, args: Sequence[str]) -> str | None:
    """Return the runner in a command line, such as `"npx"` or `"docker run"`; `None` if it downloads nothing.

    It may stand behind `env`, `nice` and other wrappers, or be the last simple command of `sh -c "…"`.
    """
    words: Sequence[str] = [command, *args]
    for _ in range(_DEEPEST):
        program = re.split(r"[/\\]", words[0])[-1].removesuffix(".cmd").removesuffix(".exe")
        if program in _ALONE:
            return program
        if program in _WITH:
            rest = _without_options(words[1:])
            found = next((sub for sub in _WITH[program] if tuple(rest[: len(sub)]) == sub), None)
            return f"{program} {' '.join(found)}" if found else None
        if program not in _SHELLS | _WRAPPERS:
            return None
        inner = _last_command(words[1:]) if program in _SHELLS else words[1:]
        words = [*dropwhile(_SKIPPED.fullmatch, inner)]
        if not words:
            return None
    return None


def _without_options(args: Sequence[str]) -> list[str]:
    """Return the words before `--`, without options and their values."""
    before = [*takewhile(lambda arg: arg != "--", args)]
    pairs = zip(["", *before], before, strict=False)
    return [arg for option, arg in pairs if not arg.startswith("-") and option not in _VALUED]


def _last_command(args: Sequence[str]) -> list[str]:
    """Return the words of the last simple command in the script of `sh -c`."""
    script = next((args[n + 1] for n, arg in enumerate(args[:-1]) if re.fullmatch(r"-\w*c", arg)), "")
    parts = [part for part in re.split(r"&&|\|\||[;\n]", script) if part.strip()]
    try:
        return shlex.split(parts[-1]) if parts else []
    except ValueError:  # the split above cut a quoted string
        return []
