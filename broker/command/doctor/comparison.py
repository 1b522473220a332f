"""Opens pages without the broker, for comparison: each page starts every server and drops its client.

Each process has its own session and a mark in its environment. The doctor finds all of them by the mark and
ends them, however the comparison ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from broker.command.doctor import machine
from broker.command.doctor.texts import OnProgress
from broker.processes.container_options import ENGINES

if TYPE_CHECKING:
    from broker.config.schema import ServerConfig

MARK = "MCP_BROKER_DOCTOR"

_ANSWER_TIMEOUT_S = 60.0
_LINE_LIMIT_BYTES = 64 * 1024**2
_POLITE_S = 2.0
_KILL_ROUNDS = 40
_KILL_PAUSE_S = 0.05
_LOOKS = 2  # a process that has only just become its program shows no environment for a moment
_SPARE_BYTES = 256 * 1024**2

_INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "mcp-broker doctor", "version": "1"},
}


class DirectPage(Struct, frozen=True, kw_only=True):
    """One page that started every server itself.

    Args:
        open_s: the time until every server had listed its tools.
        processes, rss_bytes: of all pages so far, after this one was left.
        failed: server → why it did not answer.
    """

    number: int
    open_s: float
    processes: int
    rss_bytes: int
    failed: dict[str, str]


class Comparison(Struct, frozen=True, kw_only=True):
    """The result of the comparison.

    Args:
        skipped: servers that were left out, because they run in containers.
        memory_ran_out: whether it ended early because memory was short.
        left: the number of processes that could not be ended.
    """

    pages: tuple[DirectPage, ...] = ()
    skipped: tuple[str, ...] = ()
    memory_ran_out: bool = False
    left: int = 0


async def open_pages(
    configs: Mapping[str, ServerConfig],
    pages: int,
    *,
    folder: Path,
    environ: Mapping[str, str],
    on_progress: OnProgress,
) -> Comparison:
    """Open this many pages. When this returns or is cancelled, all its processes have been ended.

    Args:
        folder: the config file's folder, to which paths are relative.
        environ: the broker's environment, which its servers inherit.
    """
    skipped = [name for name, config in configs.items() if os.path.basename(config.command) in ENGINES]
    kept = {name: config for name, config in configs.items() if name not in skipped}
    backend = _DirectBackend(kept, folder, environ)
    opened: list[DirectPage] = []
    try:
        for number in range(1, pages + 1):
            if opened and not _has_memory_for(opened[-1]):
                break
            opened.append(await backend.open_page(number))
            on_progress(
                "old_page_done", number, pages, took=opened[-1].open_s, processes=opened[-1].processes
            )
    finally:
        left = await backend.end()
    return Comparison(
        pages=tuple(opened), skipped=tuple(skipped), memory_ran_out=len(opened) < pages, left=left
    )


def _has_memory_for(last: DirectPage) -> bool:
    """Return whether the machine has memory for another page as large as the others."""
    return machine.available_bytes() > 2 * last.rss_bytes // last.number + _SPARE_BYTES


class _DirectBackend:
    """A backend that starts its own servers and never closes a client."""

    def __init__(self, configs: Mapping[str, ServerConfig], folder: Path, environ: Mapping[str, str]) -> None:
        self._configs = configs
        self._folder = folder
        self._environ = environ
        self._token = secrets.token_hex(12)
        self._mark = f"{MARK}={self._token}".encode()
        self._children: list[_Child] = []

    async def open_page(self, number: int) -> DirectPage:
        from broker.processes.trees import rss_bytes

        began = monotonic()
        failed = {}
        for name, config in self._configs.items():
            why = await self._open_server(config)
            if why is not None:
                failed[name] = why
        open_s = monotonic() - began
        pids = machine.marked(self._mark)
        return DirectPage(
            number=number,
            open_s=round(open_s, 4),
            processes=len(pids),
            rss_bytes=sum(map(rss_bytes, pids)),
            failed=failed,
        )

    async def _open_server(self, config: ServerConfig) -> str | None:
        """Start a server and list its tools. Return why that failed, if it did."""
        from broker.processes.program import SpawnError, program_of

        try:
            program = program_of(config, folder=self._folder, environ=self._environ)
            child = _Child(
                [program, *config.args], cwd=self._folder / (config.cwd or ""), env=self._env(config)
            )
            self._children.append(child)
            return await asyncio.wait_for(_list_tools(child), _ANSWER_TIMEOUT_S)
        except (asyncio.TimeoutError, TimeoutError):
            return f"no answer within {_ANSWER_TIMEOUT_S:g} s"
        except (SpawnError, OSError, ValueError) as error:  # ValueError: a line beyond the limit
            return str(error)

    def _env(self, config: ServerConfig) -> dict[str, str]:
        from broker.processes.environment import environment

        return {**environment(config, self._environ), MARK: self._token}

    async def end(self) -> int:
        """End all processes: SIGTERM, then SIGKILL. Return how many could not be ended."""
        try:
            for child in self._children:
                child.ask_to_end()
            until = monotonic() + _POLITE_S
            while monotonic() < until and not all(child.has_ended for child in self._children):
                await asyncio.sleep(_KILL_PAUSE_S)
        finally:
            left = self._kill()
        return left

    def _kill(self) -> int:
        """Kill all processes. Nothing is awaited, so no cancellation can interrupt this."""
        for child in self._children:
            child.kill()
        looks_without = 0
        for _ in range(_KILL_ROUNDS):
            left = machine.marked(self._mark)
            looks_without = 0 if left else looks_without + 1
            if looks_without == _LOOKS:
                return 0
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_KILL_PAUSE_S)
        return len(machine.marked(self._mark))


class _Child:
    """A server process over plain stdio, in its own session."""

    def __init__(self, command: list[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    async def ask(self, id: int, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a request and return the reply; `None` if the server ends instead."""
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        reader = await self._open()
        while line := await reader.readline():
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and message.get("id") == id and "method" not in message:
                    return message
        return None

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line. It always fits into the pipe."""
        if self._popen.stdin is not None:
            os.write(self._popen.stdin.fileno(), json.dumps(message).encode() + b"\n")

    async def _open(self) -> asyncio.StreamReader:
        if self._reader is None:
            loop = asyncio.get_running_loop()
            self._reader = asyncio.StreamReader(_LINE_LIMIT_BYTES, loop)
            protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
            self._transport, _ = await loop.connect_read_pipe(lambda: protocol, self._popen.stdout)
        return self._reader

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has ended. Its children may still run."""
        return self._popen.poll() is not None

    def ask_to_end(self) -> None:
        """Close its input, and send SIGTERM to its group."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to its group, and close its descriptors."""
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process in an uninterruptible wait
            self._popen.wait(_POLITE_S)
        if self._transport is not None:
            self._transport.close()
        elif self._popen.stdout is not None:
            self._popen.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        """Signal its group. Until the leader is reaped, no other process can have its pid or group."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


async def _list_tools(child: _Child) -> str | None:
    """Do the handshake and list the tools. Return why that failed, if it did."""
    answer = await child.ask(1, "initialize", _INITIALIZE)
    if answer is not None and "result" in answer:
        child.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        answer = await child.ask(2, "tools/list", {})
    if answer is None:
        return "it ended without an answer"
    return str(answer["error"].get("message", "")) if "error" in answer else None
