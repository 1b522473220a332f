"""The commands that change what runs: `stop`, `start`, `restart` of a server, and `reload` of the config."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import click

from broker.command.common import ASK_S, BAD, client, endpoint_option, json_option
from broker.command.output import echo, echo_json
from broker.command.words import say
from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT

_SETTLED = ("ready", "backoff", "broken", "stopped", "disabled", "misconfigured")
"""The states that a server leaves by itself after a while, or never."""

QUIET_S = 5.0
"""So long a command waits for a server without a word. One that downloads may take minutes."""


@click.command()
@click.argument("server")
@endpoint_option
@json_option
def stop(server: str, endpoint: str | None, as_json: bool) -> None:
    """End a SERVER, and keep it ended until `start` or `restart`."""
    _move("stop", server, endpoint, as_json=as_json)


@click.command()
@click.argument("server")
@endpoint_option
@json_option
def start(server: str, endpoint: str | None, as_json: bool) -> None:
    """Start a SERVER that is stopped, broken, or waiting for its next try."""
    _move("start", server, endpoint, as_json=as_json)


@click.command()
@click.argument("server")
@endpoint_option
@json_option
def restart(server: str, endpoint: str | None, as_json: bool) -> None:
    """End a SERVER and start it again; what waits for it is served then."""
    _move("restart", server, endpoint, as_json=as_json)


@click.command()
@endpoint_option
@json_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the servers are ready that were started.")
def reload(endpoint: str | None, as_json: bool, no_wait: bool) -> None:
    """Carry out what has changed in the config file; all the rest goes on.

    Exit status 1 if the file has a mistake, or if a server is not ready that was started by this. A mistake
    in the values of one server is about that server only; with any other, nothing changes.
    """
    with client(endpoint) as broker:
        done = broker.request(MANAGEMENT, "reload")
        started = [one["name"] for one in done["servers"] if one["what"] in ("added", "enabled", "restarted")]
        states = _settled(broker, [] if no_wait else started)
    for one in done["servers"]:
        one |= states.get(one["name"], {})
    if as_json:
        echo_json(done)
    else:
        _show_reload(done)
    faulty = any(one["problems"] for one in done["servers"] if one["what"] in ("left_out", "kept"))
    if (
        done["problems"]
        or faulty
        or any(about["state"] not in ("ready", "disabled") for about in states.values())
    ):
        sys.exit(BAD)


def _settled(broker: BlockingClient, names: list[str]) -> dict[str, dict[str, Any]]:
    """State and last error of these servers, once none of them is on its way to another state."""
    told_at = time.monotonic() + QUIET_S
    while True:
        known = broker.request(MANAGEMENT, "servers")["servers"] if names else []
        seen = {one["name"]: {key: one[key] for key in ("state", "last_error")} for one in known}
        states = {name: seen[name] for name in names if name in seen}
        under_way = [name for name, about in states.items() if about["state"] not in _SETTLED]
        if not under_way:
            return states
        if time.monotonic() >= told_at:
            echo(say("still_waiting", servers=", ".join(under_way)), err=True)
            told_at = math.inf
        time.sleep(ASK_S)


def _show_reload(done: dict[str, Any]) -> None:
    if done["problems"]:
        count = len(done["problems"])
        lines = [say("config_bad", path=done["config"], count=count), *done["problems"]]
        echo("\n  ".join(lines), err=True)
        echo(say("reload_refused"), err=True)
        return
    for one in done["servers"]:
        line = say(f"reload_{one['what']}", server=one["name"], keys=", ".join(one["keys"]))
        line += say("reload_cut", cut=one["cut"]) if one["cut"] else ""
        echo(line + (say("reload_state", state=say(one["state"])) if "state" in one else ""))
        for problem in one["problems"]:
            echo(f"  {problem}", err=True)
        if one.get("last_error") and one["state"] != "ready":
            echo(say("last_error", server=one["name"], error=one["last_error"]), err=True)
    if done["adjusted"]:
        echo(say("reload_adjusted", keys=", ".join(done["adjusted"])))
    for waits in done["restart_needed"]:
        echo(say("restart_needed", key=waits["path"], why=waits["why"]))
    count = sum(one["what"] != "removed" for one in done["servers"])
    echo(say("reloaded", path=done["config"], count=count))


def _move(command: str, server: str, endpoint: str | None, *, as_json: bool) -> None:
    """Carry out one of the three, and wait until the server is where it was to go. Exit status 1 if not."""
    goal = "stopped" if command == "stop" else "ready"
    with client(endpoint) as broker:
        moved = broker.request(MANAGEMENT, command, {"server": server})
        moved |= _settled(broker, [moved["server"]]).get(moved["server"], {"state": "stopped"})
    if as_json:
        echo_json(moved)
    elif moved.get("already"):
        echo(say("ran_already", server=server))
    else:
        echo(say("moved", **{**moved, "state": say(moved["state"])}))
    if moved["state"] != goal:
        if moved.get("last_error"):
            echo(say("last_error", server=server, error=moved["last_error"]), err=True)
        sys.exit(BAD)
