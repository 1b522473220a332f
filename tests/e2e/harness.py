"""A real broker with real servers for a test: started, waited for, looked at, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client_shim.blocking import BlockingClient
from client_shim.errors import BrokerError
from client_shim.wire import MANAGEMENT

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / "tests" / "servers"
PATIENCE_S = 60.0
"""How long a test waits for something that should come much sooner; the machine may be loaded."""

Table = Mapping[str, Any]


def rogue(*flags: str, **keys: Any) -> dict[str, Any]:
    """The hand-written server with these flags, and further keys of its table."""
    script = str(SERVERS / "rogue.py")
    return {"command": sys.executable, "args": ["-I", "-S", script, *flags], **keys}


def script(path: str, *args: str, python: str = sys.executable, **keys: Any) -> dict[str, Any]:
    """A Python script of this repository as a server."""
    return {"command": python, "args": [str(ROOT / path), *args], **keys}


LED_SCREEN: dict[str, dict[str, Any]] = {
    "advertisement-server": script("examples/led_screen/advertisement.py"),
    "fukuoka-transit": script("examples/led_screen/transit.py"),
    "laundry-assistant": script("examples/led_screen/laundry.py"),
    "time": {"command": sys.executable, "args": ["-m", "mcp_server_time", "--local-timezone", "Asia/Tokyo"]},
    "weather-server": script("examples/led_screen/weather.py"),
}
"""The servers of the repository's broker.toml, without the one that asks (`washing-machine`)."""


def toml(tables: Mapping[str, Table]) -> str:
    """Tables of plain values as TOML."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        for key, value in table.items():
            if isinstance(value, Mapping):
                inner = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
                lines.append(f"{key} = {{ {inner} }}")
            else:
                lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


_LOOKED_AT = {} if os.geteuid() == 0 else {"MCP_BROKER_DUMPABLE": "1"}
"""Some tests count a broker's descriptors in /proc, which is closed to all but root."""


class RunningBroker:
    """A broker process on an endpoint of its own."""

    def __init__(
        self,
        folder: Path,
        servers: Mapping[str, Table],
        sections: Mapping[str, Table],
        env: Mapping[str, str],
        arguments: Sequence[str] = (),
        program: Sequence[str] = ("-m", "broker"),
        before: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        ports: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._program = program
        self.endpoint = str(sections.get("broker", {}).get("endpoint", f"ipc://{folder}/b.sock"))
        self._ports = ports
        self.config = folder / "broker.toml"
        self.log_path = folder / "log"
        self.write(servers, **sections)
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **_LOOKED_AT, **env}
        self._env.pop("MCP_BROKER_ENDPOINT", None)
        self._arguments = arguments
        self._before = before
        self._pass_fds = pass_fds
        self.start()

    def write(self, servers: Mapping[str, Table], **sections: Table) -> None:
        """Write the config, as an editor does that puts a new file in the place of the old one."""
        tables = {
            **sections,
            "broker": {"endpoint": [self.endpoint, *self._ports], **sections.get("broker", {})}
            if self._ports
            else {"endpoint": self.endpoint, **sections.get("broker", {})},
            **{f"servers.{name}": table for name, table in servers.items()},
        }
        new = self.config.with_suffix(".new")
        new.write_text(toml(tables), encoding="utf-8")
        new.replace(self.config)

    def start(self, *before: str, stdin: int | None = None) -> None:
        """Start the process; a second time after it ended. `before` is a command that becomes it."""
        command = [
            *self._before,
            *before,
            sys.executable,
            *self._program,
            "serve",
            "--config",
            str(self.config),
            "--log-level",
            "debug",
            *self._arguments,
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdin=stdin, stdout=log, stderr=log, pass_fds=self._pass_fds
            )

    @property
    def pid(self) -> int:
        """The broker's own."""
        return self.process.pid

    def log(self) -> str:
        """Everything it has logged."""
        return self.log_path.read_text(encoding="utf-8")

    def client(self) -> BlockingClient:
        """A client that is not connected yet."""
        return BlockingClient(self.endpoint, timeout_s=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """What `mcp-broker status --json` prints."""
        with self.client() as client:
            status: dict[str, Any] = client.request(MANAGEMENT, "status")
            return status

    def _states(self) -> dict[str, Any]:
        """Of the same, what the broker knows without a look at the machine."""
        with self.client() as client:
            states: dict[str, Any] = client.request(MANAGEMENT, "servers")
            return states

    def server(self, name: str) -> dict[str, Any]:
        """The status of one server."""
        return next(server for server in self.status()["servers"] if server["name"] == name)

    def counter(self, name: str) -> int:
        """How often something was counted."""
        return int(self.status()["broker"]["counters"].get(name, 0))

    def pids(self) -> dict[str, int]:
        """Every running server's pid."""
        return {server["name"]: server["pid"] for server in self.status()["servers"] if server["pid"]}

    def wait(self, what: Callable[[dict[str, Any]], bool], *, states_only: bool = False) -> dict[str, Any]:
        """Ask for the status until it is so.

        Where it depends on the servers' states only, those are asked for until it is: for the rest of the
        status the broker looks at all processes of the machine.
        """
        deadline = time.monotonic() + PATIENCE_S
        seen: object = None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the broker ended with {self.process.returncode}\n{self.log()}")
            try:
                status = self._states() if states_only else self.status()
                if states_only and what(status):
                    status = self.status()
            except BrokerError as error:
                seen = error
            else:
                if what(status):
                    return status
                seen = status
            time.sleep(0.02)
        raise AssertionError(f"it never came to this; last seen: {seen}\n{self.log()}")

    def wait_ready(self) -> dict[str, Any]:
        """Until every enabled server is ready."""
        return self.wait(
            lambda status: all(s["state"] in ("ready", "disabled") for s in status["servers"]),
            states_only=True,
        )

    def wait_state(self, name: str, *states: str) -> dict[str, Any]:
        """Until this server is in one of these states."""
        status = self.wait(
            lambda seen: any(s["name"] == name and s["state"] in states for s in seen["servers"]),
            states_only=True,
        )
        return next(server for server in status["servers"] if server["name"] == name)

    def wait_log(self, text: str, times: int = 1) -> None:
        """Until it has logged this so often."""
        wait_until(lambda: self.log().count(text) >= times, lambda: self.log())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    servers: Mapping[str, Table],
    *,
    ready: bool = True,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    program: Sequence[str] = ("-m", "broker"),
    before: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    ports: Sequence[str] = (),
    **sections: Table,
) -> Iterator[RunningBroker]:
    """A broker for the length of a `with`, after which it must end well and leave no process behind."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        broker = RunningBroker(
            Path(folder), servers, sections, env or {}, arguments, program, before, pass_fds, ports
        )
        try:
            if ready:
                broker.wait_ready()
            yield broker
        except BaseException:
            broker.stop(signal.SIGKILL)
            asked = f"client=mcp-broker pid={os.getpid()}"  # our own questions about the status
            sys.stderr.writelines(f"{line}\n" for line in broker.log().splitlines() if asked not in line)
            raise
        left = descendants(broker.pid)
        assert broker.stop() == 0, broker.log()
        assert not [pid for pid in left if is_alive(pid)], broker.log()


def wait_until(what: Callable[[], bool], otherwise: Callable[[], object] = lambda: "") -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came to this; {otherwise()}")
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat is not None:
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
