"""Where the broker may listen, whoever names the address, and what it says where it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.config.loading import ConfigError, load
from broker.config.schema import BrokerConfig, LimitsConfig
from broker.frontend.address import address_of, claim
from broker.frontend.zmq.router import Router
from broker.service.claims import ClaimError
from tests.daemon.test_hub import with_a_call
from tests.e2e.harness import PATIENCE_S, ROOT, toml

OPEN_TO_ALL = ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://10.0.0.1:5555", "foo", "ipc://rel/x.sock"]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that another program listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def serve(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`mcp-broker serve`, which is expected to say why it cannot."""
    config = folder / "broker.toml"
    config.write_text(toml({"servers.off": {"command": "x", "enabled": False}}))
    return subprocess.run(
        [sys.executable, "-m", "broker", "serve", "--config", str(config), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


# --- who names it ----------------------------------------------------------------------------------------


def test_the_command_line_comes_before_the_config_and_that_before_the_variable() -> None:
    """What is not used is not looked at either."""
    config, environ = BrokerConfig(endpoint="ipc:///b"), {"MCP_BROKER_ENDPOINT": "ipc:///c"}
    assert address_of("ipc:///a", config, environ, {}).endpoint == "ipc:///a"
    assert address_of(None, config, {"MCP_BROKER_ENDPOINT": "nonsense"}, {}).endpoint == "ipc:///b"
    assert address_of(None, BrokerConfig(), environ, {}).endpoint == "ipc:///c"
    assert address_of(None, BrokerConfig(), {"MCP_BROKER_ENDPOINT": ""}, {}).endpoint.endswith("/broker.sock")


@pytest.mark.parametrize("endpoint", OPEN_TO_ALL)
def test_no_way_of_naming_it_opens_the_broker_to_the_network(endpoint: str) -> None:
    """The design: loopback and ipc only. The same rule and the same words wherever it stands."""
    with pytest.raises(ConfigError) as in_config:
        load({"broker": {"endpoint": endpoint}, "servers": {"a": {"command": "x"}}}, {})
    words = str(in_config.value).removeprefix("broker.endpoint")
    with pytest.raises(ConfigError) as told:
        address_of(endpoint, BrokerConfig(), {}, {})
    with pytest.raises(ConfigError) as of_variable:
        address_of(None, BrokerConfig(), {"MCP_BROKER_ENDPOINT": endpoint}, {})
    assert str(told.value) == f"--endpoint{words}"
    assert str(of_variable.value) == f"$MCP_BROKER_ENDPOINT{words}"


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["--endpoint", "tcp://0.0.0.0:5555"], {}, "--endpoint"),
        (["--endpoint", ""], {}, "--endpoint"),
        ([], {"MCP_BROKER_ENDPOINT": "tcp://*:5555"}, "$MCP_BROKER_ENDPOINT"),
    ],
)
def test_serve_ends_with_2_where_no_broker_may_listen(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], named: str
) -> None:
    """It is wrong use, as in the config: no traceback, and nothing is made."""
    done = serve(tmp_path, *arguments, **environ)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"mcp-broker: {named}: this value does not fit; write the whole path")
    assert [path.name for path in tmp_path.iterdir()] == ["broker.toml"]


# --- it cannot be had ------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_and_nothing_is_left(tmp_path: Path, port: int) -> None:
    """Docs/messages.md: exit status 1, the endpoint is taken. It is no fault of the broker's."""
    done = serve(tmp_path, "--endpoint", f"tcp://127.0.0.1:{port}")
    assert done.returncode == 1, done.stderr
    assert f"tcp://127.0.0.1:{port} is taken by another program; stop it, or give another" in done.stderr
    assert "Traceback" not in done.stderr
    assert "crashed" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broker.toml"]


def test_a_port_that_is_taken_after_the_look_at_it_is_said_in_the_same_words(port: int) -> None:
    """The bind itself is libzmq's, and may fail too."""
    _, hub, _ = with_a_call()
    with pytest.raises(ClaimError, match=rf"127\.0\.0\.1:{port} is taken by another program; stop it"):
        Router(f"tcp://127.0.0.1:{port}", LimitsConfig(), hub)


