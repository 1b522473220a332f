"""The state directory, and the end of what an earlier broker left: the right processes, and no others."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from broker.core.config import BrokerConfig
from broker.leftovers import end_leftovers
from broker.place import PlaceError
from broker.state import Record, State, boot, held, state_dir_of
from broker.trees import COOKIE, look_at, trees_of

PATIENCE_S = 60.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state directory that this test holds."""
    with held(tmp_path / "state") as state:
        yield state


@contextmanager
def sleeper(environ: Mapping[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], Record]]:
    """A process in a session of its own, as a server is, and the record that a broker would keep of it."""
    process = subprocess.Popen(
        ["sleep", "300"],
        env=dict(environ or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin
    try:
        seen = look_at(process.pid)
        assert seen is not None
        pipes = (os.fstat(process.stdin.fileno()).st_ino,)
        yield (
            process,
            Record(server="s", cookie="o.1", boot=boot(), pid=process.pid, started=seen.started, pipes=pipes),
        )
    finally:
        process.kill()
        process.stdin.close()
        process.wait(PATIENCE_S)


def is_killed(process: subprocess.Popen[bytes]) -> bool:
    """Whether SIGKILL has ended it; what was not killed is still there after the leftovers were ended."""
    if process.poll() is None:
        return False
    return process.returncode == -signal.SIGKILL


def test_what_overwrote_its_environment_is_found_by_pid_and_start(state: State) -> None:
    """Issue 4: pid and start time are compared, for a server that shows no cookie any more."""
    with sleeper() as (process, record):
        state.keep(structs.replace(record, pipes=()))
        end_leftovers(state, None, lambda server: {})
        assert is_killed(process)
    assert state.records() == []


def test_a_reused_pid_is_never_touched(state: State) -> None:
    """Issue 4: the same pid with another start time is somebody else, with its whole session."""
    with sleeper() as (process, record):
        state.keep(structs.replace(record, started=record.started - 1, pipes=()))
        end_leftovers(state, None, lambda server: {})
        assert process.poll() is None
    assert state.records() == []


def test_numbers_of_another_boot_mean_nothing(state: State) -> None:
    """Pids begin anew at a boot, and so do the numbers of pipes."""
    with sleeper() as (process, record):
        state.keep(structs.replace(record, boot="another"))
        end_leftovers(state, None, lambda server: {})
        assert process.poll() is None
    assert state.records() == []


def test_what_left_the_session_is_found_by_its_pipe(state: State) -> None:
    """A descendant without environment, whose leader is gone, still holds what it inherited."""
    with sleeper() as (process, record):
        state.keep(structs.replace(record, pid=2**22 + 1, started=1))
        end_leftovers(state, None, lambda server: {})
        assert is_killed(process)


def test_what_carries_the_owner_s_cookie_needs_no_record(state: State) -> None:
    """A broker may be killed between the start of a process and its record."""
    with sleeper({COOKIE: f"{state.owner}.ab"}) as (mine, _), sleeper({COOKIE: "other.ab"}) as (others, _):
        end_leftovers(state, None, lambda server: {})
        assert is_killed(mine)
        assert others.poll() is None


def test_each_that_is_killed_is_logged(state: State, caplog: pytest.LogCaptureFixture) -> None:
    """Law 9: with its pid, and the server that it belonged to."""
    with sleeper() as (process, record), caplog.at_level(logging.WARNING, "mcp-broker"):
        state.keep(record)
        end_leftovers(state, None, lambda server: {})
        (line,) = caplog.records
        assert line.getMessage() == "broker.leftover_killed"
        assert (vars(line)["pid"], vars(line)["server"]) == (process.pid, "s")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"server": "s"}'])
def test_a_record_that_cannot_be_read_is_told_and_removed(
    state: State, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut may leave half a file: no broker stays down for that."""
    (state.folder / "s.1.json").write_bytes(content)
    (state.folder / "s.2.new").write_bytes(content)
    end_leftovers(state, None, lambda server: {})
    assert {path.name for path in state.folder.iterdir()} == {"lock", "owner"}
    assert [line.getMessage() for line in caplog.records] == ["state.unreadable"]


def test_a_container_without_a_record_is_told(state: State, caplog: pytest.LogCaptureFixture) -> None:
    """Law 9: the disk was full when its record was to be written. Nobody knows its engine; the file stays."""
    state.cidfile(Record(server="s", cookie="o.1", boot=boot())).write_text("0123456789ab")
    end_leftovers(state, None, lambda server: {})
    (line,) = caplog.records
    assert line.getMessage() == "broker.leftover_container"
    assert (vars(line)["server"], vars(line)["reason"]) == ("s", "its record is missing")
    assert [path.name for path in state.cidfiles()] == ["s.1.cid"]


def test_the_directory_is_its_user_s_alone(tmp_path: Path) -> None:
    """Mode 0700, also where it was there before with another."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    with held(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_broker_at_a_time(state: State) -> None:
    """Law 1: a second broker would end the servers of the first."""
    with pytest.raises(PlaceError, match=rf"pid {os.getpid()} uses the state directory.*state_dir"):  # noqa: SIM117
        with held(state.folder):
            pass


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Law 10: what it is about, and the key to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"file.* cannot be used: .*; name another by state_dir"):  # noqa: SIM117
        with held(tmp_path / "file" / "state"):
            pass


def test_the_owner_outlives_the_broker(tmp_path: Path) -> None:
    """By it the next broker knows the cookies of this one."""
    with held(tmp_path / "state") as first:
        pass
    with held(tmp_path / "state") as second:
        assert second.owner == first.owner
        assert second.new_cookie().startswith(f"{first.owner}.")


def test_a_full_disk_does_not_keep_the_next_broker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 6: what is there already is enough; and the lock holds, though its pid cannot be written."""
    with held(tmp_path / "s"):
        pass

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "ftruncate", full)
    with (
        held(tmp_path / "s"),
        pytest.raises(PlaceError, match=r"a broker with pid .* uses the state"),
        held(tmp_path / "s"),
    ):
        pass
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(PlaceError, match="No space left on device; free some space there"), held(tmp_path):
        pass


def test_a_full_disk_stops_no_server(state: State, caplog: pytest.LogCaptureFixture) -> None:
    """The cookie still tells whose a process is; that there is no record is logged."""
    away = State(state.folder / "away", state.owner)
    away.keep(Record(server="s", cookie="o.1", boot=boot()))
    assert [line.getMessage() for line in caplog.records] == ["state.not_written"]


@pytest.mark.parametrize(
    ("state_dir", "endpoint", "environ", "found"),
    [
        (None, "ipc:///run/x/b.sock", {}, "/run/x/b.sock.state"),
        (
            None,
            "ipc:///run/x/b.sock",
            {"STATE_DIRECTORY": "/var/lib/one:/b"},
            "/var/lib/one/processes",
        ),
        ("/srv/state", "ipc:///run/x/b.sock", {"STATE_DIRECTORY": "/var/lib/one"}, "/srv/state"),
        ("state", "ipc:///run/x/b.sock", {}, "/etc/broker/state"),
    ],
)
def test_where_it_is(state_dir: str | None, endpoint: str, environ: dict[str, str], found: str) -> None:
    """The config's word, then systemd's, then beside the socket."""
    config = BrokerConfig(state_dir=state_dir)
    assert state_dir_of(config, endpoint, environ, Path("/etc/broker")) == Path(found)


def test_a_tcp_endpoint_has_one_too(tmp_path: Path) -> None:
    """In the user's own folder, and another for each port."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    found = {state_dir_of(BrokerConfig(), f"tcp://127.0.0.1:{n}", environ, tmp_path) for n in (7000, 7001)}
    assert len(found) == 2


def test_memory_and_cpu_are_of_the_whole_tree(state: State) -> None:
    """Issue 4: what `status` shows is of the server and of all that it started, ended children included."""
    burn = "import os, time\nwhile time.process_time() < 0.2: pass\n"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {parent!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, start_new_session=True, env={COOKIE: "o.1"}
    )
    assert process.stdin
    record = Record(server="s", cookie="o.1", boot=boot())
    while (tree := trees_of([record.mark])["o.1"]).cpu_s < 0.2 or len(tree.processes) != 2:
        assert process.poll() is None
    assert tree.rss_bytes > 8_000_000
    process.stdin.close()
    process.wait(PATIENCE_S)
