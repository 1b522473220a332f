"""The state directory, and the end of what an earlier broker left: the right processes, and no others."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from broker.config.names import file_name
from broker.config.schema import BrokerConfig
from broker.processes.cgroup import Delegation
from broker.processes.containers import Removal, UnknownEngine
from broker.processes.leftovers import end_leftovers
from broker.processes.records import ProcessRecord, Records, boot, hold_records, state_dir_of
from broker.processes.trees import COOKIE as MARK_NAME
from broker.processes.trees import number_of, stat_of, trees_of
from broker.service.claims import ClaimError
from client_shim.trusted import open_folder
from tests.e2e.harness import wait_until

PATIENCE_S = 60.0
MARK = f"{os.getpid():016x}.00000000000000bb"
"""Of this process alone: the tests of another look at the same machine."""

RLIMIT_LOCKS = 10
"""From <sys/resource.h>."""


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """A state directory that this test holds."""
    with hold_records(tmp_path / "state") as records:
        yield records


def nowhere(record: ProcessRecord) -> Removal:
    """No engine is known that could remove a container."""
    raise UnknownEngine("no engine is known")


@contextmanager
def sleeper(
    environ: Mapping[str, str] | None = None, script: str = "exec sleep 300"
) -> Iterator[tuple[subprocess.Popen[bytes], ProcessRecord]]:
    """A process in a session of its own, as a server is, and the record that a broker would keep of it."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec 3<&0; {script}"],
        env={"PATH": os.defpath, **(environ or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin
    try:
        seen = stat_of(process.pid)
        assert seen is not None
        leader = {"pid": process.pid, "started": seen.started}
        pipes = (os.fstat(process.stdin.fileno()).st_ino,)
        yield (
            process,
            structs.replace(ProcessRecord(server="s", cookie=MARK, boot=boot(), pipes=pipes), **leader),
        )
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.wait(PATIENCE_S)


def child_of(pid: int) -> int:
    """The first child of a process, which it may have to start yet."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text() != "")
    return int(children.read_text().split()[0])


def is_killed(process: subprocess.Popen[bytes]) -> bool:
    """Whether SIGKILL has ended it; what was not killed is still there after the leftovers were ended."""
    if process.poll() is None:
        return False
    return process.returncode == -signal.SIGKILL


def test_what_overwrote_its_environment_is_found_by_its_number(records: Records) -> None:
    """Pid and start time are compared, for a server that shows no cookie any more."""
    with sleeper() as (process, record):
        resource.prlimit(process.pid, RLIMIT_LOCKS, (number_of(MARK), number_of(MARK)))
        records.keep(structs.replace(record, pipes=()))
        end_leftovers(records, None, nowhere)
        assert is_killed(process)
    assert records.earlier() == []


def test_what_is_in_the_session_of_a_leader_that_is_the_server_s(records: Records) -> None:
    """A child that cleared its environment; its leader carries the cookie, so the record is right."""
    with sleeper({MARK_NAME: MARK}, "env -i sleep 300 >/dev/null 2>&1 </dev/null & wait") as (
        process,
        record,
    ):
        child = child_of(process.pid)
        records.keep(record)
        end_leftovers(records, None, nowhere)
        assert is_killed(process)
        assert stat_of(child) is None


def test_what_left_the_session_is_found_by_its_pipe(records: Records) -> None:
    """A descendant without environment, in a session of its own, holds the pipe of a leader that is known."""
    with sleeper({MARK_NAME: MARK}, "env -i setsid sleep 300 0<&3 & exec sleep 300") as (process, record):
        child = child_of(process.pid)
        wait_until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        records.keep(record)
        end_leftovers(records, None, nowhere)
        assert is_killed(process)
        assert stat_of(child) is None


LIES: dict[str, Callable[[ProcessRecord], ProcessRecord]] = {
    "its number is another's by now": lambda record: structs.replace(record, started=record.started - 1),
    "its numbers are of another boot": lambda record: structs.replace(record, boot="another"),
    "its leader shows no cookie": lambda record: record,
    "its leader is gone and its pipes may be another's": lambda record: structs.replace(
        record, pid=2**22 + 1
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_is_believed_only_where_the_kernel_says_the_same(records: Records, lie: str) -> None:
    """By a record that is wrong, or old, no process of anybody is ended."""
    with sleeper() as (process, record):
        records.keep(LIES[lie](record))
        end_leftovers(records, None, nowhere)
        assert process.poll() is None
    assert records.earlier() == []


@pytest.mark.parametrize("server", ["s", "时间"])
def test_a_cgroup_is_ended_only_where_the_broker_makes_its_own(
    records: Records, tmp_path: Path, server: str
) -> None:
    """Else a record could have any cgroup of the machine killed, or any empty folder removed."""
    delegation, elsewhere = Delegation(tmp_path / "cg"), tmp_path / "elsewhere"
    record = ProcessRecord(server=server, cookie=MARK, boot=boot())
    own = delegation.of(file_name(server), MARK).path
    for folder in (own, elsewhere):
        folder.mkdir(parents=True)
    for named, there in ((elsewhere, True), (delegation.path, True), (own, False)):
        records.keep(structs.replace(record, cgroup=str(named)))
        end_leftovers(records, delegation, nowhere)
        assert own.exists() is there
    assert elsewhere.exists()
    assert delegation.path.exists()


def test_what_carries_the_owner_s_cookie_needs_no_record(records: Records) -> None:
    """A broker may be killed between the start of a process and its record."""
    with (
        sleeper({MARK_NAME: f"{records.owner}.ab"}) as (mine, _),
        sleeper({MARK_NAME: "other.ab"}) as (others, _),
    ):
        end_leftovers(records, None, nowhere)
        assert is_killed(mine)
        assert others.poll() is None


def test_each_that_is_killed_is_logged(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    """Law 9: with its pid, and the server that it belonged to."""
    carries = {MARK_NAME: MARK}
    with sleeper(carries) as (process, record), caplog.at_level(logging.WARNING, "mcp-broker"):
        records.keep(record)
        end_leftovers(records, None, nowhere)
        (line,) = caplog.records
        assert line.getMessage() == "broker.leftover_killed"
        assert (vars(line)["pid"], vars(line)["server"]) == (process.pid, "s")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"server": "s"}'])
def test_a_record_that_cannot_be_read_is_told_and_removed(
    records: Records, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut may leave half a file: no broker stays down for that."""
    (records.folder / "s.1.json").write_bytes(content)
    (records.folder / "s.2.new").write_bytes(content)
    end_leftovers(records, None, nowhere)
    assert {path.name for path in records.folder.iterdir()} == {"lock", "owner"}
    assert [line.getMessage() for line in caplog.records] == ["state.unreadable"]


@pytest.mark.parametrize(
    ("name", "server", "cookie"),
    [
        ("s.00000000000000bb.json", "t", None),
        ("s.00000000000000bb.json", "../s", None),
        ("s..json", "s", ""),
        ("s.json", "s", "00000000000000aa."),
        ("s.bb.json", "s", "aa.bb"),
    ],
)
def test_a_record_that_no_broker_writes_is_told_and_left(
    records: Records, name: str, server: str, cookie: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A server's name is a part of what is removed, and a short cookie is that of every server."""
    path = records.folder / name
    record = ProcessRecord(server=server, cookie=MARK if cookie is None else cookie, boot=boot())
    path.write_bytes(msgspec.json.encode(record))
    with sleeper({MARK_NAME: MARK}) as (process, _):
        end_leftovers(records, None, nowhere)
        assert process.poll() is None
    assert path.exists()
    (line,) = caplog.records
    assert (line.getMessage(), vars(line)["path"]) == ("state.not_trusted", str(path))


def test_a_container_without_a_record_is_told(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    """Law 9: the disk was full when its record was to be written. Nobody knows its engine; the file stays."""
    records.cidfile(ProcessRecord(server="s", cookie=MARK, boot=boot())).write_text("0123456789ab")
    end_leftovers(records, None, nowhere)
    (line,) = caplog.records
    assert line.getMessage() == "broker.leftover_container"
    assert (vars(line)["server"], vars(line)["reason"]) == ("s", "its record is missing")
    assert [path.name for path in records.cidfiles()] == ["s.00000000000000bb.cid"]


def test_the_directory_is_its_user_s_alone(tmp_path: Path) -> None:
    """Mode 0700, also where it was there before with another."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    with hold_records(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_broker_at_a_time(records: Records) -> None:
    """Law 1: a second broker would end the servers of the first."""
    with pytest.raises(ClaimError, match=rf"pid {os.getpid()} uses the state directory.*state_dir"):  # noqa: SIM117
        with hold_records(records.folder):
            pass


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Law 10: what it is about, and the key to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ClaimError, match=r"file.* cannot be used: .*; name another by state_dir"):  # noqa: SIM117
        with hold_records(tmp_path / "file" / "state"):
            pass


def test_the_owner_outlives_the_broker(tmp_path: Path) -> None:
    """By it the next broker knows the cookies of this one."""
    with hold_records(tmp_path / "state") as first:
        pass
    with hold_records(tmp_path / "state") as second:
        assert second.owner == first.owner
        assert second.new_cookie().startswith(f"{first.owner}.")


def test_a_full_disk_does_not_keep_the_next_broker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already is enough; and the lock holds, though its pid cannot be written."""
    with hold_records(tmp_path / "s"):
        pass

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "ftruncate", full)
    with (
        hold_records(tmp_path / "s"),
        pytest.raises(ClaimError, match=r"a broker with pid .* uses the state"),
        hold_records(tmp_path / "s"),
    ):
        pass
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(ClaimError, match="No space left on device; free some space there"):  # noqa: SIM117
        with hold_records(tmp_path / "t"):
            pass


def test_a_full_disk_stops_no_server(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    """The cookie still tells whose a process is; that there is no record is logged."""
    (records.folder / "away").mkdir()
    away = Records(open_folder(records.folder / "away"), records.owner)
    away.folder.rmdir()
    away.keep(ProcessRecord(server="s", cookie=MARK, boot=boot()))
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


def test_memory_and_cpu_are_of_the_whole_tree(records: Records) -> None:
    """What `status` shows is of the server and of all that it started, ended children included."""
    burn = "import os, time\nwhile time.process_time() < 0.2: pass\n"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {parent!r}])"
    cookie = records.new_cookie()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={MARK_NAME: cookie},
    )
    assert process.stdin
    record = ProcessRecord(server="s", cookie=cookie, boot=boot())
    while (tree := trees_of([record.mark])[cookie]).cpu_s < 0.2 or len(tree.processes) != 2:
        assert process.poll() is None
    assert tree.rss_bytes > 8_000_000
    process.stdin.close()
    process.wait(PATIENCE_S)
