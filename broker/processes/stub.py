"""The stub between the broker and a server: it asks to die with the broker, then becomes the server.

Run as ``python -I -S stub.py BROKER_PID SOFT_LIMIT NUMBER CGROUP_PROCS PROGRAM [ARG ...]``. NUMBER marks the
process tree (`trees.number_of`); CGROUP_PROCS is the file by which it enters its cgroup, or empty.

The request to be killed with the parent (PR_SET_PDEATHSIG, prctl(2)) must be made in the child, and a
`preexec_fn` is not safe in a process with threads. Every start waits for the stub, so it imports little.
"""

import ctypes
import errno
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
RLIMIT_LOCKS = 10  # <sys/resource.h>; see `trees`
CANNOT_RUN = 126
OOM_SCORE = 500
"""What a server's `oom_score_adj` is above the broker's: half of the memory (proc_pid_oom_score_adj(5))."""

MENDS = {
    errno.ENOENT: "; install what its first line names",
    errno.ENOEXEC: "; it is no program for this machine, or a script without a first line such as #!/bin/sh",
}


def main(
    broker_pid: int, soft_limit: int, number: int, cgroup_procs: str, program: str, args: list[str]
) -> None:
    """Become `program`, or exit."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != broker_pid:  # the broker died before the request was made
        os._exit(CANNOT_RUN)
    if cgroup_procs:
        enter(cgroup_procs)
    be_picked_before_the_broker()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard_limit))
    try:  # noqa: SIM105 - contextlib would be one more import
        resource.setrlimit(RLIMIT_LOCKS, (number, number))
    except (OSError, ValueError, OverflowError):
        pass  # the broker itself has a lower limit, as a server of another broker has; other marks remain
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execv(program, [program, *args])
    except OSError as error:
        mend = MENDS.get(error.errno or 0, "")
        print(f"{program}: {error.strerror}{mend}", file=sys.stderr, flush=True)
        os._exit(CANNOT_RUN)


def be_picked_before_the_broker() -> None:
    """Let the kernel kill this process rather than the broker when memory runs out.

    The broker is small and starts a killed server again; without the broker all servers end.
    """
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = min(int(file.read()) + OOM_SCORE, 1000)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):
        pass  # /proc is closed here; a server is usually the larger process anyway


def enter(cgroup_procs: str) -> None:
    """Enter a cgroup."""
    try:
        with open(cgroup_procs, "w") as procs:
            procs.write("0")
    except OSError as error:
        print(f"{cgroup_procs}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(CANNOT_RUN)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6:])
