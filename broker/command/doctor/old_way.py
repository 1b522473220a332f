"""The old way, to compare with: each page starts every server by itself, and is forgotten without an end.

The processes are this program's own. Each is in a session of its own and carries a mark in its environment,
by which all of them are found and ended, however the comparison ends.
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
from broker.command.doctor.texts import Tell
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


class OldPage(Struct, frozen=True, kw_only=True):
    """One page of the old way.

    Args:
        open_s: until every server was started and its tools were listed.
        processes, rss_bytes: of all pages so far, after this one was left.
        failed: server → why it did not answer.
    """

    number: int
    open_s: float
    processes: int
    rss_bytes: int
    failed: dict[str, str]


class OldWay(Struct, frozen=True, kw_only=True):
    """What came of the comparison.

    Args:
        skipped: servers that were left out, because they are containers.
        memory_ran_out: whether it ended before its last page, so that the machine keeps some memory.
        left: processes that could not be ended.
    """

    pages: tuple[OldPage, ...] = ()
    skipped: tuple[str, ...] = ()
    memory_ran_out: bool = False
    left: int = 0


async def open_pages(
    configs: Mapping[str, ServerConfig], pages: int, *, folder: Path, environ: Mapping[str, str], tell: Tell
) -> OldWay:
    """Open so many pages the old way. When this returns or is cancelled, none of its processes is left.

    Args:
        folder: the config file's, where relative paths start.
        environ: the broker's, which its servers inherit from.
    """
    skipped = [name for name, config in configs.items() if os.path.basename(config.command) in ENGINES]
    kept = {name: config for name, config in configs.items() if name not in skipped}
    backend = _Backend(kept, folder, environ)
    opened: list[OldPage] = []
    try:
        for number in range(1, pages + 1):
            if opened and not _has_memory_for(opened[-1]):
                break
            opened.append(await backend.open_page(number))
            tell("old_page_done", number, pages, took=opened[-1].open_s, processes=opened[-1].processes)
    finally:
        left = await backend.end()
    return OldWay(pages=tuple(opened), skipped=tuple(skipped), memory_ran_out=len(opened) < pages, left=left)


def _has_memory_for(last: OldPage) -> bool:
    """Whether a page as large as the others leaves the machine what it needs."""
    return machine.available_bytes() > 2 * last.rss_bytes // last.number + _SPARE_BYTES


class _Backend:
    """A backend with an MCP client of its own, which loses every client."""

    def __init__(self, configs: Mapping[str, ServerConfig], folder: Path, environ: Mapping[str, str]) -> None:
        self._configs = configs
        self._folder = folder
        self._environ = environ
        self._token = secrets.token_hex(12)
        self._mark = f"{MARK}={self._token}".encode()
        self._children: list[_Child] = []

    async def open_page(self, number: int) -> OldPage:
        from broker.processes.trees import rss_bytes

        began = monotonic()
        failed = {}
        for name, config in self._configs.items():
            why = await self._open_server(config)
            if why is not None:
                failed[name] = why
        open_s = monotonic() - began
        pids = machine.marked(self._mark)
        return OldPage(
            number=number,
            open_s=round(open_s, 4),
            processes=len(pids),
            rss_bytes=sum(map(rss_bytes, pids)),
            failed=failed,
        )

    async def _open_server(self, config: ServerConfig) -> str | None:
        """Start a server and list its tools, as a client does that knows it from a file only."""
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
        """End all of it, politely and then not; how many processes are left nevertheless."""
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
        """Without awaiting, so that nothing comes in between."""
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
    """A server over plain stdio, in a session of its own."""

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
        """Make a request; `None` if the server ends instead of answering."""
        self.tell({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        reader = await self._open()
        while line := await reader.readline():
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and message.get("id") == id and "method" not in message:
                    return message
        return None

    def tell(self, message: Mapping[str, Any]) -> None:
        """Write one line, which is far smaller than the pipe."""
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
        """Whether the process itself has; what it has started may still run."""
        return self._popen.poll() is not None

    def ask_to_end(self) -> None:
        """Close its input, and send SIGTERM to its group."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its group; then its descriptors are given back."""
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # the kernel may hold it a while
            self._popen.wait(_POLITE_S)
        if self._transport is not None:
            self._transport.close()
        elif self._popen.stdout is not None:
            self._popen.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        """Until the leader is reaped, its pid, and so its group, can be nobody else's."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


async def _list_tools(child: _Child) -> str | None:
    """The handshake and one list; `None`, or why there is none."""
    answer = await child.ask(1, "initialize", _INITIALIZE)
    if answer is not None and "result" in answer:
        child.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})
        answer = await child.ask(2, "tools/list", {})
    if answer is None:
        return "it ended without an answer"
    return str(answer["error"].get("message", "")) if "error" in answer else None
