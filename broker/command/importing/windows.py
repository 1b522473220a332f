"""Finds Windows shells, programs, paths and variables in an entry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_SHELLS = ("cmd", "cmd.exe", "powershell", "powershell.exe", "pwsh.exe", "wsl", "wsl.exe")
_SWITCHES = re.compile(r"[/-]\w+|--\w[\w-]*", re.ASCII)
_PROGRAM = re.compile(r"\.(?:exe|cmd|bat|ps1|com)$", re.IGNORECASE)
_PROGRAM_IN = re.compile(r".*?\.(?:exe|cmd|bat|ps1|com)\b", re.IGNORECASE)
_PATH = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]:(?:\\|/(?!/))|^\\\\\w|%[A-Za-z_]\w*%|\$env:\w+", re.ASCII)
_LOST = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]:[\x07\b\t\n\v\f\r]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\t(?=\w)")


class Unusable(NamedTuple):
    """Why Linux cannot run a command: a word of `texts` with its facts."""

    word: str
    facts: dict[str, str]


def of_command(command: str, args: Sequence[object]) -> Unusable | None:
    """Return why this command cannot run on Linux."""
    base = re.split(r"[\\/]", command)[-1]
    if base.lower() in _SHELLS:
        return _of_shell(base, [arg for arg in args if isinstance(arg, str)])
    if _LOST.search(command):
        return Unusable("import_lost_backslash", {"key": "command"})
    if _PROGRAM.search(base) or _PATH.search(command):
        found = _PROGRAM_IN.match(command) or re.match(r"\S*", command)
        program = found[0] if found else ""  # without its arguments, which may contain a secret
        instead = _PROGRAM.sub("", re.split(r"[\\/]", program)[-1])
        return Unusable("import_windows_program", {"program": program, "instead": instead})
    return None


def _of_shell(shell: str, args: Sequence[str]) -> Unusable:
    """Name the program of `cmd /c npx …`, which follows the shell's own options."""
    rest = list(args)
    while rest and (_SWITCHES.fullmatch(rest[0]) or rest[0] == "--"):
        switch = rest.pop(0)
        if switch in ("-d", "--distribution", "-u", "--user", "--cd", "-ExecutionPolicy", "-File") and rest:
            rest.pop(0)
    words = rest[0].split() if rest else []
    if shell.lower() in ("wsl", "wsl.exe") and words[:1] in (["bash"], ["sh"]) and rest[-1] != words[0]:
        words = rest[-1].split()
    instead = _PROGRAM.sub("", re.split(r"[\\/]", words[0])[-1]) if words else "its program"
    return Unusable("import_windows_shell", {"shell": shell, "instead": instead})


def paths_in(key: str, texts: Iterable[object]) -> Iterator[Unusable]:
    """Yield the texts with a Windows path or variable, also if its backslash became a control character."""
    for text in texts:
        if isinstance(text, str) and (found := _LOST.search(text)):
            yield Unusable("import_lost_backslash", {"key": key, "found": repr(found[0])})
        elif isinstance(text, str) and (found := _PATH.search(text)):
            rest = "" if found[0].endswith("%") else "…"  # the rest may contain a secret
            yield Unusable("import_windows_path", {"key": key, "found": f"{found[0]}{rest}"})


def controls_in(texts: Iterable[object]) -> list[str]:
    """Return the control characters that may have been a backslash with a letter (`\\b`, `\\t`)."""
    found = {char for text in texts if isinstance(text, str) for char in _CONTROL.findall(text)}
    return sorted(repr(char)[1:-1] for char in found)
