"""The lines and tables that `status` and `tools` print."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from broker.command.layout import WIDTH, Column, Grid, Line, Part, width
from broker.command.programs import client_programs
from broker.command.texts.chinese import told
from broker.command.texts.filling import fill
from broker.command.texts.key_texts import say_of_keys
from broker.command.texts.start_limits import no_room
from broker.command.texts.words import WORDS, say
from broker.command.texts.wrapping import display_width
from client_shim.text import on_one_line, shown

if TYPE_CHECKING:
    from broker.base.tolerances import OddityKind

_COLOURS = {
    "ready": "green",
    "idle": "dim",
    "disabled": "dim",
    "stopped": "dim",
    "backoff": "red",
    "broken": "bold red",
    "misconfigured": "bold red",
}
_OTHER_STATES = "yellow"

_OUTCOMES = ("asked", "answered", "withdrawn", "expired", "unusable")
"""What happens to a question that reached a client."""

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
"""word → the cell of a server's row."""


def _cpu(seconds: float) -> str:
    """Return a processor time, with tenths of a second below a minute."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.1f}s"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _count(number: int) -> str:
    """Return a count, in thousands from 100,000 on."""
    return str(number) if number < 100_000 else f"{number // 1000}k"


_COLUMNS_BY_WIDTH = {
    WIDTH: tuple(_COLUMNS),
    80: ("pid", "processes", "restarts", "calls", "errors", "memory"),
    64: ("pid", "processes", "calls", "memory"),
    48: ("pid", "memory"),
    0: ("memory",),
}
"""The columns that fit a terminal of at least this width, so that none is cut. A line names the others."""


def _words() -> tuple[str, ...]:
    return next(words for least, words in _COLUMNS_BY_WIDTH.items() if width() >= least)


def _left_out() -> Iterator[Line]:
    """Yield a line that names the columns for which the terminal is too narrow."""
    if missing := [say(word) for word in _COLUMNS if word not in _words()]:
        yield Line(say("columns_left_out", columns=missing, width=WIDTH), "dim")


def broker_line(broker: dict[str, Any], *, clients: int | None = None) -> str:
    """Return the line about the broker. `clients` is the number without the commands of the operator."""
    return say(
        "broker_line",
        version=broker["version"],
        pid=broker["pid"],
        uptime=duration(broker["uptime_s"]),
        memory=size(broker["rss_bytes"]),
        clients=broker["clients"] if clients is None else clients,
        endpoint=broker["endpoint"],
    )


def status_parts(snapshot: dict[str, Any]) -> list[Part]:
    """Return the output of `status`: the broker, the table of servers, the client programs, the faults."""
    broker, servers = snapshot["broker"], snapshot["servers"]
    programs = client_programs(snapshot["clients"])
    head = broker_line(broker, clients=sum(map(len, programs.values())))
    enabled = [server for server in servers if server["state"] != "disabled"]
    ready = sum(server["state"] == "ready" for server in enabled)
    idle = sum(server["state"] == "idle" for server in enabled)
    word = "some_idle" if idle else "all_ready" if ready == len(enabled) != 1 else "some_ready"
    colour = "green" if ready + idle == len(enabled) else "yellow"
    tail = Line(say(word, ready=ready, idle=idle, count=len(enabled)), colour)
    stopped = [one["name"] for one in enabled if one["stopped_by_hand"]]
    down = [one for one in enabled if one["state"] not in ("ready", "idle", "misconfigured")]
    failed = [one for one in down if not one["stopped_by_hand"] and one["last_error"]]
    faults = [line for server in failed for line in _error(server)]
    if failed:
        faults.append(Line(say("what_next")))
    faults += [line for one in servers for line in _misconfigured(one)]
    faults += [line for one in enabled if one.get("start") for line in _starting(one)]
    faults += [Line(text, "yellow") for one in enabled if (text := no_room(one))]
    faults += [_leased(one) for one in enabled if one.get("lease")]
    faults += [Line(say("was_stopped", server=name), "yellow") for name in stopped]
    faults += [line for server in enabled for line in _warnings(server)]
    faults += [line for server in enabled for line in _questions(server)]
    clients = list(_programs(programs))
    return [
        Line(head),
        Line(""),
        _servers(servers),
        *_left_out(),
        Line(""),
        *clients,
        *faults,
        *_config(broker),
        tail,
    ]


def _programs(programs: dict[str, list[dict[str, Any]]]) -> Iterator[Line]:
    """Yield a line for each client program that is connected."""
    for name, connections in sorted(programs.items())[:_MAX_PROGRAMS]:
        pids = [str(pid) for pid in sorted({one["pid"] for one in connections}) if pid > 0]
        keys = sorted({f"{one['key']}, {one['address']}" for one in connections if one.get("key")})
        where = say("client_pids", pids=", ".join(pids[:_MAX_PIDS]) + ", …" * (len(pids) > _MAX_PIDS))
        text = say(
            "client",
            name=name,
            where=(where if pids else "") + (_from_keys(keys) if keys else ""),
            connections=len(connections),
            channels=sum(one["channels"] for one in connections),
            running=sum(one["in_flight"] for one in connections),
            calls=sum(one["calls"] for one in connections),
        )
        yield Line(text)
    if len(programs) > _MAX_PROGRAMS:
        yield Line(say("more_clients", count=len(programs) - _MAX_PROGRAMS))
    if programs:
        yield Line("")


def _from_keys(keys: list[str]) -> str:
    shown = "; ".join(keys[:_MAX_PIDS]) + "; …" * (len(keys) > _MAX_PIDS)
    return say_of_keys("from_keys", keys=shown)


_MAX_PROGRAMS, _MAX_PIDS = 20, 5
"""How many client programs are shown, and how many of each one's processes; `--json` has all."""


