"""Opens folders and files by descriptor, and refuses those that another user could change. Linux only.

A path is resolved from `/`, one name at a time. Every check is made on the descriptor from which the next
step starts, so no folder can be replaced between its check and its use. The rules:

* Each folder belongs to root or this user, and no other user may write to it, unless it is sticky, as /tmp.
* An entry of a folder where others may write belongs to root or this user: no other user can rename it.
* A symbolic link is followed only if root or this user made it where no other user may write, as `/var/run`.

So only root and this user can change a path that was opened.

Source: open(2) on O_PATH and O_NOFOLLOW; inode(7) on the sticky bit; acl(5) on the mask.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from client_shim.permissions import EVERYBODY, ROOT, identity, is_fuse, kind_of, owners, user, writers

_LOOK = _FILE = 0
if hasattr(os, "O_PATH"):  # on other systems the module can only be imported
    _LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    _FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_MOST_LINKS = 40
"""The limit of the kernel (path_resolution(7))."""

_TRIES = 16
_NEW = ".new"


class Untrusted(Exception):
    """Another user could change the file or folder at a path, or it is of the wrong kind.

    Attributes:
        path: the file or folder at fault.
        problem: the reason, with the path.
        mend: what to do.
    """

    def __init__(self, path: str, problem: str, mend: str) -> None:
        super().__init__(f"{problem}; {mend}")
        self.path = path
        self.problem = problem
        self.mend = mend


class Folder:
    """An open folder. All its methods work by its descriptor, and follow no link.

    Args:
        path: its path, for messages and for programs that need one.
        fd: its descriptor (O_PATH); `close` closes it.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.about = os.fstat(fd)
        self._shared: bool | None = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. Closing twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def is_shared(self) -> bool:
        """Whether users other than this one and root may make files in it."""
        if self._shared is None:
            self._shared = writers(self.about, self.fd) is not None
        return self._shared

    def is_same(self, other: Folder) -> bool:
        """Return whether both are the same folder."""
        return identity(self.about) == identity(other.about)

    def where(self, name: str) -> str:
        """Return the path of an entry."""
        return os.path.join(self.path, name)

    def stat(self, name: str) -> os.stat_result | None:
        """Return the status of an entry, of a link itself; `None` if there is no such entry."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Return the names of all entries."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def folder(self, name: str, *, make: bool = False, given: bool = False) -> Folder:
        """Open a folder in this one; a link is refused.

        Args:
            make: make it, with mode 0700, if it is missing.
            given: it may belong to any user: root must have made it, for only root can write here.

        Raises:
            Untrusted: another user could change it, or it is a link.
            OSError: it cannot be opened or made.
        """
        with self.entry(name, make=make) as (fd, about):
            if stat.S_ISLNK(about.st_mode):
                path = self.where(name)
                raise Untrusted(path, f"{path} is a symbolic link", "name the folder that it leads to")
            owner = about.st_uid if given and not self.is_shared else ROOT
            return _passed(self.where(name), os.dup(fd), owner)

    @contextmanager
    def entry(self, name: str, *, make: bool = False) -> Iterator[tuple[int, os.stat_result]]:
        """Yield a descriptor (O_PATH) of an entry that no other user can replace, and its status.

        Raises:
            Untrusted: another user made it, in a folder where others may write.
            OSError: it does not exist, or cannot be opened.
        """
        fd = self._look(name, make=make)
        try:
            about = os.fstat(fd)
            self._check_owner(name, about)
            yield fd, about
        finally:
            os.close(fd)

    def open(self, name: str, flags: int = os.O_RDONLY, *, make: bool = False) -> int:
        """Open a regular file that only this user and root can change.

        Args:
            flags: flags of open(2), except those for creation.
            make: make it, with mode 0600, if it is missing.

        Raises:
            Untrusted: it is not a regular file, or another user owns it or may write to it.
            OSError: it does not exist, or cannot be opened.
        """
        for _ in range(_TRIES):
            about = self.stat(name)
            if about is not None:
                self._check_file(name, about)  # before it is opened: opening a device may have effects
                fd = os.open(name, flags | _FILE, dir_fd=self.fd)
            elif not make:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))
            else:
                try:
                    return os.open(name, flags | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self.fd)
                except FileExistsError:  # it was made meanwhile
                    continue
            try:
                self._check_file(name, os.fstat(fd), fd)
            except BaseException:
                os.close(fd)
                raise
            return fd
        raise BlockingIOError(errno.EAGAIN, "it comes and goes", self.where(name))

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file that only this user and root can change, at most `most` bytes.

        Raises:
            Untrusted: see `open`; or the file is longer.
            OSError: it does not exist, or cannot be read.
        """
        with os.fdopen(self.open(name), "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            path = self.where(name)
            raise Untrusted(path, f"{path} has more than {most} bytes", "see what made it, and remove it")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file of mode 0600 atomically.

        Raises:
            OSError: it cannot be written.
        """
        new = name + _NEW
        self.remove(new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        try:
            with os.fdopen(os.open(new, flags, 0o600, dir_fd=self.fd), "wb") as file:
                file.write(content)
            os.rename(new, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:
            with suppress(OSError):
                self.remove(new)
            raise

    def remove(self, name: str) -> None:
        """Remove an entry that is not a folder; of a link, the link itself."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def _look(self, name: str, *, make: bool) -> int:
        try:
            return os.open(name, _LOOK, dir_fd=self.fd)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.fd)
        return os.open(name, _LOOK, dir_fd=self.fd)

    def _check_owner(self, name: str, about: os.stat_result) -> None:
        """Refuse an entry that another user has made, or can rename or remove."""
        if not self.is_shared:
            return
        path = self.where(name)
        if about.st_uid not in (ROOT, os.geteuid()):
            what = f"{kind_of(about)} of {user(about.st_uid)}"
        elif stat.S_ISLNK(about.st_mode):
            what = "a symbolic link"
        elif about.st_dev != self.about.st_dev and is_fuse(about.st_dev):
            what = "a file system of some user's (FUSE)"
        else:
            return
        problem = f"{path} is {what} in a folder where others may write"
        raise Untrusted(path, problem, "see who made it and why, and remove it")

    def _check_file(self, name: str, about: os.stat_result, fd: int | None = None) -> None:
        path = self.where(name)
        if not stat.S_ISREG(about.st_mode):
            problem = f"{path} is {kind_of(about)} and has to be a regular file"
        elif about.st_uid not in (ROOT, os.geteuid()):
            problem = f"{path} belongs to {user(about.st_uid)}"
        elif about.st_nlink > 1:
            problem = f"{path} has {about.st_nlink} names (hard links), of which only one is here"
        elif (who := writers(about, fd)) is not None:
            problem = f"{who} may write to {path} (mode {stat.S_IMODE(about.st_mode):04o})"
        else:
            return
        raise Untrusted(path, problem, "see who made it and why, and remove it")


