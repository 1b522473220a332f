"""The `mcp-broker` command and `python -m broker`. In the thin install, which has the command but not what it
runs on, this says what to install; so it needs the standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from typing import TextIO

from broker.command.words import language, say

DAEMON_PACKAGES = ("click", "msgspec", "rich", "tomli", "tomlkit", "trio", "yaml")
"""What the extra `daemon` of pyproject.toml brings, as it is imported; a test holds the two together."""

_HINT = (
    """\
mcp-broker: this Python ({prefix}) has the client shim only; the command also needs: {missing}
Install it, by the path of its checkout or wheel (the mcp-broker of the package index is another project):

    pip install '/PATH/TO/CHECKOUT[daemon]'
""",
    """\
mcp-broker：此 Python（{prefix}）只安装了客户端 shim；运行该命令还需要：{missing}
请安装，并把 /PATH/TO/CHECKOUT 换成它的源码目录或 wheel 的路径（软件包索引中的 mcp-broker 是另一个项目）：

    pip install '/PATH/TO/CHECKOUT[daemon]'
""",
)
"""English, Chinese."""


CANNOT_WRITE, INTERRUPTED = 1, 130


def main() -> int:
    """Run the command line; the exit status. Neither a bad output nor an early Ctrl-C is a traceback."""
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
            _last_word(say("no_output", problem=error.strerror or error))
        return CANNOT_WRITE
    finally:
        _leave_nothing_to_write()


def _command() -> int:
    """The command line; where the extra is not installed, say how to install it and return status 2."""
    missing = [name for name in DAEMON_PACKAGES if find_spec(name) is None]
    if missing:
        sys.stderr.write(hint(missing))
        return 2
    from broker.command.cli import main as command

    return command()


def _write_what_can_be_encoded() -> None:
    """A character that the output does not have becomes its escape; an output that is closed takes all."""
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
    """What an output still holds that takes nothing more would be one more error when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())


def hint(missing: Iterable[str]) -> str:
    """What to install, in the language of the reader."""
    return _HINT[language()].format(prefix=sys.prefix, missing=", ".join(missing))


if __name__ == "__main__":
    sys.exit(main())