def test_a_port_that_was_in_use_a_moment_ago_is_free() -> None:
    """A broker that is restarted is not kept from its port by connections that are over (TIME_WAIT)."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = listener.getsockname()
        with closing(socket.create_connection(address)) as client:
            server, _ = listener.accept()
            server.close()  # who closes first has the TIME_WAIT
            assert client.recv(1) == b""
    with claim(address_of(f"tcp://127.0.0.1:{address[1]}", BrokerConfig(), {}, {})):
        pass


def test_what_is_no_socket_is_never_to_be_removed(tmp_path: Path) -> None:
    """Whoever names a file by mistake is told to name something else."""
    path = tmp_path / "passwd"
    path.write_text("root")
    with (
        pytest.raises(ClaimError, match="is not a socket; give another endpoint") as caught,
        claim(address_of(f"ipc://{path}", BrokerConfig(), {}, {})),
    ):
        pass
    assert "remove" not in str(caught.value)


# --- a program that cannot be reached --------------------------------------------------------------------

AS_A_STRANGER = """
import os, sys
from pathlib import Path
from broker.config.schema import ServerConfig
from broker.processes.program import SpawnError, program_of
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for keys in ({"command": "./link"}, {"command": "true", "cwd": "closed/in"}, {"command": "./gone"}):
    try:
        print(program_of(ServerConfig(name="a", **keys), folder=Path(sys.argv[1]), environ=os.environ))
    except SpawnError as error:
        print(error)
"""


def test_a_program_in_a_closed_folder_is_not_said_to_be_missing() -> None:
    """A link of a virtual environment often leads into somebody's home."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(os.path.realpath(name))
        folder.chmod(0o755)
        (folder / "closed" / "in").mkdir(parents=True)
        (folder / "closed" / "in" / "program").touch(mode=0o755)
        (folder / "link").symlink_to(folder / "closed" / "in" / "program")
        (folder / "closed").chmod(0)
        run = subprocess.run(
            [sys.executable, "-c", AS_A_STRANGER, str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        (folder / "closed").chmod(0o755)
    assert run.returncode == 0, run.stderr
    link, cwd, gone = run.stdout.splitlines()
    for said, what, key in ((link, "link", "command"), (cwd, "closed/in", "cwd")):
        assert said.startswith(f"'{folder}/{what}' may not be reached by this user (uid "), said
        assert f"{folder}/closed is closed to it; let it in, or correct {key} in [servers.a]" in said
    assert gone.startswith(f"there is no file '{folder}/gone'")


CLAIM_AS_A_STRANGER = """
import grp, os, pwd, sys
from broker.config.schema import BrokerConfig
from broker.frontend.address import ClaimError, claim, address_of
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with claim(address_of(f"ipc://{sys.argv[1]}/closed/in/b.sock", BrokerConfig(), {}, {})):
        pass
except ClaimError as error:
    print(error)
"""


def test_a_folder_of_somebody_else_is_described_with_the_command_that_gives_it_away() -> None:
    """Law 10: a volume that root has made, say. Its owner, its mode, who asks, and `chown`."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(os.path.realpath(name))
        (folder / "closed" / "in").mkdir(parents=True)
        for path in (folder, folder / "closed", folder / "closed" / "in"):
            path.chmod(0o755)
        ask = [sys.executable, "-c", CLAIM_AS_A_STRANGER, str(folder)]
        done = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    inner = folder / "closed" / "in"
    assert f"the folder {inner} belongs to 0:0 with mode 0755, and this broker is 65534:65534" in done.stdout
    assert f"`chown 65534:65534 {inner}` as root" in done.stdout


def test_a_socket_in_a_closed_folder_is_said_to_be_out_of_reach() -> None:
    """Law 10: this user cannot know whether there is such a folder, and it is no fault of the broker's."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(os.path.realpath(name))
        folder.chmod(0o755)
        (folder / "closed" / "in").mkdir(parents=True)
        (folder / "closed").chmod(0)
        ask = [sys.executable, "-c", CLAIM_AS_A_STRANGER, str(folder)]
        done = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        (folder / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert f"the folder {folder}/closed/in does not exist or may not be written to" in done.stdout
