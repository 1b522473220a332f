"""The state directory: what a broker writes down of its servers, so that the next one can end what is left.

One small file for each running server. It has what a process tree is known by, and nothing of the server's
environment.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.config.names import file_name
from broker.config.schema import BrokerConfig
from broker.processes.cgroup import Cgroup
from broker.processes.container_options import Container, ContainerNote
from broker.processes.trees import Mark, pipes_of, stat_of, verified
from broker.service.claims import ClaimError, folder_of, locked
from client_shim.permissions import user
from client_shim.trusted import Folder, Untrusted, open_folder

_SUFFIX, _HALF_WRITTEN, _CIDFILE = ".json", ".new", ".cid"
_OWNER, _LOCK = "owner", "lock"
_OWN_MARK = re.compile(r"[0-9a-f]{16}")
_COOKIE = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{16}")
_MOST_BYTES = 65_536
"""Of a record; one takes a few hundred."""

_MEND = "name another by state_dir in [broker]"
_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("mcp-broker")


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running server.

    `boot` is the boot and the pid namespace that its numbers are of. `pid` and `started` are its leader's
    (see `trees.ProcessStat`), 0 for one that is being started. `pipes` are the inodes of its three pipes,
    `cgroup` is the path of its cgroup. `container` tells of its own, where it is one.
    """

    server: str
    cookie: str
    boot: str
    pid: int = 0
    started: int = 0
    pipes: tuple[int, ...] = ()
    cgroup: str | None = None
    container: ContainerNote | None = None

    @property
    def mark(self) -> Mark:
        """By what its processes are known now: the cookie, and what the kernel confirms of the rest.

        When the leader has ended, its number may be another's, and its pipes may be too.
        """
        leader = stat_of(self.pid) if self.pid else None
        if leader is None or leader.started != self.started or not verified(self.pid, self.cookie):
            return Mark(self.cookie, cgroup=self.own_cgroup)
        pipes = frozenset(self.pipes) & pipes_of(self.pid)
        return Mark(self.cookie, self.pid, pipes, self.own_cgroup)

    @property
    def own_cgroup(self) -> Cgroup | None:
        """Its cgroup, where it has one."""
        return Cgroup(Path(self.cgroup)) if self.cgroup else None


def boot() -> str:
    """This boot and this pid namespace: elsewhere the same pid is another process."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{name}/{os.stat('/proc/self/ns/pid').st_ino}"


class Records:
    """The records in a state directory that is held.

    Args:
        files: the directory, which nobody but this user and root can change.
        owner: the mark that the cookies of all its brokers' servers begin with.
    """

    def __init__(self, files: Folder, owner: str) -> None:
        self.folder = Path(files.path)
        self.owner = owner
        self._files = files
        self._kept: dict[str, Record] = {}
        self._owed: dict[str, tuple[Record, Container | None]] = {}

    def close(self) -> None:
        """Give the descriptor of the directory back."""
        self._files.close()

    def new_cookie(self) -> str:
        """A cookie for a process that is about to be started."""
        return f"{self.owner}.{secrets.token_hex(8)}"

    def keep(self, record: Record) -> None:
        """Write a record, or a newer one of the same process: whole, or not at all.

        A directory that cannot be written, because the disk is full say, does not stop a server from being
        started: its cookie still tells whose it is.
        """
        self._kept[record.cookie] = record
        name = _name(record) + _SUFFIX
        try:
            self._files.write(name, msgspec.json.encode(record))
        except OSError as error:
            facts = {"server": record.server, "path": self._files.where(name), "reason": error.strerror}
            logger.warning("state.not_written", extra=facts)

    def mend(self) -> None:
        """Write everything anew where the directory was cleaned away: the next broker could else find nothing
        of what this one leaves behind, should it be killed."""
        try:
            files = _opened(self.folder)
        except (OSError, ClaimError, Untrusted):
            return  # it is tried again, and told at the next start of a server
        try:
            same, there = files.is_same(self._files), _mark_in(files)
        except (OSError, Untrusted):
            files.close()
            return
        if there not in (None, self.owner) or (same and there is not None):
            files.close()  # it is as it was, or another broker's by now
            return
        self._files.close()
        self._files = files
        try:
            files.write(_OWNER, f"{self.owner}\n".encode())
        except OSError:
            return
        logger.warning("state.written_anew", extra={"path": str(self.folder)})
        for record in list(self._kept.values()):
            self.keep(record)

    def cidfile(self, record: Record) -> Path:
        """Where the id of its container is written to, if it is one."""
        return self.folder / (_name(record) + _CIDFILE)

    def cidfiles(self) -> set[Path]:
        """Those that there are; each is of a record, unless that could not be written or read."""
        return {self.folder / name for name in self._files.names() if name.endswith(_CIDFILE)}

    def owe(self, record: Record, container: Container | None) -> None:
        """Its processes are gone; of its container that is not certain.

        Args:
            container: how to remove it; `None` where only the config could tell, and does not now.
        """
        self._owed[record.cookie] = (record, container)

    def owed_by(self, server: str) -> list[tuple[Record, Container | None]]:
        """What may be left of a server's containers; it is not to be started beside them."""
        return [owed for owed in self._owed.values() if owed[0].server == server]

    def forget(self, record: Record) -> None:
        """Remove the record of a process tree that is gone, and its cgroup."""
        self._kept.pop(record.cookie, None)
        self._owed.pop(record.cookie, None)
        if cgroup := record.own_cgroup:
            cgroup.remove()
        with suppress(OSError):
            self._files.remove(_name(record) + _SUFFIX)

    def earlier(self) -> list[Record]:
        """What earlier brokers left written.

        What cannot be read is removed, and logged. What another user could have written, or what a broker
        does not write, is logged and left as it is.
        """
        found = []
        for name in sorted(self._files.names()):
            if name.endswith((_SUFFIX, _HALF_WRITTEN)):
                try:
                    found.append(self._record(name))
                except Untrusted as error:
                    facts = {"path": error.path, "reason": error.problem}
                    logger.warning("state.not_trusted", extra=facts)
                except (OSError, msgspec.MsgspecError) as error:
                    facts = {"path": self._files.where(name), "reason": str(error)}
                    logger.warning("state.unreadable", extra=facts)
                    self._files.remove(name)
        return [record for record in found if record is not None]

    def _record(self, name: str) -> Record | None:
        """The record in a file of this name; `None` for one that was never finished, which is removed."""
        content = self._files.read(name, _MOST_BYTES)
        if name.endswith(_HALF_WRITTEN):
            self._files.remove(name)
            return None
        record = msgspec.json.decode(content, type=Record)
        if not _COOKIE.fullmatch(record.cookie) or _name(record) + _SUFFIX != name:
            path = self._files.where(name)
            raise Untrusted(path, f"{path} is not what a broker writes under this name", "remove it")
        return record


