"""A process that does what it can to outlive the server that started it.

    python -I -S tests/servers/escape.py HOW NAME

It starts itself again with `escapee-NAME` among its arguments, and ends: without an environment, in a session
of its own, a child of init's with none of the server's pipes. HOW says what the new one does:

    daemon      nothing more
    stubborn    ignores every signal that can be ignored
    threads     ends its main thread, and lives on in another
    respawns    is many, each in a session of its own; whoever sees the next one dead starts it again

Nothing of it lives longer than `LIFE_S`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import time

LIFE_S = 60.0
MANY = 6
MOST_FORKS = 3000
POLL_S = 0.001
SYS_EXIT = {"x86_64": 60, "aarch64": 93}
"""exit(2) of one thread: glibc's own wrapper ends them all."""

RING = struct.Struct(f"{MANY + 1}q")


def detach(how: str, name: str) -> None:
    """Become a daemon, and start again without an environment."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.chdir("/")
    script = os.path.abspath(__file__)
    os.execve(sys.executable, [sys.executable, "-I", "-S", script, how, "escapee-" + name], {})


def ignore_all() -> None:
    """But SIGKILL and SIGSTOP; the two of the C library's own cannot be either."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(LIFE_S)


def live_in_a_thread() -> None:
    """The main thread is a zombie from now on, but the process is not."""
    threading.Thread(target=time.sleep, args=(LIFE_S,)).start()
    ctypes.CDLL(None).syscall(SYS_EXIT[os.uname().machine], 0)


class Ring:
    """The pids of all, and how often one was started, in memory that they share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, RING.size)

    def read(self, place: int) -> int:
        """The pid at this place; at the last one, the number of starts."""
        return struct.unpack_from("q", self._memory, place * 8)[0]  # type: ignore[no-any-return]

    def write(self, place: int, value: int) -> None:
        """Put a pid there."""
        struct.pack_into("q", self._memory, place * 8, value)


def respawn() -> None:
    """Each looks after the next."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody is a zombie
    ring, until = Ring(), time.monotonic() + LIFE_S
    for place in range(1, MANY):
        if os.fork() == 0:
            watch(ring, place, until)
    watch(ring, 0, until)


def watch(ring: Ring, place: int, until: float) -> None:
    """Be at this place, and keep the next one taken."""
    if place:
        os.setsid()
    ring.write(place, os.getpid())
    after = (place + 1) % MANY
    while time.monotonic() < until and ring.read(MANY) < MOST_FORKS:
        time.sleep(POLL_S)
        if (pid := ring.read(after)) and not is_there(pid):
            ring.write(MANY, ring.read(MANY) + 1)
            ring.write(after, 0)
            if os.fork() == 0:
                place, after = after, (after + 1) % MANY
                os.setsid()
                ring.write(place, os.getpid())
    os._exit(0)


def is_there(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


DOES = {
    "daemon": lambda: time.sleep(LIFE_S),
    "stubborn": ignore_all,
    "threads": live_in_a_thread,
    "respawns": respawn,
}

if __name__ == "__main__":
    if not sys.argv[2].startswith("escapee-"):
        detach(*sys.argv[1:])
    DOES[sys.argv[1]]()
