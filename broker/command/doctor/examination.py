"""The course of an examination: look, open pages, look again; and what the broker's machine can be asked."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.base.secrets import Secrets
from broker.command.doctor import machine
from broker.command.doctor.evidence import Evidence, Load, Moment, Page, Server, Stray
from broker.command.doctor.pages import open_page, server_of
from broker.command.doctor.texts import Tell
from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT

if TYPE_CHECKING:
    from broker.config.schema import ServerConfig

STARTING = ("starting", "handshake", "draining")
RUNTIMES = ("npx", "uvx", "node")

START_WAIT_S = 60.0
"""How long servers that are being started are waited for."""

RELEASE_WAIT_S = 10.0
"""How long the broker may take to release the clients of pages that are gone."""

QUIET_S = 0.5
"""How long it is looked what broker and servers take of the CPU while nothing is asked of them."""

_ASK_TIMEOUT_S = 15.0
_PAUSE_S = 0.1


class Unreadable(Exception):
    """The broker's config cannot be read from here; the message says why, as a word of the texts."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(word)
        self.word, self.facts = word, facts


class Configs(NamedTuple):
    """What the broker starts its servers from.

    Args:
        servers: those that are to run.
        folder: the config file's, where relative paths start.
        environ: the broker's environment, as far as this user may see it.
    """

    servers: dict[str, ServerConfig]
    folder: Path
    environ: dict[str, str]


class Examination:
    """Looks at a broker through a connection of its own, so that the pages' connections come and go."""

    def __init__(self, observer: BlockingClient, tell: Tell) -> None:
        self.endpoint = observer.endpoint
        self.version = observer.broker_version
        self._observer = observer
        self._tell = tell
        self._page_name = f"doctor page {secrets.token_hex(4)}"

    async def run(self, cycles: int) -> Evidence:
        """Open so many pages; every second one is forgotten instead of closed.

        Raises:
            Unavailable: there is no broker, or no longer.
        """
        await self._started()
        before = await self._moment()
        pages = [await self._page(number, cycles) for number in range(1, cycles + 1)]
        left, waited_s = await self._released()
        after = await self._moment()
        return Evidence(
            before=before,
            pages=tuple(pages),
            after=after,
            clients_left=left,
            waited_s=waited_s,
            runtimes=await self._runtimes(),
        )

    async def status(self) -> dict[str, Any]:
        """The broker's own, now."""
        status: dict[str, Any] = await asyncio.to_thread(self._observer.request, MANAGEMENT, "status")
        return status

    async def _started(self) -> None:
        """Wait for servers that are on their way, not for those that have failed."""
        until = monotonic() + START_WAIT_S
        while monotonic() < until:
            waiting = [row["name"] for row in (await self.status())["servers"] if row["state"] in STARTING]
            if not waiting:
                return
            self._tell("waiting", 0, 1, servers=", ".join(waiting))
            await asyncio.sleep(_PAUSE_S)

    async def _page(self, number: int, of: int) -> Page:
        close = number % 2 == 1
        opened = await open_page(self._page_name, self.endpoint, close=close)
        await asyncio.sleep(0)  # a client that was forgotten is released by the loop
        servers = _servers(await self.status())
        page = Page(
            number=number,
            closed=close,
            open_s=round(opened.open_s, 4),
            took_s=round(opened.took_s, 4),
            visits=opened.visits,
            servers=servers,
        )
        self._tell("page_done", number, of, took=page.took_s, processes=page.processes)
        return page

    async def _released(self) -> tuple[int, float]:
        """How many pages the broker still holds, after it was given time; and how much it was given."""
        began = monotonic()
        while True:
            gc.collect()  # a busy backend does so by itself
            status = await self.status()
            left = sum(client["name"] == self._page_name for client in status["clients"])
            waited_s = monotonic() - began
            if not left or waited_s > RELEASE_WAIT_S:
                return left, waited_s
            await asyncio.sleep(_PAUSE_S)

    async def _moment(self) -> Moment:
        """How it is now. The processes are looked at after the CPU, when all has settled."""
        self._tell("looking", 0, 1)
        status = await self.status()
        cpu_percent = await _idle_cpu(status["broker"]["pid"]) if is_here(status) else None
        status = await self.status()
        rows, broker = status["servers"], status["broker"]
        load = Load(
            processes=sum(row["processes"] for row in rows),
            rss_bytes=broker["rss_bytes"] + sum(row["rss_bytes"] for row in rows),
            cpu_percent=cpu_percent,
        )
        return Moment(
            instance=broker["instance"], servers=_servers(status), load=load, strays=_strays(status)
        )

    async def configs(self) -> Configs:
        """What the broker starts its servers from.

        Raises:
            Unreadable: the config cannot be read from here.
        """
        from broker.config.loading import ConfigError
        from broker.service.config_file import read

        status = await self.status()
        if not is_here(status):
            raise Unreadable("config_elsewhere")
        path = Path(status["broker"]["config"])
        environ = {**os.environ, **machine.environ(status["broker"]["pid"])}
        try:
            servers = read(path, environ).servers
        except ConfigError as error:
            raise Unreadable("config_unreadable", path=path, problem=error.problems[0]) from error
        wanted = {name: server for name, server in servers.items() if server.runs}
        return Configs(wanted, path.parent, environ)

    async def mask(self) -> Secrets:
        """What takes the secrets of the broker's servers out of a report, as far as they are known here.

        Where the config or the broker's environment cannot be read, what is written as a secret is taken out
        all the same.
        """
        from broker.processes.environment import mask_of

        try:
            configs = await self.configs()
        except Unreadable:
            return Secrets()
        return mask_of(configs.servers.values(), configs.environ)

    async def _runtimes(self) -> dict[str, str]:
        try:
            configs = (await self.configs()).servers
        except Unreadable:
            return {}
        programs = {name: os.path.basename(config.command) for name, config in configs.items()}
        return {name: program for name, program in programs.items() if program in RUNTIMES}


@contextmanager
def examination(endpoint: str | None, tell: Tell) -> Iterator[Examination]:
    """An examination of the broker at this endpoint.

    Raises:
        Unavailable: there is none.
    """
    with BlockingClient(endpoint, timeout_s=_ASK_TIMEOUT_S, name="mcp-broker doctor") as observer:
        yield Examination(observer, tell)


def is_here(status: dict[str, Any]) -> bool:
    """Whether /proc shows the broker's processes."""
    return machine.is_here(machine.tasks(), status["broker"]["pid"], _leaders(status).values())


def _servers(status: dict[str, Any]) -> tuple[Server, ...]:
    return tuple(server_of(row) for row in status["servers"])


def _leaders(status: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in status["servers"] if row["pid"] is not None}


def _strays(status: dict[str, Any]) -> tuple[Stray, ...] | None:
    seen = machine.tasks()
    broker, leaders = status["broker"]["pid"], _leaders(status)
    if not machine.is_here(seen, broker, leaders.values()):
        return None
    return tuple(machine.strays(seen, broker, leaders))


async def _idle_cpu(broker: int) -> float:
    """What they take of one core while this program asks for nothing."""
    first, began = machine.cpu_s(machine.tasks(), broker), monotonic()
    await asyncio.sleep(QUIET_S)
    last = machine.cpu_s(machine.tasks(), broker)
    used_s = sum(last[pid] - first[pid] for pid in last.keys() & first.keys())
    return round(100 * used_s / (monotonic() - began), 1)
