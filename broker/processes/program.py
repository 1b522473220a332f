"""Which program a server is, found as the server's own PATH has it."""

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
"""What to do about a process that the kernel does not give."""


class SpawnError(Exception):
    """The server's process could not be started; the message says why and what to do."""

    cause: Cause | None = None


class NoCommand(SpawnError):
    """There is no such command in the server's PATH."""

    def __init__(self, command: str, message: str) -> None:
        super().__init__(message)
        self.cause = Cause("no-command", {"command": command})


def program_of(config: ServerConfig, *, folder: Path, environ: Mapping[str, str]) -> str:
    """The program that a server is, as an absolute path, found as the server's own PATH has it.

    Raises:
        SpawnError: there is none, it may not be run, or its folder is not there.
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
    """What to write at `key` for a command that PATH does not have. Its further words may be secrets."""
    if (cwd / command).is_file():
        return f"write ./{command} as {key}"
    first, *more = command.split() or [""]
    if more and shutil.which(first, path=path):
        return f"write only {first!r} as {key}, and its other words as args, each a string"
    return f"install it, or write its whole path as {key}"


def _no_file(program: str, command: str, table: str) -> str:
    """What to say of a path at which nothing is."""
    mend = "write the whole path instead of ~ as" if command.startswith("~") else "correct"
    if not os.path.islink(program):
        return f"there is no file {program!r}; {mend} command in {table}"
    link = f"{program!r} is a link to {os.path.realpath(program)!r}, which is not there"
    return f"{link}; make the link or its virtual environment again, or {mend} command in {table}"


def _runnable(program: str, config: ServerConfig, cwd: Path, environ: Mapping[str, str]) -> str:
    """The program, once it is known that what it names as its interpreter is there."""
    try:
        needed_by(program, cwd, environment(config, environ).get("PATH", os.defpath))
    except NotRunnable as broken:
        raise SpawnError(f"it could not be run: {broken}") from None
    return program


def _reach(path: Path, key: str) -> None:
    """Raise where a folder on the way is closed to this user: what is in it cannot be known."""
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
        pass  # not there: that has a message of its own
