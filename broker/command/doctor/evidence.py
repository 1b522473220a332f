"""The doctor's observations, from which the verdict is derived and the report written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct


class ServerSample(Struct, frozen=True, kw_only=True):
    """The state of one server at one moment, as in the broker's `status`."""

    name: str
    state: str
    pid: int | None = None
    processes: int = 0
    rss_bytes: int = 0
    restarts: int = 0
    last_error: str | None = None
    questions_refused: str | None = None
    room: dict[str, str | int] | None = None


class VisitError(Struct, frozen=True):
    """The failure of one server at one page.

    Args:
        kind: "list" if tools/list failed, "call" if the call got no result, "tool" if the result is an error.
        died: the server exited during the request.
    """

    kind: Literal["list", "call", "tool"]
    text: str
    died: bool = False


class Visit(Struct, frozen=True, kw_only=True):
    """The requests of a page to one server: its tool list, and a call if it has a harmless tool.

    Args:
        chosen: the source of the tool, the config or the doctor; "none" if no tool was called.
        list_s, call_s: the duration of both requests.
    """

    server: str
    tools: int = 0
    tool: str | None = None
    chosen: Literal["config", "doctor", "none"] = "none"
    list_s: float = 0.0
    call_s: float = 0.0
    fault: VisitError | None = None


class Page(Struct, frozen=True, kw_only=True):
    """One page that was opened, used and left, and the servers afterwards.

    Args:
        closed: whether its client was closed; otherwise it was only dropped.
        open_s: the time until every tool list arrived.
        took_s: the time until every answer arrived.
    """

    number: int
    closed: bool
    open_s: float
    took_s: float
    visits: tuple[Visit, ...]
    servers: tuple[ServerSample, ...]

    @property
    def processes(self) -> int:
        """The processes of all servers after the page was left."""
        return sum(server.processes for server in self.servers)

    @property
    def good_s(self) -> float:
        """The duration without failed requests: a call that timed out says nothing about the others."""
        return self.took_s - sum(visit.list_s + visit.call_s for visit in self.visits if visit.fault)


class Load(Struct, frozen=True, kw_only=True):
    """The idle load of the broker and its servers.

    Args:
        cpu_percent: of one core; `None` if the broker runs on another machine or in another container.
    """

    processes: int
    rss_bytes: int
    cpu_percent: float | None


class Stray(Struct, frozen=True, kw_only=True):
    """A process with the command line of a configured server, outside of that server's process tree.

    Args:
        kind: "second": a child of this broker. "orphan": left over from a broker that has exited. "beside":
            started by another program.
        by: the program that started it.
    """

    server: str
    pid: int
    kind: Literal["second", "orphan", "beside"]
    by: str


class Moment(Struct, frozen=True, kw_only=True):
    """The broker and its servers before the first page, or after the last.

    Args:
        instance: the broker's instance id; it changes when the broker restarts.
        strays: `None` if the broker's processes are not visible from here.
    """

    instance: str
    servers: tuple[ServerSample, ...]
    load: Load
    strays: tuple[Stray, ...] | None


class Evidence(Struct, frozen=True, kw_only=True):
    """All observations of one examination.

    Args:
        clients_left: the pages that the broker still held `waited_s` after they were left.
        waited_s: the time that the broker was given to release them.
        runtimes: server → npx, uvx or node, for servers that need it.
        clients: client programs that were connected → the most connections at once; without the doctor.
        open_ports: the addresses at which every program of the machine can connect.
    """

    before: Moment
    pages: tuple[Page, ...]
    after: Moment
    clients_left: int = 0
    waited_s: float = 0.0
    runtimes: dict[str, str] = {}
    clients: dict[str, int] = {}
    open_ports: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """The names of the enabled servers."""
        return [server.name for server in self.after.servers if server.state != "disabled"]

    def history(self, name: str) -> list[ServerSample]:
        """Return the samples of one server: before the first page, after each page, and at the end."""
        moments = (self.before.servers, *(page.servers for page in self.pages), self.after.servers)
        return [server for servers in moments for server in servers if server.name == name]

    def visits(self, name: str) -> Iterator[Visit]:
        """Return the visits of all pages to one server."""
        return (visit for page in self.pages for visit in page.visits if visit.server == name)
