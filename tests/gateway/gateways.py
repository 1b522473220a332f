"""A real gateway before a real broker for a test, and an HTTP client that shows everything."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from broker.gateway.http.headers import METHOD, NAME, NAMED_BY, VERSION, encoded
from tests.e2e.harness import PATIENCE_S, ROOT, RunningBroker, Table, toml, wait_until

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
BOTH = "application/json, text/event-stream"

Message = dict[str, Any]

ANSWER_S = 30.0
"""How long a test waits for a response, and for the next message of a stream or its end, whatever else comes.

Less than half of the limit of the test runner, which would not say what was waited for.
"""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as plug:
        return int(plug.getsockname()[1])


class RunningGateway:
    """A gateway process at a port and folder of its own."""

    def __init__(
        self,
        broker: RunningBroker,
        env: Mapping[str, str],
        sections: Mapping[str, Table],
        folder: str = "gateway",
    ) -> None:
        self.port = free_port()
        self.folder = broker.folder / folder
        self.folder.mkdir(exist_ok=True)
        self.settings = self.folder / "gateway.toml"
        self.log_path = self.folder / "log"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        self.write(broker, **sections)
        self.start()

    def write(self, broker: RunningBroker, **sections: Table) -> None:
        """Write the settings."""
        door = {
            "listen": [f"127.0.0.1:{self.port}"],
            "state_dir": str(self.folder / "state"),
            "sockets": "",
            "endpoint": broker.endpoint,
            **sections.pop("gateway", {}),
        }
        self.settings.write_text(toml({"gateway": door, **sections}), encoding="utf-8")

    def start(self) -> None:
        """Start the process and wait until it listens; a second time after it ended."""
        command = [sys.executable, "-m", "broker", "gateway", "--config", str(self.settings)]
        with self.log_path.open("ab") as log:
            before = self.log().count("gateway.listening")
            self.process = subprocess.Popen(
                [*command, "--log-level", "debug"], cwd=ROOT, env=self._env, stdout=log, stderr=log
            )
        wait_until(
            lambda: self.process.poll() is not None or self.log().count("gateway.listening") > before,
            self.log,
        )
        assert self.process.poll() is None, self.log()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        """Everything it has logged."""
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    @property
    def token(self) -> str:
        """The token that it has made."""
        return (self.folder / "state" / "token").read_text(encoding="utf-8").strip()

    def figures(self) -> dict[str, int]:
        """What is open in it."""
        found: dict[str, int] = json.loads(Http(self.port, "/healthz", {}).send("GET").body)
        return found

    @property
    def memory(self) -> int:
        """Its resident memory, in bytes."""
        status = Path("/proc", str(self.process.pid), "status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def http(self, server: str = "rogue", **headers: str) -> Http:
        """A client of one server, with the gateway's token."""
        return Http(self.port, f"/mcp/{server}", {"authorization": f"Bearer {self.token}", **headers})


class Answer(NamedTuple):
    """An HTTP response that was read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Message:
        """The one message of a JSON body, or the last one of a stream."""
        return self.messages[-1]

    @property
    def messages(self) -> list[Message]:
        """All messages."""
        if self.headers.get("content-type") == "text/event-stream":
            return [json.loads(data) for data in data_of(self.body) if data]
        return [json.loads(self.body)]


def data_of(stream: bytes) -> list[str]:
    """The data of each event of a stream."""
    blocks = stream.decode().replace("\r\n", "\n").split("\n\n")
    lines = [[line for line in block.split("\n") if line.startswith("data:")] for block in blocks]
    return ["\n".join(line[5:].removeprefix(" ") for line in found) for found in lines if found]


@contextmanager
def named(what: str) -> Iterator[None]:
    """Let a wait that takes too long say what it waited for."""
    try:
        yield
    except TimeoutError:
        raise AssertionError(f"{what}, within {ANSWER_S:g} s") from None


_OPEN: list[Stream] = []


def close_all() -> None:
    """Close the streams that tests have left open."""
    while _OPEN:
        _OPEN.pop().close()


class Stream:
    """The events of a response that goes on."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, what: str
    ) -> None:
        self._connection = connection
        self._response = response
        self._what = what
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.last_id = ""
        self.comments = 0
        _OPEN.append(self)

    def next(self) -> Message | None:
        """The next message; `None` at the end of the stream."""
        until = time.monotonic() + ANSWER_S
        while True:
            block = self._block(until)
            if block is None:
                return None
            if block.get("data"):
                found: Message = json.loads(block["data"])
                return found

    def rest(self) -> bytes:
        """Everything up to the end of the response."""
        until, pieces = time.monotonic() + ANSWER_S, list[bytes]()
        while piece := self._read(self._response.read1, until, pieces):
            pieces.append(piece)
        return b"".join(pieces)

    def _read(self, read: Callable[[], bytes], until: float, seen: object) -> bytes:
        """Read something. A stream with comments and nothing else would keep a test for ever."""
        with named(f"{self._what}: the response goes on, after {str(seen)[-300:]}"):
            piece = read()
            if piece and time.monotonic() > until:
                raise TimeoutError
        return piece

    def _block(self, until: float) -> dict[str, str] | None:
        """The fields of the next event."""
        fields: dict[str, str] = {}
        while True:
            line = self._read(self._response.readline, until, fields).decode()
            if not line:
                return None
            line = line.rstrip("\r\n")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
                if name == "id":
                    self.last_id = fields[name]
            elif fields:
                return fields

    def reset(self) -> None:
        """Cut the connection by a reset."""
        if self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._response.close()
        self._connection.close()

    def close(self) -> None:
        """Cut the connection."""
        plug = self._connection.sock
        if plug is not None:
            with contextlib.suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._connection.close()


