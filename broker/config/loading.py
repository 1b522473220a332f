"""Converts a mapping, as TOML gives it, to a frozen `Config`, or finds every mistake in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct

from broker.base.secrets import PLACEHOLDER
from broker.config.endpoints import is_endpoint, is_loopback
from broker.config.fields import mend_of
from broker.config.keys import AuthorizedKeys, KeyConfig, is_client_name
from broker.config.limits import LimitsConfig
from broker.config.names import MEND, normal, toml_key, why_not
from broker.config.schema import BrokerConfig, Config, ServerConfig
from broker.config.server_tables import TABLES, DoctorConfig, FilterConfig

_TOML_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


OF_ENVIRONMENT = {key: f"MCP_BROKER_{key.upper()}" for key in ("socket_mode", "socket_group", "state_dir")}
"""key of `[broker]` → the variable with its default. The image sets them, so that any config works there."""


class Problem(Struct, frozen=True):
    """One mistake: its TOML path, what is wrong, and the mend."""

    path: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.mend}"


MAX_PROBLEMS = 100
"""The number of mistakes that are reported: each takes time to find, and a line of the log."""


ADD_KEYS = (
    'add server_key = "server.key_secret" and authorized_keys = "authorized_keys", and make the keys with '
    "`mcp-broker keys new NAME`"
)
"""What to do about a config that lacks the two keys of clients over TCP."""

MAX_FAULTS = 5
"""The number of mistakes that are kept for one server."""


class ConfigError(Exception):
    """The config has mistakes and is not used. `problems` has all of them, or says that there are more."""

    def __init__(self, problems: list[Problem]) -> None:
        if len(problems) > MAX_PROBLEMS:
            last = Problem("and so on", "there are more mistakes", "correct these first")
            problems = [*problems[:MAX_PROBLEMS], last]
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class _Found:
    """Mistakes: `problems` refuse the whole config, `faults` leave one server out."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.faults: list[Problem] = []

    @property
    def many(self) -> bool:
        return len(self.problems) > MAX_PROBLEMS

    def all(self) -> list[Problem]:
        return sorted([*self.problems, *self.faults], key=lambda problem: problem.path)


def load(mapping: Mapping[str, Any], environ: Mapping[str, str], *, leave_out: bool = False) -> Config:
    """Return the `Config` in a mapping, with each `${VAR}` filled from `environ`.

    Args:
        leave_out: do not raise for a mistake in the values of a server: the server gets `faults` and does not
            run. An unknown key or table, and any other mistake, still raises.

    Raises:
        ConfigError: it has every mistake.
    """
    found = _Found()
    for key in mapping.keys() - set(_SECTIONS):
        found.problems.append(unknown_key(key, key, _SECTIONS))
    own = _with_defaults(mapping.get("broker", {}), environ, found.problems)
    broker = section(BrokerConfig, "broker", own, found.problems, found.problems)
    limits = section(LimitsConfig, "limits", mapping.get("limits", {}), found.problems, found.problems)
    found.problems += _endpoints(own)
    grants = dict(_grants(mapping.get("keys", {}), found.problems))
    servers = dict(_servers(mapping.get("servers", {}), environ, found))
    if found.problems or broker is None or limits is None or (found.faults and not leave_out):
        raise ConfigError(found.all())
    return Config(broker=broker, limits=limits, servers=servers, authorized=AuthorizedKeys(grants=grants))


_SECTIONS = ["broker", "limits", "keys", "servers"]


def _grants(tables: object, problems: list[Problem]) -> Iterator[tuple[str, KeyConfig]]:
    """Yield what each client with a key may do, by its name."""
    if not isinstance(tables, Mapping):
        problems.append(Problem("keys", "this must be a table", "write [keys.NAME] and its keys below it"))
        return
    seen = set[str]()
    for written, table in tables.items():
        name = normal(written)
        path = f"keys.{toml_key(name)}"
        if not is_client_name(name):
            problems.append(Problem(path, "a client cannot have this name", "write the name of its key"))
        elif name in seen:
            message = "two tables have this name, one of them in another spelling of its letters (NFC, NFD)"
            problems.append(Problem(path, message, "remove one of them"))
        seen.add(name)
        grant = section(KeyConfig, path, table, problems, problems)
        if grant is not None:
            yield name, grant


