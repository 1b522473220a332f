"""What a server writes for people, from its stderr to whoever reads `mcp-broker logs`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until
from tests.e2e.test_command import command

SECRET = "hunter2-of-the-vault"
TOKEN = "swordfish-in-plain-text"


def test_a_secret_is_nowhere_but_in_the_environment(tmp_path: Path) -> None:
    """Law: secrets never in status, logs, state file, metrics, or what the doctor says; also where the server
    prints them and dies of it."""
    leak = f"ERROR: login with {SECRET} failed"
    env = {"HEADER": "Bearer ${VAULT}", "OWN_TOKEN": TOKEN}
    servers = {
        "dies": rogue("--stderr-at-start", leak, "--exit-at-start", "3", env=env, start_limit_burst=1),
        "noise": rogue("--banner", f"{leak} {TOKEN}", env=env),
    }
    metrics = {"metrics": f"unix:{tmp_path}/metrics.sock"}
    with running(servers, ready=False, env={"VAULT": SECRET}, broker=metrics) as broker:
        broker.wait_state("dies", "broken")
        broker.wait_state("noise", "ready")
        with broker.client() as client:
            environ = client.request(
                "noise", "tools/call", {"name": "env", "arguments": {"names": ["HEADER"]}}
            )
            assert SECRET in json.dumps(environ)
            seen = [json.dumps(client.request(MANAGEMENT, "logs", {"server": name})) for name in servers]
        seen += [json.dumps(broker.status()), broker.log(), scraped(tmp_path / "metrics.sock")]
        seen += [path.read_text() for path in (broker.folder / "b.sock.state").iterdir()]
        for arguments in (("status",), ("doctor", "--cycles", "1"), ("doctor", "--cycles", "1", "--json")):
            done = command(*arguments, endpoint=broker.endpoint)
            assert "dies" in done.stdout
            seen += [done.stdout, done.stderr]
        assert not [text for text in seen if SECRET in text or TOKEN in text]
        assert "its last line was: ERROR: login with *** failed" in broker.server("dies")["last_error"]
        assert "server.stdout" in broker.log()
        assert "mcp_broker_server_processes" in "".join(seen)


GROUP = """\
async def fail(): raise ValueError("BASE_URL is not set")
async def main():
    async with __import__("asyncio").TaskGroup() as group: group.create_task(fail())
__import__("asyncio").run(main())
"""
ENDS = {
    "group": (["-c", GROUP], "ValueError: BASE_URL is not set"),
    "module": (["-m", "no_such_module_of_anybody"], "No module named no_such_module_of_anybody"),
    "chained": (
        ["-c", "try: {}['KEY']\nexcept KeyError as error: raise RuntimeError('no key') from error"],
        "RuntimeError: no key (caused by KeyError: 'KEY')",
    ),
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a TaskGroup came with 3.11")
def test_the_reason_shown_is_the_cause() -> None:
    """The exception, not the border below its group; in `status`, and to who calls the server."""
    servers = {
        name: {"command": sys.executable, "args": args, "start_limit_burst": 1, "protocol": "legacy"}
        for name, (args, _) in ENDS.items()
    }
    with running(servers, ready=False) as broker:
        for name, (_, cause) in ENDS.items():
            broker.wait_state(name, "broken")
            said = broker.server(name)["last_error"]
            assert said.startswith("it exited with status 1 before it was ready; "), said
            assert said.endswith(cause), said
            with broker.client() as client, pytest.raises(BrokerError, match=re.escape(cause)):
                client.request(name, "tools/call", {"name": "any", "arguments": {}})


def scraped(path: Path) -> str:
    """The metrics."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.settimeout(PATIENCE_S)
        plug.connect(str(path))
        plug.sendall(b"GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")
        with plug.makefile("rb") as answer:
            return answer.read().decode()


def test_a_line_has_its_own_level_in_the_log() -> None:
    """What a server calls an error is an error to who watches the journal."""
    servers = {"one": rogue("--stderr-at-start", "<4>the cache is cold")}
    with running(servers) as broker:
        broker.wait_log("warning server.stderr")
        assert 'text="the cache is cold"' in broker.log()


