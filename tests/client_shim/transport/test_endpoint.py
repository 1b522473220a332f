"""Where the client looks for a broker, and what it says when it cannot get there: files, sockets, users."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import client_shim.transport.endpoint
from client_shim import errors
from client_shim.transport.endpoint import MAX_PATH_BYTES, VARIABLE, default_endpoint, private_folder, probe

STRANGER = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def listen(path: Path | str, backlog: int = 8) -> socket.socket:
    """A socket that somebody listens at."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(backlog)
    return listener


def refusal(endpoint: str) -> errors.Unavailable:
    """What the probe raises."""
    with pytest.raises(errors.Unavailable) as caught:
        probe(endpoint)
    return caught.value


AS_A_STRANGER = """
import grp, json, os, pwd, sys  # before the change: the stranger may not be able to read the library
from client_shim.transport import endpoint
from client_shim import errors
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    endpoint.probe(sys.argv[1])
except errors.NotAllowed as error:
    print(json.dumps({"text": str(error), "hint": error.hint, **error.data}))
"""


def as_a_stranger(path: Path) -> dict[str, Any]:
    """What somebody else is told who may not reach this socket."""
    run = subprocess.run(
        [sys.executable, "-c", AS_A_STRANGER, f"ipc://{path}", str(STRANGER)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert run.stdout, "the probe let the stranger in"
    told: dict[str, Any] = json.loads(run.stdout)
    return told


# --- somebody listens --------------------------------------------------------------------------------


def test_a_listening_socket_passes_and_nothing_is_sent(place: Path) -> None:
    """The probe is a bare connect: whoever listens sees it come and go."""
    with closing(listen(place / "s")) as listener:
        probe(f"ipc://{place / 's'}")
        visitor, _ = listener.accept()
        with closing(visitor):
            assert visitor.recv(1) == b""


def test_an_abstract_socket_passes() -> None:
    """`ipc://@name` is libzmq's way to write one."""
    name = f"mcp-broker-test-{os.getpid()}"
    with closing(listen(f"\0{name}")):
        probe(f"ipc://@{name}")
    assert isinstance(refusal(f"ipc://@{name}"), errors.NoBroker)


def test_a_full_backlog_is_a_busy_broker_not_a_dead_one(place: Path) -> None:
    """`EAGAIN`, at once: the probe never waits in a caller's event loop."""
    with closing(listen(place / "s", backlog=0)):
        crowd = []
        with suppress(BlockingIOError):
            for _ in range(64):
                crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                crowd[-1].setblocking(False)
                crowd[-1].connect(str(place / "s"))
            pytest.fail("the backlog did not fill up")
        probe(f"ipc://{place / 's'}")
        for visitor in crowd:
            visitor.close()


# --- nobody does -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["s", "no/such/folder/s", "file/s"])
def test_no_such_file(place: Path, path: str) -> None:
    """No broker has run there, or the path is wrong. It says how to mend either."""
    (place / "file").touch()
    error = refusal(f"ipc://{place / path}")
    assert isinstance(error, errors.NoBroker)
    assert error.data["reason"] == "no-such-file"
    assert str(place / path) in str(error)
    assert "mcp-broker serve" in error.hint
    assert VARIABLE in error.hint


def test_nobody_listens_any_more(place: Path) -> None:
    """A broker that was killed leaves its socket behind: other words, for it was there once."""
    listen(place / "s").close()
    error = refusal(f"ipc://{place / 's'}")
    assert isinstance(error, errors.NoBroker)
    assert error.data["reason"] == "nobody-listens"
    assert "its log" in error.hint


def test_in_a_container_it_says_what_to_do_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 10: neither systemd nor a shell to run a broker in; the broker has a container of its own."""
    marked, unmarked = str(place / "mark"), str(place / "none")
    Path(marked).touch()
    if os.path.exists("/run/systemd/system"):
        pytest.skip("systemd runs here, which stands before what a container is told")
    monkeypatch.setattr(client_shim.transport.endpoint, "SYSTEM_SOCKET", str(place / "s"))
    for mark, said, not_said in ((marked, "docker compose", "systemctl"), (unmarked, "systemctl", "docker")):
        monkeypatch.setattr(client_shim.transport.endpoint, "CONTAINER_MARKS", (mark,))
        missing = refusal(f"ipc://{place / 's'}").hint
        assert said in missing
        assert not_said not in missing
        assert (f"mount the volume with its socket at {place}, and start it" in missing) == (mark == marked)
        listen(place / "s").close()
        ended = refusal(f"ipc://{place / 's'}").hint
        assert f"see in `{said}" in ended
        assert "mount" not in ended
        (place / "s").unlink()
    elsewhere = refusal(f"ipc://{place / 't'}").hint
    assert "mcp-broker serve" in elsewhere


# --- it is no endpoint -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "datagram"])
def test_what_is_no_listening_socket_is_named(place: Path, kind: str) -> None:
    """The kernel says "connection refused" to a plain file too, which would send people to the logs."""
    path = place / kind
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
            other.bind(str(path))
            assert isinstance(refusal(f"ipc://{path}"), errors.NotASocket)
            return
    assert isinstance(refusal(f"ipc://{path}"), errors.NotASocket)


def test_a_path_may_have_107_bytes() -> None:
    """unix(7). Bytes, not characters."""
    fits = "/" + "x" * (MAX_PATH_BYTES - 1)
    assert isinstance(refusal(f"ipc://{fits}"), errors.NoBroker)
    for path in (fits + "x", "/" + "é" * 54):
        error = refusal(f"ipc://{path}")
        assert isinstance(error, errors.PathTooLong)
        assert str(len(os.fsencode(path))) in str(error)


@pytest.mark.parametrize(
    "endpoint",
    ["", "/run/s", "ipc://", "ipc://*", "http://x", "tcp://", "tcp://:1", "tcp://127.0.0.1", "tcp://h:0"],
)
def test_what_is_no_endpoint_is_told_how_to_write_one(endpoint: str) -> None:
    """Law 10."""
    error = refusal(endpoint)
    assert isinstance(error, errors.InvalidEndpoint)
    assert isinstance(error, ValueError)
    assert error.hint


@pytest.mark.parametrize("endpoint", ["ipc://s", "ipc://run/s", "ipc://./s"])
def test_a_path_has_to_be_whole(endpoint: str) -> None:
    """In another folder it would be another socket, and the broker would seem not to run."""
    error = refusal(endpoint)
    assert isinstance(error, errors.InvalidEndpoint)
    assert error.hint == "write the whole path: ipc:///path/to/broker.sock"


def test_a_platform_without_ipc_is_told_to_use_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: Python has no AF_UNIX there."""
    monkeypatch.delattr(socket, "AF_UNIX")
    error = refusal("ipc:///run/s")
    assert isinstance(error, errors.UnsupportedPlatform)
    assert all(word in error.hint for word in ("Docker", "WSL", "tcp://127.0.0.1"))


# --- not allowed -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() == 0, reason="root may do everything; the tests below become somebody else")
def test_a_socket_without_permission_is_not_allowed(place: Path) -> None:
    """What everybody can test: not even its owner may open it."""
    with closing(listen(place / "s")):
        (place / "s").chmod(0)
        error = refusal(f"ipc://{place / 's'}")
        assert isinstance(error, errors.NotAllowed)
        assert isinstance(error, PermissionError)


@as_root
def test_a_closed_socket_names_its_owner_its_mode_and_who_asks(place: Path) -> None:
    """Libzmq makes sockets 0755 and retries EACCES for ever in silence."""
    with closing(listen(place / "s")):
        (place / "s").chmod(0o755)
        told = as_a_stranger(place / "s")
    assert told["path"] == str(place / "s")
    assert (told["uid"], told["gid"], told["mode"]) == (0, 0, 0o755)
    assert "root:root with mode srwxr-xr-x" in told["text"]
    assert f"uid {STRANGER}" in told["text"]
    assert "socket_group" in told["hint"]
    assert 'user: "' in told["hint"]


@as_root
def test_a_socket_for_a_group_says_how_to_join_it(place: Path) -> None:
    """The mend is another one when `socket_group` has been set already."""
    with closing(listen(place / "s")):
        (place / "s").chmod(0o660)
        os.chown(place / "s", 0, 4242)
        told = as_a_stranger(place / "s")
    assert "usermod -aG 4242" in told["hint"]
    assert 'group_add: ["4242"]' in told["hint"]


@as_root
def test_a_closed_folder_is_named_instead_of_the_socket(place: Path) -> None:
    """The one that stands in the way is the one to mend."""
    (place / "run").mkdir()
    with closing(listen(place / "run" / "s")):
        (place / "run" / "s").chmod(0o777)
        (place / "run").chmod(0o700)
        told = as_a_stranger(place / "run" / "s")
    assert told["path"] == str(place / "run")
    assert told["mode"] == 0o700
    assert "an endpoint in a folder that this user may enter" in told["hint"]
    assert "ipc:///run/mcp-broker/broker.sock" in told["hint"]


def test_a_folder_under_tmp_that_others_can_write_is_not_trusted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may make the folder first, and listen in it for what this user's clients say."""
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    folder = Path(private_folder())
    folder.mkdir()
    with closing(listen(folder / "broker.sock")):
        endpoint = default_endpoint({}, system_socket=str(place / "none"))
        folder.chmod(0o700)
        probe(endpoint)
        folder.chmod(0o777)
        assert isinstance(refusal(endpoint), errors.NotAllowed)


@pytest.mark.parametrize(
    "kind", ["for all", "another's", "in another's", "another's link", "beside another's"]
)
def test_an_address_that_is_looked_up_is_trusted_only_where_nobody_else_can_listen(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Who listens there is told the arguments of every call. What this user names is as he says."""
    if "another's" in kind and os.getuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    runtime, real = place / "run", place / "real"
    (real / "mcp-broker").mkdir(parents=True)
    runtime.symlink_to(real)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with closing(listen(real / "mcp-broker" / "broker.sock")):
        endpoint = default_endpoint(system_socket=str(place / "none"))
        probe(endpoint)
        if kind == "for all":
            (real / "mcp-broker").chmod(0o777)
        elif kind == "another's":
            os.chown(real / "mcp-broker", STRANGER, STRANGER)
        elif kind == "in another's":
            os.chown(real, STRANGER, STRANGER)
        elif kind == "another's link":
            (real / "mcp-broker").rename(real / "elsewhere")
            (real / "mcp-broker").symlink_to("elsewhere")
            probe(endpoint)
            os.lchown(real / "mcp-broker", STRANGER, STRANGER)
        else:
            os.chown(real / "mcp-broker", STRANGER, STRANGER)
            real.chmod(0o1777)
        error = refusal(endpoint)
        assert isinstance(error, errors.NotAllowed)
        assert str(real) in error.message
        assert f"or say where it listens with the variable {VARIABLE}" in error.hint
        monkeypatch.setenv(VARIABLE, endpoint)
        probe(endpoint)
        monkeypatch.delenv(VARIABLE)
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        probe(endpoint)


@as_root
def test_the_system_s_socket_may_be_any_user_s_whom_root_has_given_the_folder_to(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service runs as a user of its own; its folder in /run only root can have made."""
    folder = place / "mcp-broker"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    monkeypatch.setattr(client_shim.transport.endpoint, "SYSTEM_SOCKET", str(folder / "broker.sock"))
    with closing(listen(folder / "broker.sock")):
        os.chown(folder / "broker.sock", STRANGER, STRANGER)
        probe(f"ipc://{folder}/broker.sock")
        folder.chmod(0o777)
        assert isinstance(refusal(f"ipc://{folder}/broker.sock"), errors.NotAllowed)
        folder.chmod(0o755)
        place.chmod(0o1777)
        assert isinstance(refusal(f"ipc://{folder}/broker.sock"), errors.NotAllowed)


# --- the default endpoint ----------------------------------------------------------------------------


def test_the_order_of_the_default_endpoint(place: Path) -> None:
    """The variable, the system socket, the runtime folder, the temp folder: in this order."""
    system, none = place / "broker.sock", str(place / "none")
    system.touch()
    environ = {VARIABLE: "tcp://127.0.0.1:1", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_endpoint(environ, system_socket=str(system)) == "tcp://127.0.0.1:1"
    del environ[VARIABLE]
    assert default_endpoint(environ, system_socket=str(system)) == f"ipc://{system}"
    assert default_endpoint(environ, system_socket=none) == "ipc:///run/user/7/mcp-broker/broker.sock"
    for nothing in ({}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "not/absolute"}):
        found = default_endpoint(nothing, system_socket=none)
        assert found == f"ipc://{tempfile.gettempdir()}/mcp-broker-{os.getuid()}/broker.sock"
