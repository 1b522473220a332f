"""The commands that control servers: `stop`, `start`, `restart`, `release`, and `reload` of the config."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Container
from typing import Any

import click

from broker.command.common import BAD, POLL_S, client, endpoint_option, json_option
from broker.command.output import echo, echo_json
from broker.command.status import duration
from broker.command.texts.chinese import told
from broker.command.texts.key_texts import say_of_keys
from broker.command.texts.start_limits import no_room
from broker.command.texts.words import say
from client_shim.blocking import BlockingClient
from client_shim.wire import MANAGEMENT

_SETTLED = ("ready", "idle", "backoff", "broken", "stopped", "disabled", "misconfigured")
"""The states in which a command stops waiting for a server."""

QUIET_S = 5.0
"""How long a command waits for a server before it says so. A server that downloads may take minutes."""


def _control(command: str, help: str) -> click.Command:
    """Return the command that sends this management request for one server."""

    @click.command(command, help=help)
    @click.argument("server")
    @endpoint_option
    @json_option
    def run(server: str, endpoint: str | None, as_json: bool) -> None:
        goal = "stopped" if command == "stop" else "ready"
        with client(endpoint) as broker:
            reply = broker.request(MANAGEMENT, command, {"server": server})
            reply |= _settled(broker, [reply["server"]]).get(reply["server"], {"state": "stopped"})
        if as_json:
            echo_json(reply)
        elif reply.get("already"):
            echo(say("ran_already", server=server))
        else:
            echo(say("controlled", **{**reply, "state": say(reply["state"])}))
        if reply["state"] != goal:
            if reason := no_room({**reply, "name": server}):
                echo(reason, err=True)
            if reply.get("last_error"):
                echo(say("last_error", server=server, error=reply["last_error"]), err=True)
            sys.exit(BAD)

    return run


stop = _control("stop", "Stop a SERVER until `start` or `restart`.")
start = _control("start", "Start a SERVER that is stopped, broken, or waiting for its next try.")
restart = _control("restart", "Stop a SERVER and start it again. Waiting calls are served afterwards.")


@click.command()
@click.argument("server")
@endpoint_option
@json_option
def release(server: str, endpoint: str | None, as_json: bool) -> None:
    """Take a SERVER with `lease_sec` away from the client that has it for itself.

    The calls that this client has at the server go on to their end; then the next client that waits has it.
    """
    with client(endpoint) as broker:
        reply = broker.request(MANAGEMENT, "release", {"server": server})
    lease = reply["released"]
    if as_json:
        echo_json(reply)
    elif lease is None:
        echo(say("not_leased", server=reply["server"]))
    else:
        since = duration(lease["since_s"])
        echo(say("released", **{**lease, "server": reply["server"], "since": since}))
        if reply["in_flight"]:
            echo(say("released_later", server=reply["server"], count=reply["in_flight"]))


@click.command()
@endpoint_option
@json_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the started servers are ready.")
def reload(endpoint: str | None, as_json: bool, no_wait: bool) -> None:
    """Apply the changes of the config file. Unchanged servers keep running.

    Exit status 1 if the file has a mistake, or if a server started by the reload is not ready. A mistake in
    the values of one server affects that server only; with any other mistake nothing changes.
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
    if (
        problems_of(done)
        or done["left_out"]
        or any(one["state"] not in ("ready", "idle", "disabled") for one in states.values())
    ):
        sys.exit(BAD)


def problems_of(reload: dict[str, Any], names: Container[str] | None = None) -> list[str]:
    """Return the mistakes that a reload found in the file, and in the tables of these servers."""
    tables = [one for one in reload["servers"] if one["what"] in ("left_out", "kept")]
    mine = [one for one in tables if names is None or one["name"] in names]
    return [*reload["problems"], *(problem for one in mine for problem in one["problems"])]


def _settled(broker: BlockingClient, names: list[str]) -> dict[str, dict[str, Any]]:
    """Wait until all these servers are in a settled state; return the state and last error of each."""
    notice_at = time.monotonic() + QUIET_S
    while True:
        known = broker.request(MANAGEMENT, "servers")["servers"] if names else []
        seen = {one["name"]: {key: one.get(key) for key in ("state", "last_error", "room")} for one in known}
        states = {name: seen[name] for name in names if name in seen}
        pending = [name for name, about in states.items() if about["state"] not in _SETTLED]
        if not pending:
            return states
        if time.monotonic() >= notice_at:
            echo(say("still_waiting", servers=pending), err=True)
            notice_at = math.inf
        time.sleep(POLL_S)


def _show_reload(done: dict[str, Any]) -> None:
    if done["problems"]:
        count = len(done["problems"])
        lines = [say("config_bad", path=done["config"], count=count), *map(told, done["problems"])]
        echo("\n  ".join(lines), err=True)
        echo(say("reload_refused"), err=True)
        return
    for one in done["servers"]:
        line = say(f"reload_{one['what']}", server=one["name"], keys=one["keys"])
        line += say("reload_cut", cut=one["cut"]) if one["cut"] else ""
        echo(line + (say("reload_state", state=say(one["state"])) if "state" in one else ""))
        for problem in one["problems"]:
            echo(f"  {told(problem)}", err=True)
        if one.get("last_error") and one["state"] not in ("ready", "idle"):
            echo(say("last_error", server=one["name"], error=one["last_error"]), err=True)
    if done["revoked"]:
        echo(say_of_keys("cut", count=done["revoked"]))
    for fault in done["left_out"]:
        echo(told(fault), err=True)
    if done["adjusted"]:
        echo(say("reload_adjusted", keys=done["adjusted"]))
    for key in done["restart_needed"]:
        echo(say("restart_needed", key=key["path"], why=key["why"]))
    count = sum(one["what"] != "removed" for one in done["servers"])
    echo(say("reloaded", path=done["config"], count=count))
