"""Commands that fetch a package or an image before the server runs, such as `npx`, `uvx` and `docker run`.

Their first start downloads: it takes as long as the network does, and to end it loses what was fetched.
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
"""program → the words after it, options aside, with which it fetches what it runs."""

_WRAPPERS = frozenset(
    {"env", "exec", "nice", "ionice", "nohup", "time", "timeout", "stdbuf", "setsid", "corepack"}
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh", "busybox"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_DEEPEST = 4


def runner_of(command: str, args: Sequence[str], depth: int = 0) -> str | None:
    """The runner behind a command, such as `"npx"` or `"docker run"`; `None` where it fetches nothing.

    Also behind `env`, `nice` and other wrappers, and as the last simple command of `sh -c "…"`.
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
    """The words before `--`. An option may have a value of its own, which then stands among them."""
    words = []
    for number, arg in enumerate(args):
        if arg == "--":
            break
        if not arg.startswith("-") and not (number and _takes_value(args[number - 1])):
            words.append(arg)
    return words


def _takes_value(option: str) -> bool:
    """Whether an option before the subcommand has its value behind it."""
    return option in _VALUED


_VALUED = frozenset(
    (
        *("--context", "-H", "--host", "--config", "-c", "-l", "--log-level", "--directory", "--project"),
        *("--prefix", "--cache-dir", "--config-file", "--python", "-p", "-C", "--dir", "--filter", "-w"),
        *("--workspace", "--cwd"),
    )
)


def _behind(args: Sequence[str], depth: int) -> str | None:
    """Behind a wrapper: at its first words that are neither an option, a number nor an assignment."""
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
    except ValueError:  # quotes that are open, because of what it was split at
        return None
    return _behind(words, depth)
