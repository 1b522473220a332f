"""The folder of the gateway's Unix sockets: which gateway may use it, and who may reach what is in it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker.config.names import file_name
from broker.gateway.addresses import BACKLOG
from client_shim.permissions import ROOT, identity
from client_shim.transport.endpoint import default_endpoint
from client_shim.trusted import Folder, Untrusted, open_folder

LOCK = ".lock"


class SocketFile(NamedTuple):
    """A socket that listens, and its file: what stands there in its place is not removed."""

    plug: socket.socket
    path: Path
    file: tuple[int, int]
    """Device and inode."""

    @property
    def is_there(self) -> bool:
        """Whether its file has not been cleaned away."""
        try:
            return identity(os.stat(self.path, follow_symlinks=False)) == self.file
        except OSError:
            return False


class SocketFolder:
    """One folder, which one gateway at a time holds: a second one would take over its sockets without a word.

    Args:
        path: made with mode 0700 where it is missing; then it is opened to whom the broker's socket is.
        endpoint: of the broker, whose socket has the mode and the group for these; `None`: the default one.
    """

    def __init__(self, path: Path, endpoint: str | None) -> None:
        self._path = path
        self._endpoint = endpoint or default_endpoint()
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def claim(self) -> None:
        """Hold the folder, from the first call until `release`.

        Raises:
            Untrusted: another user could change what is in it.
            OSError: it cannot be made, or another gateway holds it.
        """
        if self._lock is None:
            with open_folder(self._path, make=1) as folder:
                self._lock = _locked(folder)

    def make(self, server: str) -> SocketFile:
        """Make the socket of a server in the claimed folder, where no other user can put another.

        Raises:
            Untrusted: another user could change what is there, or something else stands there.
            OSError: it cannot be made.
        """
        name = f"{file_name(server)}.sock"
        with open_folder(self._path, make=1) as folder:
            _remove_old(folder, name)
            plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                before = os.umask(0o177)
                try:
                    plug.bind(os.fsencode(self._path / name))  # nobody else can change where this path leads
                finally:
                    os.umask(before)
                plug.listen(BACKLOG)
                with folder.entry(name) as (fd, about):
                    self._share(folder, fd, about)
                    return SocketFile(plug, self._path / name, identity(about))
            except BaseException:
                plug.close()
                raise

    def remove(self, one: SocketFile) -> None:
        """Remove the file of a socket, unless something else is there in its place."""
        with suppress(OSError, Untrusted), open_folder(one.path.parent) as folder:
            about = folder.stat(one.path.name)
            if about is not None and identity(about) == one.file:
                folder.remove(one.path.name)

    def release(self) -> None:
        """Let another gateway have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _share(self, folder: Folder, fd: int, about: os.stat_result) -> None:
        """Open a socket, and its folder, to whom the broker's socket is open; without that file to nobody."""
        if not self._endpoint.startswith("ipc://"):
            return
        try:
            broker = os.stat(self._endpoint.removeprefix("ipc://"), follow_symlinks=False)
        except OSError:
            return
        by_descriptor = f"/proc/self/fd/{fd}"  # an O_PATH descriptor takes no fchmod(2)
        if broker.st_gid != about.st_gid:
            os.chown(by_descriptor, -1, broker.st_gid)
        os.chmod(by_descriptor, stat.S_IMODE(broker.st_mode))
        opened = sum(enter for writes, enter in ((0o020, 0o010), (0o002, 0o001)) if broker.st_mode & writes)
        if folder.about.st_uid == os.geteuid() and opened & ~folder.about.st_mode:
            os.chmod(f"/proc/self/fd/{folder.fd}", stat.S_IMODE(folder.about.st_mode) | 0o010 | opened)


def _locked(folder: Folder) -> int:
    """Return the descriptor of its locked lock file."""
    lock = folder.open(LOCK, os.O_RDWR, make=True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        hint = "stop it, or name another folder by `sockets` in gateway.toml"
        raise OSError(f"another gateway holds the folder {folder.path}; {hint}") from None
    return lock


def _remove_old(folder: Folder, name: str) -> None:
    """Remove the socket that an earlier gateway left.

    Raises:
        Untrusted: it is not a socket, or another user's.
    """
    about = folder.stat(name)
    if about is None:
        return
    if not stat.S_ISSOCK(about.st_mode) or about.st_uid not in (ROOT, os.geteuid()):
        path = folder.where(name)
        raise Untrusted(path, f"{path} is not a socket of this user", "see what made it, and remove it")
    folder.remove(name)
