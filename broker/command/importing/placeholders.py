"""Variables in the entries of other hosts, as the broker writes them: `${NAME}`, in `env` only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from broker.base.secrets import PLACEHOLDER
from broker.command.importing.secrets import variable

Remark = Callable[..., None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOUBLE = re.compile(r"\$\{\{\s*([^}]*?)\s*\}\}")  # of Continue: ${{ secrets.NAME }}
_OPENCODE = re.compile(r"(?<!\$)\{(env|file):([^}]*)\}")
_DOLLAR = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_ASKED = ("input", "promptString", "user_config", "secrets", "inputs")
"""What a host asks a person for: the name behind it says what it is."""

_OF_THE_SYSTEM = frozenset(
    (
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "SHELL",
        "PWD",
        "TERM",
        "LANG",
        "TMPDIR",
        "HOSTNAME",
        "MAIL",
        "EDITOR",
    )
)
"""Variables that are set anyway: what a person was asked for is something else."""


class Variables:
    """Which variable stands for which placeholder, over all files of an import: never one for two.

    Args:
        named: the variables that entries name themselves.
    """

    def __init__(self, named: frozenset[str] = frozenset()) -> None:
        self._meant = {name: name for name in named | _OF_THE_SYSTEM}

    def of(self, inner: str) -> str:
        """The variable for what stands between the braces, where that is no name of one."""
        scheme, rest = _parted(inner)
        base = variable(rest) if scheme in _ASKED else variable(scheme, rest)
        base = base if base not in _OF_THE_SYSTEM else f"MCP_{base}"
        source = f"{scheme in _ASKED}:{rest if scheme in _ASKED else inner}"
        numbered = (f"{base}_{number}" for number in range(2, 10_000))
        return next(name for name in (base, *numbered) if self._meant.setdefault(name, source) == source)


def _parted(inner: str) -> tuple[str, str]:
    """`input:key` and `user_config.key`."""
    for mark in ":.":
        scheme, found, rest = inner.partition(mark)
        if found and (mark == ":" or scheme in _ASKED):
            return scheme, rest
    return "", inner


def named_in(value: object, seen: set[int] | None = None) -> Iterator[str]:
    """The variables that a host's entries name as such. What YAML repeats by an alias is looked at once."""
    seen = set() if seen is None else seen
    if isinstance(value, (dict, list)) and id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, str):
        for inner in PLACEHOLDER.findall(value):
            name = inner.partition(":-")[0].removeprefix("env:")
            if _NAME.fullmatch(name):
                yield name
    elif isinstance(value, dict):
        yield from (name for one in value.values() for name in named_in(one, seen))
    elif isinstance(value, list):
        yield from (name for one in value for name in named_in(one, seen))


def as_braces(text: str, host: str) -> str:
    """The text with each variable of this host in `${…}`."""
    text = _DOUBLE.sub(r"${\1}", text)
    if host == "opencode":
        text = _OPENCODE.sub(r"${\1:\2}", text)
    return _DOLLAR.sub(r"${\1}", text) if host == "gemini" else text


def of_env(key: str, text: str, known: Mapping[str, str], variables: Variables, remark: Remark) -> str:
    """The value of a variable, with `${NAME}` for what the broker has to fill in."""

    def reference(found: re.Match[str]) -> str:
        inner = found[1].strip()
        if inner in known:
            return known[inner]
        inner, default, _ = inner.partition(":-")
        name = inner.removeprefix("env:")
        if not _NAME.fullmatch(name):
            name = variables.of(inner.removeprefix("env:"))
            remark("note", "import_input", key=key, placeholder=f"${{{inner}}}", variable=name)
        if default:
            remark("warning", "import_default", key=key, variable=name)
        return f"${{{name}}}"

    return PLACEHOLDER.sub(reference, text)


def left_in(text: str) -> str | None:
    """A variable that the broker does not fill in where this text stands; of its default, nothing."""
    found = PLACEHOLDER.search(text)
    return f"${{{found[1].partition(':-')[0]}}}" if found else None


def of_each_user(text: str) -> str | None:
    """`{{NAME}}` of LibreChat, which is another text for each of its users: no shared server can have it."""
    found = re.search(r"(?<!\$)\{\{\s*[A-Z][A-Z0-9_]*\s*\}\}", text)
    return found[0] if found else None
