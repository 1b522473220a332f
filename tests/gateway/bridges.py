"""A real gateway beside a real broker, and `mcp-broker connect` as an MCP host starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, wait_until
from tests.gateway.gateways import RunningGateway
from tests.servers.driver import Stream

Json = dict[str, Any]

INITIALIZE: Json = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "host", "version": "1"},
}
MODERN_META: Json = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def sockets_of(broker: RunningBroker) -> Path:
    """The folder of the sockets of a broker's gateway."""
    return broker.folder / "sockets"


def socket_of(broker: RunningBroker, server: str) -> Path:
    """The path of a server's socket."""
    return sockets_of(broker) / f"{server}.sock"


def wait_for_sockets(broker: RunningBroker, *servers: str) -> None:
    """Wait until a gateway listens for these servers."""
    wait_until(lambda: all(is_listening(socket_of(broker, one)) for one in servers))


def is_listening(path: Path) -> bool:
    """Whether a connection to a Unix socket would be taken, by /proc/net/unix."""
    accepts = 0x10000
    rows = (row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(len(row) == 8 and row[7] == str(path) and int(row[3], 16) & accepts for row in rows)


def gateway_of(broker: RunningBroker, folder: str = "gateway") -> RunningGateway:
    """Start a gateway with sockets; its settings and its log lie in the folder."""
    return RunningGateway(broker, {}, {"gateway": {"sockets": str(sockets_of(broker))}}, folder)


@contextmanager
def socket_door(broker: RunningBroker, *servers: str) -> Iterator[RunningGateway]:
    """A gateway with sockets for these servers for the length of a `with`, after which it must end well."""
    gateway = gateway_of(broker)
    try:
        wait_for_sockets(broker, *servers)
        yield gateway
    except BaseException:
        gateway.stop(signal.SIGKILL)
        sys.stderr.write(gateway.log())
        raise
    assert gateway.stop() == 0, gateway.log()


class Bridge:
    """A host's end of `mcp-broker connect SERVER`."""

    def __init__(
        self, broker: RunningBroker, server: str, *, held: bool = False, sockets: Path | None = None
    ) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MCP_BROKER_ENDPOINT": broker.endpoint}
        folder = broker.folder / "no-gateway" if held else sockets or sockets_of(broker)
        env["MCP_BROKER_SOCKETS"] = str(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broker", "connect", server],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin = self.process.stdin
        self._stream = Stream(self.process.stdout.fileno())
        self._last_id = 0
        self.unasked: list[Json] = []
        """What came and was no answer to what was asked."""

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.close()

    def say(self, message: Json) -> None:
        """Send a message as it is."""
        self._stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._stdin.flush()

    def hear(self) -> Json:
        """The next message. Whatever else comes on stdout fails the test."""
        line = self._stream.line()
        assert line.endswith(b"\n"), f"it said {line!r} and no more"
        message: Json = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    def start(self, method: str, params: Json | None = None) -> int:
        """Send a request; return its id."""
        self._last_id += 1
        self.say({"id": self._last_id, "method": method, **({} if params is None else {"params": params})})
        return self._last_id

    def answer(self, id: int) -> Json:
        """The answer to a request. What comes before it is kept in `unasked`."""
        while (message := self.hear()).get("id") != id or "method" in message:
            self.unasked.append(message)
        return message

    def ask(self, method: str, params: Json | None = None) -> Json:
        """The answer to a request that is sent now."""
        return self.answer(self.start(method, params))

    def initialize(self) -> Json:
        """Open a legacy session; return the result."""
        result: Json = self.ask("initialize", INITIALIZE)["result"]
        self.say({"method": "notifications/initialized"})
        return result

    def call(self, tool: str, arguments: Json | None = None) -> Json:
        """The answer to a call of a tool."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments or {}})

    def close(self) -> float:
        """Close its stdin; return how long it took to end."""
        began = time.monotonic()
        self._stdin.close()
        self.process.wait(PATIENCE_S)
        took_s = time.monotonic() - began
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return took_s


def cpu_s(pid: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """The memory of a process, with its share of what it has in common with others."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def channels_of(broker: RunningBroker, gateway: RunningGateway) -> int:
    """The channels that the broker holds something for."""
    clients = broker.status()["clients"]
    return sum(one["channels"] for one in clients if one["pid"] == gateway.process.pid)
