"""Keeps what each attached entry was, so that `detach` can restore it.

The ledger is a file of mode 0600 in the user's state directory, because an entry's `env` may hold secrets. An
entry is written to it before the host's file changes, and removed only after the entry was restored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.command.attach.texts import AttachError
from client_shim.trusted import Folder, Untrusted, open_folder

NAME, LOCK = "attached.json", "attached.lock"
_MAX_BYTES = 16 * 1024 * 1024
_EARLIER = 5
_STATE_FOLDERS = 3  # .local/state/mcp-broker


class Record(Struct, frozen=True, kw_only=True):
    """An entry that was attached.

    Attributes:
        server: the server's name in `broker.toml`.
        before: the text of the entry as it was.
        after: the value that took its place.
    """

    server: str
    before: str
    after: dict[str, object]


def is_exact(value: object) -> bool:
    """Return whether the ledger keeps a value exactly, which it does not with numbers beyond a double."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (msgspec.MsgspecError, OverflowError, RecursionError, UnicodeEncodeError):
        return False


class AttachedFile(Struct, kw_only=True):
    """The attached entries of one file.

    Attributes:
        host: the host's name.
        entries: by the name that the entry has in the file.
        earlier: records that a later attach of the same entry replaced.
    """

    host: str
    entries: dict[str, Record] = {}
    earlier: list[tuple[str, Record]] = []


class Ledger:
    """The attached entries of all files, by the path of the file without symbolic links."""

    def __init__(self, folder: Folder | None, files: dict[str, AttachedFile]) -> None:
        self._folder = folder
        self.files = files

    def put(self, path: Path, host: str, records: Mapping[str, Record]) -> None:
        """Add records of a file, and save."""
        file = self.files.setdefault(str(path), AttachedFile(host=host))
        for name, record in records.items():
            if (old := file.entries.get(name)) is not None and old.before != record.before:
                file.earlier = [*file.earlier, (name, old)][-_EARLIER:]
            file.entries[name] = record
        self._save()

    def remove(self, path: Path, names: list[str]) -> None:
        """Remove records of a file, and save."""
        file = self.files[str(path)]
        for name in names:
            del file.entries[name]
        if not file.entries:
            del self.files[str(path)]
        self._save()

    @property
    def path(self) -> str:
        """Its path; empty without a folder."""
        return self._folder.where(NAME) if self._folder else ""

    def _save(self) -> None:
        if self._folder is None:
            raise ValueError("a ledger that was opened without a folder is for reading")
        try:
            self._folder.write(NAME, msgspec.json.format(msgspec.json.encode(self.files)))
        except OSError as error:
            raise AttachError("attach_unwritable", path=self.path, problem=error.strerror or error) from None


@contextmanager
def ledger(environ: Mapping[str, str], *, make: bool = True) -> Iterator[Ledger]:
    """Open the ledger of this user, for one program at a time.

    Args:
        make: make its folder if it is missing; otherwise the ledger is empty then, and for reading.

    Raises:
        AttachError: it cannot be used.
    """
    home = environ.get("HOME") or os.path.expanduser("~")
    path = Path(environ.get("XDG_STATE_HOME") or f"{home}/.local/state", "mcp-broker")
    if not make and not path.exists():
        yield Ledger(None, {})
        return
    try:
        with open_folder(path, make=_STATE_FOLDERS) as folder:
            lock = folder.open(LOCK, os.O_RDWR, make=True)
            try:
                flock(lock, LOCK_EX)
                yield Ledger(folder, _read(folder))
            finally:
                os.close(lock)
    except Untrusted as error:
        raise AttachError("attach_untrusted", problem=error.problem, mend=error.mend) from None
    except OSError as error:
        raise AttachError("attach_unwritable", path=path, problem=error.strerror or error) from None


def _read(folder: Folder) -> dict[str, AttachedFile]:
    if folder.stat(NAME) is None:
        return {}
    try:
        return msgspec.json.decode(folder.read(NAME, _MAX_BYTES), type=dict[str, AttachedFile])
    except msgspec.DecodeError as error:
        raise AttachError("attach_ledger", path=folder.where(NAME), problem=error) from None
