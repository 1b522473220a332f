"""Converts the variables in hosts' entries to the broker's form: `${NAME}`, in `env` only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping

from broker.base.secrets import PLACEHOLDER
from broker.command.importing.secrets import VariableNames, variable

Remark = Callable[..., None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOUBLE = re.compile(r"\$\{\{\s*([^}]*?)\s*\}\}")  # of Continue: ${{ secrets.NAME }}
_OPENCODE = re.compile(r"(?<!\$)\{(env|file):([^}]*)\}")
_DOLLAR = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_ASKED = ("input", "promptString", "user_config", "secrets", "inputs")
"""The schemes of values that a host asks the user for; the name of the value follows."""

SYSTEM_VARIABLES = frozenset(
    (
        *("HOME", "PATH", "USER", "LOGNAME", "SHELL", "PWD"),
        *("TERM", "LANG", "TMPDIR", "HOSTNAME", "MAIL", "EDITOR"),
    )
)
"""The variables that are always set, and so cannot stand for a value that the user was asked for."""


def variable_of(inner: str, names: VariableNames) -> str:
    """Return the variable for the text between the braces, if that is not a variable's name itself."""
    scheme, rest = _scheme_of(inner)
    asked = scheme in _ASKED
    base = variable(rest) if asked else variable(scheme, rest)
    base = base if base not in SYSTEM_VARIABLES else f"MCP_{base}"
    numbered = (f"{base}_{number}" for number in itertools.count(2))
    return names.claim(itertools.chain([base], numbered), (asked, rest if asked else inner))


def _scheme_of(inner: str) -> tuple[str, str]:
    """Split `input:key` and `user_config.key`."""
    for mark in ":.":
        scheme, found, rest = inner.partition(mark)
        if found and (mark == ":" or scheme in _ASKED):
            return scheme, rest
    return "", inner


def named_in(value: object, seen: set[int] | None = None) -> Iterator[str]:
    """Yield the variables that a host's entries name. A value that YAML repeats by an alias is read once."""
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
    """Return the text with every variable of this host as `${…}`."""
    text = _DOUBLE.sub(r"${\1}", text)
    if host == "opencode":
        text = _OPENCODE.sub(r"${\1:\2}", text)
    return _DOLLAR.sub(r"${\1}", text) if host == "gemini" else text


def of_env(key: str, text: str, known: Mapping[str, str], names: VariableNames, remark: Remark) -> str:
    """Return a value of `env`, with `${NAME}` for what the broker has to fill in."""

    def reference(found: re.Match[str]) -> str:
        inner = found[1].strip()
        if inner in known:
            return known[inner]
        inner, default, _ = inner.partition(":-")
        name = inner.removeprefix("env:")
        if not _NAME.fullmatch(name):
            name = variable_of(inner.removeprefix("env:"), names)
            remark("note", "import_input", key=key, placeholder=f"${{{inner}}}", variable=name)
        if default:
            remark("warning", "import_default", key=key, variable=name)
        return f"${{{name}}}"

    return PLACEHOLDER.sub(reference, text)


def left_in(text: str) -> str | None:
    """Return the first variable in a text, without its default; `None` without one."""
    found = PLACEHOLDER.search(text)
    return f"${{{found[1].partition(':-')[0]}}}" if found else None


def of_each_user(text: str) -> str | None:
    """Return the first `{{NAME}}` of LibreChat: it differs per user, so a shared server cannot have it."""
    found = re.search(r"(?<!\$)\{\{\s*[A-Z][A-Z0-9_]*\s*\}\}", text)
    return found[0] if found else None
