"""Finds the program of each server and reports what prevents its start, for this user or for the service."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker.command.importing.secrets import has_secret_args, secrets_in
from broker.command.texts.chinese import told
from broker.command.texts.key_texts import say_of_keys
from broker.command.texts.words import say
from broker.command.unit import CONFIG_GROUP, Unit, group_id
from broker.config.loading import ConfigError
from broker.config.names import toml_key
from broker.config.schema import Config, ServerConfig
from broker.processes.environment import environment
from broker.processes.program import NoCommand, SpawnError, program_of
from broker.processes.shebang import needed_by
from broker.service.config_file import tables
from broker.service.keys import KeyPlaces, places_of, read_server

_OF_HOMES = (
    *(".local/bin", ".cargo/bin", ".nvm/versions/node/*/bin", ".volta/bin", ".bun/bin", ".deno/bin"),
    *(".pyenv/shims", ".asdf/shims", "miniconda3/bin", "anaconda3/bin", "bin"),
)
_OF_ALL = ("opt/*/bin", "snap/bin", "home/linuxbrew/.linuxbrew/bin")
_MOST_PLACES = 3


class CheckLine(NamedTuple):
    """One line of the report. `bad` is set if it means that a server cannot be started, `wrong` if clients
    cannot connect."""

    text: str
    bad: bool = False
    wrong: bool = False


def report(path: Path, config: Config, environ: Mapping[str, str], unit: Unit | None) -> Iterator[CheckLine]:
    """Yield the program or the fault of every server, then the faults of the config file's permissions.

    Args:
        path: the config file.
        config: its content.
        environ: the environment that the broker would have.
        unit: the service that will run the servers. Its user needs access to them.
    """
    folder = path.resolve().parent
    for server in config.servers.values():
        yield from (CheckLine(told(problem), bad=True) for problem in server.faults)
        missing = [name for name in server.variables if name not in environ]
        if unit is not None and server.faults and missing:
            lines = ", ".join(f"{name}=…" for name in missing)
            yield CheckLine("  " + say("check_variables", file=path.with_name("environment"), lines=lines))
        if server.runs:
            yield from _server(server, folder, environ, unit)
            yield from _doctor(server)
        elif not server.enabled:
            yield CheckLine(say("off", server=server.name))
    yield from _keys(path, config, unit)
    yield from _readers(path, unit)


def _keys(path: Path, config: Config, unit: Unit | None) -> Iterator[CheckLine]:
    """Yield who may connect over TCP, and what is wrong with the keys and their tables."""
    if config.broker.has_keys:
        yield from _key_files(places_of(config.broker, path), len(config.authorized.names), unit)
    else:
        ports = (one for one in config.broker.endpoints if one.startswith("tcp://"))
        yield from (CheckLine(say_of_keys("open_port", endpoint=one)) for one in ports)
    yield from (CheckLine(told(fault), wrong=True) for fault in config.authorized.faults)


def _key_files(places: KeyPlaces, count: int, unit: Unit | None) -> Iterator[CheckLine]:
    yield CheckLine(say_of_keys("clients", path=places.clients, count=count))
    try:
        read_server(places.server)
    except ConfigError as error:
        yield from (CheckLine(told(problem), wrong=True) for problem in error.problems)
    for file, needed in ((places.server, os.R_OK), (places.clients, os.R_OK | os.X_OK)):
        if unit is not None and (closed := unit.user.closed_at(file, needed)):
            facts = {"path": file, "closed": closed, "user": unit.user.name, "group": unit.user.config_group}
            yield CheckLine(say_of_keys("closed", **facts), wrong=True)
    yield from _read_by_clients(places.server, unit)


def _doctor(server: ServerConfig) -> Iterator[CheckLine]:
    """Yield that the doctor cannot call its tool, because the server's table hides that from every client."""
    tool = server.doctor.tool if server.doctor is not None else None
    if tool is not None and server.tools is not None and not server.tools.shows(tool):
        yield CheckLine(say("check_doctor_hidden", server=server.name, tool=tool))