class Http:
    """A client of one URL. Every request has a connection of its own unless `keep` is set."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        self.port = port
        self.path = path
        self.headers = dict(headers)
        self._last_id = 0

    def open(
        self, method: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Stream:
        """Send a request; its response is read later."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        given = {"accept": BOTH, **self.headers, **(headers or {})}
        if body is not None:
            given.setdefault("content-type", "application/json")
        what = f"{method} {self.path} {(body or b'')[:100]!r}"
        with named(f"{what}: no response"):
            connection.request(method, self.path, body, {k: v for k, v in given.items() if v is not None})
            return Stream(connection, connection.getresponse(), what)

    def send(
        self, method: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """Send a request and read the whole response."""
        stream = self.open(method, body, headers)
        try:
            return Answer(stream.status, stream.headers, stream.rest())
        finally:
            stream.close()

    def body_of(
        self, method: str, params: Message | None = None, *, modern: bool = False, **more: Any
    ) -> bytes:
        """A request with an id of its own."""
        self._last_id += 1
        if modern:
            meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
            params = {**(params or {}), "_meta": {**meta, **(params or {}).get("_meta", {})}}
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        return json.dumps({**message, **({} if params is None else {"params": params})}).encode()

    # -- 2026-07-28 -----------------------------------------------------------------------------------------

    @staticmethod
    def standard(method: str, params: Message | None) -> dict[str, str | None]:
        """The headers of a request of 2026-07-28."""
        headers: dict[str, str | None] = {VERSION: MODERN, METHOD: method}
        if method in NAMED_BY:
            headers[NAME] = encoded(str((params or {}).get(NAMED_BY[method])))
        return headers

    def ask(self, method: str, params: Message | None = None, **headers: str | None) -> Answer:
        """Make a request of 2026-07-28."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        body = self.body_of(method, params, modern=True)
        return self.send("POST", body, {**self.standard(method, params), **given})

    def stream(self, method: str, params: Message | None = None) -> Stream:
        """Make a request of 2026-07-28 whose answer is read later."""
        body = self.body_of(method, params, modern=True)
        return self.open("POST", body, self.standard(method, params))

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool as a client of 2026-07-28; its text, as JSON where it is that."""
        return text_of(self.ask("tools/call", {"name": tool, "arguments": arguments}))

    # -- legacy ---------------------------------------------------------------------------------------------

    def initialized(self, version: str = LEGACY, **capabilities: Any) -> Legacy:
        """Open a legacy session."""
        params = {
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }
        answer = self.send("POST", self.body_of("initialize", params))
        assert answer.status == 200, answer
        session = Legacy(self, answer.headers["mcp-session-id"], answer.message["result"])
        assert session.notify("notifications/initialized").status == 202
        return session


class Legacy(Http):
    """A client with a legacy session."""

    def __init__(self, client: Http, session_id: str, result: Message) -> None:
        headers = {**client.headers, "mcp-session-id": session_id, VERSION: result["protocolVersion"]}
        super().__init__(client.port, client.path, headers)
        self.id = session_id
        self.result = result
        self._last_id = 1

    def notify(self, method: str, params: Message | None = None) -> Answer:
        """Send a notification."""
        message = {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}
        return self.send("POST", json.dumps(message).encode())

    def respond(self, number: Any, result: Message) -> Answer:
        """Answer a request of the server."""
        return self.send("POST", json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode())

    def ask(self, method: str, params: Message | None = None, **headers: str | None) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", self.body_of(method, params), given)

    def stream(self, method: str, params: Message | None = None) -> Stream:
        return self.open("POST", self.body_of(method, params))

    def listen(self, last_event_id: str | None = None) -> Stream:
        """Open a GET stream, or come back to a stream."""
        return self.open("GET", None, {"accept": "text/event-stream", "last-event-id": last_event_id})


def text_of(answer: Answer) -> Any:
    """The text of a tool's result, as JSON where it is that."""
    assert answer.status == 200, answer
    text = answer.message["result"]["content"][0]["text"]
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def gateway(
    broker: RunningBroker, *, env: Mapping[str, str] | None = None, **sections: Table
) -> Iterator[RunningGateway]:
    """A gateway for the length of a `with`, after which it must end well."""
    running = RunningGateway(broker, env or {}, sections)
    try:
        yield running
        close_all()
    except BaseException:
        close_all()
        running.stop(signal.SIGKILL)
        sys.stderr.write(running.log())
        raise
    assert running.stop() == 0, running.log()
    assert "Traceback" not in running.log(), running.log()


def settled(broker: RunningBroker, server: str = "rogue") -> None:
    """Wait until the server has no call of anybody."""
    deadline = time.monotonic() + PATIENCE_S
    while broker.server(server)["in_flight"]:
        assert time.monotonic() < deadline, broker.status()
        time.sleep(0.02)
