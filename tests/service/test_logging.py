"""The log: one event is one line, whatever is in it; the journal and programs read it too."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.service import logging as logs
from broker.service.logging import LineFormatter
from docs.blocks import events
from tests.core.world import World
from tests.e2e.harness import ROOT, rogue, running, toml

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
HOSTILE = st.text(st.characters() | st.sampled_from('\n\r\t\x00\x1b\x85\x9b\u2028\u2029\u202e"\\= <3>\ud800'))
KNOWN = events.catalogue()
FACTS = st.dictionaries(
    st.sampled_from(["server", "client", "tool", "reason", "text"]),
    st.one_of(HOSTILE, st.integers(), st.none(), st.booleans(), st.floats()),
)


def record(level: int, event: str, facts: dict[str, Any]) -> logging.LogRecord:
    return logging.getLogger("any").makeRecord("any", level, "file", 1, event, (), None, extra=facts)


def parsed(line: str) -> list[tuple[str, str]]:
    """The facts of a text line, as a reader of the line takes it apart."""
    return re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)', line)


def assert_one_line(line: str) -> None:
    assert line.isprintable(), "nothing ends the line, moves a cursor, or turns the writing"
    assert line.splitlines() == [line]
    line.encode()  # a lone surrogate cannot be written


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(LEVELS), FACTS)
def test_a_text_line_says_what_it_was_given_and_nothing_else(level: int, facts: dict[str, Any]) -> None:
    """Hostile names, line ends and escapes cannot break a line, nor forge a fact in one."""
    line = LineFormatter(journal=True).format(record(level, "server.ready", facts))
    assert_one_line(line)
    priority, _, rest = line.partition(">")
    assert re.fullmatch(r"<[3467]", priority)
    assert rest.split()[:2] == [logging.getLevelName(level).lower(), "server.ready"]
    read = {key: json.loads(word) if word.startswith('"') else word for key, word in parsed(line)}
    assert read == {key: "-" if fact is None else str(fact) for key, fact in facts.items()}


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(LEVELS), FACTS)
def test_a_json_line_is_one_object_with_the_same_facts(level: int, facts: dict[str, Any]) -> None:
    """`--log-format json`: time in RFC 3339, level, event, facts."""
    line = LineFormatter("json").format(record(level, "server.ready", facts))
    assert_one_line(line)
    read = json.loads(line, parse_constant=pytest.fail)
    time = read.pop("time")
    assert time.endswith("Z")
    assert datetime.fromisoformat(time.replace("Z", "+00:00")).tzinfo is not None
    assert (read.pop("level"), read.pop("event")) == (logging.getLevelName(level).lower(), "server.ready")
    assert read == {
        key: str(fact) if fact in (float("inf"), float("-inf")) or fact != fact else fact
        for key, fact in facts.items()
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_stays_in_the_line_of_its_event(form: logs.Form) -> None:
    """A fault of the broker is one event: a second line would have no priority in the journal."""
    try:
        int("first\nsecond <0>forged")
    except ValueError:
        seen = logging.getLogger("any").makeRecord("any", 40, "f", 1, "command.failed", (), sys.exc_info())
    line = LineFormatter(form, journal=True).format(seen)
    assert_one_line(line)
    assert line.startswith("<3>")
    assert "ValueError: invalid literal" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_has_a_limit(form: logs.Form) -> None:
    """Law 6: what a peer wrote cannot make a line as long as it likes."""
    line = LineFormatter(form).format(record(20, "server.stderr", {"text": "x" * 1_000_000}))
    assert len(line) < logs.MAX_VALUE_CHARS + 200


def test_text_lines_begin_with_the_time_where_there_is_no_journal() -> None:
    """A terminal and a file know no time of their own: it is local, with its offset."""
    time, _, rest = LineFormatter().format(record(30, "server.backoff", {"pid": 7})).partition(" ")
    assert datetime.fromisoformat(time).tzinfo is not None
    assert rest == "warning server.backoff pid=7"


@settings(max_examples=50, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_what_peers_call_things_stays_in_its_place(client: str, tool: str, said: str) -> None:
    """Law 9: names of clients, tools and methods, and what servers write, through the core."""
    names = [text.encode(errors="replace").decode() for text in (client, tool, said)]
    world = World()
    world.start()
    page = world.stranger()
    page.hello(names[0] or "page")
    page.call(tool=names[1])
    page.request("time", names[2] or "any")
    page.send(b"\xff")
    for line in (names[2], json.dumps({"jsonrpc": "2.0", "method": names[1]})):
        world.run(world.engine.replies.line, "time", line.encode())
    world.run(world.engine.clients.goodbye, "over")
    assert {"client.connected", "frame.refused", "client.closed"} <= {note.event for note in world.notes}
    for note in world.notes:
        line = LineFormatter(journal=True).format(record(note.level, note.event, note.facts))
        assert_one_line(line)
        assert note.event in KNOWN
        assert len(parsed(line)) == len(note.facts)


# --- the catalogue ---------------------------------------------------------------------------------------


def test_no_fact_has_a_name_that_a_line_has_anyway() -> None:
    """`logging` raises for `name`, in the midst of the hub; `time` would be there twice."""
    for one in events.logged():
        assert not one.facts & (logs.STANDARD | logs.RESERVED), one.where


def test_no_fact_is_a_body() -> None:
    """Bodies and secrets never: nothing that is logged is called as they are."""
    for one in events.logged():
        assert not one.facts & {"body", "params", "arguments", "result", "env", "meta", "args"}, one.where


def test_the_catalogue_sees_every_event() -> None:
    """A module whose lines the catalogue cannot see would be one that no page explains."""
    assert {"server.ready", "server.late.reply", "catalogue.unread", "call.ended", "server.stderr"} <= {
        *KNOWN
    }
    assert KNOWN["client.closed"] == {"debug", "info", "warning"}
    assert KNOWN["server.backoff"] == {"warning"}
    assert KNOWN["command.failed"] == {"error"}


# --- a broker --------------------------------------------------------------------------------------------


def lines_of(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        yield json.loads(line)


def test_a_broker_logs_json_a_line_for_a_call_and_no_body(tmp_path: Path) -> None:
    """Every line of a whole life is an object; a call is one line; what was said is in none."""
    with running({"one": rogue(env={"TOKEN": "s3cret-env"})}, arguments=("--log-format", "json")) as broker:
        with broker.client() as client:
            client.request("one", "tools/call", {"name": "echo", "arguments": {"text": "s3cret-body"}})
        broker.stop()
        log = broker.log()
    assert "s3cret" not in log
    seen = list(lines_of(log))
    assert {"broker.listening", "server.ready", "client.connected", "broker.ended"} <= {
        one["event"] for one in seen
    }
    (call,) = [one for one in seen if one["event"] == "call.ended"]
    assert (call["server"], call["method"], call["tool"]) == ("one", "tools/call", "echo")
    assert (call["outcome"], call["client_pid"], call["level"]) == ("result", os.getpid(), "debug")
    assert call["ms"] > 0


def serve(tmp_path: Path, *arguments: str, journal: bool) -> subprocess.CompletedProcess[bytes]:
    """Run a broker that cannot start, its stderr a file that may pass for the journal."""
    config = tmp_path / "broker.toml"
    config.write_text(toml({"broker": {"socket_mode": "rw"}, "servers.one": {"command": "x", "timeout": 0}}))
    with (tmp_path / "stderr").open("w+b") as stderr:
        status = os.fstat(stderr.fileno())
        number = f"{status.st_dev}:{status.st_ino if journal else status.st_ino + 1}"
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "JOURNAL_STREAM": number, "MCP_BROKER_LANG": "en"}
        command = [sys.executable, "-m", "broker", "serve", "--config", str(config), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environ, stderr=stderr, check=False, timeout=60)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, stderr=stderr.read())


def test_a_config_with_mistakes_is_an_error_in_the_journal(tmp_path: Path) -> None:
    """At three in the morning `journalctl -p err` says what keeps the service from starting."""
    done = serve(tmp_path, journal=True)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("<3>error broker.cannot_start reason=") for line in lines)
    assert "servers.one.timeout: " in lines[2]
    (first, *_) = lines_of(serve(tmp_path, "--log-format", "json", journal=False).stderr.decode())
    assert (first["event"], first["level"]) == ("broker.cannot_start", "error")


def test_only_who_is_connected_to_the_journal_is_under_it(tmp_path: Path) -> None:
    """$JOURNAL_STREAM is inherited: a broker whose stderr was redirected writes for people (sd-daemon(3))."""
    assert serve(tmp_path, journal=False).stderr.decode().startswith("mcp-broker: ")


def test_a_log_that_nobody_reads_holds_nobody_up() -> None:
    """Laws 5 and 9: what would have to wait is left out, and told once somebody reads again."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as pipe, open(writer, "w", encoding="utf-8") as stream:
        handler = logs.StderrHandler(stream)
        handler.setFormatter(logs.LineFormatter(journal=True))
        logger = logging.getLogger(logs.LOGGER)
        before, logger.handlers = logger.handlers, [handler]
        try:
            for _ in range(200):
                logger.error("much", extra={"text": "x" * 1000})
            read = pipe.read(2**20)
            logger.error("again")
        finally:
            logger.handlers = before
        told = pipe.read(2**20)
    assert b"<4>warning log.lines_lost lines=" in told
    lost = int(told.split(b"lines=")[1].split()[0])
    assert 0 < lost < 200
    assert told.endswith(b"<3>error again\n")
    assert read.count(b"much") in (200 - lost, 200 - lost + 1)  # of the first that was lost, a part is there


def test_lines_that_a_full_disk_does_not_take_are_counted_until_it_does(tmp_path: Path) -> None:
    """Law 9: they are told of with the first line that has space again."""
    log = tmp_path / "log"
    with open("/dev/full", "w", encoding="utf-8") as stream:
        handler = logs.StderrHandler(stream)
        handler.setFormatter(logs.LineFormatter(journal=True))
        logger = logging.getLogger(logs.LOGGER)
        before, logger.handlers = logger.handlers, [handler]
        try:
            for _ in range(20):
                logger.error("much", extra={"text": "x" * 1000})
            with log.open("wb") as space:
                os.dup2(space.fileno(), stream.fileno())
            logger.error("again")
        finally:
            logger.handlers = before
    told = log.read_text(encoding="utf-8")
    assert "<4>warning log.lines_lost lines=20\n" in told
    assert told.endswith("<3>error again\n")
