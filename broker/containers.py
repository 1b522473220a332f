"""Removing the containers of servers, which outlive the commands that run them.

Blocks, for `END_S` at most: a running broker calls it in a thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from broker.core.config import ServerConfig
from broker.core.containers import Container, id_in, is_gone, run_of

END_S = 20.0
"""Seconds that an engine has to remove a container: docker itself waits up to ten for the kernel."""

_SAID_BYTES = 4096


def is_one(config: ServerConfig) -> bool:
    """Whether a server is a container."""
    return run_of(config.command, config.args) is not None


def told(
    config: ServerConfig, program: str, folder: Path, cidfile: Path
) -> tuple[Container | None, tuple[str, ...]]:
    """How the container of a server will be found, where it is one, and the arguments to run it with.

    Args:
        program: the command, as it was found.
        folder: where the server runs.
        cidfile: what its id is to be written to where the config names no other file.
    """
    run = run_of(config.command, config.args)
    if run is None or run.cidfile == "":
        return None, config.args
    path = folder / (run.cidfile or cidfile)
    if path.exists():  # it names another container, and the engine refuses to run one more with it
        return None, config.args
    container = Container(engine=(program, *run.options), cidfile=str(path), volumes=run.removes_itself)
    return container, run.told(config.args, str(path))


def end(container: Container, environ: Mapping[str, str], timeout_s: float = END_S) -> str | None:
    """Remove a container, running or not. Nothing may be left of the command that has run it.

    Args:
        environ: of the command.

    Returns:
        Why there may be something left of it, or `None` where nothing is.
    """
    try:
        id = id_in(Path(container.cidfile).read_text(errors="replace"))
    except FileNotFoundError:
        return None  # the id is written before a container is started
    except OSError as error:
        return f"{container.cidfile} cannot be read: {error.strerror}"
    if id is not None and (why := _remove(container.removal(id), environ, timeout_s)) is not None:
        return why
    with suppress(OSError):  # the engine would run no other container with it
        os.unlink(container.cidfile)
    return None


def _remove(command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> str | None:
    """Have the engine remove it; what it said where it did not."""
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
    """Its exit status; `None` where it has been killed, with what it has started."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=dict(environ), stdin=quiet, stdout=quiet, stderr=said, start_new_session=True
    ) as child:
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return None