def open_folder(path: str | os.PathLike[str], *, make: int = 0) -> Folder:
    """Open a folder that no other user can change or replace.

    Args:
        path: the path of the folder; links in it are followed if no other user can have made them.
        make: how many of its last names are made, with mode 0700, if they are missing; not through a link.

    Raises:
        Untrusted: another user could change it or a folder above it.
        OSError: it cannot be opened or made.
    """
    names = [name for name in os.path.join(os.getcwd(), os.fspath(path)).split("/") if name not in ("", ".")]
    todo = [(name, at < make) for at, name in enumerate(reversed(names))]
    links, here = 0, _passed("/", os.open("/", _LOOK))
    try:
        while todo:
            name, may_make = todo.pop()
            with here.entry(name, make=may_make) as (fd, about):
                if not stat.S_ISLNK(about.st_mode):
                    shown = os.path.dirname(here.path) if name == ".." else here.where(name)
                    there = _passed(shown, os.dup(fd))
                else:
                    links += 1
                    target = _target(here.where(name), fd, about, links)
                    todo += [(one, False) for one in reversed(target.split("/")) if one not in ("", ".")]
                    if not target.startswith("/"):
                        continue
                    there = _passed("/", os.open("/", _LOOK))
            here.close()
            here = there
    except BaseException:
        here.close()
        raise
    return here


def is_safe_file(path: str) -> bool:
    """Return whether only this user and root can change or replace a file and the links that lead to it."""
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        try:
            with open_folder(folder) as opened, opened.entry(name) as (fd, about):
                if not stat.S_ISLNK(about.st_mode):
                    return about.st_uid in (ROOT, os.geteuid()) and writers(about, fd) is None
                path = os.path.join(folder, os.readlink("", dir_fd=fd))
        except (OSError, Untrusted):
            return False
    return False


def _target(path: str, fd: int, about: os.stat_result, links: int) -> str:
    """Return the target of a link, which is in a folder where no other user may write."""
    if about.st_uid not in owners():
        problem = f"{path} is a symbolic link of {user(about.st_uid)}"
        raise Untrusted(path, problem, "see who made it and why, and remove it")
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return os.readlink("", dir_fd=fd)


def _passed(path: str, fd: int, owner: int = ROOT) -> Folder:
    """Return the folder of this descriptor if it can be trusted; it closes the descriptor.

    Args:
        owner: a uid that it may belong to, besides root's and this user's.
    """
    try:
        folder = Folder(path, fd)
        _check_folder(folder, owner)
    except BaseException:
        os.close(fd)
        raise
    return folder


def _check_folder(folder: Folder, owner: int) -> None:
    about, path = folder.about, folder.path
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if about.st_uid not in {owner, *owners()}:
        problem = f"the folder {path} belongs to {user(about.st_uid)}, who can change whatever is in it"
        mend = (
            f"run this program as that user, or `chown {os.geteuid()} {path}` as root if nobody else needs it"
        )
        raise Untrusted(path, problem, mend)
    if folder.is_shared and not about.st_mode & stat.S_ISVTX:
        who = writers(about, folder.fd)
        problem = f"{who} may write to the folder {path} (mode {stat.S_IMODE(about.st_mode):04o})"
        away = f"take that away with chmod {'o-w' if who == EVERYBODY else 'g-w'} {path}"
        raise Untrusted(path, problem, f"{away}, or make it sticky, as /tmp is, with chmod +t {path}")
