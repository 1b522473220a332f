"""Servers that are containers: none outlives its tree, and no two of one server run at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.processes import containers
from broker.processes.container_options import Container
from client_shim.wire import MANAGEMENT
from tests.e2e.engine import Engine, engine
from tests.e2e.harness import RunningBroker, running, wait_until
from tests.e2e.test_command import command


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Engine]:
    """An engine of this test's own."""
    with engine(tmp_path) as docker:
        yield docker


def container(image: str, *args: str, before: tuple[str, ...] = (), **keys: Any) -> dict[str, Any]:
    """A server that is a container, which goes on whatever its command does."""
    keys = {"restart_sec": 0.05, "timeout_stop_sec": 0.3, "protocol": "legacy", **keys}
    return {"command": "docker", "args": ["run", "-i", "--rm", *before, image, *args], **keys}


def tell(broker: RunningBroker, command: str, server: str = "one") -> None:
    """A command about a server."""
    with broker.client() as client:
        client.request(MANAGEMENT, command, {"server": server})


def cidfiles(broker: RunningBroker) -> list[str]:
    """The ids that are written down."""
    return [path.name for path in (broker.folder / "b.sock.state").glob("*.cid")]


def test_no_container_outlives_its_tree(docker: Engine) -> None:
    """Stop, restart, reload, a crash of the command, a failed handshake, shutdown: each removes it,
    and the next one is only started then."""
    servers = {
        "one": container("mcp/one"),
        "fails": container("mcp/fails", "--die-in-handshake", start_limit_burst=2),
        "leaves": container("mcp/leaves", "--ignore-eof", "--ignore-sigterm"),
    }
    with running(servers, ready=False, env=docker.environ) as broker:
        broker.wait_state("fails", "broken")
        assert docker.running("mcp/fails") == []
        row = broker.wait_state("one", "ready")
        (first,) = docker.running("mcp/one")
        os.kill(row["pid"], signal.SIGKILL)
        broker.wait(lambda _: docker.running("mcp/one") not in ([first], []))
        broker.wait_state("one", "ready")
        tell(broker, "restart")
        broker.wait_state("one", "ready")
        assert len(docker.running("mcp/one")) == 1
        tell(broker, "stop")
        assert docker.running("mcp/one") == []
        tell(broker, "start")
        broker.wait_state("one", "ready")
        broker.wait_state("leaves", "ready")
        broker.write({"one": servers["one"]})
        with broker.client() as client:
            client.request(MANAGEMENT, "reload")
        assert docker.running("mcp/leaves") == []
        assert len(docker.running("mcp/one")) == 1
        assert len(cidfiles(broker)) == 1
    assert docker.running("mcp/one") == []
    assert docker.beside == 0
    assert docker.removals[-1][:3] == ["rm", "--force", "--volumes"]


def test_the_next_broker_removes_what_a_killed_one_left(docker: Engine) -> None:
    """The command dies with the broker, its container does not; there is never a second one."""
    with running({"one": container("mcp/one")}, env=docker.environ) as broker:
        for _ in range(2):
            broker.stop(signal.SIGKILL)
            assert len(docker.running("mcp/one")) == 1
            broker.start()
            broker.wait_ready()
        assert (docker.started, docker.beside, len(docker.running("mcp/one"))) == (3, 0, 1)
        assert len(cidfiles(broker)) == 1
        assert broker.log().count("broker.leftover_container_removed server=one") == 2
        broker.stop(signal.SIGKILL)
        broker.write({"two": container("mcp/two")})  # no longer configured
        broker.start()
        broker.wait_ready()
        assert docker.running("mcp/one") == []


def test_the_user_s_own_file_is_used(docker: Engine) -> None:
    """Not a second `--cidfile`; and it makes way for the next start, or there would never be one."""
    with running({"one": container("mcp/one", before=("--cidfile", "my.cid"))}, env=docker.environ) as broker:
        assert cidfiles(broker) == []
        mine = broker.folder / "my.cid"
        assert [mine.read_text()] == docker.running("mcp/one")
        tell(broker, "restart")
        broker.wait_ready()
        assert [mine.read_text()] == docker.running("mcp/one")
    assert docker.running("mcp/one") == []


