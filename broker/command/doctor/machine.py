"""Reads /proc: the CPU time of the broker's processes, and processes outside of it that run the same servers.

If the broker runs in another container or on another machine, its processes are not visible here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from broker.command.doctor.evidence import Stray

COOKIE = b"MCP_BROKER_COOKIE="
"""The variable by which the broker marks its servers' processes."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SCRIPTS = (".py", ".js", ".mjs", ".cjs", ".ts", ".sh")
_WORDS_OF_A_COMMAND = 4


class Task(NamedTuple):
    """A snapshot of one process."""

    pid: int
    parent: int
    cpu_s: float
    argv: tuple[str, ...]

    def __str__(self) -> str:
        words = [os.path.basename(self.argv[0]), *self.argv[1:_WORDS_OF_A_COMMAND]] if self.argv else ["?"]
        return f"{' '.join(words)} (pid {self.pid})"

    @property
    def is_broker(self) -> bool:
        """Whether the process is a broker."""
        names = {os.path.basename(arg) for arg in self.argv[:2]}
        return "serve" in self.argv and ("mcp-broker" in names or "broker" in self.argv[:4])


Tasks = Mapping[int, Task]


def tasks() -> dict[int, Task]:
    """Return all visible processes except zombies, by pid."""
    found = (task(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {one.pid: one for one in found if one is not None}


def task(pid: int) -> Task | None:
    """Return one process; `None` if it has ended."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
        argv = Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return None
    state, *fields = stat.rpartition(") ")[2].split()
    if state in ("Z", "X"):
        return None
    cpu_s = (int(fields[10]) + int(fields[11])) / _TICKS_PER_S  # utime, stime: proc_pid_stat(5)
    return Task(pid, int(fields[0]), cpu_s, tuple(os.fsdecode(argv).rstrip("\0").split("\0")) if argv else ())


def is_here(seen: Tasks, broker: int, servers: Iterable[int]) -> bool:
    """Return whether the broker shares this pid namespace: not across machines and containers."""
    if broker not in seen:
        return False
    leaders = [seen[pid] for pid in servers if pid in seen]
    return all(leader.parent == broker for leader in leaders) and (bool(leaders) or seen[broker].is_broker)


def above(seen: Tasks, pid: int) -> Iterator[Task]:
    """Yield the ancestors of a process, its parent first."""
    passed = {pid}
    while pid in seen and (pid := seen[pid].parent) in seen and pid not in passed:
        passed.add(pid)
        yield seen[pid]


def cpu_s(seen: Tasks, broker: int) -> dict[int, float]:
    """Return the CPU time of the broker and its descendants, by pid."""
    return {
        one.pid: one.cpu_s
        for one in seen.values()
        if one.pid == broker or any(higher.pid == broker for higher in above(seen, one.pid))
    }


# --- the same servers, outside of the broker ---------------------------------------------------------------


def strays(seen: Tasks, broker: int, leaders: Mapping[int, str]) -> list[Stray]:
    """Return the processes that run a server's command outside of its tree, the topmost of each tree.

    Args:
        leaders: the root pid of a server's tree → the server.
    """
    known = {leader: name for leader, name in leaders.items() if leader in seen and seen[leader].argv}
    cookies = {cookie for leader in known if (cookie := _cookie(leader)) is not None}
    found = {}
    for one in seen.values():
        if any(up.pid in known for up in (one, *above(seen, one.pid))):
            continue  # part of a server's tree; two servers may have the same command
        for leader, name in known.items():
            if _alike(one, seen[leader]):
                kind = _kind(seen, one, cookies, broker)
                if kind is not None:
                    found[one.pid] = Stray(server=name, pid=one.pid, kind=kind, by=_by(seen, one))
    return [stray for pid, stray in found.items() if not any(up.pid in found for up in above(seen, pid))]


def _kind(
    seen: Tasks, one: Task, cookies: Collection[bytes], broker: int
) -> Literal["second", "orphan", "beside"] | None:
    """Return the kind of a stray; `None` if it belongs to a server, another broker or the doctor.

    Args:
        cookies: of the broker's servers. A process that detached itself from the tree still has one.
    """
    higher = list(above(seen, one.pid))
    pids, cookie = {up.pid for up in higher}, _cookie(one.pid)
    if os.getpid() in pids or cookie in cookies:
        return None
    if broker in pids:
        return "second"
    if any(up.is_broker for up in higher):
        return None
    if cookie is None:
        return "beside"
    return None if _is_attended(seen, cookie) else "orphan"


def _is_attended(seen: Tasks, cookie: bytes) -> bool:
    """Return whether the broker that set this cookie still runs."""
    kin = (one for one in seen.values() if _cookie(one.pid) == cookie)
    return any(up.is_broker for one in kin for up in above(seen, one.pid))


def _by(seen: Tasks, one: Task) -> str:
    return str(seen[one.parent]) if one.parent in seen else f"pid {one.parent}"


def _alike(one: Task, other: Task) -> bool:
    """Return whether two processes run the same command. A relative script counts with its folder."""
    if signature(one.argv) != signature(other.argv):
        return False
    bare = any(arg.endswith(_SCRIPTS) and not os.path.isabs(arg) for arg in one.argv[1:])
    folders = {_folder(one.pid), _folder(other.pid)} - {None}
    return not (bare and len(folders) > 1)


def signature(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line without installation folders and without the interpreter's version."""
    if not argv:
        return ()
    program = re.sub(r"[\d.]+\Z", "", os.path.basename(argv[0]))
    return (program, *(_short(arg) for arg in argv[1:]))


def _short(arg: str) -> str:
    folder, name = os.path.split(arg)
    return name if folder.endswith("bin") else arg


def _cookie(pid: int) -> bytes | None:
    """Return the cookie of a process; `None` without one, or if this user may not read it."""
    return next((one for one in _environ(pid) if one.startswith(COOKIE)), None)


def _environ(pid: int) -> list[bytes]:
    with suppress(OSError):
        return Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    return []


def environ(pid: int) -> dict[str, str]:
    """Return the initial environment of a process; empty if this user may not read it."""
    pairs = (os.fsdecode(one).partition("=") for one in _environ(pid))
    return {name: value for name, _, value in pairs if name}


def _folder(pid: int) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return None


def marked(mark: bytes) -> list[int]:
    """Return this user's processes that have the mark in their environment."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and mark in _environ(int(name))]


def available_bytes() -> int:
    """Return the memory that is available without swapping."""
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
