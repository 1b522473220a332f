"""What `status` and `tools` tell people: lines and tables, drawn by rich on a terminal and plain elsewhere.

A pipe or a file has no use for rich, and to import it takes as long as all else that the command does.
"""

from __future__ import annotations

import math
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from broker.command.output import WIDTH, Column, Grid, Line, Part, echo, width
from broker.command.words import WORDS, fill, say
from client_shim.text import on_one_line, shown

if TYPE_CHECKING:
    from broker.base.tolerances import Kind


_COLOURS = {
    "ready": "green",
    "disabled": "dim",
    "stopped": "dim",
    "backoff": "red",
    "broken": "bold red",
    "misconfigured": "bold red",
}
_QUIET = "yellow"

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


_FITTING = {
    WIDTH: tuple(_COLUMNS),
    64: ("pid", "processes", "calls", "memory"),
    48: ("pid", "memory"),
    0: ("memory",),
}
"""What a terminal of this width and more gets: better a few columns whole than all of them cut."""


def status(seen: dict[str, Any]) -> list[Part]:
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
    word = "all_ready" if ready == len(wanted) != 1 else "some_ready"
    tail = Line(say(word, ready=ready, count=len(wanted)), "green" if ready == len(wanted) else "yellow")
    stopped = [one["name"] for one in wanted if one["stopped_by_hand"]]
    down = [one for one in wanted if one["state"] not in ("ready", "misconfigured")]
    failed = [one for one in down if not one["stopped_by_hand"] and one["last_error"]]
    why = [line for server in failed for line in _error(server)]
    if failed:
        why.append(Line(say("what_next")))
    why += [line for one in servers for line in _misconfigured(one)]
    why += [line for one in wanted if one.get("start") for line in _starting(one)]
    why += [Line(say("was_stopped", server=name), "yellow") for name in stopped]
    why += [line for server in wanted for line in _warnings(server)]
    return [Line(head), Line(""), _servers(servers), Line(""), *why, *_config(broker), tail]


def _config(broker: dict[str, Any]) -> list[Line]:
    """What is wrong with the config file, or has no effect yet."""
    lines, error = [], broker["config_error"]
    if error is not None:
        refused = say("config_refused", path=broker["config"], since=duration(error["since_s"]))
        lines.append(Line("\n  ".join([refused, *error["problems"]]), "red"))
    if broker["restart_needed"]:
        lines.append(Line(say("waits_for_restart", keys=", ".join(broker["restart_needed"])), "yellow"))
    return lines


def _error(server: dict[str, Any]) -> Iterator[Line]:
    """Why a server is not ready, when it is tried again, and below the last that it wrote."""
    name, retry_s = server["name"], server["retry_after_s"]
    text = say("last_error", server=name, error=_reason(server))
    if retry_s is not None:
        text += say("tried_again", after=duration(math.ceil(retry_s)))
    if server["state"] == "broken":
        text += say("tried_at_once", server=name)
    elif server["state"] == "stopped":
        text += say("given_up", server=name)
    yield Line(text, "red")
    if not server.get("start"):
        yield from _lines(server)


def _misconfigured(server: dict[str, Any]) -> Iterator[Line]:
    """The mistakes in its table, and what they cost."""
    problems = server.get("config_problems", [])
    if problems and server["state"] != "disabled":
        word = "left_out" if server["state"] == "misconfigured" else "kept"
        yield Line("\n  ".join([say(word, server=server["name"]), *problems]), "red")


def _starting(server: dict[str, Any]) -> Iterator[Line]:
    """How long a start has taken and may take, and below the newest that it wrote."""
    start, since = server["start"], duration(server["start"]["since_s"])
    if start["extended"]:
        most = duration(start["at_most_s"])
        text = say("installing", server=server["name"], since=since, runner=start["runner"], most=most)
    else:
        left = duration(math.ceil(start["left_s"]))
        text = say("is_starting", server=server["name"], since=since, left=left)
    yield Line(text, "yellow")
    yield from _lines(server)


def _lines(server: dict[str, Any]) -> Iterator[Line]:
    return (Line(f"    {line}", "dim") for line in server.get("last_lines", []))


def _kind(name: str) -> Kind | None:
    """The texts of a kind of oddity, `None` for one of a newer broker. Only who needs them loads msgspec."""
    from broker.base.tolerances import KINDS, Oddity

    return KINDS[Oddity(name)] if name in {oddity.value for oddity in Oddity} else None


