"""Finds secrets in imported servers, and replaces them with variables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from broker.base.secrets import PLACEHOLDER, is_secret, secrets_among


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


def replace_secrets(
    imported: Mapping[str, dict[str, object]],
    existing: Mapping[str, Mapping[str, object]],
    known: Mapping[str, str],
) -> dict[str, str]:
    """Replace the secrets in the imported tables with variables, and return their values by variable.

    Args:
        imported: tables by server; they are changed.
        existing: tables of the `broker.toml` to merge into, whose variables are kept.
        known: variables that are set already, with their values.
    """
    names = VariableNames(
        (name for table in (*existing.values(), *imported.values()) for name in variables_of(table)), known
    )
    values: dict[str, str] = {}
    for server, table in imported.items():
        env, kept = env_of(table), env_of(existing.get(server))
        for key in secrets_in(table):
            there = PLACEHOLDER.fullmatch(kept.get(key, ""))
            numbered = (variable(server, key, str(number)) for number in itertools.count(2))
            candidates = itertools.chain([variable(key), variable(server, key)], numbered)
            name = there[1] if there else names.claim(candidates, env[key])
            table["env"] = env_of(table) | {key: f"${{{name}}}"}
            values[name] = env[key]
    return values
