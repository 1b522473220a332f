"""The file of a socket, for as long as the broker runs.

Whoever cleans up a folder of temporary files may take it away. Who is connected does not notice, but nobody
else could reach the broker any more, not even to stop it. So it is looked after, and made anew.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.frontend.address import ANOTHER, Address, folder_for, not_bound, owner_only_umask
from broker.service.claims import ClaimError
from client_shim.permissions import ROOT, identity, user
from client_shim.trusted import Folder, Untrusted, open_folder

_BACKLOG = 1024

logger = logging.getLogger("mcp-broker")


class SocketFile:
    """The socket at a claimed address, which is this broker's own to make.

    libzmq could make it too, but would remove whatever is at its path when it ends.

    Args:
        address: where, by its path.
        another: what to do where it cannot be had, in the last resort.
    """

    def __init__(self, address: Address, another: str = ANOTHER) -> None:
        self._address = address
        self._another = another
        self._path = Path(address.endpoint.removeprefix("ipc://"))
        self._own: tuple[int, int] | None = None
        self._told: str | None = None

    def make(self) -> int:
        """The descriptor of a new socket, which listens; it can be reached by its owner only.

        Raises:
            ClaimError: there can be none.
        """
        try:
            with folder_for(self._path, self._another) as folder:
                if self._own is None:  # what an earlier broker left; later on, nothing but its own is removed
                    _remove_old(folder, self._path.name)
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                    with owner_only_umask():
                        made.bind(os.fsencode(self._path))  # nobody else can change where this path leads
                    made.listen(_BACKLOG)
                    self._own = _seen(folder, self._path.name)
                    return made.detach()
        except Untrusted as error:
            raise ClaimError(f"{error}, or {self._another}") from None
        except OSError as error:
            raise not_bound(self._address.endpoint, error.errno or 0, self._another) from None

    def remove(self) -> None:
        """Remove the file, unless another is there in its place."""
        with suppress(OSError, Untrusted), open_folder(self._path.parent) as folder:
            if self._own is not None and _seen(folder, self._path.name) == self._own:
                folder.remove(self._path.name)

    def look(self, listen: Callable[[], None]) -> None:
        """See whether it is there, and say so where it is not.

        Args:
            listen: makes it anew, listens at it, and opens it to whom the config names; raises `ClaimError`.
        """
        seen = self._there()
        if seen is not None and seen == self._own:
            self._told = None
        elif seen is not None:
            self._tell("something else is there in its place")
        else:
            try:
                listen()
            except ClaimError as error:
                self._tell(str(error))
            else:
                logger.warning("endpoint.made_anew", extra={"endpoint": self._address.endpoint})

    def _tell(self, reason: str) -> None:
        """Once, until it is well again."""
        if reason != self._told:
            self._told = reason
            logger.error("endpoint.unreachable", extra={"endpoint": self._address.endpoint, "reason": reason})

    def _there(self) -> tuple[int, int] | None:
        """What is there now; `None` is nothing."""
        try:
            return identity(self._path.lstat())
        except OSError:
            return None


def _seen(folder: Folder, name: str) -> tuple[int, int] | None:
    about = folder.stat(name)
    return None if about is None else identity(about)


def _remove_old(folder: Folder, name: str) -> None:
    """Remove the socket that an earlier broker of this user, or of root, left behind.

    Raises:
        Untrusted: it is another user's, whose broker may listen at it.
    """
    about = folder.stat(name)
    if about is None:
        return
    if not stat.S_ISSOCK(about.st_mode) or about.st_uid not in (ROOT, os.geteuid()):
        path = folder.where(name)
        raise Untrusted(path, f"{path} belongs to {user(about.st_uid)}", "see whose it is, and remove it")
    folder.remove(name)