def check_endpoint(endpoint: str, named_by: str, config: BrokerConfig) -> None:
    """Check an endpoint from the command line or a variable by the rule of the config key.

    Raises:
        ConfigError: it is invalid; `named_by` says where it comes from.
    """
    problem = _refused("endpoint", endpoint, named_by)
    if problem is None and not config.has_keys:
        problem = _without_keys(endpoint, named_by)
    if problem is not None:
        raise ConfigError([problem])


def _with_defaults(table: object, environ: Mapping[str, str], problems: list[Problem]) -> object:
    """Return the table `[broker]` with the defaults that the environment has for its missing keys."""
    if not isinstance(table, Mapping):
        return table
    wanted = {key: environ[name] for key, name in OF_ENVIRONMENT.items() if environ.get(name)}
    given = {key: value for key, value in wanted.items() if key not in table}
    refused = [_refused(key, value, f"${OF_ENVIRONMENT[key]}") for key, value in given.items()]
    problems += filter(None, refused)
    return table if any(refused) else {**given, **table}


def _refused(key: str, value: str, named_by: str) -> Problem | None:
    """Return the mistake in a value for a key of `[broker]` that comes from outside the file, if any."""
    try:
        msgspec.convert(value, get_type_hints(BrokerConfig, include_extras=True)[key])
    except msgspec.ValidationError as error:
        return Problem(named_by, _plain(error), mend_of(BrokerConfig, key))
    return None


def _endpoints(table: object) -> Iterator[Problem]:
    """Yield each endpoint in `[broker]` that is there twice, or that others could use without a key."""
    written = table.get("endpoint") if isinstance(table, Mapping) else None
    listed = [one for one in (written if isinstance(written, list) else [written]) if isinstance(one, str)]
    seen = set[str]()
    for one in listed:
        place = re.sub(r"/(\.?/)+", "/", one)  # the same path may be written with `//` or `/./`
        if place in seen:
            yield Problem("broker.endpoint", f"the list has {one} twice", "remove one of them")
        seen.add(place)
    if isinstance(table, Mapping) and not {"server_key", "authorized_keys"} <= table.keys():
        yield from filter(None, (_without_keys(one, "broker.endpoint") for one in listed))


def _without_keys(endpoint: str, named_by: str) -> Problem | None:
    """Return that other machines could connect to this endpoint, which has no keys."""
    if is_endpoint(endpoint) and not is_loopback(endpoint):
        message = f"other machines may reach {endpoint}, and [broker] lacks server_key or authorized_keys"
        mend = f"{ADD_KEYS}, or write a loopback address"
        return Problem(named_by, message, mend)
    return None


def _servers(tables: object, environ: Mapping[str, str], found: _Found) -> Iterator[tuple[str, ServerConfig]]:
    if not isinstance(tables, Mapping) or not tables:
        found.problems.append(
            Problem("servers", "there is no server", 'add a table such as [servers.time] with command = "…"')
        )
        return
    seen = set[str]()
    for written, table in tables.items():
        if found.many:
            return
        name = normal(written)
        path = f"servers.{toml_key(name)}"
        if reason := why_not(name):
            found.problems.append(Problem(path, f"a server cannot have this name: {reason}", MEND))
        elif name in seen:
            message = "two servers have this name, one of them in another spelling of its letters (NFC, NFD)"
            found.problems.append(Problem(path, message, "give one of them another name"))
        seen.add(name)
        if not isinstance(table, Mapping):
            mend = f"write [{path}] and its keys below it"
            found.problems.append(Problem(path, "this must be a table", mend))
            continue
        yield name, _server(name, table, environ, found)


