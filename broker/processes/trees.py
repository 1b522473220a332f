"""Process trees: which processes belong to a server, what they use, and how they are killed safely.

A process belongs to a server if it has one of the server's marks: it is in the server's cgroup or session, it
has the server's cookie in its environment or the number of the cookie as a resource limit, or one of its
standard streams is a pipe of the server. Descendants inherit all marks; one that is left is enough.
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
"""RLIMIT_LOCKS. Linux has enforced it no more since 2.4.25 (getrlimit(2)), but every process inherits it
through fork(2) and execve(2), and every user can read it. So this mark stays if a program clears its
environment, leaves its session and closes its pipes."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors about this process or the machine, not about the process that is looked at."""

_PF_KTHREAD = 0x00200000
"""From <linux/sched.h>."""

_HALF_BITS = 31
_STOPPING_ROUNDS = 20
_LISTINGS = 10
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Mark(NamedTuple):
    """The marks of one process tree.

    `cookie` is a prefix of the cookie in its processes. `session` is `None` if the number may belong to
    another process by now. `pipes` are the inodes of the server's stdin, stdout and stderr.
    """

    cookie: str
    session: int | None = None
    pipes: frozenset[int] = frozenset()
    cgroup: Cgroup | None = None


def number_of(cookie: str) -> int:
    """Return the cookie as a resource limit: the owner's half in the high bits, its own in the low bits."""
    owner, _, own = cookie.partition(".")
    return _half(owner) << _HALF_BITS | _half(own)


