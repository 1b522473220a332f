"""The state directory: what a broker writes down of its servers, so that the next one can end what is left.

One small file for each running server. It has what a process tree is known by, and nothing of the server's
environment.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.cgroup import Cgroup
from broker.core.config import BrokerConfig
from broker.core.containers import Container
from broker.core.names import file_name
from broker.place import PlaceError, folder_of, locked
from broker.trees import Mark, look_at

_SUFFIX, _HALF_WRITTEN, _CIDFILE = ".json", ".new", ".cid"
_OWNER = "owner"
_MEND = "name another by state_dir in [broker]"
_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("mcp-broker")


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running server.

    `boot` is the boot and the pid namespace that its numbers are of. `pid` and `started` are its leader's
    (see `trees.Seen`), 0 for one that is being started. `pipes` are the inodes of its three pipes,
    `cgroup` is the path of its cgroup, which ends in its cookie. `container` is its own, where it is one.
    """

    server: str
    cookie: str
    boot: str
    pid: int = 0
    started: int = 0
    pipes: tuple[int, ...] = ()
    cgroup: str | None = None
    container: Container | None = None

    @property
    def mark(self) -> Mark:
        """By what its processes are known now, when its leader may have ended and its number be another's."""
        leader = look_at(self.pid) if self.pid else None
        is_it = leader is not None and leader.started == self.started
        return Mark(self.cookie, self.pid if is_it else None, frozenset(self.pipes), self.own_cgroup)

    @property
    def own_cgroup(self) -> Cgroup | None:
        """Its cgroup, where it has one."""
        return Cgroup(Path(self.cgroup)) if self.cgroup and self.cgroup.endswith(self.cookie) else None


def boot() -> str:
    """This boot and this pid namespace: elsewhere the same pid is another process."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{name}/{os.stat('/proc/self/ns/pid').st_ino}"


class State:
    """The records in a state directory that is held.

    Args:
        folder: the directory.
        owner: the mark that the cookies of all its brokers' servers begin with.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        self.owner = owner
        self._kept: dict[str, Record] = {}
        self._owed: dict[str, tuple[Record, Container]] = {}

    def new_cookie(self) -> str:
        """A cookie for a process that is about to be started."""
        return f"{self.owner}.{secrets.token_hex(8)}"

    def keep(self, record: Record) -> None:
        """Write a record, or a newer one of the same process: whole, or not at all.

        A directory that cannot be written, because the disk is full say, does not stop a server from being
        started: its cookie still tells whose it is.
        """
        self._kept[record.cookie] = record
        path = self._path(record)
        try:
            path.with_suffix(_HALF_WRITTEN).write_bytes(msgspec.json.encode(record))
            path.with_suffix(_HALF_WRITTEN).replace(path)
        except OSError as error:
            facts = {"server": record.server, "path": str(path), "reason": error.strerror}
            logger.warning("state.not_written", extra=facts)

    def mend(self) -> None:
        """Write everything anew where the directory was cleaned away: the next broker could else find nothing
        of what this one leaves behind, should it be killed."""
        if (self.folder / _OWNER).exists():
            return
        try:
            _make(self.folder)
            (self.folder / _OWNER).write_text(f"{self.owner}\n")
        except (OSError, PlaceError):
            return  # it is tried again, and told at the next start of a server
        logger.warning("state.written_anew", extra={"path": str(self.folder)})
        for record in list(self._kept.values()):
            self.keep(record)

    def cidfile(self, record: Record) -> Path:
        """Where the id of its container is written to, if it is one."""
        return self._path(record).with_suffix(_CIDFILE)

    def cidfiles(self) -> set[Path]:
        """Those that there are; each is of a record, unless that could not be written or read."""
        return set(self.folder.glob(f"*{_CIDFILE}"))

    def owe(self, record: Record, container: Container) -> None:
        """Its processes are gone; of its container that is not certain."""
        self._owed[record.cookie] = (record, container)

    def owed_by(self, server: str) -> list[tuple[Record, Container]]:
        """What may be left of a server's containers; it is not to be started beside them."""
        return [owed for owed in self._owed.values() if owed[0].server == server]

    def forget(self, record: Record) -> None:
        """Remove the record of a process tree that is gone, and its cgroup."""
        self._kept.pop(record.cookie, None)
        self._owed.pop(record.cookie, None)
        if cgroup := record.own_cgroup:
            cgroup.remove()
        with suppress(OSError):
            self._path(record).unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """What earlier brokers left written. What cannot be read is removed, and logged."""
        for path in self.folder.glob(f"*{_HALF_WRITTEN}"):
            path.unlink(missing_ok=True)
        found = []
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, msgspec.MsgspecError) as error:
                logger.warning("state.unreadable", extra={"path": str(path), "reason": str(error)})
                path.unlink(missing_ok=True)
        return found

    def _path(self, record: Record) -> Path:
        return self.folder / f"{file_name(record.server)}.{record.cookie.rpartition('.')[2]}{_SUFFIX}"


def state_dir_of(config: BrokerConfig, endpoint: str, environ: Mapping[str, str], folder: Path) -> Path:
    """The state directory: the config's, else one in systemd's, else one beside the socket.

    Args:
        folder: the config file's, where a relative `state_dir` starts.
    """
    if config.state_dir is not None:
        return folder / config.state_dir
    of_unit = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(of_unit):
        return Path(of_unit, "processes")
    if endpoint.startswith("ipc://"):
        return Path(endpoint.removeprefix("ipc://") + ".state")
    return folder_of(environ) / (endpoint.replace("://", "-") + ".state")


@contextmanager
def held(folder: Path) -> Iterator[State]:
    """The state in this directory, for one broker at a time.

    Raises:
        PlaceError: another broker has it, or it cannot be used.
    """
    with ExitStack() as stack:
        with _told_as_place_error(folder):
            _make(folder)
            mend = f"stop it first, or {_MEND}"
            stack.enter_context(locked(folder / "lock", f"uses the state directory {folder}; {mend}"))
            owner = _owner(folder / _OWNER)
        yield State(folder, owner)


@contextmanager
def _told_as_place_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        mend = f"free some space there, or {_MEND}" if error.errno in _FULL else _MEND
        raise PlaceError(f"the state directory {folder} cannot be used: {error.strerror}; {mend}") from error


def _make(folder: Path) -> None:
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PlaceError(f"the state directory {folder} belongs to another user; {_MEND}")
    folder.chmod(0o700)


def _owner(path: Path) -> str:
    """The mark of this directory, which outlives its brokers: each finds by it what an earlier one left."""
    with suppress(FileNotFoundError):
        owner = path.read_text().strip()
        if owner:
            return owner
    owner = secrets.token_hex(8)
    path.write_text(f"{owner}\n")
    return owner
