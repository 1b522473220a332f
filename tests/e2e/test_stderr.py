"""What a server writes for people, from its stderr to whoever reads `mcp-broker logs`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from client_shim.wire import MANAGEMENT
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until

SECRET = "hunter2-of-the-vault"


def test_a_secret_is_nowhere_but_in_the_environment() -> None:
    """Law: secrets never in status, logs, state file; also where the server prints them and dies of it."""
    leak = f"ERROR: login with {SECRET} failed"
    env = {"HEADER": "Bearer ${VAULT}"}
    servers = {
        "dies": rogue("--stderr-at-start", leak, "--exit-at-start", "3", env=env, start_limit_burst=1),
        "noise": rogue("--banner", leak, env=env),
    }
    with running(servers, ready=False, env={"VAULT": SECRET}) as broker:
        broker.wait_state("dies", "broken")
        broker.wait_state("noise", "ready")
        seen = [json.dumps(broker.status()), broker.log()]
        with broker.client() as client:
            seen += [json.dumps(client.request(MANAGEMENT, "logs", {"server": name})) for name in servers]
        seen += [path.read_text() for path in (broker.folder / "b.sock.state").iterdir()]
        assert not [text for text in seen if SECRET in text]
        assert "its last line was: ERROR: login with *** failed" in broker.server("dies")["last_error"]
        assert "server.stdout" in broker.log()


def test_a_line_has_its_own_level_in_the_log() -> None:
    """Issue 4: what a server calls an error is an error to who watches the journal."""
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
