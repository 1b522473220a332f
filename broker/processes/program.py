"""Finds the program of a server in the server's own PATH."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from broker.config.names import toml_key
from broker.config.schema import ServerConfig
from broker.core.servers.lifecycle import Cause
from broker.processes.environment import environment
from broker.processes.shebang import NotRunnable, needed_by

MENDS = {
    errno.EMFILE: "; raise the limit of open files, LimitNOFILE= of the service",
    errno.ENFILE: "; all files of this machine are open: find out who has them, with lsof",
    errno.EAGAIN: "; there are too many processes, look with ps; TasksMax= of the service is the limit",
    errno.ENOMEM: "; there is no memory left, look with free; MemoryMax= of the service is the limit",
    errno.E2BIG: "; its args and env are too long",
}
"""Advice for each errno with which the kernel refuses a new process."""


class SpawnError(Exception):
    """A server's process could not be started. The message says why and what to do."""

    cause: Cause | None = None


class NoCommand(SpawnError):
    """The command is not in the server's PATH."""

    def __init__(self, command: str, message: str) -> None:
        super().__init__(message)
        self.cause = Cause("no-command", {"command": command})


def program_of(config: ServerConfig, *, folder: Path, environ: Mapping[str, str]) -> str:
    """Return the absolute path of a server's program.

    Raises:
        SpawnError: the program or the working directory does not exist or cannot be used.
    """
    table = f"[servers.{toml_key(config.name)}]"
    cwd = folder / (config.cwd or "")
    _reach(cwd, f"cwd in {table}")
    if not cwd.is_dir():
        raise SpawnError(f"cwd {str(cwd)!r} is not a folder; correct cwd in {table}")
    if "/" not in config.command:
        path = environment(config, environ).get("PATH", os.defpath)
        found = shutil.which(config.command, path=path)
        if found is None:
            mend = _instead(config.command, cwd, path, f"command in {table}")
            message = f"there is no command {config.command!r} in PATH ({path}); {mend}"
            raise NoCommand(config.command, message)
        return _runnable(os.path.abspath(found), config, cwd, environ)
    program = os.path.abspath(cwd / config.command)
    _reach(Path(program), f"command in {table}")
    if not os.path.exists(program):
        raise SpawnError(_no_file(program, config.command, table))
    if os.path.isdir(program) or not os.access(program, os.X_OK):
        raise SpawnError(f"{program!r} may not be run; `chmod +x` it, or correct command in {table}")
    return _runnable(program, config, cwd, environ)


def _instead(command: str, cwd: Path, path: str, key: str) -> str:
    """Return what to write at `key` instead of a command that is not in PATH. Its later words may be
    secrets."""
    if (cwd / command).is_file():
        return f"write ./{command} as {key}"
    first, *more = command.split() or [""]
    if more and shutil.which(first, path=path):
        return f"write only {first!r} as {key}, and its other words as args, each a string"
    return f"install it, or write its whole path as {key}"


def _no_file(program: str, command: str, table: str) -> str:
    """Return the message about a path that does not exist."""
    mend = "write the whole path instead of ~ as" if command.startswith("~") else "correct"
    if not os.path.islink(program):
        return f"there is no file {program!r}; {mend} command in {table}"
    link = f"{program!r} is a link to {os.path.realpath(program)!r}, which is not there"
    return f"{link}; make the link or its virtual environment again, or {mend} command in {table}"


def _runnable(program: str, config: ServerConfig, cwd: Path, environ: Mapping[str, str]) -> str:
    """Return the program, if the interpreter that it names exists."""
    try:
        needed_by(program, cwd, environment(config, environ).get("PATH", os.defpath))
    except NotRunnable as broken:
        raise SpawnError(f"it could not be run: {broken}") from None
    return program


def _reach(path: Path, key: str) -> None:
    """Raise `SpawnError` if this user may not enter a folder on the way to the path."""
    try:
        path.stat()
    except PermissionError:
        real = Path(os.path.realpath(path))  # a link may lead into a closed folder too
        folders = (*reversed(path.parents), *reversed(real.parents))
        closed = next((folder for folder in folders if not os.access(folder, os.X_OK)), path)
        raise SpawnError(
            f"{str(path)!r} may not be reached by this user (uid {os.geteuid()}): {closed} is closed to it; "
            f"let it in, or correct {key}"
        ) from None
    except OSError:
        pass  # it does not exist: the caller has a message for that
