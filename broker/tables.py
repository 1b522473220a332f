"""The tables that people see, drawn by rich. Imported only where something is drawn."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.words import say

WIDTH = 100
"""Nothing is drawn wider than this, so that a report pastes well."""

_COLOURS = {
    "ready": "green",
    "disabled": "dim",
    "stopped": "dim",
    "backoff": "red",
    "broken": "bold red",
}
_QUIET = "yellow"


def show(renderable: RenderableType) -> None:
    """Print it, with colour where the terminal has it."""
    _console().print(renderable)


@contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A place on the screen that can be drawn again; without a screen each is printed below the last."""
    if not sys.stdout.isatty():
        yield show
        return
    with Live(console=_console(), auto_refresh=False, screen=True) as area:
        yield lambda renderable: area.update(renderable, refresh=True)


def _console() -> Console:
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    return Console(width=width, highlight=False, soft_wrap=False)


def status(seen: dict[str, Any]) -> RenderableType:
    """The broker in a line, its servers in a table, and below what is wrong."""
    broker, servers = seen["broker"], seen["servers"]
    head = say(
        "broker_line",
        version=broker["version"],
        pid=broker["pid"],
        uptime=duration(broker["uptime_s"]),
        memory=size(broker["rss_bytes"]),
        clients=broker["clients"],
        endpoint=broker["endpoint"],
    )
    wanted = [server for server in servers if server["state"] != "disabled"]
    ready = sum(server["state"] == "ready" for server in wanted)
    word = "all_ready" if ready == len(wanted) else "some_ready"
    tail = Text(say(word, ready=ready, count=len(wanted)), "green" if ready == len(wanted) else "yellow")
    errors = [
        text
        for server in wanted
        if server["last_error"] and server["state"] != "ready"
        for text in _error(server)
    ]
    return Group(Text(head), Text(), _servers(servers), Text(), *errors, *_config(broker), tail)


def _config(broker: dict[str, Any]) -> list[Text]:
    """What is wrong with the config file, or has no effect yet."""
    lines, error = [], broker["config_error"]
    if error is not None:
        refused = say("config_refused", path=broker["config"], since=duration(error["since_s"]))
        lines.append(Text("\n  ".join([refused, *error["problems"]]), "red"))
    if broker["restart_needed"]:
        lines.append(Text(say("waits_for_restart", keys=", ".join(broker["restart_needed"])), "yellow"))
    return lines


def _error(server: dict[str, Any]) -> Iterator[Text]:
    """Why a server is not ready, and below the last that it wrote."""
    yield Text(say("last_error", server=server["name"], error=server["last_error"]), "red")
    for line in server.get("last_lines", []):
        yield Text(f"    {line}", "dim")


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "pid": lambda server: str(server["pid"] or "-"),
    "processes": lambda server: str(server["processes"]),
    "uptime": lambda server: duration(server["uptime_s"]) if server["state"] == "ready" else "-",
    "restarts": lambda server: str(server["restarts"]),
    "tools": lambda server: str(server["tools"]),
    "calls": lambda server: _count(server["calls"]),
    "errors": lambda server: _count(server["errors"]),
    "latency": lambda server: f"{_ms(server['p50_ms'])}/{_ms(server['p99_ms'])}" if server["calls"] else "-",
    "cpu": lambda server: _cpu(server["cpu_s"]) if server["pid"] else "-",
    "memory": lambda server: size(server["rss_bytes"]) if server["rss_bytes"] else "-",
}
"""word → the cell of a server."""


def _cpu(seconds: float) -> str:
    """Processor time: a server that does nothing for a day takes a few seconds."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.1f}s"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _count(number: int) -> str:
    """Whole up to a hundred thousand, then in thousands."""
    return str(number) if number < 100_000 else f"{number // 1000}k"


_NARROW = ("pid", "processes", "calls", "memory")
"""The columns that a terminal below `WIDTH` gets: better these whole than all of them cut."""


def _servers(servers: list[dict[str, Any]]) -> Table:
    wide = _console().width >= WIDTH
    words = tuple(_COLUMNS) if wide else _NARROW
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0 if wide else (0, 1, 0, 0))
    table.add_column(say("server"), overflow="fold", min_width=16, max_width=24)
    table.add_column(say("state"), no_wrap=True)
    for word in words:
        table.add_column(say(word), justify="right", no_wrap=True)
    for server in servers:
        state = Text(say(server["state"]), _COLOURS.get(server["state"], _QUIET))
        table.add_row(server["name"], state, *(_COLUMNS[word](server) for word in words))
    return table


def tools(server: str, listed: list[dict[str, Any]]) -> RenderableType:
    """One server's tools, their arguments, and what they are for."""
    if not listed:
        return Text(say("no_tools", server=server))
    table = Table(title=Text(server, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(say("tools"), no_wrap=True)
    table.add_column("", overflow="fold")
    for tool in listed:
        table.add_row(f"{tool['name']}({_arguments(tool)})", str(tool.get("description") or "").strip())
    return table


def _arguments(tool: dict[str, Any]) -> str:
    schema = tool.get("inputSchema") or {}
    required = schema.get("required", [])
    return ", ".join(name if name in required else f"{name}?" for name in schema.get("properties", {}))


def duration(seconds: float) -> str:
    """A time span in its two largest units, as people say it."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def size(count: int) -> str:
    """A number of bytes in MiB."""
    return f"{count / 1024**2:.1f}M"
