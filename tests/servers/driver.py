"""Drives a stdio MCP server over its raw pipes. Every wait ends, at the latest after `PATIENCE_S`."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

Object = dict[str, Any]

ROGUE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("rogue.py")))
PATIENCE_S = 15.0
META = "io.modelcontextprotocol/"
MODERN_META: Object = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
INITIALIZE: Object = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "driver", "version": "1"},
}


def with_keys(meta: Object, **changes: object) -> Object:
    """`meta` with these of its reserved keys changed."""
    return meta | {META + key: value for key, value in changes.items()}


class Stream:
    """What a server writes, read with a deadline."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._unread = b""
        self._ended = False

    def line(self) -> bytes:
        """The next line with its end; what is left at the end of the stream; then nothing."""
        while b"\n" not in self._unread and self._more():
            pass
        end = self._unread.find(b"\n") + 1 or len(self._unread)
        line, self._unread = self._unread[:end], self._unread[end:]
        return line

    def take(self, size_bytes: int) -> bytes:
        """The next so many bytes, or fewer at the end of the stream."""
        while len(self._unread) < size_bytes and self._more():
            pass
        taken, self._unread = self._unread[:size_bytes], self._unread[size_bytes:]
        return taken

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while self._more():
            pass
        taken, self._unread = self._unread, b""
        return taken

    def _more(self) -> bool:
        if not self._ended:
            ready, _, _ = select.select([self.fd], [], [], PATIENCE_S)
            assert ready, f"nothing for {PATIENCE_S} s after {self._unread[-200:]!r}"
            chunk = os.read(self.fd, 1 << 16)
            self._unread += chunk
            self._ended = not chunk
        return not self._ended


class Driven:
    """One server process, killed at the end of the `with`."""

    def __init__(self, *command: str, meta: Object | None = None, env: dict[str, str] | None = None) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.stdin = self.process.stdin
        self.out = Stream(self.process.stdout.fileno())
        self.err = Stream(self.process.stderr.fileno())
        self.meta = meta
        self.unasked: list[Object] = []  # notifications and questions, in their order
        self._answers: dict[int | str, Object] = {}
        self._ids = itertools.count(1)

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()
        with self.process:
            pass

    # Out

    def write(self, line: bytes) -> None:
        """Send bytes as they are."""
        self.stdin.write(line)

    def send(self, **message: object) -> None:
        """Send one message."""
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def begin(self, method: str, params: Object | None = None, *, meta: Object | None = None) -> int:
        """Send a request; returns its id."""
        id, meta = next(self._ids), {**(self.meta or {}), **(meta or {})}
        self.send(id=id, method=method, params={**(params or {}), **({"_meta": meta} if meta else {})})
        return id

    def begin_call(self, tool: str, *, meta: Object | None = None, **arguments: object) -> int:
        """Send a `tools/call`; returns its id."""
        return self.begin("tools/call", {"name": tool, "arguments": arguments}, meta=meta)

    def cancel(self, id: int) -> None:
        """Cancel a request."""
        self.send(method="notifications/cancelled", params={"requestId": id})

    # In

    def message(self) -> Object:
        """The next message; lines that are no JSON object are passed over."""
        while line := self.out.line():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                return message
        raise EOFError(f"stdout has ended; stderr: {self.err.rest().decode(errors='replace')}")

    def answer(self, id: int) -> Object:
        """The response to request `id`; what else comes meanwhile is kept."""
        while id not in self._answers:
            message = self.message()
            if "method" in message:
                self.unasked.append(message)
            else:
                self._answers[message["id"]] = message
        return self._answers.pop(id)

    def ask(self, method: str, params: Object | None = None, *, meta: Object | None = None) -> Object:
        """The response to this request."""
        return self.answer(self.begin(method, params, meta=meta))

    def call(self, tool: str, *, meta: Object | None = None, **arguments: object) -> Any:
        """What the text of this tool's result says: JSON where it is JSON."""
        result = self.answer(self.begin_call(tool, meta=meta, **arguments))["result"]
        text = result["content"][0]["text"]
        try:
            return json.loads(text)
        except ValueError:
            return text

    def until_unasked(self, method: str) -> Object:
        """The next notification or question of this method."""
        while not any(message["method"] == method for message in self.unasked):
            self.unasked.append(self.message())
        at = next(at for at, message in enumerate(self.unasked) if message["method"] == method)
        return self.unasked.pop(at)

    # Through

    def open_legacy(self) -> Driven:
        """Shake hands as a client of the legacy era."""
        self.ask("initialize", INITIALIZE)
        self.send(method="notifications/initialized")
        return self

    def pages(self, method: str, key: str, at_most: int = 40) -> Iterator[list[Object]]:
        """The pages of a list."""
        params: Object = {}
        for _ in range(at_most):
            result = self.ask(method, params)["result"]
            yield result[key]
            if "nextCursor" not in result:
                return
            params = {"cursor": result["nextCursor"]}

    def status(self) -> int:
        """The exit status, once the process has ended."""
        return self.process.wait(PATIENCE_S)

    def end_input(self) -> None:
        """Close stdin."""
        self.stdin.close()


def legacy(*flags: str) -> Driven:
    """A rogue server that shook hands in the legacy era."""
    return Driven(*ROGUE, *flags).open_legacy()


def modern(*flags: str) -> Driven:
    """A rogue server of the modern era, which needs no handshake."""
    return Driven(*ROGUE, "--era", "modern", *flags, meta=MODERN_META)


def until_gone(pid: int) -> None:
    """Wait until no living process has this pid; a zombie does not live."""
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process with this pid runs or sleeps."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
