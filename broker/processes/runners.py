"""Commands that download a package or an image before the server runs: `npx`, `uvx`, `docker run` and others.

Their first start takes as long as the download, and ending it loses what was downloaded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

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
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_DEEPEST = 4


def runner_of(command: str, args: Sequence[str], depth: int = 0) -> str | None:
    """Return the runner in a command line, such as `"npx"` or `"docker run"`; `None` if it downloads nothing.

    It may stand behind `env`, `nice` and other wrappers, or be the last simple command of `sh -c "…"`.
    """
    program = re.split(r"[/\\]", command)[-1].removesuffix(".cmd").removesuffix(".exe")
    if program in _ALONE:
        return program
    if program in _WITH:
        words = _words(args)
        found = next((one for one in _WITH[program] if tuple(words[: len(one)]) == one), None)
        return f"{program} {' '.join(found)}" if found else None
    if depth >= _DEEPEST:
        return None
    if program in _SHELLS:
        return _in_script(args, depth)
    if program in _WRAPPERS:
        return _behind(args, depth)
    return None


def _words(args: Sequence[str]) -> list[str]:
    """Return the words before `--`, without options and their values."""
    words = []
    for number, arg in enumerate(args):
        if arg == "--":
            break
        if not arg.startswith("-") and not (number and args[number - 1] in _VALUED):
            words.append(arg)
    return words


_VALUED = frozenset(
    (
        *("--context", "-H", "--host", "--config", "-c", "-l", "--log-level", "--directory", "--project"),
        *("--prefix", "--cache-dir", "--config-file", "--python", "-p", "-C", "--dir", "--filter", "-w"),
        *("--workspace", "--cwd"),
    )
)
"""Options before the subcommand that have a value."""


def _behind(args: Sequence[str], depth: int) -> str | None:
    """Return the runner behind a wrapper, at the first word that is no option, number or assignment."""
    for number, arg in enumerate(args):
        if not arg.startswith("-") and not _ASSIGNMENT.match(arg) and not re.fullmatch(r"[\d.]+[smhd]?", arg):
            return runner_of(arg, args[number + 1 :], depth + 1)
    return None


def _in_script(args: Sequence[str], depth: int) -> str | None:
    script = next((args[n + 1] for n, arg in enumerate(args[:-1]) if re.fullmatch(r"-\w*c", arg)), None)
    if script is None:
        return None
    last = [part for part in re.split(r"&&|\|\||[;\n]", script) if part.strip()][-1:]
    try:
        words = shlex.split(last[0]) if last else []
    except ValueError:  # the split above cut a quoted string
        return None
    return _behind(words, depth)
