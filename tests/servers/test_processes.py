"""How `rogue.py` starts, floods, leaves descendants and ends."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.servers.driver import (
    MODERN_META,
    PATIENCE_S,
    ROGUE,
    Driven,
    Object,
    is_alive,
    legacy,
    until_gone,
)

# Tools


def test_env_and_fds() -> None:
    """Guards `env` and `fds`: what the process inherited, nothing more."""
    with Driven(*ROGUE, env={"SET": "1"}).open_legacy() as server:
        assert server.call("env", names=["SET", "PATH"]) == {"SET": "1", "PATH": None}
        assert server.call("fds")["count"] == 3


def test_stderr_and_stdout_noise() -> None:
    """Guards `stderr` (numbered lines of that size) and `stdout_noise` (no JSON, before the answer)."""
    with legacy() as server:
        server.call("stderr", lines=2, bytes=6)
        assert server.err.take(14) == b"1 eeee\n2 eeee\n"
        server.begin_call("stdout_noise", lines=2)
        assert [server.out.line() for _ in range(2)] == [b"this is no JSON\n"] * 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [({}, 1), ({"exit": 0}, 0), ({"exit": 9}, 9), ({"signal": signal.SIGKILL}, -signal.SIGKILL)],
)
def test_crash(arguments: Object, status: int) -> None:
    """Guards `crash`: no answer, and this exit status."""
    with legacy() as server:
        server.begin_call("crash", **arguments)
        assert (server.out.rest(), server.status()) == (b"", status)


def session_and_pipe(pid: int) -> tuple[int, str]:
    return os.getsid(pid), os.readlink(f"/proc/{pid}/fd/1")


@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("how", ["child", "setsid", "double_fork"])
def test_descendants_are_left(how: str, at_start: bool) -> None:
    """Guards `spawn` and `--fork-at-start`: whose session, who holds the pipe, who lives on."""
    with legacy(*(["--fork-at-start", how] if at_start else [])) as server:
        if not at_start:
            server.call("spawn", how=how)
        [pid] = server.call("whoami")["descendants"]
        try:
            session, pipe = session_and_pipe(pid)
            assert (session == os.getsid(0)) is (how == "child")
            server.begin_call("crash")
            server.status()
            assert is_alive(pid)
            if how == "double_fork":
                assert server.out.rest() == b""
            else:
                assert pipe == os.readlink(f"/proc/self/fd/{server.out.fd}")
        finally:
            os.kill(pid, signal.SIGKILL)
        until_gone(pid)


# Starting


def test_start_file_counts_starts(tmp_path: Path) -> None:
    """Guards `--start-file`: one line for each start, with the pid and its start time."""
    record = tmp_path / "starts"
    started = []
    for _ in range(2):
        with legacy("--start-file", str(record)) as server:
            stat = Path(f"/proc/{server.process.pid}/stat").read_text()
            started.append(f"{server.process.pid} {stat.split()[21]}")
    assert record.read_text().splitlines() == started


def test_start_delay_says_nothing_before() -> None:
    """Guards `--start-delay`: neither stream has a byte before it is over."""
    begun = time.monotonic()
    with Driven(*ROGUE, "--start-delay", "0.3", "--stderr-at-start", "on", "--banner", "hello") as server:
        ready, _, _ = select.select([server.out.fd, server.err.fd], [], [], PATIENCE_S)
        assert ready
        assert time.monotonic() - begun >= 0.3


def test_memory_that_is_held() -> None:
    """Guards `--hold-mib`."""
    with Driven(*ROGUE, "--hold-mib", "16") as server:
        server.open_legacy()
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
        assert pages * os.sysconf("SC_PAGE_SIZE") > 16 * 1024 * 1024


def test_what_is_said_at_the_start() -> None:
    """Guards `--banner`, `--stderr-at-start`, `--crlf`: the first line of each stream, and how lines end."""
    with Driven(*ROGUE, "--banner", "hello", "--stderr-at-start", "oh", "--crlf") as server:
        assert (server.out.line(), server.err.line()) == (b"hello\n", b"oh\n")
        server.begin("ping")
        assert server.out.line().endswith(b"}\r\n")
        assert server.open_legacy().call("echo", a=1) == {"a": 1}


@pytest.mark.parametrize(("flags", "status"), [(("--exit-at-start", "3"), 3), (("--no-such-flag",), 2)])
def test_exits_at_start(flags: tuple[str, ...], status: int) -> None:
    """Guards `--exit-at-start`, and that a mistyped flag does not pass as a well-behaved server."""
    with Driven(*ROGUE, *flags) as server:
        assert (server.out.rest(), server.status()) == (b"", status)


def test_endless_line_is_the_only_one() -> None:
    """Guards `--endless-line`: so many bytes, no line end, and no answer after it."""
    with Driven(*ROGUE, "--endless-line", "100000") as server:
        assert server.out.take(100_000) == b"x" * 100_000
        server.begin("initialize")
        server.end_input()
        assert server.out.rest() == b""


def test_flood_stderr_does_not_end() -> None:
    """Guards `--flood-stderr`: more than a pipe holds, while it goes on serving."""
    with legacy("--flood-stderr") as server:
        assert server.err.take(1_200_000) == b"flood\n" * 200_000
        assert server.call("echo", a=1) == {"a": 1}


def test_flood_stdout_does_not_end() -> None:
    """Guards `--flood-stdout`: log notifications before, between and after the answers."""
    with legacy("--flood-stdout") as server:
        assert server.call("echo", a=1) == {"a": 1}
        assert server.until_unasked("notifications/message")["params"]["logger"] == "flood"
        assert len(server.out.take(1_000_000)) == 1_000_000


# Ending


def test_silent_answers_nothing() -> None:
    """Guards `--silent`: it reads on, to the end, and never says a word."""
    with Driven(*ROGUE, "--silent") as server:
        server.begin("server/discover", meta=MODERN_META)
        server.begin("initialize")
        server.write(b"x" * 200_000 + b"\n")
        server.end_input()
        assert (server.out.rest(), server.status()) == (b"", 0)


def test_exit_after() -> None:
    """Guards `--exit-after`: the Nth request is answered, then the process ends with 1."""
    with legacy("--exit-after", "3") as server:
        assert server.call("echo") == {}
        assert server.call("echo", last=True) == {"last": True}
        assert (server.out.rest(), server.status()) == (b"", 1)


def test_close_stdout_after() -> None:
    """Guards `--close-stdout-after`: stdout ends and the server lives and reads on."""
    with legacy("--close-stdout-after", "2") as server:
        assert server.call("echo") == {}
        assert server.out.rest() == b""
        server.begin_call("stderr", bytes=3)
        assert server.err.line() == b"1 e\n"
        assert server.process.poll() is None


def test_close_stdin_after() -> None:
    """Guards `--close-stdin-after`: nobody reads stdin any more and the server lives on."""
    with legacy("--close-stdin-after", "2") as server:
        assert server.call("echo") == {}
        broken = select.poll()
        broken.register(server.stdin.fileno(), select.POLLERR)
        assert broken.poll(PATIENCE_S * 1000)
        assert server.process.poll() is None


def test_ends_with_its_input() -> None:
    """Guards the default: at the end of stdin it exits with 0, whatever is under way."""
    with legacy() as server:
        server.begin_call("hang")
        server.end_input()
        assert server.status() == 0


def test_ignore_eof_outlives_its_input() -> None:
    """Guards `--ignore-eof`: a call under way is still answered after stdin has ended."""
    with legacy("--ignore-eof") as server:
        slept = server.begin_call("sleep", seconds=0.3)
        server.end_input()
        assert "result" in server.answer(slept)
        assert server.process.poll() is None


@pytest.mark.parametrize("flags", [(), ("--ignore-eof",)])
def test_ignore_eof_outlives_its_reader(flags: tuple[str, ...]) -> None:
    """Guards `--ignore-eof`: it goes on when nobody reads stdout; without the flag it exits with 1."""
    with legacy(*flags) as server:
        assert server.process.stdout
        server.process.stdout.close()
        server.begin_call("stderr", bytes=3)
        assert server.err.line() == b"1 e\n"
        if not flags:
            assert server.status() == 1
            return
        server.begin_call("stderr", bytes=3)
        assert server.err.line() == b"1 e\n"


@pytest.mark.parametrize("flags", [(), ("--ignore-sigterm",)])
def test_ignore_sigterm(flags: tuple[str, ...]) -> None:
    """Guards `--ignore-sigterm`: it serves on; without the flag SIGTERM ends it."""
    with legacy(*flags) as server:
        server.process.send_signal(signal.SIGTERM)
        if flags:
            assert server.call("echo", a=1) == {"a": 1}
        else:
            assert server.status() == -signal.SIGTERM