def _half(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & ((1 << _HALF_BITS) - 1)


class ProcessStat(NamedTuple):
    """One process at one moment.

    `started`, in clock ticks since the boot, and the pid together identify a process. `stopped` is true after
    SIGSTOP and similar signals, not under a debugger.
    """

    pid: int
    started: int
    session: int
    cpu_s: float
    stopped: bool = False


class Tree(NamedTuple):
    """A process tree at one moment. `cpu_s` includes the ended children of its processes."""

    processes: list[ProcessStat]
    rss_bytes: int
    cpu_s: float


def stat_of(pid: int) -> ProcessStat | None:
    """Return a process that runs; `None` for a zombie, a kernel thread, or a pid without a process.

    Raises:
        OSError: /proc cannot be read now.

    Source: proc_pid_stat(5); the fields are counted from after the name, which may hold anything.
    """
    stat = _read_proc(pid, "stat")
    if stat is None:
        return None
    fields = stat.rpartition(b") ")[2].split()
    if int(fields[6]) & _PF_KTHREAD:
        return None
    if fields[0] in (b"Z", b"X") and int(fields[17]) < 2:  # otherwise only its first thread has ended
        return None
    ticks = sum(map(int, fields[11:15]))  # utime, stime, and the same of its reaped children
    return ProcessStat(pid, int(fields[19]), int(fields[3]), ticks / _TICKS_PER_S, fields[0] == b"T")


def _read_proc(pid: int, name: str) -> bytes | None:
    """Return a file of /proc about a process; `None` if the process has ended, or is another user's.

    Raises:
        OSError: /proc cannot be read now. The process may live, so `None` would be wrong.
    """
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # of all processes, again and again
            return file.read()
    except OSError as error:
        if error.errno in _SHORT:
            raise
        return None


def belonging_to(marks: Collection[Mark]) -> Iterator[tuple[Mark, ProcessStat]]:
    """Yield every process that has one of the marks, except this one. Reads all of /proc.

    Raises:
        OSError: /proc cannot be read now.
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
    """Yield every pid but this one, then those that were added meanwhile, and so on up to a limit: a process
    that only forks and ends is never there for long."""
    known = {os.getpid()}
    for _ in range(_LISTINGS):
        new = {int(name) for name in os.listdir("/proc") if name.isdecimal()} - known
        if not new:
            return
        yield from sorted(new)
        known |= new


def _by_cookie(pid: int, marks: Collection[Mark]) -> Mark | None:
    environ = _read_proc(pid, "environ")
    if environ is None or _MARKER not in environ:
        return None
    carried = next((one for one in environ.split(b"\0") if one.startswith(_MARKER)), _MARKER)
    cookie = carried[len(_MARKER) :].decode(errors="replace")
    return next((mark for mark in marks if cookie.startswith(mark.cookie)), None)


def _by_number(pid: int, numbers: dict[int, Mark], owners: dict[int, Mark]) -> Mark | None:
    limits = _read_proc(pid, "limits") or b""
    hard = limits.partition(_LOCKS)[2].split(None, 2)[1:2]
    if not hard or not hard[0].isdigit():  # unlimited, as in other processes
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
    """Return the inodes of the pipes that a process now has as stdin, stdout and stderr."""
    return frozenset(_pipes(pid))


def verified(pid: int, cookie: str) -> bool:
    """Return whether the process belongs to this user and has the cookie or its number.

    Raises:
        OSError: /proc cannot be read now.
    """
    uids = (_read_proc(pid, "status") or b"").partition(b"\nUid:")[2].split(None, 1)[:1]
    mark = Mark(cookie)
    carried = _by_cookie(pid, [mark]) or _by_number(pid, {number_of(cookie): mark}, {})
    return uids == [str(os.getuid()).encode()] and carried is not None


def trees_of(marks: Collection[Mark]) -> dict[str, Tree]:
    """Return the process trees with these marks, by cookie. Reads all of /proc: call it in a thread."""
    found: dict[str, list[ProcessStat]] = {mark.cookie: [] for mark in marks}
    for mark, seen in belonging_to(marks):
        found[mark.cookie].append(seen)
    return {mark.cookie: _tree(mark, found[mark.cookie]) for mark in marks}


def _tree(mark: Mark, processes: list[ProcessStat]) -> Tree:
    """Return what the processes use. A cgroup has a figure for memory too, but that includes the page
    cache."""
    cpu_s = mark.cgroup.cpu_s() if mark.cgroup else sum(seen.cpu_s for seen in processes)
    return Tree(processes, sum(rss_bytes(seen.pid) for seen in processes), cpu_s)


class TreeKiller:
    """Kills every process that has one of the marks, round by round.

    It stops all of them before it kills the first: otherwise a process manager among them would start the
    others again.
    """

    def __init__(self, marks: Collection[Mark]) -> None:
        self._marks = marks
        self._rounds = 0
        self._stopped: set[tuple[int, int]] = set()

    def round(self) -> list[tuple[Mark, ProcessStat]]:
        """Stop the processes that are new; if none is new, kill all. Return those that were there.

        Reads all of /proc. A process in the middle of execve(2) has no environment for a moment. So nothing
        is left only after two rounds that found nothing.

        Raises:
            OSError: /proc cannot be read now.
        """
        found, new = [], False
        self._rounds += 1
        for mark, seen in belonging_to(self._marks):
            found.append((mark, seen))
            if (seen.pid, seen.started) not in self._stopped:
                new = True
                _signal(seen, signal.SIGSTOP)
                self._stopped.add((seen.pid, seen.started))
        if not new or self._rounds > _STOPPING_ROUNDS:  # a tree that always has new ones
            for _, seen in found:
                _signal(seen, signal.SIGKILL)
        return found


def _signal(seen: ProcessStat, number: signal.Signals) -> None:
    """Send a signal to the process that was seen, never to another one with the same pid."""
    with suppress(OSError):  # it has ended, or is another user's
        pidfd = os.pidfd_open(seen.pid)
        try:
            now = stat_of(seen.pid)
            if now is not None and now.started == seen.started:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * _PAGE_BYTES


def io_bytes(pid: int) -> int:
    """Return the bytes that a process has read and written so far; 0 if it has ended. proc_pid_io(5)."""
    told = (_read_proc(pid, "io") or b"").split()
    return sum(int(told[at + 1]) for at in range(0, len(told) - 1, 2) if told[at] in (b"rchar:", b"wchar:"))
