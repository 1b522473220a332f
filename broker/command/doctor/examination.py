"""Runs an examination: takes a snapshot, opens pages, takes a snapshot again, reads the broker's /proc."""

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
from broker.command.doctor.evidence import Evidence, Load, Moment, Page, ServerSample, Stray
from broker.command.doctor.pages import open_page, server_of
from broker.command.doctor.texts import OnProgress
from broker.command.programs import COMMAND_NAME, DOCTOR_NAME, client_programs
from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT

if TYPE_CHECKING:
    from broker.config.schema import ServerConfig

STARTING = ("starting", "handshake", "draining")
RUNTIMES = ("npx", "uvx", "node")

START_WAIT_S = 60.0
"""The time limit for servers that are starting."""

RELEASE_WAIT_S = 10.0
"""The time that the broker has to release the clients of pages that were left."""

QUIET_S = 0.5
"""The duration of the measurement of idle CPU."""

_PAGE = "doctor page"
_ASK_TIMEOUT_S = 15.0
_PAUSE_S = 0.1


class Unreadable(Exception):
    """The broker's config cannot be read from here. `word` and `facts` are the text that says why."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(word)
        self.word, self.facts = word, facts


class Configs(NamedTuple):
    """The config that the broker starts its servers with.

    Args:
        servers: the enabled servers.
        folder: the config file's folder, to which paths are relative.
        environ: the broker's environment, as far as this user may read it.
    """

    servers: dict[str, ServerConfig]
    folder: Path
    environ: dict[str, str]


class Examination:
    """Observes a broker through its own connection, separate from those of the pages."""

    def __init__(self, observer: BlockingClient, on_progress: OnProgress) -> None:
        self.endpoint = observer.endpoint
        self._open_ports: tuple[str, ...] = ()
        self.version = observer.broker_version
        self._observer = observer
        self._on_progress = on_progress
        self._page_name = f"{_PAGE} {secrets.token_hex(4)}"
        self._clients: dict[str, int] = {}

    async def run(self, cycles: int) -> Evidence:
        """Open this many pages and return the evidence. Every second client is dropped instead of closed.

        Raises:
            Unavailable: no broker answers.
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
            clients=self._clients,
            open_ports=self._open_ports,
        )

    async def status(self) -> dict[str, Any]:
        """Return the broker's status, and remember which client programs are connected."""
        status: dict[str, Any] = await asyncio.to_thread(self._observer.request, MANAGEMENT, "status")
        listens = status["broker"].get("endpoints", ())
        self._open_ports = tuple(one["address"] for one in listens if one["open"])
        for name, connections in client_programs(status["clients"]).items():
            if name != COMMAND_NAME and not name.startswith(_PAGE):
                self._clients[name] = max(len(connections), self._clients.get(name, 0))
        return status

    async def _started(self) -> None:
        """Wait for servers that are starting, not for those that have failed."""
        until = monotonic() + START_WAIT_S
        while monotonic() < until:
            waiting = [row["name"] for row in (await self.status())["servers"] if row["state"] in STARTING]
            if not waiting:
                return
            self._on_progress("waiting", 0, 1, servers=waiting)
            await asyncio.sleep(_PAUSE_S)

    async def _page(self, number: int, of: int) -> Page:
        close = number % 2 == 1
        opened = await open_page(self._page_name, self.endpoint, close=close)
        await asyncio.sleep(0)  # the loop releases a dropped client
        servers = _servers(await self.status())
        page = Page(
            number=number,
            closed=close,
            open_s=round(opened.open_s, 4),
            took_s=round(opened.took_s, 4),
            visits=opened.visits,
            servers=servers,
        )
        self._on_progress("page_done", number, of, took=page.took_s, processes=page.processes)
        return page

    async def _released(self) -> tuple[int, float]:
        """Wait until the broker has released all pages; return how many are left, and the time waited."""
        began = monotonic()
        while True:
            gc.collect()  # in a busy backend this happens by itself
            status = await self.status()
            left = sum(client["name"] == self._page_name for client in status["clients"])
            waited_s = monotonic() - began
            if not left or waited_s > RELEASE_WAIT_S:
                return left, waited_s
            await asyncio.sleep(_PAUSE_S)

    async def _moment(self) -> Moment:
        """Take a snapshot: the idle CPU first, then the processes, which have settled by then."""
        self._on_progress("looking", 0, 1)
        status = await self.status()
        cpu_percent = await _idle_cpu(status["broker"]["pid"]) if is_here(status) else None
        earlier, seen, status = await self.status(), machine.tasks(), await self.status()
        rows, broker = status["servers"], status["broker"]
        load = Load(
            processes=sum(row["processes"] for row in rows),
            rss_bytes=broker["rss_bytes"] + sum(row["rss_bytes"] for row in rows),
            cpu_percent=cpu_percent,
        )
        return Moment(
            instance=broker["instance"],
            servers=_servers(status),
            load=load,
            strays=_strays(seen, earlier, status),
        )

    async def configs(self) -> Configs:
        """Return the config that the broker starts its servers with.

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
        """Return the mask for the secrets of the broker's servers.

        If the config cannot be read, the mask still removes texts that are written like secrets.
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
def examination(endpoint: str | None, on_progress: OnProgress) -> Iterator[Examination]:
    """Yield an examination of the broker at this endpoint.

    Raises:
        Unavailable: no broker answers.
    """
    with BlockingClient(endpoint, timeout_s=_ASK_TIMEOUT_S, name=DOCTOR_NAME) as observer:
        yield Examination(observer, on_progress)


def is_here(status: dict[str, Any]) -> bool:
    """Return whether /proc shows the broker's processes."""
    return machine.is_here(machine.tasks(), status["broker"]["pid"], _leaders(status).values())


def _servers(status: dict[str, Any]) -> tuple[ServerSample, ...]:
    return tuple(server_of(row) for row in status["servers"])


def _leaders(status: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in status["servers"] if row["pid"] is not None}


def _strays(seen: machine.Tasks, earlier: dict[str, Any], later: dict[str, Any]) -> tuple[Stray, ...] | None:
    """Return the strays. A server may have been restarted between the processes and either status."""
    broker = later["broker"]["pid"]
    leaders = {pid: name for status in (earlier, later) for name, pid in _leaders(status).items()}
    if not machine.is_here(seen, broker, leaders):
        return None
    return tuple(machine.strays(seen, broker, leaders))


async def _idle_cpu(broker: int) -> float:
    """Measure the CPU time of broker and servers without requests, in percent of one core."""
    first, began = machine.cpu_s(machine.tasks(), broker), monotonic()
    await asyncio.sleep(QUIET_S)
    last = machine.cpu_s(machine.tasks(), broker)
    used_s = sum(last[pid] - first[pid] for pid in last.keys() & first.keys())
    return round(100 * used_s / (monotonic() - began), 1)
