"""What another user plants where a broker is about to start: it refuses, and nothing of theirs changes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client_shim.wire import MANAGEMENT
from tests.daemon.hostile import STRANGER, as_root, busy_stranger, by_stranger, make_victim, snapshot
from tests.e2e.harness import PATIENCE_S, ROOT, rogue, running, toml

pytestmark = as_root


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder as /tmp is: everybody may make files in it, and nobody may take another's away."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        os.chmod(folder, 0o755)
        path = Path(os.path.realpath(folder), "t")
        path.mkdir()
        path.chmod(0o1777)
        yield path


@pytest.fixture
def victim(shared: Path) -> Path:
    """Files of root's beside it."""
    return make_victim(shared.parent / "victim")


def serve(shared: Path, endpoint: str, **keys: object) -> subprocess.CompletedProcess[str]:
    """`mcp-broker serve`, which is expected to refuse."""
    config = shared.parent / "broker.toml"
    config.write_text(toml({"broker": keys, "servers.off": {"command": "x", "enabled": False}}))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(shared)}
    for name in ("XDG_RUNTIME_DIR", "STATE_DIRECTORY", "MCP_BROKER_ENDPOINT"):
        environ.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "broker", "serve", "--config", str(config), "--endpoint", endpoint],
        cwd=shared.parent,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def check_refused(done: subprocess.CompletedProcess[str], path: Path, mend: str = "remove it") -> None:
    """It says what is wrong with what, and what to do, and ends with status 1."""
    assert done.returncode == 1, done.stderr
    assert str(path) in done.stderr
    assert mend in done.stderr
    assert "state_dir" in done.stderr or "--endpoint" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


PLANT_STATE = """
folder, state, elsewhere, record = sys.argv[1:]
os.mkdir(folder, 0o755)
if elsewhere:
    os.symlink(elsewhere, os.path.join(folder, state))
else:
    os.mkdir(os.path.join(folder, state), 0o755)
    name = os.path.join(folder, state, "s.00000000000000bb.json")
    open(name, "w").write(record)
    open(name.removesuffix(".json") + ".cid", "w").write("0123456789ab")
"""


@pytest.mark.skipif(
    Path("/run/mcp-broker").exists(),
    reason="this machine has /run/mcp-broker, which comes before the temp folder",
)
@pytest.mark.parametrize("elsewhere", ["", "victim/folder", "t/his/state"])
def test_a_planted_state_directory_has_nothing_run_and_nothing_changed(
    shared: Path, victim: Path, port: int, elsewhere: str
) -> None:
    """A link in the temp folder, with a record that names a program; root ran it, and closed the
    folder that the link led to."""
    marker, state = shared / "ran", f"tcp-127.0.0.1:{port}.state"
    folder = shared / f"mcp-broker-{os.getuid()}"
    run = ["/bin/sh", "-c", f"echo ran as $(id -u) >{marker}", "sh"]
    cookie = "00000000000000aa.00000000000000bb"
    container = {"engine": run, "cidfile": f"{folder}/{state}/s.00000000000000bb.cid"}
    record = json.dumps({"server": "s", "cookie": cookie, "boot": "b", "container": container})
    by_stranger(PLANT_STATE, shared / "his", "state", "", record)
    by_stranger(PLANT_STATE, folder, state, elsewhere and shared.parent / elsewhere, record)
    before = snapshot(victim, folder, shared / "his")
    check_refused(serve(shared, f"tcp://127.0.0.1:{port}"), folder)
    assert snapshot(victim, folder, shared / "his") == before
    assert not marker.exists()


PLANT = """
kind, path, victim = sys.argv[1:]
if kind == "link": os.symlink(victim, path)
elif kind == "file": open(path, "w").write("1 mine")
elif kind == "folder": os.mkdir(path, 0o777)
elif kind == "fifo": os.mkfifo(path)
elif kind == "socket": socket.socket(socket.AF_UNIX).bind(path)
"""


@pytest.mark.parametrize("kind", ["link", "file", "folder", "fifo", "socket"])
@pytest.mark.parametrize("name", ["b.sock", "b.sock.lock", "b.sock.state", "m.sock"])
def test_what_is_planted_beside_a_socket_in_a_shared_folder_is_refused_and_stays(
    shared: Path, victim: Path, name: str, kind: str
) -> None:
    """The socket, its lock, the state beside it, the socket of the metrics."""
    path = shared / name
    by_stranger(PLANT, kind, path, victim / ("folder" if name.endswith("state") else "file"))
    before = snapshot(victim, path)
    done = serve(shared, f"ipc://{shared}/b.sock", metrics=f"unix:{shared}/m.sock")
    is_other_kind = name.endswith(".sock") and kind != "socket"
    if name == "m.sock":
        assert done.returncode == 1, done.stderr
        assert f"broker.metrics: {path} " in done.stderr
        assert "give another address in [broker]" in done.stderr
    else:
        check_refused(done, path, "give another" if is_other_kind else "remove it")
    assert snapshot(victim, path) == before
    assert not (shared / "b.sock").exists() or name == "b.sock"


