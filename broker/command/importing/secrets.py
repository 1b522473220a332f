"""Finds secrets in imported servers, and replaces them with variables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from broker.base.secrets import PLACEHOLDER, is_secret, secrets_among
from broker.command.environment_file import can_hold


def variable(*parts: str) -> str:
    """Return a variable name that every shell accepts, made of these parts."""
    whole = "_".join(parts)
    name = re.sub(r"\W+", "_", whole, flags=re.ASCII).upper().strip("_")
    if not name:  # it has no ASCII letter
        name = sha256(whole.encode(errors="surrogatepass")).hexdigest()[:8].upper()
    return name if name[:1].isalpha() else f"MCP_{name}"


def variables_of(table: object) -> list[str]:
    """Return the variables that the broker replaces in a server's table."""
    return [name for value in env_of(table).values() for name in PLACEHOLDER.findall(value)]


def env_of(table: object) -> dict[str, str]:
    """Return the texts in `env` of a server's table."""
    env = table.get("env") if isinstance(table, Mapping) else None
    items = env.items() if isinstance(env, Mapping) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def secrets_in(table: object) -> list[str]:
    """Return the names in `env` whose plain-text values look like secrets."""
    return [key for key, value in env_of(table).items() if is_secret(key, value)]


def has_secret_args(args: object) -> bool:
    """Return whether an argument looks like a secret."""
    words = [word for word in args if isinstance(word, str)] if isinstance(args, list) else []
    return bool(secrets_among(words))


class VariableNames:
    """Allocates names of variables. One name never stands for two values.

    Args:
        taken: the names that are in use already, with a meaning that is not known.
        known: names with their values.
    """

    def __init__(self, taken: Iterable[str], known: Mapping[str, str] | None = None) -> None:
        self._meanings: dict[str, object] = {**dict.fromkeys(taken, object()), **(known or {})}

    def claim(self, names: Iterable[str], meaning: object) -> str:
        """Return the first of these names that is free or has this meaning already."""
        return next(name for name in names if self._meanings.setdefault(name, meaning) == meaning)


class Variables(NamedTuple):
    """The variables of an import: which ones the servers use, and which values are to be set.

    Attributes:
        users: the servers that use each variable, by variable.
        new: the variables that get their values from the import.
        changed: the variables that keep another value than the import has.
        missing: the variables whose values the operator has to add.
    """

    users: dict[str, list[str]]
    new: dict[str, str]
    changed: list[str]
    missing: list[str]


def variables_for(
    servers: Mapping[str, object], secrets: Mapping[str, str], known: Mapping[str, str]
) -> Variables:
    """Return the variables of these servers.

    Args:
        servers: the tables to write, by server.
        secrets: the values of the import, by variable.
        known: the variables that are set already, with their values.
    """
    users: dict[str, list[str]] = {}
    for server, table in servers.items():
        for name in dict.fromkeys(variables_of(table)):
            users.setdefault(name, []).append(server)
    new = {name: value for name, value in secrets.items() if name not in known and can_hold(value)}
    changed = [name for name, value in secrets.items() if known.get(name, value) != value]
    missing = [name for name in sorted(users) if name not in known and name not in new]
    return Variables(users, new, changed, missing)


def replace_secrets(
    imported: Iterable[tuple[str, dict[str, object]]],
    existing: Mapping[str, Mapping[str, object]],
    known: Mapping[str, str],
) -> dict[str, str]:
    """Replace the secrets in the imported tables with variables, and return their values by variable.

    A secret that a server of `existing` has as a variable keeps that variable, unless another server uses it
    with another value. A variable whose value all its servers change is given to no further server.

    Args:
        imported: servers with their tables, which are changed.
        existing: tables of the `broker.toml` to merge into.
        known: variables that are set already, with their values.
    """
    tables = list(imported)
    used = [
        name
        for table in (*existing.values(), *(table for _, table in tables))
        for name in variables_of(table)
    ]
    given = _given(tables, existing, known)
    unchanged = {name: value for name, value in known.items() if value in given.get(name, {value})}
    names = VariableNames(used, unchanged)
    values: dict[str, str] = {}
    for server, table in tables:
        env, kept = env_of(table), env_of(existing.get(server))
        for key in secrets_in(table):
            value = env[key]
            there = PLACEHOLDER.fullmatch(kept.get(key, ""))
            if there and (known.get(there[1]) == value or given[there[1]] <= {value}):
                name = there[1]
            else:
                numbered = (variable(server, key, str(number)) for number in itertools.count(2))
                name = names.claim(itertools.chain([variable(key), variable(server, key)], numbered), value)
            table["env"] = env_of(table) | {key: f"${{{name}}}"}
            values[name] = value
    return values


def _given(
    imported: Iterable[tuple[str, Mapping[str, object]]],
    existing: Mapping[str, Mapping[str, object]],
    known: Mapping[str, str],
) -> dict[str, set[str]]:
    """Return the values that the servers of `existing` have for each of its variables after the import."""
    secrets: dict[tuple[str, str], set[str]] = {}
    for server, table in imported:
        for key in secrets_in(table):
            secrets.setdefault((server, key), set()).add(env_of(table)[key])
    given: dict[str, set[str]] = {}
    for server, table in existing.items():
        for key, value in env_of(table).items():
            for name in PLACEHOLDER.findall(value):
                unchanged = {known[name]} if name in known else set[str]()
                given.setdefault(name, set()).update(secrets.get((server, key), unchanged))
    return given
