"""Starts what is measured: programs, which are ended by pid, and a broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from client_shim.blocking import BlockingClient
from client_shim.errors import Unavailable
from client_shim.transport.endpoint import probe
from client_shim.wire import MANAGEMENT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

READY_S = 90.0
"""Seconds that a program may take to start."""

_END_S = 10.0

Command = list[str]


def script(name: str, *args: str) -> Command:
    """Return the command of a script of this folder, with this Python."""
    return [sys.executable, str(HERE / name), *args]


SERVERS: dict[str, Command] = {"bare": script("servers/bare.py"), "sdk": script("servers/sdk.py")}
"""The servers that are called: the same two tools without an SDK and with it."""

PAGE_SERVERS: dict[str, Command] = {
    "advertisement-server": [sys.executable, "examples/led_screen/advertisement.py"],
    "fukuoka-transit": [sys.executable, "examples/led_screen/transit.py"],
    "laundry-assistant": [sys.executable, "examples/led_screen/laundry.py"],
    "time": [sys.executable, "-m", "mcp_server_time", "--local-timezone", "Asia/Tokyo"],
    "weather-server": [sys.executable, "examples/led_screen/weather.py"],
}
"""The five servers of the repository's broker.toml, whose tools a page lists."""


@contextmanager
def started(
    command: Command, *, log: Path, stdout: int | IO[bytes] | None = None, **keys: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in its own session; end it and its children with the `with`."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=stdout or errors, stderr=errors, start_new_session=True, cwd=ROOT, **keys
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def piped(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that is spoken to by its pipes; kill it with the `with`."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Broker(NamedTuple):
    """A running broker."""

    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid


@contextmanager
def running_broker(
    folder: Path,
    name: str,
    servers: Mapping[str, Command],
    port: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Broker]:
    """Run a broker with these servers and the defaults of its config, until they are ready.

    Args:
        port: one more endpoint at which it listens.
        settings: further keys of its `[broker]`.
    """
    with listening_broker(folder, name, servers, port, settings) as broker:
        wait_ready(broker)
        yield broker


@contextmanager
def listening_broker(
    folder: Path,
    name: str,
    servers: Mapping[str, Command],
    port: str | None = None,
    settings: Mapping[str, str] | None = None,
    *,
    start: str = "boot",
) -> Iterator[Broker]:
    """The same, from the moment at which it listens: its servers are being started, or wait for a call."""
    endpoint = f"ipc://{folder}/{name}.sock"
    config = folder / f"{name}.toml"
    endpoints = endpoint if port is None else [endpoint, port]
    config.write_text(_toml({"endpoint": endpoints, **(settings or {})}, servers, start), encoding="utf-8")
    command = [sys.executable, "-m", "broker", "serve", "--config", str(config), "--log-level", "warning"]
    with started(command, log=folder / f"{name}.log") as process:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                probe(endpoint)
            except Unavailable:
                time.sleep(0.001)
                continue
            yield Broker(endpoint, process)
            return
    raise RuntimeError(f"the broker at {endpoint} did not start; see its log")


def _toml(broker: Mapping[str, str | list[str]], servers: Mapping[str, Command], start: str) -> str:
    tables = ["\n".join(["[broker]", *(f"{key} = {json.dumps(value)}" for key, value in broker.items())])]
    for name, (program, *args) in servers.items():
        table = f"[servers.{name}]\ncommand = {json.dumps(program)}\nargs = {json.dumps(args)}"
        tables.append(f"{table}\ncwd = {json.dumps(str(ROOT))}\nstart = {json.dumps(start)}")
    return "\n".join(tables) + "\n"


def wait_ready(broker: Broker) -> None:
    """Wait until all servers of a broker are ready."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and broker.process.poll() is None:
        with suppress(Unavailable), BlockingClient(broker.endpoint) as client:
            known = client.request(MANAGEMENT, "servers")["servers"]
            if all(server["state"] == "ready" for server in known):
                return
        time.sleep(0.05)
    status = broker.process.poll()
    what = "did not get its servers ready" if status is None else f"has ended with status {status}"
    raise RuntimeError(f"the broker at {broker.endpoint} {what}; see its log")
