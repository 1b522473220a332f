"""The audit log: who called what, bounded, private, and never silently incomplete (laws 6 and 9)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.audit import MAX_BODY_CHARS, Audit, AuditLog, Entry
from broker.gateway.conversation import eras
from broker.gateway.conversation.effects import MakeCall, ServerResult
from broker.gateway.settings import AuditConfig
from client_shim.trusted import Untrusted
from tests.gateway.chat import Chat

CALL = Entry(
    time="2026-11-30T08:00:00Z",
    who="uid:1000",
    door="socket",
    client="claude-code 3.1",
    server="time",
    method="tools/call",
    target="get_current_time",
    outcome="ok",
    ms=2.5,
    request_bytes=60,
    result_bytes=120,
)


def test_a_line_tells_the_call_and_no_bodies(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"), max_bytes=1 << 20, keep=2)
    log.write(CALL)
    log.close()
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line) == {key: value for key, value in CALL._asdict().items() if value is not None}
    assert not {"params", "result"} & set(json.loads(line))


@given(st.text(st.characters()), st.text(), st.text(min_size=1))
def test_whatever_a_client_calls_itself_is_one_line_of_json(
    tmp_path_factory: pytest.TempPathFactory, client: str, target: str, result: str
) -> None:
    path = tmp_path_factory.mktemp("audit") / "log"
    log = AuditLog(str(path), max_bytes=1 << 20, keep=1)
    log.write(CALL._replace(client=client, target=target, result=result * 100))
    log.close()
    lines = path.read_bytes().split(b"\n")
    assert lines[1:] == [b""]
    told = json.loads(lines[0])
    assert (told["client"], told["target"]) == (client, target)
    assert lines[0].decode().isprintable()  # no terminal obeys it
    assert len(told["result"]) <= MAX_BODY_CHARS


@pytest.mark.parametrize("info", ["name version", 5, ["name"], {"name": ["x"]}, {}, None, [], ""])
def test_a_client_that_calls_itself_something_odd_is_logged(tmp_path: Path, info: object) -> None:
    """A call is in the log, whatever its client says of itself."""
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), AuditConfig())
    made = MakeCall(1, "tools/call", b'{"name":"echo"}', {eras.CLIENT_INFO: info})
    audit.caller("uid:1000", "socket")(Chat().conversation, made, ServerResult(b"{}"), 0.1)
    audit.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["target"] == "echo"


def test_the_files_stay_below_their_bound(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"), max_bytes=4096, keep=2)
    for _ in range(200):
        log.write(CALL)
    log.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(size <= 4096 for size in sizes.values())


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"), max_bytes=4096, keep=1)
    log.write(CALL)
    log.close()
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def _linked(path: Path) -> None:
    (path.parent / "victim").write_text("as it was")
    path.symlink_to(path.parent / "victim")


def _in_an_open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (os.mkfifo, "a FIFO.*regular file"),  # opening it would wait for a reader
        (_linked, "a symbolic link.*regular file"),
        (Path.mkdir, "a folder.*regular file"),
        (_in_an_open_folder, "may write to the folder.*chmod"),
    ],
)
def test_what_another_user_could_change_is_refused(
    tmp_path: Path, made: Callable[[Path], object], said: str
) -> None:
    """Law 10: the refusal says what to do. Nothing is written."""
    made(tmp_path / "audit.jsonl")
    with pytest.raises(Untrusted, match=said):
        AuditLog(str(tmp_path / "audit.jsonl"), max_bytes=4096, keep=1)
    assert [path.read_text() for path in tmp_path.glob("victim")] in ([], ["as it was"])


def test_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"), max_bytes=1 << 20, keep=1)
    file = log._handler.stream
    assert file is not None
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), file.fileno())
    with caplog.at_level(logging.ERROR, "mcp-broker"):
        for _ in range(3):
            log.write(CALL)
    log.close()
    assert log.lost == 3
    assert [record.message for record in caplog.records] == ["audit.lost"]
