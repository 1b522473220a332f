"""Finds the interpreter that a file names, and the usual reasons why the file cannot be run.

A script names it in its first line, a binary in its header. The reasons are Windows line ends, a virtual
environment that was moved, an interpreter that is not installed, a byte-order mark, and another platform.

Sources: execve(2), *Interpreter scripts*; fs/binfmt_script.c and fs/binfmt_elf.c of Linux; env(1); elf(5).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

_HEAD_BYTES = 256
"""The part of a file that the kernel reads (BINPRM_BUF_SIZE)."""

_DEEPEST = 5
"""The depth to which the kernel follows interpreters that are scripts themselves."""

_MARK = b"\xef\xbb\xbf"
_TRAMPOLINE = re.compile(rb"'''exec' (?:\"([^\"\n]+)\"|'([^'\n]+)'|([^\s'\"]+))")
"""The second line that pip and uv write where the first would be too long, or would contain spaces."""

_FORGIVING = ("perl",)
"""Interpreters that accept a CR behind their options."""


class NotRunnable(Exception):
    """The file cannot be run. The message says why and what to do."""


def needed_by(program: str, cwd: Path, path: str) -> list[str]:
    """Return the interpreters with which the kernel runs a file, outermost first, also behind `env`.

    Args:
        cwd: the working directory of the process.
        path: the PATH of the process.

    Raises:
        NotRunnable: the file cannot be run.
    """
    found: list[str] = []
    while len(found) < _DEEPEST:
        named = _named(found[-1] if found else program, cwd, path)
        if not named:
            break
        found += named
    return found


def _named(file: str, cwd: Path, path: str) -> list[str]:
    """Return the interpreters that one file names, without those that they name in turn."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD_BYTES)
            if head.startswith(b"\x7fELF"):
                return _of_binary(file, head + opened.read(4096 - len(head)))
            second = opened.readline(4096)
    except OSError:  # a file may be executable and not readable
        return []
    if head.startswith(_MARK + b"#!"):
        raise NotRunnable(
            f"{file} begins with a byte-order mark, which hides its first line; save it without one"
        )
    if not head.startswith(b"#!"):
        return _of_other(file, head)
    return _of_script(file, head, second, cwd, path)


def _of_other(file: str, head: bytes) -> list[str]:
    if not head.strip():
        raise NotRunnable(f"{file} is empty")
    if not _BINARY.search(head) and not _has_other_formats():
        example = "#!/usr/bin/env python3"
        raise NotRunnable(
            f"{file} is a script without a first line such as `{example}`, which says what runs it"
        )
    return []


_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def _has_other_formats() -> bool:
    """Return whether this machine runs files of further formats (binfmt_misc)."""
    try:
        return bool(set(os.listdir("/proc/sys/fs/binfmt_misc")) - {"register", "status"})
    except OSError:
        return False


def _of_script(file: str, head: bytes, second: bytes, cwd: Path, path: str) -> list[str]:
    line, newline, rest = head.partition(b"\n")
    text = os.fsdecode(line[2:]).strip(" \t")
    interpreter, *arguments = re.split(r"[ \t]+", text, maxsplit=1)
    argument = arguments[0] if arguments else ""
    if not newline and len(head) == _HEAD_BYTES and not argument:
        raise NotRunnable(f"{file} has a first line above {_HEAD_BYTES - 1} bytes, which the kernel cuts off")
    if text.endswith("\r") and not (argument and os.path.basename(interpreter) in _FORGIVING):
        wanted = re.split(r"[ \t]", text)[-1]
        raise NotRunnable(
            f"the lines of {file} end in CR LF, as Windows writes them, so that {wanted!r} is looked for; "
            rf"convert it with `sed -i 's/\r$//' {shlex.quote(file)}`"
        )
    if not interpreter:
        raise NotRunnable(
            f"{file} names nothing in its first line; write `#!/usr/bin/env python3` or the like"
        )
    found = [_existing(os.path.join(cwd, interpreter), f"the first line of {file}")]
    if os.path.basename(interpreter) == "env":
        return found + _of_env(file, argument, cwd, path)
    if trampoline := _TRAMPOLINE.match(rest + second):
        real = next(filter(None, trampoline.groups()))
        found.append(_existing(os.fsdecode(real), f"the second line of {file}"))
    return found


def _existing(interpreter: str, where: str) -> str:
    """Return an interpreter that is named by its path, if it can be run."""
    if os.path.isdir(interpreter) or (os.path.exists(interpreter) and not os.access(interpreter, os.X_OK)):
        raise NotRunnable(f"{where} names {interpreter}, which may not be run")
    if os.path.exists(interpreter) or not _is_visible(interpreter):
        return interpreter
    mend = "install it, or correct the line"
    venv = Path(interpreter).parent.parent
    if Path(interpreter).parent.name == "bin" and Path(interpreter).name.startswith(("python", "pypy")):
        mend = f"it was moved or removed: make the environment {venv} again and install the server into it"
    raise NotRunnable(f"{where} names {interpreter}{link_of(interpreter)}, which is not there; {mend}")


def link_of(path: str) -> str:
    """Return words about the target of a broken link, to follow its name; "" if the path is no link.

    The Python of a virtual environment is a link to the Python that made the environment.
    """
    return f", a link to {os.path.realpath(path)}" if os.path.islink(path) else ""


def _is_visible(path: str) -> bool:
    """Return whether this user could see the path if it existed."""
    try:
        os.lstat(path)
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _of_env(file: str, argument: str, cwd: Path, path: str) -> list[str]:
    """Return the program that `env` looks for. The kernel passes all words behind `env` as one argument."""
    words = [argument] if argument else []
    splits = re.match(r"(?:-S|--split-string[= ])\s*(.*)|-(?:v|i)*S\s*(.*)", argument)
    if splits is not None:
        try:
            words = shlex.split(splits[1] or splits[2] or "")
        except ValueError:
            return []
    command = next((word for word in words if not re.match(r"-|\w+=", word)), None)
    if command is None or any(word.startswith(("-i", "--ignore", "-C", "--chdir", "-P")) for word in words):
        return []
    if "/" in command:
        return [_existing(os.path.join(cwd, command), f"the first line of {file}")]
    if found := shutil.which(command, path=path):
        return [found]
    if splits is None and " " in command and shutil.which(command.split()[0], path=path):
        raise NotRunnable(
            f"the first line of {file} gives `env` the one word {command!r}; write `env -S {command}`"
        )
    raise NotRunnable(
        f"the first line of {file} has `env` look for {command!r}, which is not in PATH ({path}); "
        f"install it, or set PATH in env"
    )


_LOADER = re.compile(rb"\0(/[!-~]*/ld[!-~]*)\0")
"""The path in the segment PT_INTERP, which stands among the first bytes of a file."""


def _of_binary(file: str, head: bytes) -> list[str]:
    """Return the loader that an ELF file names; none if it is static."""
    found = _LOADER.search(head)
    if found is None:
        return []
    loader = os.fsdecode(found[1])
    if os.path.exists(loader):
        return [loader]
    mend = "install the program for this system"
    raise NotRunnable(f"{file} was made for another system, whose loader {loader} is not there; {mend}")