HOLD = """
lock = open(sys.argv[1], "w"); fcntl.flock(lock, fcntl.LOCK_EX)
print("ready", flush=True); time.sleep(600)
"""


def test_a_lock_that_another_user_holds_is_not_said_to_be_a_broker_s(shared: Path) -> None:
    """Whoever holds it could keep every broker away, and say that it is pid so and so."""
    with busy_stranger(HOLD, shared / "b.sock.lock"):
        check_refused(serve(shared, f"ipc://{shared}/b.sock"), shared / "b.sock.lock")


def test_a_folder_that_is_another_user_s_is_refused(shared: Path, victim: Path) -> None:
    """As with `sudo -E`, which keeps XDG_RUNTIME_DIR: he can put another socket there at any time."""
    his = shared.parent / "his"
    his.mkdir()
    os.chown(his, STRANGER, STRANGER)
    check_refused(serve(shared, f"ipc://{his}/b.sock"), his, "run this program as that user")
    check_refused(serve(shared, f"ipc://{shared}/b.sock", state_dir=str(his)), his, "run this program as")
    assert list(his.iterdir()) == []
    shutil.rmtree(his)


PLANT_CONFIG = """
path, command = sys.argv[1:]
if command == "link": os.symlink("his.toml", path)
open(os.path.realpath(path), "w").write('[servers.s]\\ncommand = "touch"\\nargs = ["ran"]\\n')
"""


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_config_that_is_only_found_is_not_another_user_s(shared: Path, command: str, kind: str) -> None:
    """It says which programs are run. One that is named is the operator's own word."""
    by_stranger(PLANT_CONFIG, shared / "broker.toml", kind)
    ask = [sys.executable, "-m", "broker", command]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_LANG": "en"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ask, *arguments],
            cwd=shared,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    done = run()
    assert done.returncode == 2, done.stderr
    assert f"{shared}/broker.toml is in this folder, but another user can write it" in done.stderr
    assert f"--config {shared}/broker.toml" in done.stderr
    assert not (shared / "ran").exists()
    if command == "check":
        assert "another user" not in run("--config", "broker.toml").stderr


def test_the_service_is_not_installed_where_others_could_replace_it(shared: Path) -> None:
    """Root runs what is installed, and the service too."""
    open_to_all = shared.parent / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    check = f'. "{ROOT}/systemd/install" && check_owner "{sys.executable}"'

    def run(prefix: Path) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PREFIX": str(prefix), "MCP_BROKER_LANG": "en"}
        return subprocess.run(["bash", "-c", check], env=environ, capture_output=True, text=True, check=False)

    for prefix in (shared / "new", shared.parent / "new" / "below"):
        assert run(prefix).returncode == 0
        assert not prefix.exists()
    done = run(open_to_all / "new" / "below")
    assert done.returncode == 1
    assert f"everybody may write to the folder {open_to_all}" in done.stderr
    assert "or name another PREFIX" in done.stderr


def test_what_is_planted_where_the_broker_s_own_was_cleaned_away_is_told_and_left(
    shared: Path, victim: Path
) -> None:
    """While it runs: it makes its socket and its state anew only where nothing of others stands."""
    with running({"s": rogue()}, broker={"endpoint": f"ipc://{shared}/b.sock"}) as broker:
        (shared / "b.sock").unlink()
        by_stranger(PLANT, "link", shared / "b.sock", victim / "file")
        shutil.rmtree(shared / "b.sock.state")
        by_stranger(PLANT, "link", shared / "b.sock.state", victim / "folder")
        before = snapshot(victim)
        broker.wait_log("endpoint.unreachable")
        os.unlink(shared / "b.sock")
        broker.wait_log("endpoint.made_anew")
        assert broker.status()["servers"][0]["state"] == "ready"
        with broker.client() as client:
            client.request(MANAGEMENT, "restart", {"server": "s"})
        broker.wait_log("state.not_written")
        assert snapshot(victim) == before
        os.unlink(shared / "b.sock.state")
        broker.wait_log("state.written_anew")
        assert snapshot(victim) == before