@contextmanager
def following(broker: RunningBroker) -> Iterator[subprocess.Popen[str]]:
    """`mcp-broker logs -f` of the server `one`."""
    command = [sys.executable, "-m", "broker", "logs", "one", "-f", "--endpoint", broker.endpoint]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def test_following_survives_a_restart_and_ends_with_the_broker() -> None:
    """The lines of the next process follow those of the last; status 3 where no broker answers any more."""
    with running({"one": rogue("--stderr-at-start", "hello")}) as broker, following(broker) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "hello\n"
        with broker.client() as client:
            client.request(MANAGEMENT, "restart", {"server": "one"})
        assert process.stdout.readline() == "hello\n"
        broker.stop(signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 3
        assert "mcp-broker: " in process.stderr.read()
        broker.start()
        broker.wait_ready()


def test_following_ends_with_a_broker_that_is_stopped() -> None:
    """A broker that says goodbye is gone as well."""
    with running({"one": rogue("--stderr-at-start", "hello")}) as broker, following(broker) as process:
        assert process.stdout
        assert process.stdout.readline() == "hello\n"
        broker.stop()
        assert process.wait(PATIENCE_S) == 3


def written(broker: RunningBroker) -> int:
    """How many lines the server has written."""
    with broker.client() as client:
        return int(client.request(MANAGEMENT, "logs", {"server": "one"})["written"])


def write_lines(broker: RunningBroker, lines: int) -> None:
    """Have the server write so many, and wait until the broker has read them."""
    before = written(broker)
    with broker.client() as client:
        arguments = {"lines": lines, "bytes": 10}
        client.request("one", "tools/call", {"name": "stderr", "arguments": arguments})
    wait_until(lambda: written(broker) == before + lines)


def test_following_tells_how_many_lines_it_has_missed() -> None:
    """Law 9: where a server writes more than is kept until the next look."""
    with running({"one": rogue("--stderr-at-start", "hello")}) as broker, following(broker) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "hello\n"
        process.send_signal(signal.SIGSTOP)
        write_lines(broker, 500)
        process.send_signal(signal.SIGCONT)
        assert process.stderr.readline() == (
            "one: 300 lines are missing here; it wrote more lines than the broker keeps\n"
        )
        assert process.stdout.readline().startswith("301 e")


def test_following_into_a_pipe_that_is_closed_ends_without_a_word() -> None:
    """As `mcp-broker logs one -f | head -1` does."""
    with running({"one": rogue("--stderr-at-start", "hello")}) as broker, following(broker) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "hello\n"
        process.stdout.close()
        write_lines(broker, 1)
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr.read() == ""
        process.stdout = None


def test_lines_are_counted_anew_where_a_server_is_configured_anew() -> None:
    """Who follows it sees the new ones at once, not only when there are more of them than before."""
    with running({"one": rogue("--stderr-at-start", "hello")}) as broker:
        write_lines(broker, 50)
        broker.write({"one": rogue(enabled=False)})
        with broker.client() as client:
            client.request(MANAGEMENT, "reload")
            broker.write({"one": rogue("--stderr-at-start", "again")})
            client.request(MANAGEMENT, "reload")
            wait_until(lambda: written(broker) == 1)
            seen = client.request(MANAGEMENT, "logs", {"server": "one", "after": 51})
        assert (seen["lines"], seen["missing"]) == (["again"], 0)


def test_a_flood_is_read_on_and_counted() -> None:
    """Law 5 and 9: a server that floods its stderr is served, and the log has a bounded share of it."""
    with running({"one": rogue("--flood-stderr")}) as broker:
        broker.wait_log("server.lines_left_out")
        before = broker.log().count("server.stderr")
        with broker.client() as client:
            for _ in range(20):
                client.request("one", "tools/call", {"name": "echo", "arguments": {}})
        wait_until(lambda: broker.log().count("server.lines_left_out") >= 3)
        assert broker.log().count("server.stderr") - before < 400
