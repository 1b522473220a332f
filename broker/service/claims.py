"""Lock files that one broker at a time holds, and the default folder for the files of a running broker."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from client_shim.trusted import Folder

SYSTEM_FOLDER = Path("/run/mcp-broker")


class ClaimError(Exception):
    """Something that the broker needs alone cannot be used. The message says why and what to do."""


def folder_of(environ: Mapping[str, str]) -> Path:
    """Return the default folder for the files of a running broker. Clients look in the same order
    (docs/protocol.md)."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.access(SYSTEM_FOLDER, os.W_OK):
        return SYSTEM_FOLDER
    if os.path.isabs(runtime):
        return Path(runtime, "mcp-broker")
    return Path(tempfile.gettempdir(), f"mcp-broker-{os.getuid()}")


@contextmanager
def locked(folder: Folder, name: str, taken: str) -> Iterator[None]:
    """Hold the lock on a file, which contains the pid of the broker that holds it.

    Raises:
        ClaimError: another broker holds it. `taken` completes the message "a broker with pid …".
        Untrusted: another user could hold it or change it, or it is no regular file.
        OSError: it cannot be made or opened.
    """
    lock = folder.open(name, os.O_RDWR, make=True)
    try:
        pid = os.pread(lock, 64, 0).decode(errors="replace").strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClaimError(f"a broker with pid {pid or 'unknown'} {taken}") from None
        with suppress(OSError):  # on a full disk the lock holds, but without a pid
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)  # in place: no new block is needed
        yield
    finally:
        os.close(lock)