def test_a_file_of_another_container_is_not_the_server_s(docker: Engine, tmp_path: Path) -> None:
    """Law 8: a container that was there before was not started by the broker, and is never touched."""
    other = tmp_path / "other.cid"
    other.write_text(docker.leave("mcp/other"))
    servers = {"one": container("mcp/one", before=("--cidfile", str(other)), start_limit_burst=1)}
    with running(servers, ready=False, env=docker.environ) as broker:
        assert "container ID file found" in broker.wait_state("one", "broken")["last_error"]
    assert [other.read_text()] == docker.running("mcp/other")


def test_an_engine_that_does_not_answer_is_told_and_asked_again(docker: Engine) -> None:
    """Law 1 and 9: it is logged and counted, nothing is started beside what may still run, and when the
    engine is back, so is the server."""
    with running({"one": container("mcp/one")}, env=docker.environ) as broker:
        (old,) = docker.running("mcp/one")
        docker.go_down()
        os.kill(broker.pids()["one"], signal.SIGKILL)
        row = broker.wait_state("one", "backoff", "broken")
        assert broker.counter("left-behind.container") == 1
        assert "server.container_left" in broker.log()
        broker.wait(lambda status: "its last container may run" in status["servers"][0]["last_error"])
        row = broker.server("one")
        assert "Cannot connect to the Docker daemon" in row["last_error"]
        assert f"{broker.folder}/b.sock.state/" in row["last_error"]
        assert docker.running("mcp/one") == [old]
        docker.go_up()
        assert command("start", "one", endpoint=broker.endpoint).returncode == 0
        assert docker.running("mcp/one") not in ([old], [])
        assert docker.beside == 0


def test_an_engine_that_was_down_at_the_start_of_the_broker(docker: Engine) -> None:
    """Law 5: a broker serves without it; the server waits until its last container is gone."""
    with running(
        {"one": container("mcp/one"), "two": {**container("mcp/two"), "enabled": False}}, env=docker.environ
    ) as broker:
        broker.stop(signal.SIGKILL)
        docker.go_down()
        broker.start()
        broker.wait_state("one", "backoff")
        assert "broker.leftover_container" in broker.log()
        broker.stop(signal.SIGKILL)
        broker.start()
        broker.wait_state("one", "backoff")
        docker.go_up()
        broker.wait_state("one", "ready")
        assert (docker.beside, len(docker.running("mcp/one"))) == (0, 1)


def test_an_engine_that_hangs_is_not_waited_for_without_an_end(tmp_path: Path) -> None:
    """Law 6: the command that speaks to it is ended with all that it started."""
    (tmp_path / "cid").write_text("0123456789ab")
    hangs = tmp_path / "docker"
    hangs.write_text(f"#!/bin/sh\nsleep 300 & echo $! >{tmp_path}/pid\nwait\n")
    hangs.chmod(0o755)
    asked = Container(engine=(str(hangs),), cidfile=str(tmp_path / "cid"))
    why = containers.end(asked, os.environ, timeout_s=1.0)
    assert why == f"`{hangs} rm --force 0123456789ab` did not end within 1 s"
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert (tmp_path / "cid").exists()
    hangs.unlink()
    assert "could not be run: No such file" in str(containers.end(asked, os.environ))


def test_nothing_is_asked_where_nothing_was_started(tmp_path: Path) -> None:
    """The id is written before a container is started: no file, or an empty one, is no container."""
    asked = Container(engine=("/no/such/docker",), cidfile=str(tmp_path / "cid"))
    assert containers.end(asked, {}) is None
    (tmp_path / "cid").write_text("")
    assert containers.end(asked, {}) is None
    assert not (tmp_path / "cid").exists()
