"""What this machine says of the broker's processes, from /proc: their CPU time, and who runs the same servers
beside them. Where the broker runs elsewhere, none of it can be known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from broker.command.doctor.evidence import Stray

COOKIE = b"MCP_BROKER_COOKIE="
"""What the broker marks its servers' processes with, in their environment."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SCRIPTS = (".py", ".js", ".mjs", ".cjs", ".ts", ".sh")
_WORDS_OF_A_COMMAND = 4


class Task(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    cpu_s: float
    argv: tuple[str, ...]

    def __str__(self) -> str:
        words = [os.path.basename(self.argv[0]), *self.argv[1:_WORDS_OF_A_COMMAND]] if self.argv else ["?"]
        return f"{' '.join(words)} (pid {self.pid})"

    @property
    def is_broker(self) -> bool:
        """Whether it is a broker, this one or another."""
        names = {os.path.basename(arg) for arg in self.argv[:2]}
        return "serve" in self.argv and ("mcp-broker" in names or "broker" in self.argv[:4])


Tasks = Mapping[int, Task]


def tasks() -> dict[int, Task]:
    """Every process that can be seen from here, but for zombies."""
    found = (task(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {one.pid: one for one in found if one is not None}


def task(pid: int) -> Task | None:
    """One process; `None` where it has ended."""
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
    """Whether the broker's pids mean here what they mean to it: not across machines and containers."""
    if broker not in seen:
        return False
    leaders = [seen[pid] for pid in servers if pid in seen]
    return all(leader.parent == broker for leader in leaders) and (bool(leaders) or seen[broker].is_broker)


def above(seen: Tasks, pid: int) -> Iterator[Task]:
    """A process's parent, its parent's parent and so on."""
    passed = {pid}
    while pid in seen and (pid := seen[pid].parent) in seen and pid not in passed:
        passed.add(pid)
        yield seen[pid]


def cpu_s(seen: Tasks, broker: int) -> dict[int, float]:
    """The CPU time of the broker and of all that is below it, by pid."""
    return {
        one.pid: one.cpu_s
        for one in seen.values()
        if one.pid == broker or any(higher.pid == broker for higher in above(seen, one.pid))
    }


# --- the same servers, beside the broker's own -------------------------------------------------------------


def strays(seen: Tasks, broker: int, leaders: Mapping[str, int]) -> list[Stray]:
    """The processes that run what a server runs and are not in its tree, the topmost of each tree.

    Args:
        leaders: server → the pid that its tree starts from.
    """
    known = {leader: name for name, leader in leaders.items() if leader in seen and seen[leader].argv}
    found = {}
    for one in seen.values():
        if any(up.pid in known for up in (one, *above(seen, one.pid))):
            continue  # in the tree of a server, which may be run by the same command as another
        for leader, name in known.items():
            if _alike(one, seen[leader]):
                kind = _kind(seen, one, leader, broker)
                if kind is not None:
                    found[one.pid] = Stray(server=name, pid=one.pid, kind=kind, by=_by(seen, one))
    return [stray for pid, stray in found.items() if not any(up.pid in found for up in above(seen, pid))]


def _kind(seen: Tasks, one: Task, leader: int, broker: int) -> Literal["second", "orphan", "beside"] | None:
    """`None` where it is as it should be: in the server's tree, another broker's, or the doctor's own."""
    higher = list(above(seen, one.pid))
    pids, cookie = {up.pid for up in higher}, _cookie(one.pid)
    if leader in pids or os.getpid() in pids or (cookie is not None and cookie == _cookie(leader)):
        return None
    if broker in pids:
        return "second"
    if any(up.is_broker for up in higher):
        return None
    if cookie is None:
        return "beside"
    return None if _is_attended(seen, cookie) else "orphan"


def _is_attended(seen: Tasks, cookie: bytes) -> bool:
    """Whether a broker runs that this mark is of."""
    kin = (one for one in seen.values() if _cookie(one.pid) == cookie)
    return any(up.is_broker for one in kin for up in above(seen, one.pid))


def _by(seen: Tasks, one: Task) -> str:
    return str(seen[one.parent]) if one.parent in seen else f"pid {one.parent}"


def _alike(one: Task, other: Task) -> bool:
    """Whether two run the same program with the same arguments; a relative script is its folder's own."""
    if signature(one.argv) != signature(other.argv):
        return False
    bare = any(arg.endswith(_SCRIPTS) and not os.path.isabs(arg) for arg in one.argv[1:])
    folders = {_folder(one.pid), _folder(other.pid)} - {None}
    return not (bare and len(folders) > 1)


def signature(argv: tuple[str, ...]) -> tuple[str, ...]:
    """A command line without where its programs are installed, and without the interpreter's version."""
    if not argv:
        return ()
    program = re.sub(r"[\d.]+\Z", "", os.path.basename(argv[0]))
    return (program, *(_short(arg) for arg in argv[1:]))


def _short(arg: str) -> str:
    folder, name = os.path.split(arg)
    return name if folder.endswith("bin") else arg


def _cookie(pid: int) -> bytes | None:
    """The mark of a broker's server; `None` where there is none, and where this user may not look."""
    return next((one for one in _environ(pid) if one.startswith(COOKIE)), None)


def _environ(pid: int) -> list[bytes]:
    with suppress(OSError):
        return Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    return []


def environ(pid: int) -> dict[str, str]:
    """The environment that a process was started with, as far as this user may see it."""
    pairs = (os.fsdecode(one).partition("=") for one in _environ(pid))
    return {name: value for name, _, value in pairs if name}


def _folder(pid: int) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return None


def folder(pid: int) -> str:
    """The folder that a process runs in; this one's, where it may not be seen."""
    return _folder(pid) or os.getcwd()


def marked(mark: bytes) -> list[int]:
    """The processes of this user that have this in their environment; zombies have none."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and mark in _environ(int(name))]


def available_bytes() -> int:
    """The memory that can be had without swapping."""
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
