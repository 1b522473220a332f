"""From a mapping, as TOML gives it, to a frozen `Config`, or to every mistake in it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from broker.core.config import (
    NAME,
    BrokerConfig,
    Config,
    DoctorConfig,
    Endpoint,
    LimitsConfig,
    ServerConfig,
    mend_of,
)
from broker.core.secrets import PLACEHOLDER

_TOML_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


class Problem(Struct, frozen=True):
    """One mistake: the TOML path it is at, what is wrong, and the mend."""

    path: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.mend}"


MAX_PROBLEMS = 100
"""Nobody reads more at once; each is a line of the log, and to find it takes its time."""


class ConfigError(Exception):
    """The configuration has mistakes; `problems` has them all, or says that there are more. Nothing of it is
    used."""

    def __init__(self, problems: list[Problem]) -> None:
        if len(problems) > MAX_PROBLEMS:
            last = Problem("and so on", "there are more mistakes", "correct these first")
            problems = [*problems[:MAX_PROBLEMS], last]
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(mapping: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """The `Config` that `mapping` describes, its `${VAR}` filled from `environ`.

    Raises:
        ConfigError: with every mistake there is.
    """
    problems: list[Problem] = []
    for key in mapping.keys() - {"broker", "limits", "servers"}:
        problems.append(_unknown(key, key, ["broker", "limits", "servers"]))
    broker = _section(BrokerConfig, "broker", mapping.get("broker", {}), problems)
    limits = _section(LimitsConfig, "limits", mapping.get("limits", {}), problems)
    servers = dict(_servers(mapping.get("servers", {}), environ, problems))
    if problems or broker is None or limits is None:
        raise ConfigError(sorted(problems, key=lambda problem: problem.path))
    return Config(broker=broker, limits=limits, servers=servers)


def check_endpoint(endpoint: str, named_by: str) -> None:
    """Hold an endpoint that is named elsewhere to the rule for the one in the config.

    Raises:
        ConfigError: it does not fit; `named_by` is where it stands.
    """
    try:
        msgspec.convert(endpoint, Endpoint)
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(named_by, _plain(error), mend_of(BrokerConfig, "endpoint"))]) from None


def _servers(
    tables: object, environ: Mapping[str, str], problems: list[Problem]
) -> Iterator[tuple[str, ServerConfig]]:
    if not isinstance(tables, Mapping) or not tables:
        problems.append(
            Problem("servers", "there is no server", 'add a table such as [servers.time] with command = "…"')
        )
        return
    for name, table in tables.items():
        if len(problems) > MAX_PROBLEMS:
            return
        path = f"servers.{name}"
        if not NAME.fullmatch(name):
            mend = "use up to 64 letters, digits, dots, underscores and hyphens, a letter or digit first"
            problems.append(Problem(path, "a server cannot have this name", mend))
        env = table.get("env") if isinstance(table, Mapping) and table.get("enabled") is not False else None
        filled = dict(_fill(env, f"{path}.env", environ, problems)) if isinstance(env, Mapping) else {}
        variables = _variables(env) if filled else ()
        server = _section(
            ServerConfig, path, _without(table, "doctor"), problems, name=name, variables=variables
        )
        if isinstance(table, Mapping) and "doctor" in table:
            doctor = _section(DoctorConfig, f"{path}.doctor", table["doctor"], problems)
            server = server and msgspec.structs.replace(server, doctor=doctor)
        if server is not None:
            yield name, msgspec.structs.replace(server, env=filled)


def _variables(env: object) -> tuple[str, ...]:
    values = [value for value in env.values() if isinstance(value, str)] if isinstance(env, Mapping) else []
    return tuple(sorted({name for value in values for name in PLACEHOLDER.findall(value)}))


def _without(table: object, key: str) -> object:
    return {k: v for k, v in table.items() if k != key} if isinstance(table, Mapping) else table


def _fill(
    env: Mapping[str, object], path: str, environ: Mapping[str, str], problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    """`env` with each `${VAR}` replaced. A value is never part of a problem: it may be a secret."""
    for key, value in env.items():
        if "=" in key or "\0" in key or not key:
            problems.append(Problem(f"{path}.{key}", "this cannot name a variable", "use a name without `=`"))
        if not isinstance(value, str):
            continue  # the field's own type says so
        if "\0" in value:
            problems.append(Problem(f"{path}.{key}", "the value has a NUL character", "remove it"))
        for variable in PLACEHOLDER.findall(value):
            if variable not in environ:
                message = f"${{{variable}}} is not in the broker's environment"
                mend = f"set {variable} where the broker is started, or write the value here"
                problems.append(Problem(f"{path}.{key}", message, mend))
        yield key, PLACEHOLDER.sub(lambda match: environ.get(match[1], ""), value)


_Section = TypeVar("_Section", ServerConfig, DoctorConfig, BrokerConfig, LimitsConfig)


def _section(
    shape: type[_Section], path: str, table: object, problems: list[Problem], **given: Any
) -> _Section | None:
    """One table, converted field by field, so that one mistake does not hide the next."""
    if not isinstance(table, Mapping):
        problems.append(Problem(path, "this must be a table", f"write [{path}] and its keys below it"))
        return None
    fields = {field.name: field for field in msgspec.structs.fields(shape) if field.name not in given}
    found = len(problems)
    values: dict[str, Any] = dict(given)
    for key in islice(table.keys() - fields.keys(), MAX_PROBLEMS + 1):
        problems.append(_unknown(f"{path}.{key}", key, list(fields)))
    for key, field in fields.items():
        if key in table:
            try:
                values[key] = msgspec.convert(table[key], field.type)
            except msgspec.ValidationError as error:
                problems.append(Problem(f"{path}.{key}", _plain(error), mend_of(shape, key)))
        elif field.required:
            problems.append(Problem(f"{path}.{key}", "this key is missing", mend_of(shape, key)))
    return shape(**values) if len(problems) == found else None


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's words in those of TOML."""
    text = str(error).partition(" - at ")[0].replace("`", "")
    if "matching regex" in text:
        return "this value does not fit"
    for word, plain in _TOML_WORDS.items():
        text = re.sub(rf"\b{word}\b", plain, text)
    return text[:1].lower() + text[1:]


def _unknown(path: str, key: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(key, known, n=1)
    mend = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
    return Problem(path, "there is no such key", mend)