def _server(name: str, table: Mapping[str, Any], environ: Mapping[str, str], found: _Found) -> ServerConfig:
    """Return a server. If its table has mistakes, it has them as `faults`."""
    path, before = f"servers.{toml_key(name)}", len(found.faults)
    env = table.get("env") if table.get("enabled") is not False else None
    filled = dict(_fill(env, f"{path}.env", environ, found.faults)) if isinstance(env, Mapping) else {}
    given: dict[str, Any] = {"name": name, "variables": _variables(env) if filled else ()}
    given |= {"faults": (), "kept": False}
    for key in (one for one in TABLES if one in table):
        shape = DoctorConfig if key == "doctor" else FilterConfig
        given[key] = section(shape, f"{path}.{key}", table[key], found.problems, found.faults)
    rest = {key: value for key, value in table.items() if key not in TABLES}
    values = _values(ServerConfig, path, rest, found.problems, found.faults, given)
    if values.get("asks_within_calls"):
        _check_asking(path, values, found.faults)
    faults = tuple(map(str, sorted(found.faults[before:], key=lambda problem: problem.path)))
    return ServerConfig(**{"command": "", **values, "env": filled, "faults": _some(faults)})


def _check_asking(path: str, values: dict[str, Any], faults: list[Problem]) -> None:
    """Check the keys that `asks_within_calls` needs, and set the protocol that it implies."""
    if not values.get("serialized"):
        message = "the questions of a server with several calls at once cannot be told apart"
        faults.append(Problem(f"{path}.asks_within_calls", message, "write serialized = true beside it"))
    if values.get("protocol") == "2026-07-28":
        message = "a server of 2026-07-28 asks in its results, which needs no key"
        faults.append(Problem(f"{path}.asks_within_calls", message, "remove it, or the key protocol"))
    else:
        values["protocol"] = "legacy"


def _some(faults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first faults: they are kept, and shown with each status."""
    more = len(faults) - MAX_FAULTS
    return faults if more <= 0 else (*faults[:MAX_FAULTS], f"and {more} more mistakes")


def _variables(env: object) -> tuple[str, ...]:
    values = [value for value in env.values() if isinstance(value, str)] if isinstance(env, Mapping) else []
    return tuple(sorted({name for value in values for name in PLACEHOLDER.findall(value)}))


def _fill(
    env: Mapping[str, object], path: str, environ: Mapping[str, str], problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    """Yield `env` with each `${VAR}` replaced. A problem never contains a value, which may be a secret."""
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
                mend = (
                    f"set {variable} where the broker is started, and start it again; or write the value here"
                )
                problems.append(Problem(f"{path}.{key}", message, mend))
        yield key, PLACEHOLDER.sub(lambda match: environ.get(match[1], ""), value)


_Section = TypeVar("_Section", bound=Struct)


def section(
    shape: type[_Section], path: str, table: object, problems: list[Problem], faults: list[Problem]
) -> _Section | None:
    """Return one table; `None` if it has a mistake."""
    if not isinstance(table, Mapping):
        faults.append(Problem(path, "this must be a table", f"write [{path}] and its keys below it"))
        return None
    before = len(problems), len(faults)
    values = _values(shape, path, table, problems, faults, {})
    return shape(**values) if (len(problems), len(faults)) == before else None


def _values(
    shape: type[_Section],
    path: str,
    table: Mapping[str, Any],
    problems: list[Problem],
    faults: list[Problem],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields of a table, converted one by one so that a mistake does not hide the next.

    Args:
        problems: receives unknown keys.
        faults: receives invalid values.
        given: the values of fields that are no keys of the table.
    """
    fields = {field.name: field for field in msgspec.structs.fields(shape) if field.name not in given}
    values: dict[str, Any] = dict(given)
    for key in islice(table.keys() - fields.keys(), MAX_PROBLEMS + 1):
        problems.append(unknown_key(f"{path}.{key}", key, list(fields)))
    for key, field in fields.items():
        if key in table:
            try:
                values[key] = msgspec.convert(table[key], field.type)
            except msgspec.ValidationError as error:
                faults.append(Problem(f"{path}.{key}", _plain(error), mend_of(shape, key)))
        elif field.required:
            faults.append(Problem(f"{path}.{key}", "this key is missing", mend_of(shape, key)))
    return values


def _plain(error: msgspec.ValidationError) -> str:
    """Return msgspec's message with the words of TOML."""
    text = str(error).partition(" - at ")[0].replace("`", "")
    if "matching regex" in text:
        return "this value does not fit"
    for word, plain in _TOML_WORDS.items():
        text = re.sub(rf"\b{word}\b", plain, text)
    return text[:1].lower() + text[1:]


def unknown_key(path: str, key: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(key, known, n=1)
    mend = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
    return Problem(path, "there is no such key", mend)
