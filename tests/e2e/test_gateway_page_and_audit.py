"""A real gateway before a real broker: the status page behind its token, and the audit log of both doors."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, RunningBroker, rogue, running, wait_until

SECRET = "a-value-that-no-log-repeats"
PATIENCE_S = 30


class RunningGateway:
    """A gateway process, with a port, a folder of sockets and an audit log of its own."""

    def __init__(self, broker: RunningBroker, *, bodies: bool = False) -> None:
        folder = broker.folder / "gw"
        folder.mkdir()
        self.audit = folder / "audit.jsonl"
        self.sockets = folder / "sockets"
        self.log = folder / "log"
        settings = folder / "gateway.toml"
        settings.write_text(
            f'[gateway]\nlisten = ["127.0.0.1:0"]\nendpoint = "{broker.endpoint}"\n'
            f'sockets = "{self.sockets}"\nstate_dir = "{folder}/state"\n'
            f'[audit]\npath = "{self.audit}"\nbodies = {str(bodies).lower()}\n'
        )
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "broker", "gateway", "--config", str(settings)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until(lambda: self._port() is not None, self.log.read_text)
        self.token = (folder / "state" / "token").read_text().strip()

    def _port(self) -> int | None:
        found = re.search(r"gateway\.listening.*?127\.0\.0\.1:([1-9]\d*)", self.log.read_text())
        return int(found[1]) if found else None

    def get(self, path: str, *, token: str | None = None) -> tuple[int, Any]:
        return self._exchange("GET", path, None, {"Authorization": f"Bearer {token}"} if token else {})

    def call(self, server: str, tool: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "the-test", "version": "7"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        return self._exchange("POST", f"/mcp/{server}", json.dumps(message), headers)

    def _exchange(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, Any]:
        port = self._port()
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            told = reply.read()
        finally:
            connection.close()
        is_json = reply.headers.get_content_type() == "application/json"
        return reply.status, json.loads(told) if is_json else told.decode()

    def over_socket(self, server: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Send messages over the socket of a server. Return one reply for each request among them."""
        path = self.sockets / f"{server}.sock"
        wait_until(path.exists, self.log.read_text)
        with socket.socket(socket.AF_UNIX) as plug:
            plug.settimeout(PATIENCE_S)
            plug.connect(str(path))
            with plug.makefile("rw", encoding="utf-8") as lines:
                for message in messages:
                    lines.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
                lines.flush()
                return [json.loads(lines.readline()) for message in messages if "id" in message]

    def entries(self, count: int) -> list[dict[str, Any]]:
        """Return the tool calls in the audit log, once there are so many."""
        called = b'"method":"tools/call"'
        wait_until(lambda: self.audit.read_bytes().count(called) >= count, self.log.read_text)
        entries = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [one for one in entries if one["method"] == "tools/call"]


@contextmanager
def gateway(broker: RunningBroker, *, bodies: bool = False) -> Iterator[RunningGateway]:
    """A gateway for the length of a `with`, after which it must end well."""
    running_gateway = RunningGateway(broker, bodies=bodies)
    try:
        yield running_gateway
    finally:
        running_gateway.process.send_signal(signal.SIGTERM)
        assert running_gateway.process.wait(PATIENCE_S) == 0, running_gateway.log.read_text()


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running({"rogue": rogue()}) as broker:
        yield broker


@pytest.fixture
def folderless(broker: RunningBroker) -> Iterator[RunningBroker]:
    """The broker, and afterwards no trace of the gateway that stood before it."""
    yield broker
    (broker.folder / "gw").rename(broker.folder / f"gw-{len(list(broker.folder.glob('gw-*')))}")


def test_the_page_is_for_everybody_and_its_data_for_those_with_the_token(folderless: RunningBroker) -> None:
    with gateway(folderless) as front:
        status, page = front.get("/")
        assert (status, "<title>mcp-broker</title>" in page) == (200, True)
        for path in ("/status.json", "/history.json"):
            assert front.get(path)[0] == 401
            assert front.get(path, token="x" * 43)[0] == 401
        status, told = front.get("/status.json", token=front.token)
        assert status == 200
        assert [(one["name"], one["state"]) for one in told["servers"]] == [("rogue", "ready")]

        def sampled() -> bool:
            series = front.get("/history.json", token=front.token)[1]
            return bool(series["at_s"]) and series["processes"][0] >= 1

        wait_until(sampled)


def test_every_call_of_both_doors_is_one_line_without_its_bodies(folderless: RunningBroker) -> None:
    with gateway(folderless) as front:
        assert front.call("rogue", "echo", {"text": SECRET})[0] == 200
        info = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "a", "version": "1"},
        }
        call = {"name": "echo", "arguments": {"text": SECRET}}
        front.over_socket(
            "rogue",
            {"id": 1, "method": "initialize", "params": info},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": call},
        )
        entries = front.entries(2)
        seen = [tuple(one[key] for key in ("who", "door", "client", "target", "outcome")) for one in entries]
        assert ("own", "http", "the-test 7", "echo", "ok") in seen
        assert any(one[1:] == ("socket", "a 1", "echo", "ok") and one[0].startswith("uid:") for one in seen)
        assert SECRET not in front.audit.read_text()
        assert Path(front.audit).stat().st_mode & 0o777 == 0o600


def test_the_operator_may_ask_for_bodies(folderless: RunningBroker) -> None:
    with gateway(folderless, bodies=True) as front:
        front.call("rogue", "echo", {"text": SECRET})
        (entry,) = front.entries(1)
        assert SECRET in entry["params"]
        assert SECRET in entry["result"]
