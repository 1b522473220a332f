"""Process trees: which processes are a server's, what they take, and how a process is ended safely.

A process belongs to a server when it is in the server's cgroup, carries its cookie in its environment or its
number in a resource limit, is in the session that it leads, or has one of its three pipes as stdin, stdout or
stderr. Descendants inherit all of these: a process is found as long as it has kept one of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker.processes.cgroup import Cgroup

COOKIE = "MCP_BROKER_COOKIE"

_MARKER = f"{COOKIE}=".encode()
_LOCKS = b"Max file locks"
"""RLIMIT_LOCKS. Linux has limited nothing by it since 2.4.25 (getrlimit(2)), but every process inherits it,
through every fork(2) and execve(2), and everybody can read it. So it is a mark that stays where a program
clears its environment, leaves its session and closes its pipes."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What the kernel says of this process or of the machine, and not of the one that is looked at."""

_PF_KTHREAD = 0x00200000
"""From <linux/sched.h>."""

_HALF_BITS = 31
_STOPPING_ROUNDS = 20
_LISTINGS = 10
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Mark(NamedTuple):
    """By what the processes of one server are known.

    `cookie` is what their cookie begins with. `session` is theirs for certain, or `None`: a number that
    may be another's by now is no mark. `pipes` are the inodes of the server's stdin, stdout and stderr.
    `cgroup` is its own, where it has one.
    """

    cookie: str
    session: int | None = None
    pipes: frozenset[int] = frozenset()
    cgroup: Cgroup | None = None


def number_of(cookie: str) -> int:
    """The cookie as a resource limit: its owner's half above, its own below."""
    owner, _, own = cookie.partition(".")
    return _half(owner) << _HALF_BITS | _half(own)


