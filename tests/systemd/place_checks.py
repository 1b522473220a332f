"""Checks of what is installed: the units, the user, the socket and who may open it."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

from client_shim.blocking import BlockingClient
from tests.systemd.host import (
    CONFIG,
    ENDPOINT,
    PREFIX,
    PYTHON,
    ROOT,
    SOCKET,
    as_user,
    configure,
    install_rogue,
    journal,
    main_pid,
    sh,
    units,
    until,
    until_ready,
)

CONFIG_GROUP = "mcp-broker-config"
PORT = "tcp://127.0.0.1:5599"

CONNECT = f"""
import time
from client_shim.blocking import BlockingClient
began = time.monotonic()
try:
    with BlockingClient({ENDPOINT!r}) as broker:
        params = {{"name": "get_current_time", "arguments": {{"timezone": "UTC"}}}}
        print(broker.request("time", "tools/call", params)["content"][0]["text"])
except Exception as error:
    print(type(error).__name__, error)
print("seconds", time.monotonic() - began)
"""


def the_files_are_what_they_should_be() -> None:
    """Config for root and the broker; secrets for root; what runs can be written by nobody else."""
    modes = {CONFIG: (0o640, "root:mcp-broker-config"), CONFIG.with_name("environment"): (0o600, "root:root")}
    modes |= {SOCKET: (0o660, "mcp-broker:mcp-broker"), PREFIX: (0o755, "root:root")}
    modes |= {Path("/var/lib/mcp-broker"): (0o700, "mcp-broker:mcp-broker")}
    for path, (mode, owner) in modes.items():
        about = path.stat()
        assert stat.S_IMODE(about.st_mode) == mode, (path, oct(about.st_mode))
        assert sh(f"stat -c %U:%G {path}").strip() == owner, path
    assert sh(f"find {PREFIX} -perm /022 ! -type l") == ""


def give_to_clients() -> None:
    """Give the config and its backup the group that they had before there was one for them."""
    sh(f"cp -p {CONFIG} {CONFIG}.bak && chgrp mcp-broker {CONFIG} {CONFIG}.bak")


def clients_may_not_read() -> None:
    """The users of backends and the gateway are in the group of the socket, and in no other of the broker."""
    user = "setpriv --reuid=nobody --regid=mcp-broker --clear-groups"
    sh(f"{user} test -w {SOCKET}")
    files = sh(f"find {CONFIG.parent} -type f ! -name gateway.toml").split()
    assert str(CONFIG) in files
    for file in [*files, "/var/lib/mcp-broker"]:
        said = sh(f"{user} head -c1 {file}", status=1)
        assert "Permission denied" in said, (file, said)


def clients_read_neither_the_config_nor_the_keys() -> None:
    """A backend calls tools. It does not get the secrets of the servers, nor the key of the broker."""
    whole = CONFIG.read_text(encoding="utf-8")
    sh("cd /root && mcp-broker keys new laptop")
    keys = 'server_key = "server.key_secret"\nauthorized_keys = "authorized_keys"'
    CONFIG.write_text(f'[broker]\nendpoint = ["{ENDPOINT}", "{PORT}"]\n{keys}\n{whole}', encoding="utf-8")
    clients_may_not_read()
    sh("mcp-broker check --service && systemctl restart mcp-broker")
    until_ready()
    with BlockingClient(PORT, keys="/root/laptop.key_secret") as broker:  # the broker has read its keys
        assert broker.request("fine", "tools/list", {})["tools"]
    sh(f"chgrp mcp-broker {CONFIG}")
    said = sh("mcp-broker check --service", env="MCP_BROKER_LANG=en")
    assert f"{CONFIG}: members of group mcp-broker, which are the clients, can read it" in said, said
    sh(f"chgrp mcp-broker-config {CONFIG}")
    CONFIG.write_text(whole, encoding="utf-8")
    sh(f"cd {CONFIG.parent} && rm -r server.key_secret authorized_keys && systemctl restart mcp-broker")
    until_ready()


def check_looks_as_the_service_does() -> None:
    """As the service sees it: a command that only root can run, a secret that everybody can read."""
    said = sh("mcp-broker check --service")
    assert "user mcp-broker, PATH /var/lib/mcp-broker/.local/bin:" in said, said
    assert "/etc/mcp-broker/broker.toml: fine, 6 servers" in said, said
    whole, tool = CONFIG.read_text(encoding="utf-8"), Path("/root/.local/bin/only-roots")
    tool.parent.mkdir(parents=True, exist_ok=True)
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    sh("chmod 700 /root")
    configure({"clock": {"command": "only-roots", "env": {"TOKEN": "s3cr3t-t0ken-in-the-file"}}})
    sh(f"chmod o+r {CONFIG}")
    said = sh("mcp-broker check --service", status=1)
    assert f"found at: {tool}" in said, said
    assert "user mcp-broker has no access" in said, said
    assert "these look like secrets: servers.clock.env.TOKEN" in said, said
    sh(f"chmod o-r {CONFIG}")
    CONFIG.write_text(whole, encoding="utf-8")


def verify_finds_nothing() -> None:
    """`systemd-analyze verify` is clean, for the system's units and for a user's."""
    for name in ("mcp-broker.service", "mcp-broker.socket"):
        assert sh(f"systemd-analyze verify {units()}/system/{name}") == ""
        assert sh(f"systemd-analyze --user verify {units()}/user/{name}", env="XDG_RUNTIME_DIR=/run") == ""


def the_exposure_is_small() -> None:
    """`systemd-analyze security --offline=yes`: 3.0 at most."""
    unit = f"{units()}/system/mcp-broker.service"
    said = sh(f"systemd-analyze security --offline=yes --no-pager --threshold=30 {unit}")
    measured = re.search(r"Overall exposure level for mcp-broker.service: ([0-2]\.\d)", said)
    assert measured is not None, said
    page = (ROOT / "docs/service.md").read_text(encoding="utf-8")
    told = re.search(r"of systemd (\d+) gives the unit an exposure of (\d\.\d)", page)
    assert told is not None, "the page says what was measured"
    if sh("systemctl --version").split()[1] == told[1]:
        assert measured[1] == told[2]


def another_user_of_the_group_is_served() -> None:
    """Another user than the broker's, in the socket's group, can use it."""
    sh("useradd --no-create-home backend && usermod -aG mcp-broker backend")
    said = as_user("backend", PYTHON, "-c", CONNECT)
    assert '"timezone": "UTC"' in said, said


def one_outside_the_group_is_told_what_to_do() -> None:
    """One outside the group gets the shim's "not allowed" with what to do, within a second."""
    sh("useradd --no-create-home stranger")
    said = as_user("stranger", PYTHON, "-c", CONNECT)
    assert said.startswith("NotAllowed"), said
    assert "sudo usermod -aG mcp-broker stranger" in said, said
    assert float(said.rpartition("seconds ")[2]) < 1.0, said
    told = as_user("stranger", "mcp-broker", "status", status=3)
    assert "sudo usermod -aG mcp-broker stranger" in told, told


