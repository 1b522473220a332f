"""The file of the broker's socket, for as long as the broker runs.

Whoever cleans up a folder of temporary files may take it away. Who is connected does not notice, but nobody
else could reach the broker any more, not even to stop it. So it is looked after, and made anew.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.place import Place, PlaceError, check_folder, closed_umask, not_bound

_BACKLOG = 1024

logger = logging.getLogger("mcp-broker")


class SocketFile:
    """The socket at a claimed place, which is this broker's own to make.

    libzmq could make it too, but would remove whatever is at its path when it ends.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._path = Path(place.endpoint.removeprefix("ipc://"))
        self._own: tuple[int, int] | None = None
        self._told: str | None = None

    def make(self) -> int:
        """The descriptor of a new socket, which listens; it can be reached by its owner only.

        Raises:
            PlaceError: there can be none.
        """
        try:
            check_folder(self._path)
            if self._own is None:  # what an earlier broker left; later on, nothing but its own is removed
                self._path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                with closed_umask():
                    made.bind(os.fsencode(self._path))
                made.listen(_BACKLOG)
                self._own = self._seen()
                return made.detach()
        except OSError as error:
            raise not_bound(self._place.endpoint, error.errno or 0) from None

    def remove(self) -> None:
        """Remove the file, unless another is there in its place."""
        if self._own is not None and self._seen() == self._own:
            with suppress(OSError):
                self._path.unlink()

    def look(self, listen: Callable[[], None]) -> None:
        """See whether it is there, and say so where it is not.

        Args:
            listen: makes it anew, listens at it, and opens it to whom the config names; raises `PlaceError`.
        """
        seen = self._seen()
        if seen == self._own:
            self._told = None
        elif seen is not None:
            self._tell("something else is there in its place")
        else:
            try:
                listen()
            except PlaceError as error:
                self._tell(str(error))
            else:
                logger.warning("endpoint.made_anew", extra={"endpoint": self._place.endpoint})

    def _tell(self, reason: str) -> None:
        """Once, until it is well again."""
        if reason != self._told:
            self._told = reason
            logger.error("endpoint.unreachable", extra={"endpoint": self._place.endpoint, "reason": reason})

    def _seen(self) -> tuple[int, int] | None:
        """What is there now; `None` is nothing."""
        try:
            status = self._path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
