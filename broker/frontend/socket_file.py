"""The file of a socket, which is made anew if somebody removes it.

Connected clients would not notice, but no other client could reach the broker, not even to stop it. A lock
that cleaners of temporary files honour would not do: systemd-tmpfiles leaves live sockets alone anyway, and
`rm` and scripts honour none.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.frontend.address import ListenAddress, folder_for
from broker.frontend.permissions import owner_only_umask
from broker.frontend.port import ANOTHER, BACKLOG, not_bound
from broker.service.claims import ClaimError
from client_shim.permissions import ROOT, identity, user
from client_shim.trusted import Folder, Untrusted, open_folder

logger = logging.getLogger("mcp-broker")


class ListenSocketFile:
    """The socket file at a claimed address.

    libzmq could make it too, but at the end it would remove whatever is at its path.

    Args:
        address: the address with its path.
        another: the last advice if it cannot be used.
    """

    def __init__(self, address: ListenAddress, another: str = ANOTHER) -> None:
        self._address = address
        self._another = another
        self._path = Path(address.endpoint.removeprefix("ipc://"))
        self._own: tuple[int, int] | None = None
        self._told: str | None = None

    def make(self) -> int:
        """Return the descriptor of a new listening socket, which only its owner can reach.

        Raises:
            ClaimError: it cannot be made.
        """
        try:
            with folder_for(self._path, self._another) as folder:
                if self._own is None:  # an earlier broker's; later only its own is removed
                    _remove_old(folder, self._path.name)
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                    with owner_only_umask():
                        made.bind(os.fsencode(self._path))  # nobody else can change where this path leads
                    made.listen(BACKLOG)
                    self._own = _seen(folder, self._path.name)
                    return made.detach()
        except Untrusted as error:
            raise ClaimError(f"{error}, or {self._another}") from None
        except OSError as error:
            raise not_bound(self._address.endpoint, error.errno or 0, self._another) from None

    def remove(self) -> None:
        """Remove the file, unless another file has replaced it."""
        with suppress(OSError, Untrusted), open_folder(self._path.parent) as folder:
            if self._own is not None and _seen(folder, self._path.name) == self._own:
                folder.remove(self._path.name)

    def look(self, listen: Callable[[], None]) -> None:
        """Make the file anew if it is missing; log if another file has replaced it.

        Args:
            listen: makes it, listens at it and sets its permissions; raises `ClaimError`.
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
        """Log a reason once, until the file is there again."""
        if reason != self._told:
            self._told = reason
            logger.error("endpoint.unreachable", extra={"endpoint": self._address.endpoint, "reason": reason})

    def _there(self) -> tuple[int, int] | None:
        """Return the identity of the file at the path; `None` if it is missing."""
        try:
            return identity(self._path.lstat())
        except OSError:
            return None


def _seen(folder: Folder, name: str) -> tuple[int, int] | None:
    about = folder.stat(name)
    return None if about is None else identity(about)


def _remove_old(folder: Folder, name: str) -> None:
    """Remove the socket that an earlier broker of this user or of root left behind.

    Raises:
        Untrusted: it belongs to another user, whose broker may listen at it.
    """
    about = folder.stat(name)
    if about is None:
        return
    if not stat.S_ISSOCK(about.st_mode) or about.st_uid not in (ROOT, os.geteuid()):
        path = folder.where(name)
        raise Untrusted(path, f"{path} belongs to {user(about.st_uid)}", "see whose it is, and remove it")
    folder.remove(name)
