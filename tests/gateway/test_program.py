"""`mcp-broker gateway` as a program: what it needs, where it listens, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, rogue, running, wait_until
from tests.gateway.gateways import Answer, Http, close_all, free_port, gateway, text_of

SLOW = {"name": "sleep", "arguments": {"seconds": 1.5}}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running({"rogue": rogue("--era", "modern")}) as found:
        yield found


def started(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a gateway that is not expected to serve."""
    command = [sys.executable, "-m", "broker", "gateway", *arguments]
    given = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "LANG": "C", **env}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


# ---------------------------------------------------------------- what is refused


def test_a_mistake_in_the_settings_is_told_with_its_line(tmp_path: Path) -> None:
    """Exit status 2, as of every command whose config is wrong."""
    path = tmp_path / "gateway.toml"
    path.write_text("[gateway]\n\nlisten = ['0.0.0.0:8420']\n")
    done = started("--config", str(path))
    assert done.returncode == 2
    assert "gateway.listen (line 3)" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_machines_are_let_in_only_where_it_is_said_twice(tmp_path: Path) -> None:
    """The option alone does not open the gateway to a network."""
    done = started("--listen", "0.0.0.0:0", XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "behind_tls" in done.stderr


def test_an_address_that_is_taken_is_told(broker: RunningBroker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plug:
        address = f"127.0.0.1:{plug.getsockname()[1]}"
        done = started("--listen", address, "--endpoint", broker.endpoint, XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"cannot listen at {address}" in done.stderr


def test_a_state_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """The token and the key of the sessions are in it."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = started("--listen", "127.0.0.1:0", STATE_DIRECTORY=str(tmp_path / "open"))
    assert done.returncode == 1
    assert "state directory" in done.stderr


def test_an_audit_log_that_is_no_file_stops_the_start_with_what_to_do(tmp_path: Path) -> None:
    """A FIFO must not hold the start up."""
    os.mkfifo(tmp_path / "audit")
    settings = tmp_path / "gateway.toml"
    settings.write_text(f"[gateway]\nlisten = ['127.0.0.1:0']\n[audit]\npath = '{tmp_path}/audit'\n")
    done = started("--config", str(settings), XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "has to be a regular file" in done.stderr
    assert "[audit] of gateway.toml" in done.stderr


# ---------------------------------------------------------------- the token


def test_the_token_is_made_once_and_is_for_its_user_alone(broker: RunningBroker) -> None:
    """Nothing writes a token into a file that others can read; nor does the log have it."""
    with gateway(broker) as door:
        path = door.folder / "state" / "token"
        token = door.token
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(token) >= 40
        assert token not in door.log()
        door.stop()
        door.start()
        assert door.token == token


def test_the_token_is_shown_once_to_a_person(broker: RunningBroker, tmp_path: Path) -> None:
    """With the line to paste; to a terminal only."""
    shown = [_on_terminal(broker, tmp_path) for _ in range(2)]
    token = (tmp_path / "mcp-broker" / "gateway" / "token").read_text().strip()
    assert f'--header "Authorization: Bearer {token}"' in shown[0]
    assert token not in shown[1]


def _on_terminal(broker: RunningBroker, state: Path) -> str:
    """Run a gateway on a terminal until it listens; what it has shown."""
    leader, follower = os.openpty()
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "broker", "gateway", "--endpoint", broker.endpoint, "--listen", address]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(state), "HOME": "/nonexistent"}
    process = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{free_port()}"],
        env=env,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while b"gateway.listening" not in shown:
            shown += os.read(leader, 65536)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        os.close(leader)
    return shown.decode()


def test_a_unix_socket_needs_no_token(broker: RunningBroker, tmp_path: Path) -> None:
    """Its mode says who may come in."""
    path = tmp_path / "http.sock"
    with gateway(broker, gateway={"listen": [f"unix:{path}"]}):
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plug:
            plug.connect(str(path))
            plug.sendall(b"GET /mcp/nobody HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert b" 404 " in plug.recv(65536)


def test_without_tokens_a_port_is_open_only_where_that_is_said(broker: RunningBroker) -> None:
    with gateway(broker, gateway={"token": False}) as door:
        assert Http(door.port, "/mcp/rogue", {}).ask("tools/list").status == 200


# ---------------------------------------------------------------- the broker comes and goes


def test_it_waits_for_a_broker_that_is_not_there() -> None:
    """Both doors are open; the first request is answered once there is a broker."""
    with running({"rogue": rogue()}) as broker:
        broker.stop()
        with gateway(broker) as door:
            assert Http(door.port, "/healthz", {}).send("GET").status == 503
            answers: list[Answer] = []
            client = door.http()
            thread = threading.Thread(target=lambda: answers.append(client.ask("tools/list")))
            thread.start()
            time.sleep(0.5)
            assert not answers
            broker.start()
            broker.wait_ready()
            thread.join(PATIENCE_S)
            assert answers[0].status == 200
            assert "tools" in answers[0].message["result"]


def test_a_restart_of_the_broker_is_not_noticed() -> None:
    with running({"rogue": rogue()}) as broker, gateway(broker) as door:
        session = door.http().initialized()
        stream = session.listen()
        broker.stop()
        broker.start()
        broker.wait_ready()
        assert text_of(session.ask("tools/call", {"name": "echo", "arguments": {"a": 1}})) == {"a": 1}
        told = stream.next()  # it cannot be known what has changed meanwhile
        assert told is not None
        assert told["method"].endswith("list_changed")


def test_a_stream_that_the_broker_heard_of_late_is_told_that_lists_may_have_changed() -> None:
    """The server was ready before: so the broker has nothing to tell, and the client may have older lists."""
    with running({"rogue": rogue()}) as broker, gateway(broker) as door:
        session = door.http().initialized()
        broker.stop()
        stream = session.listen()
        door.process.send_signal(signal.SIGSTOP)
        broker.start()
        broker.wait_ready()
        door.process.send_signal(signal.SIGCONT)
        told = stream.next()
        assert told is not None
        assert told["method"].endswith("list_changed")


# ---------------------------------------------------------------- its end


def test_calls_in_flight_are_drained(broker: RunningBroker) -> None:
    """SIGTERM: streams that only listen end at once, calls are waited for, the port is closed."""
    with gateway(broker) as door:
        session = door.http().initialized()
        stream = session.listen()
        listening = door.http().stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert listening.next() is not None
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(door.http().ask("tools/call", SLOW)))
        thread.start()
        wait_until(lambda: broker.server("rogue")["in_flight"] > 0)
        door.process.send_signal(signal.SIGTERM)
        assert stream.next() is None
        end = listening.next()
        assert end is not None
        assert end["result"]["resultType"] == "complete"
        thread.join(PATIENCE_S)
        assert answers[0].status == 200
        assert "result" in answers[0].message
        assert door.process.wait(PATIENCE_S) == 0
        close_all()


def test_calls_that_take_too_long_are_answered(broker: RunningBroker) -> None:
    """Law 2: an error that says what happened, and not a cut connection."""
    with gateway(broker, limits={"drain_sec": 0.5}) as door:
        answers: list[Answer] = []
        params = {"name": "sleep", "arguments": {"seconds": 20}}
        thread = threading.Thread(target=lambda: answers.append(door.http().ask("tools/call", params)))
        thread.start()
        wait_until(lambda: broker.server("rogue")["in_flight"] > 0)
        began = time.monotonic()
        assert door.stop() == 0
        assert time.monotonic() - began < 10
        thread.join(PATIENCE_S)
        assert "the gateway is being stopped" in answers[0].message["error"]["message"]


# ---------------------------------------------------------------- systemd


def test_it_takes_the_socket_that_it_is_handed_and_says_when_it_is_ready(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """sd_listen_fds(3) and sd_notify(3): no client is turned away by a restart."""
    path = tmp_path / "notify"
    with (
        socket.create_server(("127.0.0.1", 0)) as plug,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(str(path))
        notify.settimeout(PATIENCE_S)
        port = plug.getsockname()[1]
        process = _activated(plug, str(path), broker, port, tmp_path)
        try:
            assert b"READY=1" in notify.recv(4096)
            token = (tmp_path / "state" / "token").read_text().strip()
            client = Http(port, "/mcp/rogue", {"authorization": f"Bearer {token}"})
            assert client.ask("tools/list").status == 200
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        assert b"STOPPING=1" in notify.recv(4096)


def _activated(
    plug: socket.socket, notify: str, broker: RunningBroker, port: int, folder: Path
) -> subprocess.Popen[bytes]:
    """A gateway that gets this socket as systemd hands one over: as descriptor 3, and by its own pid."""
    fd = plug.fileno()
    shell = f'export LISTEN_PID=$$; exec "$@" 3<&{fd}'
    command = [sys.executable, "-m", "broker", "gateway", "--endpoint", broker.endpoint]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LISTEN_FDS": "1",
        "NOTIFY_SOCKET": notify,
        "STATE_DIRECTORY": str(folder / "state"),
        "RUNTIME_DIRECTORY": str(folder / "run"),
    }
    (folder / "run").mkdir()
    return subprocess.Popen(
        ["bash", "-c", shell, "bash", *command, "--listen", f"127.0.0.1:{port}"], env=env, pass_fds=[fd]
    )


def test_the_sockets_of_connect_are_the_other_door(broker: RunningBroker, tmp_path: Path) -> None:
    """One program with two kinds of doors."""
    folder = tmp_path / "servers"
    with gateway(broker, gateway={"sockets": str(folder)}):
        wait_until(lambda: (folder / "rogue.sock").exists())


def test_it_is_small(broker: RunningBroker) -> None:
    """A session costs kilobytes."""
    with gateway(broker) as door:
        client = door.http()
        client.initialized()
        before = door.memory
        for _ in range(200):
            client.initialized()
        assert (door.memory - before) / 200 < 40_000
        assert before < 64 * 1024 * 1024
