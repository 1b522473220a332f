"""Starting a server where there is not enough of something."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from broker.config.schema import ServerConfig
from broker.processes.process import Launcher
from broker.processes.program import SpawnError
from broker.processes.records import Records
from broker.processes.stub import OOM_SCORE
from broker.processes.trees import stat_of
from client_shim.trusted import open_folder
from tests.e2e.harness import PATIENCE_S, descendants, rogue

ENOUGH = 12
"""Descriptors that a start needs at most, with those that it gives back."""


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    filled = []
    try:
        with suppress(OSError):
            while True:  # below the limit there are holes
                filled.append(os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filled:
            os.close(fd)


@pytest.mark.parametrize("left", range(ENOUGH + 1))
def test_without_descriptors_a_start_fails_and_leaves_nothing(left: int, tmp_path: Path) -> None:
    """Law 5: a broker that is out of descriptors does not end of it; the server is tried again later."""
    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    table = rogue()
    config = ServerConfig(name="s", command=table["command"], args=tuple(table["args"]))
    before, others = os.listdir("/proc/self/fd"), descendants(os.getpid())

    async def started_and_ended() -> str:
        with descriptors_left(left):
            try:
                process = launcher.spawn(config)
            except SpawnError as error:
                return str(error)
            assert await process.end(5.0) == []
        process.close()
        return "fine"

    said = trio.run(started_and_ended)
    short = "it could not be started: Too many open files; raise the limit of open files"
    assert said == "fine" if left == ENOUGH else said == "fine" or said.startswith(short)
    assert os.listdir("/proc/self/fd") == before
    assert set(descendants(os.getpid())) <= set(others)
    assert list(tmp_path.iterdir()) == []


def test_what_the_locale_cannot_write_is_told(tmp_path: Path) -> None:
    """Law 10: a name in Chinese, where the broker runs with a locale of before UTF-8."""
    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    not_to_be_written = "\ud800"
    config = ServerConfig(name="s", command=rogue()["command"], args=(not_to_be_written,))
    with pytest.raises(SpawnError, match="start the broker with LC_ALL"):
        launcher.spawn(config)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_has_become_another_user_ends_no_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: `sudo` in front of a command makes it root's, whom nobody else may signal (kill(2))."""

    def refuse(group: int, number: int) -> None:
        raise PermissionError

    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    table = rogue("--ignore-eof")
    config = ServerConfig(name="s", command=table["command"], args=tuple(table["args"]))

    async def ended() -> list[int]:
        process = launcher.spawn(config)
        monkeypatch.setattr(os, "killpg", refuse)
        left = await process.end(0.1)
        process.close()
        return left

    assert trio.run(ended) == []  # the hunt for each of its processes goes another way


def test_the_kernel_ends_a_server_before_the_broker(tmp_path: Path) -> None:
    """Law 5: where memory runs out, a server is killed and started again; nothing is without its broker."""
    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    table = rogue("--banner", "it runs")
    config = ServerConfig(name="s", command=table["command"], args=tuple(table["args"]))

    async def score() -> int:
        process = launcher.spawn(config)
        await trio.lowlevel.wait_readable(process.stdout)
        found = int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())
        await process.end(5.0)
        process.close()
        return found

    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert trio.run(score) == min(own + OOM_SCORE, 1000)


def test_without_threads_a_tree_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: a server that forks without an end takes all of `TasksMax=`; the broker ends it, not itself."""

    async def no_thread(read: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")  # as `threading` says it

    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    table = rogue("--fork-at-start", "bare_setsid", "--banner", "it has forked")
    config = ServerConfig(name="s", command=table["command"], args=tuple(table["args"]))
    others = descendants(os.getpid())

    async def ended() -> list[int]:
        process = launcher.spawn(config)
        await trio.lowlevel.wait_readable(process.stdout)
        monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
        assert await process.processes() == 2
        left = await process.end(5.0)
        process.close()
        return left

    assert trio.run(ended) == []
    assert set(descendants(os.getpid())) <= set(others)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_looked_at_is_not_taken_for_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Laws 1, 9 and 10: without descriptors nobody knows what is left of a tree; so its end is waited for."""
    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    table = rogue("--fork-at-start", "bare_setsid", "--banner", "it has forked")
    config = ServerConfig(name="s", command=table["command"], args=tuple(table["args"]))
    left: list[list[int]] = []
    others = descendants(os.getpid())

    async def main() -> None:
        process = launcher.spawn(config)
        await trio.lowlevel.wait_readable(process.stdout)
        process.close_stdin()  # else that would be one descriptor more

        async def end() -> None:
            left.append(await process.end(0.1))
            process.close()

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                with descriptors_left(0):
                    with pytest.raises(OSError, match="Too many open files"):
                        stat_of(process.pid)
                    assert not process.is_stopped()
                    nursery.start_soon(end)
                    while not caplog.records:
                        await trio.sleep(0.01)
                    assert left == []

    trio.run(main)
    assert left == [[]]
    (told,) = caplog.records
    assert told.message == "server.cannot_be_seen"
    assert "LimitNOFILE=" in told.__dict__["mend"]
    assert set(descendants(os.getpid())) <= set(others)
    assert list(tmp_path.iterdir()) == []


LOOK_S = 0.5
WORK = {
    "it waits": ("sleep 600", False),
    "it calculates": ("while :; do :; done", True),
    "it writes a file": ("while :; do head -c 65536 /dev/zero >> file; sleep 0.1; done", True),
    "a child of it reads": ("(while :; do cat /etc/passwd; sleep 0.05; done) > /dev/null & wait", True),
}


@pytest.mark.parametrize(("script", "works"), WORK.values(), ids=WORK)
def test_a_tree_that_works_is_told_from_one_that_waits(script: str, works: bool, tmp_path: Path) -> None:
    """So a download that writes nothing to stderr is known to go on."""
    launcher = Launcher(tmp_path, os.environ, Records(open_folder(tmp_path), "me"), None, 1024)
    config = ServerConfig(name="s", command="sh", args=("-c", script))

    async def looked_at() -> bool:
        process = launcher.spawn(config)
        try:
            await trio.sleep(LOOK_S)  # the stub becomes the program
            before = await process.activity()
            await trio.sleep(LOOK_S)
            return (await process.activity()).since(before, LOOK_S)
        finally:
            with trio.CancelScope(shield=True):
                await process.end(0)
            process.close()

    assert trio.run(looked_at) is works
