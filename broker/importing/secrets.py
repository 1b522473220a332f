"""What of an imported server looks secret, and variables in the place of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|API_?KEY|"
    r"(^|_)(KEYS?|PASS|PWD|PAT|AUTH|DSN|COOKIE|BEARER|CREDENTIALS?|WEBHOOK)(_|$)"
)
_PLAIN_NAME = re.compile(r"^PWD$|_(PATH|FILE|DIR|FOLDER|SOCK|HOST|PORT|NAME|TYPE|MODE)$")
_SECRET_VALUE = re.compile(
    r"://[^/@\s:]*:[^/@\s]+@"  # a password in an address
    r"|^(sk-|sk_|ghp_|gho_|github_pat_|glpat-|xox[a-z]-|AKIA|AIza|hf_|eyJ[\w-]+\.|Bearer )"
)
_PLAIN_VALUE = re.compile(r"\s*|true|false|yes|no|on|off|\d{1,5}", re.IGNORECASE)
_OPTION = re.compile(r"-{0,2}([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


def variable(*parts: str) -> str:
    """A name that any shell can set, made of these."""
    name = re.sub(r"\W+", "_", "_".join(parts), flags=re.ASCII).upper().strip("_")
    return name if name[:1].isalpha() else f"MCP_{name}".rstrip("_")


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
    return [key for key, value in env_of(table).items() if _is_secret(key, value)]


def has_secret_args(args: object) -> bool:
    """Whether an argument looks like a secret: `--token x`, `API_KEY=x`, a password in an address."""
    words = [word for word in args if isinstance(word, str)] if isinstance(args, list) else []
    return any(_is_secret(name, value) for name, value in _options(words))


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        yield "", word
        option = _OPTION.fullmatch(word)
        if option and option[2] is not None:
            yield option[1], option[2]
        elif option and word.startswith("-") and not following.startswith("-"):
            yield option[1], following


def _is_secret(name: str, value: str) -> bool:
    if PLACEHOLDER.search(value) or _PLAIN_VALUE.fullmatch(value):
        return False
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").upper()
    named = _SECRET_NAME.search(name) and not _PLAIN_NAME.search(name)
    return bool(named or _SECRET_VALUE.search(value))


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