def _config(broker: dict[str, Any]) -> list[Line]:
    """Return the mistakes of the config file, and the keys that wait for a restart."""
    lines, error = [], broker["config_error"]
    if error is not None:
        refused = say("config_refused", path=broker["config"], since=duration(error["since_s"]))
        lines.append(Line("\n  ".join([refused, *map(told, error["problems"])]), "red"))
    if broker["restart_needed"]:
        lines.append(Line(say("waits_for_restart", keys=broker["restart_needed"]), "yellow"))
    return lines


def _error(server: dict[str, Any]) -> Iterator[Line]:
    """Yield why a server is not ready and when it is tried again, then its last output."""
    name, retry_s = server["name"], server["retry_after_s"]
    text = say("last_error", server=name, error=server["last_error"])
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
    """Yield the mistakes in a server's table and their effect."""
    problems = server.get("config_problems", [])
    if problems and server["state"] != "disabled":
        word = "left_out" if server["state"] == "misconfigured" else "kept"
        yield Line("\n  ".join([say(word, server=server["name"]), *map(told, problems)]), "red")


def _leased(server: dict[str, Any]) -> Line:
    """Return which client has the server for itself, since when, and for how long at least."""
    lease = server["lease"]
    facts = {
        "since": duration(lease["since_s"]),
        "left": duration(math.ceil(lease["ends_in_s"])),
        "waiting": lease["waiting"],
    }
    facts |= {"client": lease["client"], "pid": lease["pid"], "server": server["name"]}
    text = say("leased", **facts)
    return Line(text + say("leased_waiting", **facts) if lease["waiting"] else text)


def _starting(server: dict[str, Any]) -> Iterator[Line]:
    """Yield how long a start has taken and may take, then the newest output."""
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
    return (Line(line, "dim", indent=4) for line in server.get("last_lines", []))


def _kind(name: str) -> OddityKind | None:
    """Return the texts of a tolerance; `None` if only a newer broker knows it. The import loads msgspec."""
    from broker.base.tolerances import KINDS, Oddity

    return KINDS[Oddity(name)] if name in {oddity.value for oddity in Oddity} else None


