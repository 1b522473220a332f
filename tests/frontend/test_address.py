"""Where the broker may listen, whoever names the address, and what it says where it cannot."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.config.limits import LimitsConfig
from broker.config.loading import ConfigError, load
from broker.config.schema import BrokerConfig
from broker.frontend.address import ListenAddress, addresses_of, claim
from broker.frontend.port import is_local, listen, open_port
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
    assert addresses_of("ipc:///a", config, environ, {}) == (ListenAddress("ipc:///a"),)
    assert addresses_of(None, config, {"MCP_BROKER_ENDPOINT": "nonsense"}, {}) == (ListenAddress("ipc:///b"),)
    assert addresses_of(None, BrokerConfig(), environ, {}) == (ListenAddress("ipc:///c"),)
    (default,) = addresses_of(None, BrokerConfig(), {"MCP_BROKER_ENDPOINT": ""}, {})
    assert default.endpoint.endswith("/broker.sock")


@pytest.mark.parametrize("endpoint", OPEN_TO_ALL)
def test_no_way_of_naming_it_opens_the_broker_to_the_network(endpoint: str) -> None:
    """Without keys loopback and ipc only. The same rule and the same words wherever it stands."""
    with pytest.raises(ConfigError) as in_config:
        load({"broker": {"endpoint": endpoint}, "servers": {"a": {"command": "x"}}}, {})
    words = str(in_config.value).removeprefix("broker.endpoint")
    with pytest.raises(ConfigError) as told:
        addresses_of(endpoint, BrokerConfig(), {}, {})
    with pytest.raises(ConfigError) as of_variable:
        addresses_of(None, BrokerConfig(), {"MCP_BROKER_ENDPOINT": endpoint}, {})
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
    why = "this value does not fit" if arguments == ["--endpoint", ""] else "other machines may reach"
    assert done.stderr.startswith(f"mcp-broker: {named}: {why}")
    assert [path.name for path in tmp_path.iterdir()] == ["broker.toml"]


SPELLINGS = st.one_of(
    st.sampled_from(
        ["0.0.0.0", "*", "[::]", "[::0]", "[0::0]", "[::ffff:0.0.0.0]", "[::ffff:10.0.0.1]", "0x0", "0", "00"]
    ),
    st.sampled_from(
        ["0x7f.1", "0x7f000001", "2130706433", "127.1", "017700000001", "127.0.0.1.", "localhost"]
    ),
    st.sampled_from(
        ["eth0", "lo", "localhost.", "LOCALHOST", "ip6-localhost", socket.gethostname(), "%", ""]
    ),
    st.sampled_from(
        ["[::1%lo]", "[fe80::1%eth0]", "[::ffff:127.0.0.1]", "[::1", "::1", "::", "127.0.0.1@10.0.0.1"]
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.text(alphabet="0123456789abcdefx.:[]*%@/-", max_size=12),
)


@given(SPELLINGS)
@example("127.0.0.1")
@example("[::1]")
def test_without_keys_nothing_listens_beyond_loopback_however_it_is_spelt(host: str) -> None:
    """The config refuses an address, or it is one of loopback, by what the kernel has bound."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        endpoint = f"tcp://{host}:{free.getsockname()[1]}"
    try:
        (address,) = addresses_of(endpoint, BrokerConfig(), {}, {})
    except ConfigError:
        return
    assert host in ("127.0.0.1", "[::1]")
    with open_port(address.endpoint, with_keys=False) as bound:
        assert is_local(bound.getsockname()[0])


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_listens_at_the_other_addresses_of_a_host(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Its kernel has no IPv6, or has it switched off. `::1` alone is refused, and says why."""

    class WithoutIPv6(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(error, os.strerror(error))
            super().bind(address)

    monkeypatch.setattr("broker.frontend.port.socket.socket", WithoutIPv6)
    for host, bound in (("*", "0.0.0.0"), ("localhost", "127.0.0.1")):
        with open_port(f"tcp://{host}:0", with_keys=True) as made:
            assert made.getsockname()[0] == bound
    with pytest.raises(ClaimError, match=f"{os.strerror(error)}; give another endpoint"):
        open_port("tcp://[::1]:0", with_keys=True)


def test_a_port_that_another_program_takes_before_the_broker_listens_is_told() -> None:
    """Two sockets may be bound to it, of which one may listen."""
    with open_port("tcp://127.0.0.1:0", with_keys=False) as ours:
        endpoint = f"tcp://127.0.0.1:{ours.getsockname()[1]}"
        with open_port(endpoint, with_keys=False) as theirs:
            theirs.listen()
            with pytest.raises(ClaimError, match="taken by another program; stop it, or give another"):
                listen(endpoint, ours)


@given(SPELLINGS)
def test_what_is_bound_without_keys_is_of_loopback_whatever_the_config_took(host: str) -> None:
    """The second door: a name may lead elsewhere than it did, or the first one may have a gap."""
    try:
        bound = open_port(f"tcp://{host}:0", with_keys=False)
    except ClaimError:
        return
    with bound:
        found = ip_address(bound.getsockname()[0])
        assert (getattr(found, "ipv4_mapped", None) or found).is_loopback


@pytest.mark.parametrize("keys", [{}, {"server_key": "s"}, {"authorized_keys": "a"}])
def test_one_of_the_two_keys_is_not_enough(keys: dict[str, str]) -> None:
    """Encryption alone lets everybody in; names alone encrypt nothing."""
    with pytest.raises(ConfigError, match="lacks server_key or authorized_keys"):
        load({"broker": {"endpoint": "tcp://*:5555", **keys}, "servers": {"a": {"command": "x"}}}, {})


def test_several_addresses_are_listened_at() -> None:
    """A path for this machine, and a port for others, who need a key there and nowhere else."""
    keys = {"server_key": "s", "authorized_keys": "a"}
    table = {"endpoint": ["ipc:///run/b.sock", "tcp://*:5555"], **keys}
    config = load({"broker": table, "servers": {"a": {"command": "x"}}}, {}).broker
    local, network = addresses_of(None, config, {}, {"ipc:///run/b.sock": 7})
    assert local == ListenAddress("ipc:///run/b.sock", 7)
    assert network == ListenAddress("tcp://*:5555", with_keys=True)
    with pytest.raises(ClaimError, match="systemd listens at"):
        addresses_of(None, config, {}, {"ipc:///run/other.sock": 7})


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
        Router(LimitsConfig(), hub, [ListenAddress(f"tcp://127.0.0.1:{port}")])


def test_a_port_that_was_in_use_a_moment_ago_is_free() -> None:
    """A broker that is restarted is not kept from its port by connections that are over (TIME_WAIT)."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = listener.getsockname()
        with closing(socket.create_connection(address)) as client:
            server, _ = listener.accept()
            server.close()  # who closes first has the TIME_WAIT
            assert client.recv(1) == b""
    with claim(ListenAddress(f"tcp://127.0.0.1:{address[1]}")):
        pass


def test_what_is_no_socket_is_never_to_be_removed(tmp_path: Path) -> None:
    """Whoever names a file by mistake is told to name something else."""
    path = tmp_path / "passwd"
    path.write_text("root")
    with (
        pytest.raises(ClaimError, match="is not a socket; give another endpoint") as caught,
        claim(ListenAddress(f"ipc://{path}")),
    ):
        pass
    assert "remove" not in str(caught.value)


# --- a program that cannot be reached --------------------------------------------------------------------

AS_A_STRANGER = """
import os, sys
from pathlib import Path
from typing import Any
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
from broker.frontend.address import ClaimError, ListenAddress, claim
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with claim(ListenAddress(f"ipc://{sys.argv[1]}/closed/in/b.sock")):
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
