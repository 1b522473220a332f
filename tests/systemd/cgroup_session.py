"""Run by systemd inside: reports the fate of the processes of a broker's server in JSON lines.

    python cgroup_session.py

Servers leave a process that nothing but a cgroup can find: without environment, in a session of its own,
adopted by init, and with none of its server's pipes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT
from tests.e2e.harness import ROOT, is_alive, rogue, toml, wait_until

FOLDER = Path("/run/session")
ENDPOINT = f"ipc://{FOLDER}/b.sock"
UNIT = f"""
[Service]
ExecStart={sys.executable} -m broker serve --config {FOLDER}/broker.toml
WorkingDirectory={ROOT}
KillMode=process
SendSIGKILL=no
StandardError=append:{FOLDER}/log
"""


def tell(what: str, value: object) -> None:
    """One observation."""
    print(json.dumps([what, value]), flush=True)


def systemctl(*arguments: str) -> str:
    """What systemctl says."""
    return subprocess.run(
        ["systemctl", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def start(*keys: str) -> None:
    """Start a unit like this and wait until its server is ready."""
    Path("/etc/systemd/system/mb.service").write_text("\n".join([UNIT, *keys, ""]))
    systemctl("daemon-reload")
    systemctl("start", "mb.service")
    wait_until(is_ready)


def is_ready() -> bool:
    """Whether the server is."""
    try:
        return bool(row()["state"] == "ready")
    except Exception:  # the broker is not there yet
        return False


def row() -> dict[str, object]:
    """The server's row of the status."""
    with BlockingClient(ENDPOINT) as client:
        found: dict[str, object] = client.request(MANAGEMENT, "status")["servers"][0]
        return found


def leave() -> int:
    """Have the server leave a process; its pid."""
    with BlockingClient(ENDPOINT) as client:
        params = {"name": "spawn", "arguments": {"how": "bare_double_fork"}}
        return int(client.request("one", "tools/call", params)["content"][0]["text"])


def cgroup_of(pid: int) -> str:
    """Where a process is."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def groups() -> list[str]:
    """The cgroups below the service's."""
    return [path.name for path in Path("/sys/fs/cgroup/system.slice/mb.service").glob("*/")]


def restarts() -> None:
    """A restart ends what its server left, also from a cgroup that the server had made in its own."""
    left, nested = leave(), leave()
    tell("left in", Path(cgroup_of(left)).name.partition(".")[0])
    inner = Path("/sys/fs/cgroup" + cgroup_of(nested), "inner")
    inner.mkdir()
    (inner / "cgroup.procs").write_text(str(nested))
    tell("processes", row()["processes"])
    tell("cpu", row()["cpu_s"])
    with BlockingClient(ENDPOINT) as client:
        client.request(MANAGEMENT, "restart", {"server": "one"})
    wait_until(is_ready)
    tell("alive after restart", [pid for pid in (left, nested) if is_alive(pid)])
    tell("groups after restart", len(groups()))


def is_killed() -> None:
    """A broker that is killed leaves it, and the next one ends it."""
    left = leave()
    broker = int(systemctl("show", "--property", "MainPID", "--value", "mb.service"))
    systemctl("kill", "--kill-whom", "main", "--signal", "KILL", "mb.service")
    wait_until(lambda: not is_alive(broker))
    # What systemd takes for running, it does not start.
    wait_until(lambda: systemctl("show", "--property", "ActiveState", "--value", "mb.service") == "failed")
    tell("alive after the broker was killed", is_alive(left))
    systemctl("start", "mb.service")
    wait_until(is_ready)
    tell("alive with the next broker", is_alive(left))
    tell("groups with the next broker", len(groups()))
    tell("logged", (FOLDER / "log").read_text().count("broker.leftover_killed"))


def ends() -> None:
    """Nothing is left when it is stopped."""
    left = leave()
    systemctl("stop", "mb.service")
    tell("alive after stop", is_alive(left))


def main() -> None:
    """One delegated broker through its life, and one that nothing was delegated to."""
    FOLDER.mkdir()
    tables = {"broker": {"endpoint": ENDPOINT}, "servers.one": rogue(restart_sec=0.05)}
    (FOLDER / "broker.toml").write_text(toml(tables))
    start("Delegate=yes")
    restarts()
    is_killed()
    ends()
    start()
    tell("groups without delegation", groups())
    tell("states without delegation", row()["state"])
    systemctl("stop", "mb.service")
    start("Delegate=yes", "ProtectControlGroups=yes")
    tell("states of a protected one", row()["state"])
    tell("logged by a protected one", (FOLDER / "log").read_text().count("broker.no_cgroups"))
    systemctl("stop", "mb.service")


if __name__ == "__main__":
    main()
