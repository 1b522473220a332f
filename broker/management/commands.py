"""The commands that the broker answers itself, under the service name `$broker`: one function for each."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio
from msgspec import Struct

from broker.base.secrets import Secrets
from broker.base.text import clip
from broker.config.keys import KeyConfig
from broker.config.names import normal
from broker.core import refusals
from broker.core.calls import leases
from broker.core.clients import key_rights
from broker.core.effects import Manage
from broker.core.refusals import Blame, Refusal
from broker.core.servers.availability import never
from broker.core.servers.lifecycle import State
from broker.core.servers.server import Server
from broker.management import summary
from broker.management.context import Context
from broker.management.shared import Shared
from broker.upstream.control import Intent
from client_shim.wire import Code

logger = logging.getLogger("mcp-broker")

Answer = dict[str, Any]


class Command(Struct, frozen=True):
    """A management request whose params are read. `server` is the name that they have, or empty.

    `grant` is what its client may do; `None` if it may do everything.
    """

    params: dict[str, Any]
    server: str
    grant: KeyConfig | None


class CommandRefused(Exception):
    """A command cannot be carried out; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def _server(context: Context, command: Command) -> Server:
    """Return the server that a command is about.

    Raises:
        CommandRefused: there is no such server, or it does not run.
    """
    engine = context.hub.engine
    names = engine.registry.names
    if command.server not in names:
        raise CommandRefused(key_rights.unknown_server(command.grant, command.server, names))
    server = engine.servers[command.server]
    if (refusal := never(server)) is not None:  # though its process may not have ended yet
        raise CommandRefused(refusal)
    return server


async def ping(context: Context, command: Command) -> Answer:
    """Answer, so that the client knows that the broker runs."""
    return {}


async def servers(context: Context, command: Command) -> Answer:
    """Return the configured servers and their states."""
    return summary.servers(context.hub.engine)


async def status(context: Context, command: Command) -> Answer:
    """Return everything that `mcp-broker status` shows."""
    shared = context.shared.setdefault("status", Shared(partial(summary.status, context)))
    return await shared.get()


async def logs(context: Context, command: Command) -> Answer:
    """Return the last lines that a server wrote; with `after`, those since that number, except `missing`."""
    server = _server(context, command)
    log = context.supervisors[server.name].log
    first = log.written - len(log.lines)
    since = command.params.get("after")
    if not isinstance(since, int) or since > log.written:  # a number of an earlier broker's log
        since = first
    return {
        "server": server.name,
        "written": log.written,
        "missing": max(0, first - since),
        "lines": list(log.lines)[max(0, since - first) :],
    }


async def reload(context: Context, command: Command) -> Answer:
    """Reload the config file. Return what changed, or `problems` if the file has mistakes."""
    outcome = await context.reloader.reload("command")
    if isinstance(outcome, Refusal):
        raise CommandRefused(outcome)
    return {"config": context.config_path, **msgspec.to_builtins(outcome)}


async def stop(context: Context, command: Command) -> Answer:
    """Stop a server. Its calls have time to end first; those that wait are refused."""
    return await _carry_out(context, command, Intent.STOP)


async def restart(context: Context, command: Command) -> Answer:
    """Restart a server. The new process serves the calls that wait."""
    return await _carry_out(context, command, Intent.RESTART)


async def _carry_out(context: Context, command: Command, intent: Intent) -> Answer:
    """Carry out the operator's intent. Return what happened to the calls that the server had."""
    server = _server(context, command)
    had, lost, again = server.queue.running, server.lost, server.again
    await context.supervisors.carry_out(intent, server.name)
    return _moved(server, had=had, cut=server.lost - lost, again=server.again - again)


async def start(context: Context, command: Command) -> Answer:
    """Start a server that is stopped, broken or waiting, or take back a stop that has not happened yet."""
    server = _server(context, command)
    already = server.lifecycle.state is State.READY and not server.queue.paused
    context.supervisors.begin(Intent.START, server.name)
    return {**_moved(server), "already": already}


async def release(context: Context, command: Command) -> Answer:
    """End the lease of a server. Return who had it, and how many of its calls still run."""
    server, now = _server(context, command), trio.current_time()
    if server.config.lease_sec is None:
        raise CommandRefused(refusals.no_lease(server.name))
    had = leases.shown(server, now)
    in_flight = server.queue.running if had is not None else 0
    context.hub.run(context.hub.engine.dispatch.leases.release, server)
    return {"server": server.name, "released": had, "in_flight": in_flight}


def _moved(server: Server, *, had: int = 0, cut: int = 0, again: int = 0) -> Answer:
    """Return the state of a server, and what happened to its calls."""
    return {
        "server": server.name,
        "state": server.lifecycle.state.value,
        "ended": max(0, had - cut - again),
        "again": again,
        "cut": cut,
        "waiting": max(0, server.queue.waiting - again),
    }


COMMANDS: dict[str, Callable[[Context, Command], Awaitable[Answer]]] = {
    "ping": ping,
    "servers": servers,
    "status": status,
    "logs": logs,
    "start": start,
    "stop": stop,
    "restart": restart,
    "release": release,
    "reload": reload,
}


def _masked(answer: Answer, mask: Secrets) -> Answer:
    """Return the answer without secrets, except for the arguments of the doctor's call."""
    shown: Answer = mask.throughout(answer)
    if "servers" in answer:
        pairs = zip(shown["servers"], answer["servers"], strict=True)
        shown["servers"] = [
            {**masked, "doctor": one["doctor"]} if "doctor" in one else masked for masked, one in pairs
        ]
    return shown


def _command(request: Manage) -> Command:
    """Read the params of a management request. The core has checked that its client may send this command.

    The client's connection may have ended since: its grant is that of the request.

    Raises:
        CommandRefused: the client may not use the server that the params name.
    """
    params = msgspec.json.decode(request.body, type=dict[str, Any])
    given = params.get("server")
    name = normal(given) if isinstance(given, str) else ""
    if name and not key_rights.may_use(request.grant, name):
        raise CommandRefused(key_rights.not_granted(request.key, name))
    return Command(params, name, request.grant)


async def manage(context: Context, request: Manage) -> None:
    """Carry out one management request and answer it, whatever happens."""
    command = COMMANDS.get(request.method)
    if command is None:
        known = ", ".join((*COMMANDS, "listen"))
        message = f"the broker has no command {clip(request.method)!r}; it has {known}"
        hint = "upgrade the older of client and broker"
        refusal = Refusal(Code.UNKNOWN_METHOD, message, hint, Blame.CALLER)
        context.hub.run(context.hub.engine.clients.managed, request, refusal)
        return
    try:
        answer = await command(context, _command(request))
        answer = summary.for_client(answer, request, context.hub.engine.registry.names)
        outcome: bytes | Refusal = msgspec.json.encode(_masked(answer, context.hub.engine.mask))
    except CommandRefused as refused:
        outcome = refused.refusal
    except Exception:  # a command that fails must not end the broker
        logger.exception("command.failed", extra={"command": request.method})
        outcome = refusals.broken(f"the command {request.method!r} failed")
    context.hub.run(context.hub.engine.clients.managed, request, outcome)