def _half(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & ((1 << _HALF_BITS) - 1)


class ProcessStat(NamedTuple):
    """One process at one moment.

    `started` is in clock ticks since the boot: with the pid it names a process that no other ever was.
    `stopped`: by SIGSTOP or the like; not by a debugger, who lets it go on.
    """

    pid: int
    started: int
    session: int
    cpu_s: float
    stopped: bool = False


class Tree(NamedTuple):
    """A process tree at one moment; `cpu_s` is with what its processes' ended children took."""

    processes: list[ProcessStat]
    rss_bytes: int
    cpu_s: float


def stat_of(pid: int) -> ProcessStat | None:
    """A process that runs; `None` where there is none, or one that has ended and waits for its parent.

    A thread of the kernel, of which a machine has more than processes, is none: it is nobody's.

    Raises:
        OSError: nothing can be opened now, so that nobody knows.

    Source: proc_pid_stat(5); the fields are counted from after the name, which may hold anything.
    """
    stat = _told(pid, "stat")
    if stat is None:
        return None
    fields = stat.rpartition(b") ")[2].split()
    if int(fields[6]) & _PF_KTHREAD:
        return None
    if fields[0] in (b"Z", b"X") and int(fields[17]) < 2:  # else its first thread has ended, and others live
        return None
    ticks = sum(map(int, fields[11:15]))  # utime, stime, and both of the children that were waited for
    return ProcessStat(pid, int(fields[19]), int(fields[3]), ticks / _TICKS_PER_S, fields[0] == b"T")


def _told(pid: int, name: str) -> bytes | None:
    """What /proc has on a process; `None` where it has ended, or is somebody else's.

    Raises:
        OSError: nothing can be opened now. A tree that lives must not be taken for gone because of that.
    """
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # of all processes, again and again
            return file.read()
    except OSError as error:
        if error.errno in _SHORT:
            raise
        return None


def belonging_to(marks: Collection[Mark]) -> Iterator[tuple[Mark, ProcessStat]]:
    """Every process that one of the marks is true of, but for this one. Reads all of /proc.

    Raises:
        OSError: nothing can be opened now, so that nobody knows.
    """
    sessions = {mark.session: mark for mark in marks if mark.session is not None}
    pipes = {inode: mark for mark in marks for inode in mark.pipes}
    numbers = {number_of(mark.cookie): mark for mark in marks}
    owners = {one >> _HALF_BITS: mark for one, mark in numbers.items() if mark.cookie.endswith(".")}
    inside = {pid: mark for mark in marks if mark.cgroup for pid in mark.cgroup.pids()}
    for pid in _pids():
        seen = stat_of(pid)
        if seen is not None:
            mark = (
                inside.get(seen.pid)
                or sessions.get(seen.session)
                or _by_cookie(seen.pid, marks)
                or _by_number(seen.pid, numbers, owners)
                or _by_pipe(seen.pid, pipes)
            )
            if mark is not None:
                yield mark, seen


def _pids() -> Iterator[int]:
    """Every process but this one, and then those that have come meanwhile, and so on for a while: what does
    nothing but fork and end is never there for long."""
    known = {os.getpid()}
    for _ in range(_LISTINGS):
        new = {int(name) for name in os.listdir("/proc") if name.isdecimal()} - known
        if not new:
            return
        yield from sorted(new)
        known |= new


def _by_cookie(pid: int, marks: Collection[Mark]) -> Mark | None:
    environ = _told(pid, "environ")
    if environ is None or _MARKER not in environ:
        return None
    carried = next((one for one in environ.split(b"\0") if one.startswith(_MARKER)), _MARKER)
    cookie = carried[len(_MARKER) :].decode(errors="replace")
    return next((mark for mark in marks if cookie.startswith(mark.cookie)), None)


def _by_number(pid: int, numbers: dict[int, Mark], owners: dict[int, Mark]) -> Mark | None:
    limits = _told(pid, "limits") or b""
    hard = limits.partition(_LOCKS)[2].split(None, 2)[1:2]
    if not hard or not hard[0].isdigit():  # unlimited, as it is everywhere else
        return None
    number = int(hard[0])
    return numbers.get(number) or owners.get(number >> _HALF_BITS)


def _by_pipe(pid: int, pipes: dict[int, Mark]) -> Mark | None:
    return next((pipes[inode] for inode in _pipes(pid) if inode in pipes), None)


def _pipes(pid: int) -> Iterator[int]:
    for stream in (0, 1, 2):
        with suppress(OSError):
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{stream}").partition(":")
            if kind == "pipe":
                yield int(inode.strip("[]"))


def pipes_of(pid: int) -> frozenset[int]:
    """The inodes of the pipes that a process has as stdin, stdout and stderr now."""
    return frozenset(_pipes(pid))


def verified(pid: int, cookie: str) -> bool:
    """Whether a process that a record names is this user's, and carries the cookie or its number.

    Raises:
        OSError: nothing can be opened now, so that nobody knows.
    """
    uids = (_told(pid, "status") or b"").partition(b"\nUid:")[2].split(None, 1)[:1]
    mark = Mark(cookie)
    carried = _by_cookie(pid, [mark]) or _by_number(pid, {number_of(cookie): mark}, {})
    return uids == [str(os.getuid()).encode()] and carried is not None


def trees_of(marks: Collection[Mark]) -> dict[str, Tree]:
    """The process trees of these marks, by their cookies. Reads all of /proc: call it in a thread."""
    found: dict[str, list[ProcessStat]] = {mark.cookie: [] for mark in marks}
    for mark, seen in belonging_to(marks):
        found[mark.cookie].append(seen)
    return {mark.cookie: _tree(mark, found[mark.cookie]) for mark in marks}


def _tree(mark: Mark, processes: list[ProcessStat]) -> Tree:
    """What the processes take. The memory is theirs also where a cgroup has its own figure, which is with the
    files that the kernel keeps in memory: one server more or less would hardly show in it."""
    cpu_s = mark.cgroup.cpu_s() if mark.cgroup else sum(seen.cpu_s for seen in processes)
    return Tree(processes, sum(rss_bytes(seen.pid) for seen in processes), cpu_s)


class TreeKiller:
    """The end of every process that one of the marks is true of, round by round.

    All are stopped before the first is killed: else one that looks after others would start them again
    meanwhile, as process managers do.
    """

    def __init__(self, marks: Collection[Mark]) -> None:
        self._marks = marks
        self._rounds = 0
        self._stopped: set[tuple[int, int]] = set()

    def round(self) -> list[tuple[Mark, ProcessStat]]:
        """What is there. It is killed where nothing has come to it since the last round. Reads all of /proc.

        A process in the middle of an execve(2) shows no environment for a moment: so nothing is there only
        after two rounds without any.

        Raises:
            OSError: nothing can be opened now, so that nobody knows.
        """
        found, new = [], False
        self._rounds += 1
        for mark, seen in belonging_to(self._marks):
            found.append((mark, seen))
            if (seen.pid, seen.started) not in self._stopped:
                new = True
                _signal(seen, signal.SIGSTOP)
                self._stopped.add((seen.pid, seen.started))
        if not new or self._rounds > _STOPPING_ROUNDS:  # what always has new ones is killed as it comes
            for _, seen in found:
                _signal(seen, signal.SIGKILL)
        return found


def _signal(seen: ProcessStat, number: signal.Signals) -> None:
    """A signal to the very process that was seen, and never to another that has its number by now."""
    with suppress(OSError):  # it has ended meanwhile, or is somebody else's
        pidfd = os.pidfd_open(seen.pid)
        try:
            now = stat_of(seen.pid)
            if now is not None and now.started == seen.started:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def rss_bytes(pid: int) -> int:
    """The resident memory of one process; 0 where it has ended."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * _PAGE_BYTES


def io_bytes(pid: int) -> int:
    """What a process has read and written so far; 0 where it has ended. proc_pid_io(5)."""
    told = (_told(pid, "io") or b"").split()
    return sum(int(told[at + 1]) for at in range(0, len(told) - 1, 2) if told[at] in (b"rchar:", b"wchar:"))
