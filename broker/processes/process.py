"""Starts a server's process, waits for it, and ends it with every process that it started.

The process runs in a session of its own and has a cookie in its environment. By these and other marks `trees`
finds the whole process tree, also the parts that detached themselves.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio
from msgspec import structs

from broker.config.loading import ConfigError, Problem
from broker.config.names import file_name
from broker.config.schema import ServerConfig
from broker.core.servers.start import Activity
from broker.processes import containers, stub
from broker.processes.cgroup import Delegation
from broker.processes.container_options import Container
from broker.processes.containers import Removal, UnknownEngine
from broker.processes.environment import environment
from broker.processes.exit_status import ExitStatus
from broker.processes.kill import in_thread, kill_tree, remove_container, signal_group
from broker.processes.program import MENDS, SpawnError, program_of
from broker.processes.records import ProcessRecord, Records, boot
from broker.processes.trees import COOKIE, Mark, ProcessStat, io_bytes, number_of, stat_of, trees_of

_F_SETPIPE_SZ = 1031
"""From <fcntl.h>; the module `fcntl` has it on some systems only."""

_PIPE_BYTES = 1024 * 1024
_MAX_DESCRIPTORS = 65_536
_OWN_DESCRIPTORS, _DESCRIPTORS_A_SERVER = 32, 7
"""Descriptors of the broker itself with its first few clients, and of each server."""

_LOOK_S = 0.02

logger = logging.getLogger("mcp-broker")


class Launcher(NamedTuple):
    """What every server is started with.

    Relative paths start at `folder`, the config file's. `records` has a record of each server while it runs.
    `delegation` is the cgroup for the servers' cgroups, if there is one. `soft_limit` is the servers' limit
    of open descriptors.
    """

    folder: Path
    environ: Mapping[str, str]
    records: Records
    delegation: Delegation | None
    soft_limit: int

    def spawn(self, config: ServerConfig) -> Process:
        """Start a server. Call it on the main thread only: the child dies with the thread that made it.

        Raises:
            SpawnError: the program or its folder does not exist, or the program cannot be run.
        """
        program = program_of(config, folder=self.folder, environ=self.environ)
        try:
            return self._start(config, program)
        except OSError as error:
            mend = MENDS.get(error.errno or 0, "")
            raise SpawnError(f"it could not be started: {error.strerror}{mend}") from error
        except UnicodeEncodeError as error:  # the characters may be a secret
            raise SpawnError(
                f"it could not be started: its table has characters that {error.encoding}, the encoding of "
                f"this locale, does not have; start the broker with LC_ALL=C.UTF-8"
            ) from None

    def _start(self, config: ServerConfig, program: str) -> Process:
        folder, environ = self.folder / (config.cwd or ""), environment(config, self.environ)
        record = self._begun(config)
        container, args = containers.containerised(config, program, folder, self.records.cidfile(record))
        if container is not None:
            record = structs.replace(record, container=container.noted(environ))
        self.records.keep(record)
        procs = str(record.own_cgroup.procs) if record.own_cgroup else ""
        numbers = map(str, (os.getpid(), self.soft_limit, number_of(record.cookie)))
        become = [sys.executable, "-I", "-S", stub.__file__, *numbers, procs]
        with ExitStack() as theirs, ExitStack() as ours:
            ours.callback(self.records.forget, record)
            stdin, stdout, stderr = (_pipe(theirs, ours, writes=writes) for writes in (True, False, False))
            child = subprocess.Popen(
                [*become, program, *args],
                cwd=folder,
                env={**environ, COOKIE: record.cookie},
                stdin=stdin.theirs,
                stdout=stdout.theirs,
                stderr=stderr.theirs,
                start_new_session=True,
            )
            ours.callback(_take_back, child)
            removal = Removal(container, environ) if container else None
            process = Process(child, self.records, record, stdin.ours, stdout.ours, stderr.ours, removal)
            ours.pop_all()
        return process

    async def end_owed(self, config: ServerConfig) -> None:
        """Remove the server's earlier containers that may be left: it must not be started beside them.

        Raises:
            SpawnError: an engine does not remove them.
        """
        for record, container in self.records.owed_by(config.name):
            why = await self._end_owed(record, container, config)
            if why is not None:
                cidfile = record.container.cidfile if record.container else self.records.cidfile(record)
                mend = f"see that it answers; or remove the container by hand, and {cidfile}"
                raise SpawnError(f"its last container may run still, and was not removed: {why}; {mend}")
            self.records.forget(record)

    async def _end_owed(
        self, record: ProcessRecord, container: Container | None, config: ServerConfig
    ) -> str | None:
        """Have a container removed. Return why it may be left, or `None`."""
        environ = environment(config, self.environ)
        try:
            removal = Removal(container, environ) if container else self.removal_of(record, config)
        except UnknownEngine as error:
            left = record.container is not None and os.path.lexists(record.container.cidfile)
            return str(error) if left else None
        return await remove_container(removal)

    def removal_of(self, record: ProcessRecord, config: ServerConfig | None) -> Removal:
        """Return how the container in an earlier broker's record is removed.

        Raises:
            UnknownEngine: neither the config nor the broker's own PATH has its engine.
        """
        if record.container is None:
            raise UnknownEngine("its record tells of none")
        own = self.records.cidfile(record)
        return containers.removal_of(
            record.container, config, folder=self.folder, environ=self.environ, cidfile=own
        )

    def _begun(self, config: ServerConfig) -> ProcessRecord:
        """Return the record of a process that is about to be started, and make its cgroup."""
        record = ProcessRecord(server=config.name, cookie=self.records.new_cookie(), boot=boot())
        if self.delegation is not None:
            try:
                cgroup = self.delegation.make(file_name(config.name), record.cookie)
                record = structs.replace(record, cgroup=str(cgroup.path))
            except OSError as error:  # its other marks remain
                facts = {"server": config.name, "reason": error.strerror}
                logger.warning("server.cgroup_not_made", extra=facts)
        return record


class _Pipe(NamedTuple):
    ours: int
    theirs: int


def _pipe(theirs: ExitStack, ours: ExitStack, *, writes: bool) -> _Pipe:
    """Make a pipe to a child. Our end is non-blocking; the pipe is as large as the kernel allows."""
    read, write = os.pipe()
    mine, other = (write, read) if writes else (read, write)
    ours.callback(os.close, mine)
    theirs.callback(os.close, other)
    os.set_blocking(mine, False)
    with suppress(OSError):  # the user's share of pipe memory is used up: a smaller pipe works too
        fcntl.fcntl(mine, _F_SETPIPE_SZ, _PIPE_BYTES)
    return _Pipe(mine, other)


class Process:
    """A running server with three non-blocking pipes. `close` releases everything.

    The leader is not reaped before `close`: until then no other process can get its pid and its group.
    """

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        records: Records,
        record: ProcessRecord,
        stdin: int,
        stdout: int,
        stderr: int,
        removal: Removal | None = None,
    ) -> None:
        self._child = child
        self._removal = removal
        self.container_left: str | None = None
        """The reason why its container may be left after `end`."""
        self.pid = child.pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        pipes = tuple(os.fstat(fd).st_ino for fd in (stdin, stdout, stderr))
        self.mark = Mark(record.cookie, self.pid, frozenset(pipes), record.own_cgroup)
        self._left: list[ProcessStat] = []
        self._records = records
        leader = stat_of(self.pid)
        started = leader.started if leader else 0
        self._pidfd = os.pidfd_open(child.pid)
        self._record = structs.replace(record, pid=self.pid, started=started, pipes=pipes)
        records.keep(self._record)

    def __repr__(self) -> str:
        return f"<Process pid={self.pid}>"

    async def exited(self) -> None:
        """Wait for the leader's end. Several tasks may wait; trio allows only one for each descriptor."""
        try:
            fd = os.dup(self._pidfd)
        except OSError:  # no descriptor is left
            while self.exit_status() is None:
                await trio.sleep(_LOOK_S)
            return
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            _close(fd)

    def exit_status(self) -> ExitStatus | None:
        """Return how the leader ended; `None` while it runs."""
        seen = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        return ExitStatus(seen.si_status, by_signal=seen.si_code != os.CLD_EXITED)

    def is_stopped(self) -> bool:
        """Return whether the leader was stopped, by SIGSTOP or the like."""
        try:
            seen = stat_of(self.pid)
        except OSError:  # the caller looks again
            return False
        return seen is not None and seen.stopped

    def close_stdin(self) -> None:
        """Ask the server to end, as the protocol specifies."""
        if self.stdin >= 0:
            _close(self.stdin)
            self.stdin = -1

    async def end(self, patience_s: float) -> list[int]:
        """End the whole tree: close stdin, SIGTERM, SIGKILL, with `patience_s` seconds between them.

        A stopped process gets SIGKILL at once: it takes no other signal, and if it were continued it would
        first do what nobody waits for any more.

        Return the pids that are left because the kernel keeps them, in uninterruptible sleep say.

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
                signal_group(self.pid, signal_next)
        await kill_tree(self.pid, self.mark, self._record.server, self.exited, self._left)
        if self._removal is not None:
            self.container_left = await remove_container(self._removal)
        return [seen.pid for seen in self._left]

    async def processes(self) -> int:
        """Return the number of processes in the tree.

        Raises:
            OSError: /proc cannot be read now.
        """
        trees = await in_thread(partial(trees_of, [self.mark]))
        return len(trees[self.mark.cookie].processes)

    async def activity(self) -> Activity:
        """Return what the tree has done so far.

        Raises:
            OSError: /proc cannot be read now.
        """
        tree = (await in_thread(partial(trees_of, [self.mark])))[self.mark.cookie]
        pids = frozenset(seen.pid for seen in tree.processes)
        return Activity(pids, tree.cpu_s, sum(map(io_bytes, pids)))

    def close(self) -> None:
        """Reap the leader, unless the kernel keeps it, and close all descriptors."""
        self.close_stdin()
        for fd in (self.stdout, self.stderr, self._pidfd):
            _close(fd)
        self._child.poll()
        if self._removal is not None and self.container_left is not None:
            self._records.owe(self._record, self._removal.container)
        elif not self._left:
            self._records.forget(self._record)


def _take_back(child: subprocess.Popen[bytes]) -> None:
    """End a process that was started and cannot be watched."""
    signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _close(fd: int) -> None:
    trio.lowlevel.notify_closing(fd)
    os.close(fd)


def raise_descriptor_limit() -> int:
    """Raise this process's limit of descriptors to the maximum. Return the old limit, which is the servers'.

    Every connection and every server needs a few. The usual soft limit of 1,024 is for programs that use
    select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _MAX_DESCRIPTORS), hard))
    return soft


def check_descriptor_limit(servers: int) -> None:
    """Refuse to serve if the first clients would use up the descriptors: libzmq aborts without any.

    Raises:
        ConfigError: the limit is too low for so many servers.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = (_OWN_DESCRIPTORS + _DESCRIPTORS_A_SERVER * servers) * 4 // 3  # see `endpoint`
    if soft != resource.RLIM_INFINITY and soft < needed:
        problem = (
            f"only {soft} files may be open at once, and {servers} servers with their clients need {needed}"
        )
        mend = "raise the limit: LimitNOFILE= of the service, `ulimit -n` of a shell"
        raise ConfigError([Problem("servers", problem, mend)])
