"""Removes the containers of servers, which outlive the commands that run them.

Blocks for `END_S` at most: a running broker calls it in a thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from broker.config.schema import ServerConfig
from broker.processes.container_options import (
    ENGINES,
    Container,
    ContainerNote,
    id_in,
    is_gone,
    run_of,
    where_of,
)
from broker.processes.environment import common, environment
from broker.processes.program import SpawnError, program_of
from client_shim.trusted import Folder, Untrusted, is_safe_file, open_folder

END_S = 20.0
"""Time limit for an engine to remove a container, in seconds: docker waits up to ten for the kernel."""

_SAID_BYTES = 4096
_ID_BYTES = 256


class UnknownEngine(Exception):
    """No engine is known that can remove a container. A record alone is no reason to run a program."""


class Removal(NamedTuple):
    """How a container is removed: the command and its environment."""

    container: Container
    environ: Mapping[str, str]


def is_container(config: ServerConfig) -> bool:
    """Return whether a server is a container."""
    return run_of(config.command, config.args) is not None


def containerised(
    config: ServerConfig, program: str, folder: Path, cidfile: Path
) -> tuple[Container | None, tuple[str, ...]]:
    """Return how the container of a server is found later, if it is one, and the arguments to run it with.

    Args:
        program: the path of the command.
        folder: the working directory of the server.
        cidfile: the file for its id, unless the config names one.
    """
    run = run_of(config.command, config.args)
    if run is None or run.cidfile == "":
        return None, config.args
    path = folder / (run.cidfile or cidfile)
    if path.exists():  # it names another container, and the engine refuses to run one more with it
        return None, config.args
    container = Container(engine=(program, *run.options), cidfile=str(path), volumes=run.removes_itself)
    return container, run.with_cidfile(config.args, str(path))


def removal_of(
    note: ContainerNote,
    config: ServerConfig | None,
    *,
    folder: Path,
    environ: Mapping[str, str],
    cidfile: Path,
) -> Removal:
    """Return how a container that an earlier broker ran is removed.

    The engine is the one that the config has for the server now, or the `docker` or `podman` of the broker's
    own PATH. The note only decides whether that engine is the one that ran the container.

    Args:
        config: the config of the server; `None` if it is not configured any more.
        folder: the folder of the config file.
        environ: the broker's own environment.
        cidfile: the file that the broker named for the id, unless the config names one.

    Raises:
        UnknownEngine: neither engine ran it, or its id was written to another file.
    """
    files = {str(cidfile)}
    for removal in _candidates(note, config, folder, environ, files):
        program, *options = removal.container.engine
        if program.rpartition("/")[2] == note.engine and where_of(options, removal.environ) == note.where:
            if note.cidfile not in files:
                raise UnknownEngine(f"its id is in {note.cidfile}, which the config does not name")
            return removal
    raise UnknownEngine(
        f"the config has no {note.engine} with the options and variables that it was run with"
    )


def _candidates(
    note: ContainerNote,
    config: ServerConfig | None,
    folder: Path,
    environ: Mapping[str, str],
    files: set[str],
) -> Iterator[Removal]:
    """Yield the engine of the config, then the broker's own; add the file that the config names to
    `files`."""
    run = run_of(config.command, config.args) if config is not None else None
    if config is not None and run is not None:
        if run.cidfile:
            files.add(str(folder / (config.cwd or "") / run.cidfile))
        with suppress(SpawnError):
            program = program_of(config, folder=folder, environ=environ)
            engine = (program, *run.options)
            yield Removal(_noted(note, engine), environment(config, environ))
    own = _engine(note.engine, environ)
    if own is not None:
        yield Removal(_noted(note, (own,)), common(environ))


def _noted(note: ContainerNote, engine: tuple[str, ...]) -> Container:
    return Container(engine=engine, cidfile=note.cidfile, volumes=note.volumes)


def _engine(name: str, environ: Mapping[str, str]) -> str | None:
    """Return an engine in the broker's own PATH that only this user and root can replace."""
    if name not in ENGINES:
        return None
    paths = filter(os.path.isabs, environ.get("PATH", os.defpath).split(os.pathsep))
    found = (program for path in paths if (program := shutil.which(name, path=path)) is not None)
    return next(filter(is_safe_file, found), None)


def end(container: Container, environ: Mapping[str, str], timeout_s: float = END_S) -> str | None:
    """Remove a container, running or not. The command that ran it must have ended.

    Args:
        environ: the environment of the command.

    Returns:
        Why something of it may be left; `None` if nothing is.
    """
    path = container.cidfile
    try:
        with open_folder(os.path.dirname(path)) as folder:
            return _end(container, environ, timeout_s, folder, os.path.basename(path))
    except FileNotFoundError:
        return None  # the id is written before a container is started
    except Untrusted as error:
        return f"{error.problem}: the id in {path} may be any container's"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _end(
    container: Container, environ: Mapping[str, str], timeout_s: float, folder: Folder, name: str
) -> str | None:
    text = folder.read(name, _ID_BYTES).decode(errors="replace").strip()
    id = id_in(text)
    if id is None and text:
        return f"{folder.where(name)} does not hold the id of a container"
    if id is not None and (why := _remove(container.removal(id), environ, timeout_s)) is not None:
        return why
    with suppress(OSError):  # the engine would run no other container with it
        folder.remove(name)
    return None


def _remove(command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> str | None:
    """Have the engine remove a container. Return why it did not, or `None`."""
    words = " ".join(command)
    with tempfile.TemporaryFile() as said:
        try:
            status = _run(command, environ, said, timeout_s)
        except OSError as error:
            return f"`{words}` could not be run: {error.strerror}"
        said.seek(0)
        text = said.read(_SAID_BYTES).decode(errors="replace").strip()
    if status is None:
        return f"`{words}` did not end within {timeout_s:g} s"
    if status == 0 or is_gone(text):
        return None
    return f"`{words}` ended with status {status}: {' '.join(text.split())}"


def _run(command: Sequence[str], environ: Mapping[str, str], said: IO[bytes], timeout_s: float) -> int | None:
    """Run a command. Return its exit status; `None` if it took too long and was killed with its children."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=dict(environ), stdin=quiet, stdout=quiet, stderr=said, start_new_session=True
    ) as child:
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return None
