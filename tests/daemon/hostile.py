"""Another user of the machine, for tests: what he plants, and how it shows that nothing else has changed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import PATIENCE_S

STRANGER = 65534
"""`nobody`: no broker runs as him."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")

_BECOME = f"""
import ctypes, fcntl, os, socket, sys, time
os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})
os.umask(0)
"""

Snapshot = Mapping[str, tuple[Any, ...]]


def by_stranger(script: str, *arguments: object) -> None:
    """Have another user run a Python script, with `os`, `socket` and `sys.argv`."""
    command = [sys.executable, "-c", _BECOME + script, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=PATIENCE_S)


@contextmanager
def busy_stranger(script: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Another user who goes on running a script meanwhile. It says `ready` in a line of its own."""
    command = [sys.executable, "-c", _BECOME + script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
            assert process.poll() is None, "he gave up before the end"
        finally:
            process.kill()


def snapshot(*folders: Path) -> Snapshot:
    """Everything in some folders, themselves included: what it is, whose, its mode, content and times."""
    paths = (path for folder in folders for path in (folder, *sorted(folder.rglob("*"))))
    return {os.fspath(path): seen(path) for path in paths}


def seen(path: Path) -> tuple[Any, ...]:
    """What an entry is: its number, mode, user, group, size, time and content."""
    about = path.lstat()
    content: object = None
    if stat.S_ISLNK(about.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(about.st_mode):
        content = path.read_bytes()
    return (
        about.st_ino,
        about.st_mode,
        about.st_uid,
        about.st_gid,
        about.st_size,
        about.st_mtime_ns,
        content,
    )


def a_socket(path: Path) -> None:
    """A socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(os.fspath(path))


def a_device(path: Path) -> None:
    """The null device under another name."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def a_file_for_all(path: Path) -> None:
    """Everybody may write to it."""
    path.touch()
    path.chmod(0o666)


def a_folder_for_all(path: Path) -> None:
    """Everybody may make files in it."""
    path.mkdir()
    path.chmod(0o777)


def planted(victim: Path) -> dict[str, Callable[[Path], object]]:
    """What may stand at a path in the place of what belongs there; `victim` has a `file` and a `folder`."""
    return {
        "an empty file": lambda path: path.touch(0o644),
        "a file with something": lambda path: path.write_text("4194304 mine\n"),
        "a file for all": a_file_for_all,
        "a folder": lambda path: path.mkdir(0o755),
        "a folder for all": a_folder_for_all,
        "a link to a file": lambda path: path.symlink_to(victim / "file"),
        "a link to a folder": lambda path: path.symlink_to(victim / "folder"),
        "a link to nothing": lambda path: path.symlink_to(victim / "folder" / "new"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "another name of a file": lambda path: path.hardlink_to(victim / "file"),
        "a FIFO": os.mkfifo,
        "a socket": a_socket,
        **({"a device": a_device} if os.getuid() == 0 else {}),
    }


def make_victim(folder: Path) -> Path:
    """What must not change: a file, and a folder with a file in it, of this user."""
    folder.mkdir(mode=0o755)
    (folder / "file").write_text("0123456789ab\n")
    (folder / "file").chmod(0o600)
    (folder / "folder").mkdir(mode=0o755)
    (folder / "folder" / "inner").write_text("inner")
    return folder
