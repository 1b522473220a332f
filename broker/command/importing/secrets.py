"""What of an imported server looks secret, and variables in the place of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from broker.base.secrets import PLACEHOLDER, is_secret, secrets_among


def variable(*parts: str) -> str:
    """A name that any shell can set, made of these."""
    whole = "_".join(parts)
    name = re.sub(r"\W+", "_", whole, flags=re.ASCII).upper().strip("_")
    if not name:  # in letters that no shell takes
        name = sha256(whole.encode(errors="surrogatepass")).hexdigest()[:8].upper()
    return name if name[:1].isalpha() else f"MCP_{name}"


def variables_of(table: object) -> list[str]:
    """The variables that the broker fills in a server's table."""
    return [name for value in env_of(table).values() for name in PLACEHOLDER.findall(value)]


def env_of(table: object) -> dict[str, str]:
    """The environment of a server's table, as far as it is text."""
    env = table.get("env") if isinstance(table, Mapping) else None
    items = env.items() if isinstance(env, Mapping) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def secrets_in(table: object) -> list[str]:
    """The names in `env` whose values look secret and stand there in plain text."""
    return [key for key, value in env_of(table).items() if is_secret(key, value)]


def has_secret_args(args: object) -> bool:
    """Whether an argument looks like a secret."""
    words = [word for word in args if isinstance(word, str)] if isinstance(args, list) else []
    return bool(secrets_among(words))


class Variables:
    """Which variable stands for which secret: one variable never stands for two."""

    def __init__(self, existing: Mapping[str, object], imported: Iterable[object]) -> None:
        """Of tables that are there already, by their servers' names, and of those that are imported."""
        self._there = {name: env_of(table) for name, table in existing.items()}
        self._used = {name for table in (*existing.values(), *imported) for name in variables_of(table)}
        self._values: dict[str, str] = {}

    def put(self, server: str, table: dict[str, object]) -> None:
        """Put variables in the place of the secrets of this table."""
        secret = secrets_in(table)
        if secret:
            env = env_of(table)
            table["env"] = env | {key: self._stand_in(server, key, env[key]) for key in secret}

    def _stand_in(self, server: str, key: str, value: str) -> str:
        there = self._there.get(server, {}).get(key, "")
        return there if PLACEHOLDER.fullmatch(there) else f"${{{self._claim(server, key, value)}}}"

    def _claim(self, server: str, key: str, value: str) -> str:
        numbered = (variable(server, key, str(number)) for number in itertools.count(2))
        names = itertools.chain([variable(key), variable(server, key)], numbered)
        free = (name for name in names if name not in self._used)
        return next(name for name in free if self._values.setdefault(name, value) == value)
