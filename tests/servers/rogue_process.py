"""What `rogue.py` does as a process: descriptors, descendants, the record of its starts."""

from __future__ import annotations

import os

WAIT_S = 300.0  # no thread and no process of this server waits longer


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however small the pipe."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def record_start(path: str) -> None:
    """Append pid and start time, in clock ticks since boot, in one write: starts may be simultaneous."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
        ticks = stat.read().rpartition(")")[2].split()[19]  # field 22, counted from after the name
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{os.getpid()} {ticks}\n".encode())
    os.close(fd)


def leave(how: str) -> int:
    """Leave a sleeping descendant and return its pid; only a `double_fork` lets go of the server's pipes.

    A `bare` one has no environment.
    """
    seconds = f"{WAIT_S:.0f}"
    environ = {} if how.startswith("bare") else dict(os.environ)
    if not how.endswith("double_fork"):
        return os.posix_spawnp("sleep", ["sleep", seconds], environ, setsid=how.endswith("setsid"))
    mine, its = os.pipe()
    script = f"sleep {seconds} </dev/null >/dev/null 2>&1 & echo $!"
    actions = [(os.POSIX_SPAWN_DUP2, its, 1)]
    shell = os.posix_spawnp("sh", ["sh", "-c", script], environ, setsid=True, file_actions=actions)
    os.close(its)
    with open(mine, "rb") as pipe:
        pid = int(pipe.readline())
    os.waitpid(shell, 0)
    return pid
