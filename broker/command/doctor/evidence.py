"""What the doctor saw: the records that a verdict is found from, and that a report shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct


class Server(Struct, frozen=True, kw_only=True):
    """One server at one moment, as the broker's `status` has it."""

    name: str
    state: str
    pid: int | None = None
    processes: int = 0
    rss_bytes: int = 0
    restarts: int = 0
    last_error: str | None = None


class Fault(Struct, frozen=True):
    """What went wrong at a page with one server.

    Args:
        kind: its list could not be had, a call did not come back, or what came back says that it failed.
        died: the server ended meanwhile.
    """

    kind: Literal["list", "call", "tool"]
    text: str
    died: bool = False


class Visit(Struct, frozen=True, kw_only=True):
    """What a page did with one server: its list, and a call where there is a harmless tool.

    Args:
        chosen: who named the tool, the config or the doctor; "none" where no tool was called.
        list_s, call_s: how long the two took.
    """

    server: str
    tools: int = 0
    tool: str | None = None
    chosen: Literal["config", "doctor", "none"] = "none"
    list_s: float = 0.0
    call_s: float = 0.0
    fault: Fault | None = None


class Page(Struct, frozen=True, kw_only=True):
    """One page: opened, used, left; then the servers were looked at.

    Args:
        closed: whether its client was closed, or only forgotten.
        open_s: until every tool list was there.
        took_s: until every answer was there.
    """

    number: int
    closed: bool
    open_s: float
    took_s: float
    visits: tuple[Visit, ...]
    servers: tuple[Server, ...]

    @property
    def processes(self) -> int:
        """Of all servers, after the page was left."""
        return sum(server.processes for server in self.servers)

    @property
    def good_s(self) -> float:
        """How long it took without what went wrong: a call that times out says nothing about the others."""
        return self.took_s - sum(visit.list_s + visit.call_s for visit in self.visits if visit.fault)


class Load(Struct, frozen=True, kw_only=True):
    """What broker and servers take while nothing is asked of them.

    Args:
        cpu_percent: of one core; `None` where the broker runs on another machine or in another container.
    """

    processes: int
    rss_bytes: int
    cpu_percent: float | None


class Stray(Struct, frozen=True, kw_only=True):
    """A process with the command line of a configured server that is not in the server's tree.

    Args:
        kind: "second" is below this broker, "orphan" is left over from a broker that is gone, "beside" was
            started by somebody else.
        by: who started it, in words.
    """

    server: str
    pid: int
    kind: Literal["second", "orphan", "beside"]
    by: str


class Moment(Struct, frozen=True, kw_only=True):
    """Broker and servers before the first page, or after the last.

    Args:
        instance: of the broker; another one is another broker.
        strays: `None` where they cannot be seen from here.
    """

    instance: str
    servers: tuple[Server, ...]
    load: Load
    strays: tuple[Stray, ...] | None


class Evidence(Struct, frozen=True, kw_only=True):
    """Everything that a verdict is found from.

    Args:
        clients_left: pages that the broker still held some time after they were closed or forgotten.
        waited_s: how long that time was.
        runtimes: server → npx, uvx or node, for those that need one.
    """

    before: Moment
    pages: tuple[Page, ...]
    after: Moment
    clients_left: int = 0
    waited_s: float = 0.0
    runtimes: dict[str, str] = {}

    @property
    def wanted(self) -> list[str]:
        """The servers that are to run."""
        return [server.name for server in self.after.servers if server.state != "disabled"]

    def history(self, name: str) -> list[Server]:
        """One server before the first page, after each, and at the end."""
        moments = (self.before.servers, *(page.servers for page in self.pages), self.after.servers)
        return [server for servers in moments for server in servers if server.name == name]

    def visits(self, name: str) -> Iterator[Visit]:
        """What every page did with one server."""
        return (visit for page in self.pages for visit in page.visits if visit.server == name)