def _warnings(server: dict[str, Any]) -> Iterator[Line]:
    """Yield the deviations from the protocol that the broker tolerates of a server."""
    for warning in server.get("warnings", []):
        kind = _kind(warning["kind"])
        text = fill((kind.english, kind.chinese), **warning["facts"]) if kind else warning["text"]
        yield Line(say("tolerates", server=server["name"], what=text), "yellow")


def _questions(server: dict[str, Any]) -> Iterator[Line]:
    """Yield what happened to the questions of a server, and why all of them are refused now."""
    name, asked = server["name"], server.get("asked")
    if asked:
        yield Line(say("asked", server=name, counts=[*_in_words(asked)]), "dim")
    word = f"refused_since_{server.get('questions_refused')}"
    if word in WORDS:
        yield Line(say(word, server=name), "yellow")


def _in_words(asked: dict[str, int]) -> Iterator[str]:
    """Yield the number of questions of each outcome, in the order in which they occur."""
    ordered = [
        *(what for what in _OUTCOMES if what in asked),
        *(what for what in asked if what not in _OUTCOMES),
    ]
    for what in ordered:
        outcome, _, why = what.partition(".")
        word = f"question_{outcome}"
        yield say(word, count=asked[what], why=why) if word in WORDS else f"{what} {asked[what]}"


def _servers(servers: list[dict[str, Any]]) -> Grid:
    words = _words()
    columns = [Column(say("server"), folds=True, width=24), Column(say("state"))]
    columns += [Column(say(word), right=True) for word in words]
    rows = [
        [
            Line(server["name"]),
            Line(say(server["state"]), _COLOURS.get(server["state"], _OTHER_STATES)),
            *(Line(_COLUMNS[word](server)) for word in words),
        ]
        for server in servers
    ]
    return Grid(columns, rows)


def tools_parts(server: str, listed: list[Any], hidden: int = 0) -> list[Part]:
    """Return the output of `tools` for one server: signatures and descriptions, malformed items included.

    `hidden` is the number of tools that its table hides.
    """
    below = [Line(say("tools_hidden", server=server, count=hidden), "dim")] if hidden else []
    return [*_tools_parts(server, listed), *below]


def _tools_parts(server: str, listed: list[Any]) -> list[Part]:
    if not listed:
        return [Line(say("no_tools", server=server))]
    rows = [
        [Line(on_one_line(_signature(tool))), Line(str(_field(tool, "description") or "").strip())]
        for tool in listed
    ]
    widest = max(display_width(signature.text) for signature, _ in rows)
    if sys.stdout.isatty() and (width() < _TOOLS_WIDTH or widest + _DESCRIPTION_WIDTH > width()):
        below = [line for signature, about in rows for line in (signature, Line(about.text, "dim", indent=4))]
        return [Line(server, "bold"), *(line for line in below if line.text), Line("")]
    return [Grid([Column(say("tools")), Column("", folds=True)], rows, title=server)]


_TOOLS_WIDTH = 70
"""The terminal width below which a description stands below its signature instead of beside it."""

_DESCRIPTION_WIDTH = 30
"""The width that a description needs beside the longest signature."""


def _field(tool: object, name: str) -> Any:
    return tool.get(name) if isinstance(tool, dict) else None


def _signature(tool: object) -> str:
    name = _field(tool, "name")
    return f"{name if isinstance(name, str) else shown(tool)}({_arguments(_field(tool, 'inputSchema'))})"


def _arguments(schema: object) -> str:
    """Return the arguments that a JSON schema names; `…` if it is not a schema."""
    if schema is None:
        return ""
    named, required = _field(schema, "properties"), _field(schema, "required")
    if not isinstance(schema, dict) or not isinstance(named, dict | None):
        return "…"
    needed = required if isinstance(required, list) else []
    return ", ".join(name if name in needed else f"{name}?" for name in named or {})


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def size(count: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / 1024**2:.1f}M"
