"""The state directory: a record of each running server, by which the next broker ends what is left of it.

A record is a small file with the marks of the process tree, and nothing of the server's environment.
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


class ProcessRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running server.

    The numbers are valid in the boot and pid namespace `boot`. `pid` and `started` are those of the leader
    (`trees.ProcessStat`), 0 while it is being started. `pipes` are the inodes of its three pipes, `cgroup` is
    the path of its cgroup. `container` is about the container that it runs, if it runs one.
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
        """The marks of its processes now: the cookie, and what the kernel confirms of the rest.

        Once the leader has ended, its pid and its pipes may belong to another process.
        """
        leader = stat_of(self.pid) if self.pid else None
        if leader is None or leader.started != self.started or not verified(self.pid, self.cookie):
            return Mark(self.cookie, cgroup=self.own_cgroup)
        pipes = frozenset(self.pipes) & pipes_of(self.pid)
        return Mark(self.cookie, self.pid, pipes, self.own_cgroup)

    @property
    def own_cgroup(self) -> Cgroup | None:
        """Its cgroup, if it has one."""
        return Cgroup(Path(self.cgroup)) if self.cgroup else None


def boot() -> str:
    """Return the name of this boot and pid namespace: elsewhere the same pid is another process."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{name}/{os.stat('/proc/self/ns/pid').st_ino}"


class Records:
    """The records in a state directory that this broker holds.

    Args:
        files: the directory, which only this user and root can change.
        owner: the prefix of the cookies of all servers of its brokers.
    """

    def __init__(self, files: Folder, owner: str) -> None:
        self.folder = Path(files.path)
        self.owner = owner
        self._files = files
        self._kept: dict[str, ProcessRecord] = {}
        self._owed: dict[str, tuple[ProcessRecord, Container | None]] = {}

    def close(self) -> None:
        """Close the descriptor of the directory."""
        self._files.close()

    def new_cookie(self) -> str:
        """Return a cookie for a process that is about to be started."""
        return f"{self.owner}.{secrets.token_hex(8)}"

    def keep(self, record: ProcessRecord) -> None:
        """Write a record, or a newer one of the same process, atomically.

        If it cannot be written, because the disk is full say, the server is started nevertheless: the next
        broker finds it by the owner in its cookie.
        """
        self._kept[record.cookie] = record
        name = _name(record) + _SUFFIX
        try:
            self._files.write(name, msgspec.json.encode(record))
        except OSError as error:
            facts = {"server": record.server, "path": self._files.where(name), "reason": error.strerror}
            logger.warning("state.not_written", extra=facts)

    def mend(self) -> None:
        """Write everything anew if the directory was cleaned away: otherwise the next broker could find
        nothing that this one leaves behind if it is killed."""
        try:
            files = _opened(self.folder)
        except (OSError, ClaimError, Untrusted):
            return  # the next look tries again; the next start of a server logs it
        try:
            same, there = files.is_same(self._files), _mark_in(files)
        except (OSError, Untrusted):
            files.close()
            return
        if there not in (None, self.owner) or (same and there is not None):
            files.close()  # it is unchanged, or another broker's by now
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

    def cidfile(self, record: ProcessRecord) -> Path:
        """Return the file to which the id of its container is written."""
        return self.folder / (_name(record) + _CIDFILE)

    def cidfiles(self) -> set[Path]:
        """Return the existing ones. Each has a record, unless that could not be written or read."""
        return {self.folder / name for name in self._files.names() if name.endswith(_CIDFILE)}

    def owe(self, record: ProcessRecord, container: Container | None) -> None:
        """Remember that its processes are gone, but perhaps not its container.

        Args:
            container: how to remove it; `None` if its engine is unknown.
        """
        self._owed[record.cookie] = (record, container)

    def owed_by(self, server: str) -> list[tuple[ProcessRecord, Container | None]]:
        """Return the containers of a server that may be left: it must not be started beside them."""
        return [owed for owed in self._owed.values() if owed[0].server == server]

    def forget(self, record: ProcessRecord) -> None:
        """Remove the record of a process tree that is gone, and its cgroup."""
        self._kept.pop(record.cookie, None)
        self._owed.pop(record.cookie, None)
        if cgroup := record.own_cgroup:
            cgroup.remove()
        with suppress(OSError):
            self._files.remove(_name(record) + _SUFFIX)

    def earlier(self) -> list[ProcessRecord]:
        """Return the records of earlier brokers.

        A file that cannot be read is logged and removed. A file that another user could have written, or
        that no broker writes, is logged and left alone.
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

    def _record(self, name: str) -> ProcessRecord | None:
        """Return the record in a file; `None` for a half-written one, which is removed."""
        content = self._files.read(name, _MOST_BYTES)
        if name.endswith(_HALF_WRITTEN):
            self._files.remove(name)
            return None
        record = msgspec.json.decode(content, type=ProcessRecord)
        if not _COOKIE.fullmatch(record.cookie) or _name(record) + _SUFFIX != name:
            path = self._files.where(name)
            raise Untrusted(path, f"{path} is not what a broker writes under this name", "remove it")
        return record


def _name(record: ProcessRecord) -> str:
    """Return the name of its files without the suffix."""
    return f"{file_name(record.server)}.{record.cookie.rpartition('.')[2]}"


def state_dir_of(config: BrokerConfig, endpoint: str, environ: Mapping[str, str], folder: Path) -> Path:
    """Return the state directory: the config's, else one in systemd's, else one beside the socket.

    Args:
        folder: the folder of the config file, where a relative `state_dir` starts.
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
    """Hold the records in this directory; only one broker at a time can.

    Raises:
        ClaimError: another broker holds it, it cannot be used, or another user could change it.
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
    """Open the state directory. It and its parent are made if they are missing.

    Raises:
        ClaimError: it belongs to another user.
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
    """Give it mode 0700, if a broker has used it or it is empty."""
    path, owner = folder.path, folder.about.st_uid
    if owner != os.geteuid():
        raise ClaimError(f"the state directory {path} belongs to {user(owner)}; {_MEND}")
    if folder.is_shared:
        mode = stat.S_IMODE(folder.about.st_mode)
        raise Untrusted(path, f"others may write to {path} (mode {mode:04o})", f"chmod go-w {path}")
    if folder.about.st_mode & 0o077 and (folder.stat(_OWNER) is not None or not folder.names()):
        os.chmod(f"/proc/self/fd/{folder.fd}", 0o700)  # an O_PATH descriptor takes no fchmod(2)


def _owner(files: Folder) -> str:
    """Return the owner of this directory. It outlives the brokers, so that each finds what an earlier one
    left."""
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
