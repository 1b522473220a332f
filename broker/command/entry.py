"""The entry of the command line.

The thin install has the command but not its dependencies. This module then prints what to install, so it
imports the standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from broker import __version__
from broker.command.texts.language import language
from broker.command.texts.words import say

DISTRIBUTION = "mcp-shared-broker"
"""The name in pyproject.toml. `mcp-broker` on the package index is another project."""

DAEMON_PACKAGES = ("click", "msgspec", "rich", "tomli", "tomlkit", "trio", "yaml")
"""The packages of the extra `daemon` of pyproject.toml, by their import names. A test compares both lists."""

_HINT = (
    """\
mcp-broker: this Python ({prefix}) has the client shim only; the command also needs: {missing}
Install it:

    pip install '{requirement}[daemon]'
""",
    """\
mcp-broker：此 Python（{prefix}）只安装了客户端 shim；运行该命令还需要：{missing}
请安装：

    pip install '{requirement}[daemon]'
""",
)
"""English, Chinese."""


CANNOT_WRITE, INTERRUPTED = 1, 130


def main() -> int:
    """Run the command line and return the exit status. A closed output or Ctrl-C shows no traceback."""
    try:
        _write_what_can_be_encoded()
        try:
            return _command()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _last_word(say("interrupted"))
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None:  # of a file, so not of the output
            raise
        if not isinstance(error, BrokenPipeError):
            _last_word(say("no_output", errno=error.strerror or error))
        return CANNOT_WRITE
    finally:
        _leave_nothing_to_write()


def _command() -> int:
    """Run the command line. Without the extra, print the version, or what to install and return status 2."""
    missing = [name for name in DAEMON_PACKAGES if find_spec(name) is None]
    if missing and sys.argv[1:] == ["--version"]:
        print(f"mcp-broker, version {__version__}")
        return 0
    if missing:
        sys.stderr.write(hint(missing))
        return 2
    from broker.command.cli import main as command

    return command()


def _write_what_can_be_encoded() -> None:
    """Escape characters that the output cannot encode; replace a closed output with /dev/null."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _last_word(text: str) -> None:
    with suppress(OSError):
        print(f"mcp-broker: {text}", file=sys.stderr, flush=True)


def _leave_nothing_to_write() -> None:
    """Flush the outputs. A closed one is replaced, so that Python reports no error at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())


def hint(missing: Iterable[str]) -> str:
    """Return what to install, in the language of the reader."""
    return _HINT[language()].format(prefix=sys.prefix, missing=", ".join(missing), requirement=_requirement())


def _requirement() -> str:
    """Return what pip calls this code: the installed distribution by its name, a checkout by its path."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(DISTRIBUTION).name
    except PackageNotFoundError:
        return str(Path(__file__).resolve().parents[2])
