"""Which program a server is, found as the server's own PATH has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from broker.core.config import ServerConfig
from broker.environment import environment


class SpawnError(Exception):
    """The server's process could not be started; the message says why and what to do."""


class NoCommand(SpawnError):
    """There is no such command in the server's PATH."""


def program_of(config: ServerConfig, *, folder: Path, environ: Mapping[str, str]) -> str:
    """The program that a server is, as an absolute path, found as the server's own PATH has it.

    Raises:
        SpawnError: there is none, it may not be run, or its folder is not there.
    """
    table = f"[servers.{config.name}]"
    cwd = folder / (config.cwd or "")
    if not cwd.is_dir():
        raise SpawnError(f"cwd {str(cwd)!r} is not a folder; correct cwd in {table}")
    if "/" not in config.command:
        path = environment(config, environ).get("PATH", os.defpath)
        found = shutil.which(config.command, path=path)
        if found is None:
            beside = (cwd / config.command).is_file()
            mend = f"write ./{config.command}" if beside else "install it, or write its whole path"
            raise NoCommand(
                f"there is no command {config.command!r} in PATH ({path}); {mend} as command in {table}"
            )
        return os.path.abspath(found)
    program = os.path.abspath(cwd / config.command)
    if not os.path.exists(program):
        tilde = config.command.startswith("~")
        mend = (
            f"write the whole path instead of ~ as command in {table}"
            if tilde
            else f"correct command in {table}"
        )
        raise SpawnError(f"there is no file {program!r}; {mend}")
    if os.path.isdir(program) or not os.access(program, os.X_OK):
        raise SpawnError(f"{program!r} may not be run; `chmod +x` it, or correct command in {table}")
    return program
