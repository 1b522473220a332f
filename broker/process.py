"""One server's process: start it, wait for it, end it with all that it started.

It runs in a session of its own, with a cookie in its environment: by them, and by its pipes, `trees` finds
the whole tree, also the parts that detached themselves.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import trio
from msgspec import structs

from broker import containers, launch
from broker.cgroup import Delegation, is_removed
from broker.core.config import ServerConfig
from broker.core.containers import Container
from broker.environment import environment, mask
from broker.exit_status import ExitStatus
from broker.program import SpawnError, program_of
from broker.state import Record, State, boot
from broker.trees import COOKIE, Hunt, Mark, Seen, look_at, number_of, trees_of

_F_SETPIPE_SZ = 1031
"""From <fcntl.h>; the module has the name from Python 3.10 on some systems only."""

_PIPE_BYTES = 1024 * 1024
_MAX_DESCRIPTORS = 65_536
_KILL_ROUNDS = 100
_KILL_PAUSE_S = 0.02
_BLIND_PAUSE_S = 0.25
_REMOVE_ROUNDS = 20
"""The kernel may take a moment longer to take a process out of its cgroup than out of /proc."""


_MENDS = {
    errno.EMFILE: "; raise the limit of open files, LimitNOFILE= of the service",
    errno.ENFILE: "; all files of this machine are open: find out who has them, with lsof",
    errno.EAGAIN: "; there are too many processes, look with ps; TasksMax= of the service is the limit",
    errno.ENOMEM: "; there is no memory left, look with free; MemoryMax= of the service is the limit",
    errno.E2BIG: "; its args and env are too long",
}
"""What to do about a process that the kernel does not give."""

logger = logging.getLogger("mcp-broker")


class Launcher(NamedTuple):
    """What every server is started with.

    `folder` is the config file's, where relative paths start; `state` is where a server is written down
    while it runs; `delegation` is where its cgroup is made, if anywhere; `soft_limit` is how many descriptors
    it may have open.
    """

    folder: Path
    environ: Mapping[str, str]
    state: State
    delegation: Delegation | None
    soft_limit: int

    def spawn(self, config: ServerConfig) -> Process:
        """Start a server. On the main thread only: the child dies with the thread that made it.

        Raises:
            SpawnError: there is no such program or folder, or it may not be run.
        """
        program = program_of(config, folder=self.folder, environ=self.environ)
        try:
            return self._start(config, program)
        except OSError as error:
            mend = _MENDS.get(error.errno or 0, "")
            raise SpawnError(f"it could not be started: {error.strerror}{mend}") from error
        except UnicodeEncodeError as error:  # what it is may be a secret
            raise SpawnError(
                f"it could not be started: its table has characters that {error.encoding}, the encoding of "
                f"this locale, does not have; start the broker with LC_ALL=C.UTF-8"
            ) from None

    def _start(self, config: ServerConfig, program: str) -> Process:
        folder, environ = self.folder / (config.cwd or ""), environment(config, self.environ)
        record = self._begun(config)
        container, args = containers.told(config, program, folder, self.state.cidfile(record))
        if container is not None:
            record = structs.replace(record, container=container.masked(mask(config, self.environ)))
        self.state.keep(record)
        procs = str(record.own_cgroup.procs) if record.own_cgroup else ""
        numbers = map(str, (os.getpid(), self.soft_limit, number_of(record.cookie)))
        stub = [sys.executable, "-I", "-S", launch.__file__, *numbers, procs]
        with ExitStack() as theirs, ExitStack() as ours:
            ours.callback(self.state.forget, record)
            stdin, stdout, stderr = (_pipe(theirs, ours, writes=writes) for writes in (True, False, False))
            child = subprocess.Popen(
                [*stub, program, *args],
                cwd=folder,
                env={**environ, COOKIE: record.cookie},
                stdin=stdin.theirs,
                stdout=stdout.theirs,
                stderr=stderr.theirs,
                start_new_session=True,
            )
            ours.callback(_take_back, child)
            ending = Ending(container, environ) if container else None
            process = Process(child, self.state, record, stdin.ours, stdout.ours, stderr.ours, ending)
            ours.pop_all()
        return process

    async def end_owed(self, config: ServerConfig) -> None:
        """Remove what is left of the server's earlier containers: it is not started beside them.

        Raises:
            SpawnError: their engine does not do it.
        """
        for record, container in self.state.owed_by(config.name):
            why = await Ending(container, environment(config, self.environ)).carry_out()
            if why is not None:
                mend = f"see that it answers; or remove the container by hand, and {container.cidfile}"
                raise SpawnError(f"its last container may run still, and was not removed: {why}; {mend}")
            self.state.forget(record)

    def _begun(self, config: ServerConfig) -> Record:
        """The record of a process that is about to be started; its cgroup is made for it here."""
        record = Record(server=config.name, cookie=self.state.new_cookie(), boot=boot())
        if self.delegation is not None:
            try:
                cgroup = self.delegation.make(config.name, record.cookie)
                record = structs.replace(record, cgroup=str(cgroup.path))
            except OSError as error:  # it is found by its other marks
                facts = {"server": config.name, "reason": error.strerror}
                logger.warning("server.cgroup_not_made", extra=facts)
        return record


class Ending(NamedTuple):
    """How the container of a process tree is ended: with the environment of the command that ran it."""

    container: Container
    environ: Mapping[str, str]

    async def carry_out(self) -> str | None:
        """Remove it, in a thread of its own; why there may be something left of it."""
        alone = trio.CapacityLimiter(1)  # an engine that does not answer keeps no other thread waiting
        try:
            return await trio.to_thread.run_sync(containers.end, *self, limiter=alone)
        except RuntimeError as error:  # a server has taken every thread there is
            return str(error)


class _Pipe(NamedTuple):
    ours: int
    theirs: int


def _pipe(theirs: ExitStack, ours: ExitStack, *, writes: bool) -> _Pipe:
    """A pipe to a child: our end is non-blocking, and as large as the kernel lets us have it."""
    read, write = os.pipe()
    mine, other = (write, read) if writes else (read, write)
    ours.callback(os.close, mine)
    theirs.callback(os.close, other)
    os.set_blocking(mine, False)
    with suppress(OSError):  # the user's share of pipe memory is used up: a smaller one works too
        fcntl.fcntl(mine, _F_SETPIPE_SZ, _PIPE_BYTES)
    return _Pipe(mine, other)


class Process:
    """A running server. Its three pipes are non-blocking descriptors; `close` gives everything back.

    The leader is not reaped before `close`: until then its pid, and so its group, can be nobody else's.
    """

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        state: State,
        record: Record,
        stdin: int,
        stdout: int,
        stderr: int,
        ending: Ending | None = None,
    ) -> None:
        self._child = child
        self._ending = ending
        self.container_left: str | None = None
        """Why its container may be there after `end`."""
        self.pid = child.pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        pipes = tuple(os.fstat(fd).st_ino for fd in (stdin, stdout, stderr))
        self.mark = Mark(record.cookie, self.pid, frozenset(pipes), record.own_cgroup)
        self._left: list[Seen] = []
        self._state = state
        leader = look_at(self.pid)
        started = leader.started if leader else 0
        self._pidfd = os.pidfd_open(child.pid)
        self._record = structs.replace(record, pid=self.pid, started=started, pipes=pipes)
        state.keep(self._record)

    def __repr__(self) -> str:
        return f"<Process pid={self.pid}>"

    async def exited(self) -> None:
        """Wait for the leader's end. Several tasks may; trio lets only one wait on a descriptor."""
        try:
            fd = os.dup(self._pidfd)
        except OSError:  # none is left
            while self.exit_status() is None:
                await trio.sleep(_KILL_PAUSE_S)
            return
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            _close(fd)

    def exit_status(self) -> ExitStatus | None:
        """How the leader ended; `None` while it runs."""
        seen = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        return ExitStatus(seen.si_status, by_signal=seen.si_code != os.CLD_EXITED)

    def is_stopped(self) -> bool:
        """Whether the leader was stopped, by SIGSTOP or the like: it does nothing until it is let go on."""
        try:
            seen = look_at(self.pid)
        except OSError:  # it is looked at again
            return False
        return seen is not None and seen.stopped

    def close_stdin(self) -> None:
        """Tell the server, in the way the protocol has it, that it should end."""
        if self.stdin >= 0:
            _close(self.stdin)
            self.stdin = -1

    async def end(self, patience_s: float) -> list[int]:
        """End the whole tree: stdin closed, SIGTERM, SIGKILL, with `patience_s` seconds between them.

        One that is stopped gets SIGKILL at once: it hears of nothing else, and if it were let go on it would
        first do what was asked of it before, which nobody waits for any more.

        Gives the pids of what is there all the same: the kernel keeps it, in uninterruptible sleep say.

        Source: 2026-07-28 basic/transports/stdio, *Shutdown*.
        """
        self.close_stdin()
        for signal_next in (signal.SIGTERM, None):
            if self.is_stopped():
                break
            with trio.move_on_after(patience_s):
                await self.exited()
            if self.exit_status() is not None:
                break
            if signal_next is not None:
                _signal_group(self.pid, signal_next)
        left = await self._kill_rest()
        if self._ending is not None:
            self.container_left = await self._ending.carry_out()
        return left

    async def processes(self) -> int:
        """How many of the tree run.

        Raises:
            OSError: nothing can be opened now, so that nobody knows.
        """
        trees = await _in_thread(partial(trees_of, [self.mark]))
        return len(trees[self.mark.cookie].processes)

    async def _kill_rest(self) -> list[int]:
        """SIGKILL to whatever is left, until nothing is: also to what forks while it is being killed.

        Where nothing can be opened, nobody knows whether anything is left: it is waited for that, for another
        process must not be started beside what may be there (law 1).
        """
        nothing, hunt = 0, Hunt([self.mark])
        for _ in range(_KILL_ROUNDS):
            if self.mark.cgroup:
                self.mark.cgroup.kill()
            _signal_group(self.pid, signal.SIGKILL)
            with trio.move_on_after(_KILL_PAUSE_S):
                await self.exited()
            self._left = [seen for _, seen in await self._looked(hunt)]
            nothing = 0 if self._left else nothing + 1
            if nothing >= 2 and (is_removed(self.mark.cgroup) or nothing == _REMOVE_ROUNDS):
                break
            await trio.sleep(_KILL_PAUSE_S)
        return [seen.pid for seen in self._left]

    async def _looked(self, hunt: Hunt) -> list[tuple[Mark, Seen]]:
        """Go a round, as soon as that can be."""
        told = False
        while True:
            try:
                return await _in_thread(hunt.go_round)
            except OSError as error:
                if not told:
                    self._tell_blind(error)
                told = True
                await trio.sleep(_BLIND_PAUSE_S)

    def _tell_blind(self, error: OSError) -> None:
        mend = _MENDS.get(error.errno or 0, "").removeprefix("; ")
        facts = {"server": self._record.server, "reason": error.strerror, "mend": mend}
        logger.error("server.cannot_be_seen", extra=facts)

    def close(self) -> None:
        """Reap the leader, unless the kernel keeps it, and give all descriptors back."""
        self.close_stdin()
        for fd in (self.stdout, self.stderr, self._pidfd):
            _close(fd)
        self._child.poll()
        if self._ending is not None and self.container_left is not None:
            self._state.owe(self._record, self._ending.container)
        elif not self._left:
            self._state.forget(self._record)


def _take_back(child: subprocess.Popen[bytes]) -> None:
    """End what was started and cannot be watched."""
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _close(fd: int) -> None:
    trio.lowlevel.notify_closing(fd)
    os.close(fd)


T = TypeVar("T")


async def _in_thread(read: Callable[[], T]) -> T:
    """Read all of /proc, and let others run meanwhile, unless a server has taken every thread there is."""
    try:
        return await trio.to_thread.run_sync(read)
    except RuntimeError:
        return read()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left in it, or they are another user's
        os.killpg(leader, number)


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; the limit before, which is the servers'.

    Every connection and every server costs a few, and the usual soft limit of 1,024 is for programs that
    use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MAX_DESCRIPTORS), hard))
    return soft
