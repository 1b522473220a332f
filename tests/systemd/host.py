"""The machine inside a booted systemd, as somebody with a root shell sees it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import toml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path("/etc/mcp-broker/broker.toml")
ENDPOINT = "ipc:///run/mcp-broker/broker.sock"
SOCKET = Path("/run/mcp-broker/broker.sock")
PREFIX = Path("/opt/mcp-broker")
PYTHON = f"{PREFIX}/bin/python"
LIBRARIES = (Path("/usr/lib/systemd"), Path("/usr/local/lib/systemd"))
"""Where the package has the units, and where `make install` has them."""
PATIENCE_S = 90.0
"""The machine may be loaded."""

ROGUE: dict[str, Any] = {"command": PYTHON, "args": ["-I", "-S", "/opt/rogue/tests/servers/rogue.py"]}
"""The hand-written server of tests/servers, where the service's user can read it."""


WHEELS = ""
"""A folder with everything to install from: there is no network."""

PACKAGE = ""
"""The Debian package; nothing where it cannot be built, and then why."""
NO_PACKAGE = ""


class Skipped(Exception):
    """This cannot be looked at here, and why."""


def sh(command: str, *, status: int | None = 0, env: str = "") -> str:
    """The output of a shell command, stdout and stderr; it must end with this status."""
    done = subprocess.run(
        ["bash", "-c", f"export {env or 'LC_ALL=C.UTF-8'}; {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert status is None or done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def as_user(user: str, *command: str, status: int | None = 0) -> str:
    """The output of a command that another user runs, with all its groups."""
    who = f"setpriv --reuid={user} --regid=$(id -g {user}) --init-groups env HOME=/ "
    return sh(who + shlex.join(command), status=status)


def show(name: str, unit: str = "mcp-broker.service") -> str:
    """One property of a unit."""
    return sh(f"systemctl show --property {name} --value {unit}").strip()


def units() -> Path:
    """The folder of the installed units."""
    return next(folder for folder in LIBRARIES if (folder / "system/mcp-broker.service").exists())


def main_pid() -> int:
    """The broker's, 0 where none runs."""
    return int(show("MainPID"))


def status() -> dict[str, Any]:
    """What `mcp-broker status --json` prints, ready or not; nothing where none answers."""
    try:
        with BlockingClient(ENDPOINT, timeout_s=PATIENCE_S) as broker:
            seen: dict[str, Any] = broker.request(MANAGEMENT, "status")
            return seen
    except BrokerError:
        return {}


def server_pids() -> dict[str, int]:
    """Every running server's pid."""
    return {one["name"]: one["pid"] for one in status().get("servers", []) if one["pid"]}


def until(what: Callable[[], object], otherwise: Callable[[], object] = lambda: "") -> None:
    """Ask until it is so."""
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < give_up, f"it never came to this: {otherwise()}"
        time.sleep(0.05)


def until_ready() -> None:
    """Until systemd has been told that every server is ready."""

    def ready() -> bool:
        ready, _, count = show("StatusText").removesuffix(" servers ready").partition(" of ")
        return ready == count != "0" and show("ActiveState") == "active"

    until(ready, lambda: sh("systemctl status --no-pager mcp-broker", status=None))


def journal() -> str:
    """What the broker has logged, from the first start on."""
    sh("journalctl --sync")
    return sh("journalctl --quiet --output cat --unit mcp-broker")


def last_words() -> str:
    """The end of the journal, for a check that failed."""
    return "\n".join(journal().splitlines()[-40:])


def call(server: str, tool: str, arguments: dict[str, Any] | None = None) -> str:
    """The text of one call's answer."""
    with BlockingClient(ENDPOINT, timeout_s=PATIENCE_S) as broker:
        params = {"name": tool, "arguments": arguments or {}}
        text: str = broker.request(server, "tools/call", params)["content"][0]["text"]
        return text


def configure(servers: dict[str, dict[str, Any]]) -> None:
    """Write another config, as an administrator would: owner and mode stay."""
    CONFIG.write_text(toml({f"servers.{name}": table for name, table in servers.items()}), encoding="utf-8")


def install_rogue() -> None:
    """A small config with servers that behave as they are told, in the place of the default one."""
    sh(f"mkdir -p /opt/rogue/tests && cp -rp {ROOT}/tests/servers /opt/rogue/tests")
    sh("chmod -R a+rX /opt/rogue")
    configure({"fine": ROGUE, "other": ROGUE})
    sh("systemctl restart mcp-broker")
    until_ready()


def drop_in(text: str) -> None:
    """What `systemctl edit mcp-broker` writes."""
    folder = Path("/etc/systemd/system/mcp-broker.service.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text, encoding="utf-8")
    sh("systemctl daemon-reload")


def processes_of(user: str) -> list[int]:
    """The pids of a user's processes."""
    return [int(pid) for pid in sh(f"pgrep -u {user}", status=None).split()]


def background(code: str) -> subprocess.Popen[str]:
    """A Python program beside the session."""
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