def a_second_broker_cannot_take_the_socket() -> None:
    """The socket of one broker cannot be taken by another, whoever starts it."""
    inode, pid = SOCKET.stat().st_ino, main_pid()
    serve = (f"{PREFIX}/bin/mcp-broker", "serve", "--config", str(PREFIX / "share/broker.toml"))
    said = as_user("mcp-broker", *serve, "--endpoint", ENDPOINT, status=1)
    assert f"a broker with pid {pid} already listens at {ENDPOINT}" in said, said
    said = as_user("stranger", *serve, "--endpoint", ENDPOINT, status=1)
    assert "the folder /run/mcp-broker belongs to " in said, said
    assert (SOCKET.stat().st_ino, main_pid()) == (inode, pid)


def systemd_does_not_take_the_socket_of_a_broker_either() -> None:
    """Nor does systemd, which would take over the path without a word, take it from a broker by hand."""
    install_rogue()  # from here on: the six have shown what they can, and take seconds to start
    sh("systemctl stop mcp-broker.socket && rm -f /run/mcp-broker/broker.sock")
    user = (
        f"setpriv --reuid=mcp-broker --regid=mcp-broker --groups={CONFIG_GROUP} env HOME=/var/lib/mcp-broker"
    )
    serve = f"{user} {PREFIX}/bin/mcp-broker serve --config {CONFIG}"
    by_hand = subprocess.Popen(serve.split(), cwd="/", stderr=subprocess.DEVNULL)
    try:
        until(SOCKET.exists)
        inode = SOCKET.stat().st_ino
        said = sh("systemctl start mcp-broker", status=1)
        assert "dependency job for mcp-broker.service failed" in said, said
        said = sh("journalctl --quiet --output cat -u mcp-broker.socket")
        assert "a broker that this service did not start listens at" in said, said
        assert SOCKET.stat().st_ino == inode
    finally:
        by_hand.terminate()
        by_hand.wait()
    sh("systemctl start mcp-broker")
    until_ready()