def _warnings(server: dict[str, Any]) -> Iterator[Line]:
    """What is put up with in what a server writes, where somebody should know of it."""
    for warning in server.get("warnings", []):
        kind = _kind(warning["kind"])
        text = fill((kind.english, kind.chinese), **warning["facts"]) if kind else warning["text"]
        yield Line(say("puts_up_with", server=server["name"], what=text), "yellow")


def _reason(server: dict[str, Any]) -> str:
    """Why, as the broker has it in English; in Chinese before it, where it is one of the frequent causes."""
    error, cause = str(server["last_error"]), server["last_cause"]
    word = f"cause_{cause['word']}" if cause else ""
    if word not in WORDS:
        return error
    return say(
        "in_other_words", error=error, cause=say(word, **{key: cause[key] for key in cause if key != "word"})
    )


def _servers(servers: list[dict[str, Any]]) -> Grid:
    words = next(words for least, words in _FITTING.items() if width() >= least)
    columns = [Column(say("server"), folds=True, width=24), Column(say("state"))]
    columns += [Column(say(word), right=True) for word in words]
    rows = [
        [
            Line(server["name"]),
            Line(say(server["state"]), _COLOURS.get(server["state"], _QUIET)),
            *(Line(_COLUMNS[word](server)) for word in words),
        ]
        for server in servers
    ]
    return Grid(columns, rows)


def tools(server: str, listed: list[Any]) -> list[Part]:
    """One server's tools, their arguments, and what they are for; whatever it sent in the place of that."""
    if not listed:
        return [Line(say("no_tools", server=server))]
    rows = [
        [Line(on_one_line(_signature(tool))), Line(str(_field(tool, "description") or "").strip())]
        for tool in listed
    ]
    widest = max(_columns(signature.text) for signature, _ in rows)
    if sys.stdout.isatty() and (width() < _TOOLS_WIDTH or widest + _ROOM > width()):
        below = [
            part for signature, about in rows for part in (signature, Line(_indented(about.text), "dim"))
        ]
        return [Line(server, "bold"), *(line for line in below if line.text), Line("")]
    return [Grid([Column(say("tools")), Column("", folds=True)], rows, title=server)]


_TOOLS_WIDTH = 70
"""On a terminal with less, a description stands below its signature;"""

_ROOM = 30
"""so it does where less than this is left beside the longest."""


def _indented(text: str) -> str:
    """Its paragraphs, four columns to the right."""
    room = max(20, width() - 4)
    return textwrap.indent("\n".join(textwrap.fill(line, room) for line in text.splitlines()), "    ")


def _field(tool: object, name: str) -> Any:
    return tool.get(name) if isinstance(tool, dict) else None


def _signature(tool: object) -> str:
    name = _field(tool, "name")
    return f"{name if isinstance(name, str) else shown(tool)}({_arguments(_field(tool, 'inputSchema'))})"


def _arguments(schema: object) -> str:
    """The arguments that a JSON schema names; `…` where it cannot be read as one."""
    if schema is None:
        return ""
    named, required = _field(schema, "properties"), _field(schema, "required")
    if not isinstance(schema, dict) or not isinstance(named, dict | None):
        return "…"
    needed = required if isinstance(required, list) else []
    return ", ".join(name if name in needed else f"{name}?" for name in named or {})


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


# -- showing it -----------------------------------------------------------------------------------


def show(parts: Iterable[Part]) -> None:
    """Print it: with colour and fitted in where that is a terminal, line by line elsewhere."""
    if sys.stdout.isatty():
        from broker.command import tables

        tables.show(parts)
        return
    for part in parts:
        for line in [part.text] if isinstance(part, Line) else _plain(part):
            echo(line)


@contextmanager
def live() -> Iterator[Callable[[Iterable[Part]], None]]:
    """A place on the screen that can be drawn again; without a screen each is printed below the last."""
    if not sys.stdout.isatty():
        yield show
        return
    from broker.command import tables

    with tables.live() as draw:
        yield draw


def _plain(grid: Grid) -> Iterator[str]:
    """A table whose columns are as wide as they need to be."""
    if grid.title:
        yield grid.title
    texts = [[column.name for column in grid.columns], *([cell.text for cell in row] for row in grid.rows)]
    cells = [[on_one_line(text) for text in row] for row in texts]
    widths = [max(map(_columns, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            " " * (widest - _columns(cell)) + cell if column.right else cell + " " * (widest - _columns(cell))
            for cell, column, widest in zip(row, grid.columns, widths, strict=True)
        )
        yield (" " if grid.is_tight else "  ").join(padded).rstrip()
    if grid.title:
        yield ""


def _columns(text: str) -> int:
    """How many columns of a terminal it takes: Chinese characters take two each, combining marks none."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
