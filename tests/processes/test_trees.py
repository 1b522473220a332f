"""By what the processes of a server are found, and how they are ended without one of them starting others."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.processes import trees
from broker.processes.stub import RLIMIT_LOCKS
from broker.processes.trees import Mark, TreeKiller, belonging_to, number_of, stat_of
from tests.servers.escape import SYS_EXIT

PATIENCE_S = 60.0
COOKIE = "0123456789abcdef.0123456789abcdef"


@contextmanager
def started(*command: str, limit: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, without environment; it can read a line once it has this limit."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env={}, stdin=pipe, stdout=pipe, start_new_session=True)
    assert process.stdin
    assert process.stdout
    try:
        if limit is not None:
            resource.prlimit(process.pid, RLIMIT_LOCKS, (limit, limit))
        with suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()


def found(*marks: Mark) -> set[int]:
    """The pids that these marks are true of."""
    return {seen.pid for _, seen in belonging_to(marks)}


@pytest.mark.parametrize(
    ("cookie", "mark", "is_found"),
    [
        (COOKIE, COOKIE, True),
        (COOKIE, "0123456789abcdef.", True),  # the owner's
        (COOKIE, "0123456789abcdef.0", False),  # another server's
        (COOKIE, "fedcba9876543210.", False),  # another owner's
    ],
)
def test_the_number_is_a_mark_where_nothing_else_is(cookie: str, mark: str, is_found: bool) -> None:
    """Law 1: it stays with a process that has cleared its environment, left its session and its pipes."""
    with started("sleep", "300", limit=number_of(cookie)) as process:
        assert found(Mark(mark)) == ({process.pid} if is_found else set())


def test_the_number_is_inherited() -> None:
    """getrlimit(2): through fork(2) and execve(2)."""
    script = "sleep 300 & echo $!; wait"
    with started("sh", "-c", f"read limited; {script}", limit=number_of(COOKIE)) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        assert found(Mark(COOKIE)) == {process.pid, child}
        os.kill(child, signal.SIGKILL)


def test_no_mark_is_true_of_what_has_none() -> None:
    """Law 8: a limit that somebody else has set, or none, is not a server's."""
    with started("sleep", "300") as free, started("sleep", "300", limit=100) as limited:
        assert not {free.pid, limited.pid} & found(Mark(COOKIE), Mark("0123456789abcdef."))


def test_a_thread_of_the_kernel_is_nobody_s() -> None:
    """A machine has more of them than of processes; each look at a tree would ask four things of each."""
    try:
        name = Path("/proc/2/comm").read_text()
    except OSError:
        name = ""
    if name != "kthreadd\n":
        pytest.skip("the threads of the kernel are not seen here")
    assert stat_of(2) is None
    assert stat_of(os.getpid()) is not None


def test_a_process_whose_first_thread_has_ended_is_there() -> None:
    """Law 1: its state is that of a zombie, and it works on."""
    ends = f"ctypes.CDLL(None).syscall({SYS_EXIT[os.uname().machine]}, 0)"
    script = (
        "import ctypes, threading, time\n"
        f"threading.Thread(target=time.sleep, args=(300,)).start(); print(flush=True); {ends}"
    )
    with started(sys.executable, "-c", script, limit=number_of(COOKIE)) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(") ")[2][0] != "Z":
            assert process.poll() is None
        assert stat_of(process.pid) is not None
        assert found(Mark(COOKIE)) == {process.pid}
        end([Mark(COOKIE)])
        assert stat_of(process.pid) is None
        assert process.wait(PATIENCE_S) == -signal.SIGKILL


def test_all_are_stopped_before_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 1: a process manager does not see its processes end, and so starts none of them again."""
    sent: list[tuple[int, int]] = []
    send = trees._signal

    def recorded(seen: trees.ProcessStat, number: signal.Signals) -> None:
        sent.append((seen.pid, number))
        send(seen, number)

    monkeypatch.setattr(trees, "_signal", recorded)
    with started("sh", "-c", "sleep 300 & sleep 300 & echo; wait") as process:
        assert process.stdout
        process.stdout.readline()
        mark = Mark(COOKIE, process.pid)
        all_three = sorted(found(mark))
        assert len(all_three) == 3
        end([mark])
    signals = [signal.SIGSTOP] * 3 + [signal.SIGKILL] * 3
    assert sent[:6] == list(zip(all_three * 2, signals, strict=True))


def test_what_always_starts_others_is_ended_too() -> None:
    """Law 1: if every round finds new processes, those that are stopped are killed nevertheless."""
    mark = Mark(COOKIE)
    killer = TreeKiller([mark])
    left = []
    try:
        for _ in range(40):
            left.append(subprocess.Popen(["sleep", "300"], env={"MCP_BROKER_COOKIE": COOKIE}))
            killer.round()
        assert sum(process.poll() is not None for process in left) > 10
    finally:
        end([mark])
        assert [process.wait(PATIENCE_S) for process in left] == [-signal.SIGKILL] * 40


HOPS = """
import os, sys, time
sys.stdin.readline()
told, until = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), time.monotonic() + 60
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    os.setsid()
    os.write(told, b".")
    time.sleep(0.005)
"""
"""Never two looks in a row find the same process."""


def test_what_does_nothing_but_fork_and_end_is_ended_too(tmp_path: Path) -> None:
    """Law 1: /proc is read in an order, and it would always be where it was read a moment ago."""
    told = tmp_path / "told"
    with started(sys.executable, "-I", "-S", "-c", HOPS, str(told), limit=number_of(COOKIE)):
        while not told.exists() or told.stat().st_size < 10:
            pass
        end([Mark(COOKIE)])
        size = told.stat().st_size
        time.sleep(0.3)
        assert told.stat().st_size == size


def end(marks: list[Mark]) -> None:
    """As the broker ends a tree."""
    killer, nothing = TreeKiller(marks), 0
    until = time.monotonic() + PATIENCE_S
    while nothing < 2:
        nothing = 0 if killer.round() else nothing + 1
        assert time.monotonic() < until