def what_stands_in_the_service_s_folder_is_not_opened_by_root() -> None:
    """The folder is the service's user's, and so its servers': a link there leads root nowhere."""
    sh("systemctl stop mcp-broker.socket")
    lock = Path("/run/mcp-broker/broker.sock.lock")
    lock.unlink(missing_ok=True)
    lock.symlink_to(CONFIG.with_name("environment"))  # only root can open it
    sh("systemctl start mcp-broker.socket", status=1)
    lock.unlink()
    sh("systemctl start mcp-broker")
    until_ready()


SWAP = """
import ctypes, os, pwd, sys
user = pwd.getpwnam("mcp-broker")
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
os.chdir("/run/mcp-broker")
exchange = lambda: ctypes.CDLL(None).renameat2(-100, b"his", -100, b"broker.sock", 2)
print("ready", flush=True)
while True:
    try:
        os.symlink(sys.argv[1], "his")
    except OSError:
        pass
    if exchange() == 0:
        try:
            os.unlink("his")
        except OSError:
            pass
"""


def what_a_server_puts_in_the_place_of_the_socket_is_not_given_to_it() -> None:
    """systemd gives a socket to its user by its path; a server that puts a link there got any file of root's.

    Ten starts of the socket; without the lines in the unit one or two are enough.
    """
    victim = Path("/etc/victim")
    victim.touch(mode=0o600)
    with subprocess.Popen([PYTHON, "-c", SWAP, str(victim)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == b"ready\n"
            for _ in range(10):
                sh("systemctl reset-failed mcp-broker.socket mcp-broker.service", status=None)
                sh("systemctl stop mcp-broker.socket")
                sh("systemctl start mcp-broker.socket", status=None)
                assert (victim.stat().st_uid, victim.stat().st_gid) == (0, 0)
            assert server.poll() is None
        finally:
            server.kill()
    sh("systemctl stop mcp-broker.socket; rm -f /run/mcp-broker/his; systemctl start mcp-broker")
    until_ready()
    assert sh(f"stat -c %U:%G {SOCKET.parent} {SOCKET}").split() == ["mcp-broker:mcp-broker"] * 2


def another_group_can_be_given_the_socket() -> None:
    """`SocketGroup=` in a drop-in holds also after the service has been started with its folder new."""
    sh("groupadd --force others")
    folder = Path("/etc/systemd/system/mcp-broker.socket.d")
    folder.mkdir()
    (folder / "group.conf").write_text("[Socket]\nSocketGroup=others\n", encoding="utf-8")
    sh("systemctl stop mcp-broker.socket && rm -r /run/mcp-broker && systemctl daemon-reload")
    sh("systemctl start mcp-broker")
    until_ready()
    assert sh(f"stat -c %U:%G {SOCKET}").strip() == "mcp-broker:others"
    (folder / "group.conf").unlink()
    folder.rmdir()
    sh("systemctl stop mcp-broker.socket && systemctl daemon-reload && systemctl start mcp-broker")
    until_ready()


def the_journal_has_a_priority_for_each_line() -> None:
    """Key=value lines with priorities, so that `journalctl -p warning` is short."""
    assert "broker.listening" in journal()
    warnings = sh("journalctl --quiet --output cat -u mcp-broker -p warning")
    assert "broker.listening" not in warnings, warnings


CHECKS = (
    the_files_are_what_they_should_be,
    check_looks_as_the_service_does,
    verify_finds_nothing,
    the_exposure_is_small,
    another_user_of_the_group_is_served,
    one_outside_the_group_is_told_what_to_do,
    a_second_broker_cannot_take_the_socket,
    systemd_does_not_take_the_socket_of_a_broker_either,
    what_stands_in_the_service_s_folder_is_not_opened_by_root,
    what_a_server_puts_in_the_place_of_the_socket_is_not_given_to_it,
    another_group_can_be_given_the_socket,
    the_journal_has_a_priority_for_each_line,
    clients_read_neither_the_config_nor_the_keys,
)