def _name(record: Record) -> str:
    """What its files are called, without what comes after the last dot."""
    return f"{file_name(record.server)}.{record.cookie.rpartition('.')[2]}"


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
def hold_records(folder: Path) -> Iterator[Records]:
    """The state in this directory, for one broker at a time.

    Raises:
        ClaimError: another broker has it, or it cannot be used, or another user could change it.
    """
    with ExitStack() as stack:
        with _told_as_claim_error(folder):
            files = _opened(folder)
            stack.callback(files.close)
            mend = f"stop it first, or {_MEND}"
            stack.enter_context(locked(files, _LOCK, f"uses the state directory {folder}; {mend}"))
            records = Records(files, _owner(files))
        stack.callback(records.close)
        yield records


@contextmanager
def _told_as_claim_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except Untrusted as error:
        problem = f"the state directory {folder} cannot be used: {error.problem}"
        raise ClaimError(f"{problem}; {error.mend}, or {_MEND}") from error
    except OSError as error:
        mend = f"free some space there, or {_MEND}" if error.errno in _FULL else _MEND
        raise ClaimError(f"the state directory {folder} cannot be used: {error.strerror}; {mend}") from error


def _opened(path: Path) -> Folder:
    """The state directory, made where it is missing with the folder that it is in; it is this user's alone.

    Raises:
        ClaimError: it is another user's.
        Untrusted: another user could change it.
        OSError: it cannot be made or opened.
    """
    with open_folder(path.parent, make=1) as parent:
        folder = parent.folder(path.name, make=True)
    try:
        _close_to_others(folder)
    except BaseException:
        folder.close()
        raise
    return folder


def _close_to_others(folder: Folder) -> None:
    """Give it mode 0700, if it is one that a broker has used or may begin to use."""
    path, owner = folder.path, folder.about.st_uid
    if owner != os.geteuid():
        raise ClaimError(f"the state directory {path} belongs to {user(owner)}; {_MEND}")
    if folder.is_shared:
        mode = stat.S_IMODE(folder.about.st_mode)
        raise Untrusted(path, f"others may write to {path} (mode {mode:04o})", f"chmod go-w {path}")
    if folder.about.st_mode & 0o077 and (folder.stat(_OWNER) is not None or not folder.names()):
        os.chmod(f"/proc/self/fd/{folder.fd}", 0o700)  # an O_PATH descriptor takes no fchmod(2)


def _owner(files: Folder) -> str:
    """The mark of this directory, which outlives its brokers: each finds by it what an earlier one left."""
    owner = _mark_in(files)
    if owner is None:
        owner = secrets.token_hex(8)
        files.write(_OWNER, f"{owner}\n".encode())
    return owner


def _mark_in(files: Folder) -> str | None:
    try:
        mark = files.read(_OWNER, _MOST_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    return mark if _OWN_MARK.fullmatch(mark) else None
