"""A broker under a service manager, as the manager sees it; tests/systemd has the real one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from broker.config.loading import load
from broker.core.engine import Engine
from broker.frontend.address import ListenAddress
from broker.frontend.zmq.router import Router
from broker.hub import Hub
from broker.upstream.starts import lifecycle_of
from client_shim.blocking import BlockingClient
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running

HAND_OVER = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&{fd} {fd}<&-'
"""What systemd does between fork and exec."""


class Heard:
    """The manager's end of the notify socket, at a path."""

    def __init__(self, path: Path) -> None:
        self.messages: list[str] = []
        self._plug = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._plug.bind(str(path))
        self._plug.settimeout(PATIENCE_S)

    def until(self, line: str) -> None:
        """Wait for a message with this line."""
        while not any(line in message.splitlines() for message in self.messages):
            self.messages.append(self._plug.recv(4096).decode())

    def close(self) -> None:
        self._plug.close()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    heard = Heard(tmp_path / "notify")
    yield heard
    heard.close()


def test_ready_comes_before_the_servers_are_and_status_follows_them(heard: Heard, tmp_path: Path) -> None:
    """Clients are served as soon as the endpoint listens; a server may take a minute to be ready."""
    servers = {"fine": rogue(), "never": rogue("--silent", protocol="legacy")}
    with running(servers, ready=False, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as broker:
        heard.until("READY=1")
        heard.until("STATUS=1 of 2 servers ready; never: handshake")
        os.kill(broker.pids()["fine"], signal.SIGKILL)
        heard.until("STATUS=0 of 2 servers ready; fine: draining; never: handshake")
        reason = "it was killed by SIGKILL (Killed)"
        heard.until(f"STATUS=0 of 2 servers ready; fine: backoff ({reason}); never: handshake")
        broker.stop()
        heard.until("STOPPING=1")


def test_what_a_reload_could_not_do_is_in_the_status_line(heard: Heard, tmp_path: Path) -> None:
    """A bad config says why in `STATUS=` too, until a good one is there; and so what waits."""
    with running({"fine": rogue()}, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as broker:
        heard.until("STATUS=1 of 1 servers ready")
        broker.write({"fine": rogue(timout=3), "new": rogue(cwd=3)})
        broker.process.send_signal(signal.SIGHUP)
        mistake = "servers.fine.timout: there is no such key; did you mean timeout?"
        heard.until(f"STATUS=1 of 1 servers ready; config not reloaded: {mistake} (and 1 more)")
        heard.until("READY=1")
        broker.write({"fine": rogue()}, limits={"connections": 9})
        broker.process.send_signal(signal.SIGHUP)
        heard.until("STATUS=1 of 1 servers ready; without effect until a restart: limits.connections")
        broker.write({"fine": rogue()})
        heard.messages.clear()
        broker.process.send_signal(signal.SIGHUP)
        heard.until("STATUS=1 of 1 servers ready")


def test_an_idle_broker_feeds_the_watchdog(heard: Heard, tmp_path: Path) -> None:
    """A loop that has nothing to do is not stuck; its parts are asked, and come back."""
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with running({"fine": rogue()}, env=env):
        for _ in range(3):
            heard.messages.clear()
            heard.until("WATCHDOG=1")


def test_a_part_that_does_not_run_does_not_come_back() -> None:
    """The sign of life is asked of the task with the socket and of the clock: either may be stuck alone."""
    config = load({"servers": {"s": {"command": "none", "enabled": False}}}, {})
    engine = Engine(config, {"s": lifecycle_of(config.servers["s"])}, instance="i", version="v")
    hub = Hub(engine)

    async def alive(run: Callable[[], Awaitable[None]], pulse: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(0.05):
            await pulse()
            raise AssertionError("nothing runs yet")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            for _ in range(3):
                with trio.fail_after(PATIENCE_S):
                    await pulse()
            nursery.cancel_scope.cancel()

    async def main(address: str) -> None:
        endpoint = Router(config.limits, hub, [ListenAddress(address)])
        hub.attach(endpoint, lambda request: None)
        await alive(endpoint.run, endpoint.pulse)
        await alive(hub.tick, hub.pulse)
        endpoint.close()

    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        trio.run(main, f"ipc://{folder}/b.sock")


# --- a socket that is there before the broker -----------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[tuple[Path, socket.socket]]:
    """A socket that listens, as a .socket unit makes it."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder, socket.socket(socket.AF_UNIX) as plug:
        path = Path(folder, "s.sock")
        plug.bind(str(path))
        plug.listen()
        path.chmod(0o640)
        yield path, plug


def _activated(path: Path, plug: socket.socket) -> contextlib.AbstractContextManager[RunningBroker]:
    before = ("bash", "-c", HAND_OVER.format(fd=plug.fileno()), "sh")
    section = {"endpoint": f"ipc://{path}"}
    return running({"fine": rogue()}, broker=section, before=before, pass_fds=(plug.fileno(),))


def test_who_connected_while_no_broker_ran_is_served(listening: tuple[Path, socket.socket]) -> None:
    """Activation. The client is there first, and needs no second try."""
    path, plug = listening
    answers: list[object] = []

    def ask() -> None:
        with BlockingClient(f"ipc://{path}", timeout_s=PATIENCE_S) as client:
            answers.append(client.request("fine", "tools/call", {"name": "echo", "arguments": {"text": "x"}}))

    early = threading.Thread(target=ask)
    early.start()
    plug.setblocking(True)
    with _activated(path, plug) as broker:
        early.join(PATIENCE_S)
        assert answers, broker.log()


def test_the_socket_of_systemd_stays_as_it_is(listening: tuple[Path, socket.socket]) -> None:
    """Its mode is the .socket unit's, and it is there for the next broker, which serves at the same one."""
    path, plug = listening
    for _ in range(2):
        with _activated(path, plug) as broker:
            assert broker.status()["broker"]["endpoint"] == f"ipc://{path}"
            assert path.stat().st_mode & 0o777 == 0o640
    assert path.is_socket()


def test_a_broker_by_hand_does_not_take_the_socket_of_systemd(listening: tuple[Path, socket.socket]) -> None:
    """The socket of one broker cannot be taken by another, nor while only systemd listens."""
    path, _ = listening
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        broker = RunningBroker(Path(folder), {"fine": rogue()}, {"broker": {"endpoint": f"ipc://{path}"}}, {})
        assert broker.process.wait(PATIENCE_S) == 1
        assert f"systemd already listens at ipc://{path}" in broker.log()
    assert path.is_socket()


def test_another_socket_than_the_configs_is_refused(listening: tuple[Path, socket.socket]) -> None:
    """Law 8: two addresses for one broker, and it does not pick one."""
    path, plug = listening
    before = ("bash", "-c", HAND_OVER.format(fd=plug.fileno()), "sh")
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        broker = RunningBroker(
            Path(folder), {"fine": rogue()}, {}, {}, before=before, pass_fds=(plug.fileno(),)
        )
        assert broker.process.wait(PATIENCE_S) == 1
        assert "make ListenStream= of the .socket unit and `endpoint` in [broker] the same" in broker.log()
    assert path.is_socket()
