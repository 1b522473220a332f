"""Reads and writes the files of hosts, which other users must not be able to change.

A symbolic link, as dotfile managers make them, stays: the file that it leads to is replaced, in one step,
with the owner and the mode that it had.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from broker.command.attach.texts import AttachError
from broker.command.backups import backup_name
from client_shim.trusted import Folder, Untrusted, is_safe_file, open_folder

MAX_BYTES = 64 * 1024 * 1024
"""The largest file that is read: Claude Code keeps the history of projects in its own."""

_BOM = "\ufeff"


class HostFile(NamedTuple):
    """A host's file as it was read.

    Attributes:
        path: its path as the host has it.
        real: its path without symbolic links.
        mark: its byte-order mark, if any.
        text: its text after the mark.
        about: its state when it was read.
    """

    path: Path
    real: Path
    mark: str
    text: str
    about: os.stat_result


def read(path: Path) -> HostFile:
    """Read a host's file.

    Raises:
        AttachError: it cannot be read, or another user could change it.
    """
    real = Path(os.path.realpath(path))
    with _folder_of(path, real) as folder:
        try:
            fd = folder.open(real.name)
        except OSError as error:
            raise AttachError("attach_unreadable", path=path, problem=error.strerror or error) from None
        with os.fdopen(fd, "rb") as file:
            about, content = os.fstat(file.fileno()), file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise AttachError("attach_too_large", path=path, bytes=MAX_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AttachError("attach_not_utf8", path=path, problem=error.reason) from None
    mark = _BOM if text.startswith(_BOM) else ""
    return HostFile(path, real, mark, text.removeprefix(_BOM), about)


def replace(file: HostFile, text: str) -> Path:
    """Replace a host's file with this text, atomically; return the path of the backup.

    Raises:
        AttachError: the file changed after it was read, or cannot be written. It is unchanged then.
    """
    new = f".{file.real.name}.mcp-broker-{os.getpid()}"
    with _folder_of(file.path, file.real) as folder:
        _check_unchanged(folder, file)
        try:
            kept = _create(folder, backup_name(file.real.name, folder.fd), file.mark + file.text, 0o600)
            _create(folder, new, file.mark + text, file.about.st_mode & 0o7777, file.about)
            _check_unchanged(folder, file)  # the host may have written it while these came to the disk
            os.rename(new, file.real.name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        except AttachError:
            folder.remove(new)
            raise
        except OSError as error:
            folder.remove(new)
            raise AttachError("attach_unwritable", path=file.path, problem=error.strerror or error) from None
    return file.real.with_name(kept)


def check_unchanged(file: HostFile) -> None:
    """Check that nobody has changed a host's file after it was read.

    Raises:
        AttachError: somebody has.
    """
    with _folder_of(file.path, file.real) as folder:
        _check_unchanged(folder, file)


def _check_unchanged(folder: Folder, file: HostFile) -> None:
    now = folder.stat(file.real.name)
    if now is None or _state(now) != _state(file.about):
        raise AttachError("attach_changed_meanwhile", path=file.path)


@contextmanager
def _folder_of(path: Path, real: Path) -> Iterator[Folder]:
    if os.path.lexists(path) and not is_safe_file(os.path.abspath(path)):
        raise AttachError("attach_of_others", path=path)
    try:
        with open_folder(real.parent) as folder:
            yield folder
    except Untrusted as error:
        raise AttachError("attach_untrusted", problem=error.problem, mend=error.mend) from None
    except OSError as error:
        raise AttachError("attach_unreadable", path=path, problem=error.strerror or error) from None


def _state(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _create(folder: Folder, name: str, text: str, mode: int, owner: os.stat_result | None = None) -> str:
    """Create a file with this text and mode, on the disk before this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder.fd), "wb") as file:
        if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), mode)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    return name