def _server(
    server: ServerConfig, folder: Path, environ: Mapping[str, str], unit: Unit | None
) -> Iterator[CheckLine]:
    try:
        program = program_of(server, folder=folder, environ=environ)
    except SpawnError as error:
        yield CheckLine(say("runs", server=server.name, program=told(error)), bad=True)
        if isinstance(error, NoCommand):
            yield from _elsewhere(server.command, unit)
        return
    closed = next(_closed(server, program, folder, unit), None) if unit else None
    if unit is None or closed is None:
        yield CheckLine(say("runs", server=server.name, program=program))
    else:
        facts = {"server": server.name, "program": program, "path": closed, "user": unit.user.name}
        yield CheckLine(say("check_closed", **facts), bad=True)


def _closed(server: ServerConfig, program: str, folder: Path, unit: Unit) -> Iterator[Path]:
    """Yield what the service's user cannot access: folder, program, interpreter, files named as arguments."""
    cwd = folder / (server.cwd or "")
    files = {cwd: os.X_OK, Path(program): os.X_OK, Path(os.path.realpath(program)): os.X_OK}
    for interpreter in needed_by(program, cwd, environment(server, unit.environ).get("PATH", os.defpath)):
        files |= {Path(interpreter): os.X_OK, Path(os.path.realpath(interpreter)): os.X_OK}
    files |= {cwd / arg: os.R_OK for arg in server.args if "/" in arg and (cwd / arg).is_file()}
    found = (unit.user.closed_at(Path(os.path.abspath(file)), needed) for file, needed in files.items())
    return (path for path in found if path is not None)


# --- commands that are not in PATH -------------------------------------------------------------------


def _elsewhere(command: str, unit: Unit | None) -> Iterator[CheckLine]:
    """Yield where a command is installed that PATH does not have, and how to make it usable."""
    found = [*dict.fromkeys(_places(command))][:_MOST_PLACES]
    if not found:
        return
    yield CheckLine("  " + say("check_elsewhere", places=[*map(str, found)]))
    if unit is None:
        return
    usable = [place for place in found if not unit.user.closed_at(place, os.X_OK)]
    if usable:
        path = f"{unit.environ['PATH']}:{usable[0].parent}"
        yield CheckLine("  " + say("check_path", path=path))
    else:
        yield CheckLine("  " + say("check_for_all", command=command, user=unit.user.name))


def _places(command: str) -> Iterator[Path]:
    """Yield where the command is outside of a service's PATH: in this shell's PATH, and in home folders."""
    homes = [Path.home(), Path("/root"), *sorted(Path("/home").glob("*"))]
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += [found for home in homes for pattern in _OF_HOMES for found in _glob(home, pattern)]
    folders += [found for pattern in _OF_ALL for found in _glob(Path("/"), pattern)]
    return (place for folder in folders if os.access(place := folder / command, os.X_OK))


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # the home folder of another user
        return []


# --- permissions of the config file ------------------------------------------------------------------


def _readers(path: Path, unit: Unit | None) -> Iterator[CheckLine]:
    for file in unit.unread if unit else ():
        yield CheckLine(say("check_unread", path=file))
    for file, line in unit.comments if unit else ():
        yield CheckLine(say("check_comment", path=file, line=line))
    if unit is not None and (closed := unit.user.closed_at(path.resolve(), os.R_OK)):
        facts = {"path": path, "closed": closed, "user": unit.user.name, "group": unit.user.config_group}
        yield CheckLine(say("check_config_closed", **facts), bad=True)
    if path.stat().st_mode & stat.S_IROTH and (names := _secrets(path)):
        yield CheckLine(say("check_secrets", path=path, names=names))
    yield from _read_by_clients(path, unit)


def _read_by_clients(path: Path, unit: Unit | None) -> Iterator[CheckLine]:
    """Yield that every client of the service can read a file, because it has the group of the clients."""
    if unit is None or unit.user.config_group != CONFIG_GROUP:
        return
    with suppress(OSError):  # a missing file is reported elsewhere
        about = path.stat()
        if about.st_gid == group_id(unit.user.name) and about.st_mode & stat.S_IRGRP:
            yield CheckLine(say("check_clients_read", path=path, user=unit.user.name, group=CONFIG_GROUP))


def _secrets(path: Path) -> list[str]:
    """Return the keys whose plain-text values look like secrets."""
    servers = tables(path)["servers"]
    named = {toml_key(name): table for name, table in servers.items()}
    found = [f"servers.{name}.env.{key}" for name, table in named.items() for key in secrets_in(table)]
    args = [f"servers.{name}.args" for name, table in named.items() if has_secret_args(table.get("args"))]
    return found + args
