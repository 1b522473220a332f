"""What the broker answers itself, under the service name `$broker`: one function per command."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio
from msgspec import Struct

from broker import __version__
from broker.base.secrets import Secrets
from broker.base.text import clip
from broker.base.tolerances import told
from broker.config.names import normal
from broker.core import refusals
from broker.core.clients.connections import Connection
from broker.core.effects import Manage
from broker.core.refusals import Blame, Refusal
from broker.core.servers.lifecycle import State
from broker.core.servers.server import Server
from broker.core.servers.start import Start
from broker.hub import Hub
from broker.management.reload import Reloader
from broker.management.shared import Shared
from broker.processes.trees import Tree, rss_bytes, trees_of
from broker.upstream.control import Wish
from broker.upstream.supervisor import Supervisor
from broker.upstream.supervisors import Supervisors
from client_shim.wire import Code

logger = logging.getLogger("mcp-broker")

Answer = dict[str, Any]
Params = dict[str, Any]


class Context(Struct, frozen=True):
    """What the commands may look at and lay hands on."""

    hub: Hub
    supervisors: Supervisors
    reloader: Reloader
    endpoint: str
    config_path: str
    started_at: float
    looks: dict[str, Shared[Answer]] = {}
    """What takes long and is the same for all who ask."""

    def server(self, params: Params) -> Server:
        """Return the server that a command is about.

        Raises:
            Refused: there is no such server, or it does not run.
        """
        name = normal(str(params.get("server")))
        names = self.hub.engine.registry.names
        if name not in names:
            raise Refused(refusals.unknown_server(name, names))
        server = self.hub.engine.servers[name]
        if not server.config.runs:  # though its process may not have ended yet
            raise Refused(refusals.does_not_run(server.config))
        return server

    async def trees(self) -> dict[str, Tree]:
        """The process trees of the servers that have one, by name. /proc is read in a thread."""
        marks = {name: one.process.mark for name, one in self.supervisors.items() if one.process}
        found = await trio.to_thread.run_sync(trees_of, list(marks.values()))
        return {name: found[mark.cookie] for name, mark in marks.items()}


class Refused(Exception):
    """A command cannot be carried out, and `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


async def ping(context: Context, params: Params) -> Answer:
    """Say that the broker is there."""
    return {}


async def servers(context: Context, params: Params) -> Answer:
    """The configured servers and how they are; cheap enough for every page open."""
    return {
        "servers": [{**_brief(one), "doctor": _doctor(one)} for one in context.hub.engine.servers.values()]
    }


async def status(context: Context, params: Params) -> Answer:
    """Everything that `mcp-broker status` shows."""
    if "status" not in context.looks:
        context.looks["status"] = Shared(partial(_status, context))
    return await context.looks["status"].get()


async def _status(context: Context) -> Answer:
    trees = await context.trees()
    now, engine = trio.current_time(), context.hub.engine
    return {
        "broker": {
            "pid": os.getpid(),
            "version": __version__,
            "instance": engine.instance,
            "uptime_s": round(now - context.started_at, 3),
            "endpoint": context.endpoint,
            "config": context.config_path,
            **_reloads(context.reloader, now),
            "rss_bytes": rss_bytes(os.getpid()),
            "clients": len(engine.connections),
            "counters": dict(sorted(engine.counters.items())),
        },
        "servers": [
            _full(server, context.supervisors.get(name), trees.get(name), now)
            for name, server in engine.servers.items()
        ],
        "clients": [_client(context.hub, connection, now) for connection in engine.connections.all()],
    }


async def logs(context: Context, params: Params) -> Answer:
    """The last lines that a server wrote; with `after`, those since that number, less `missing`."""
    log = context.supervisors[context.server(params).name].log
    first = log.written - len(log.lines)
    since = params.get("after")
    if not isinstance(since, int) or since > log.written:  # a number of the log of an earlier life
        since = first
    return {
        "server": normal(params["server"]),
        "written": log.written,
        "missing": max(0, first - since),
        "lines": list(log.lines)[max(0, since - first) :],
    }


async def reload(context: Context, params: Params) -> Answer:
    """Read the config file again, and carry out what has changed; `problems` if the file is wrong."""
    outcome = await context.reloader.reload("command")
    if isinstance(outcome, Refusal):
        raise Refused(outcome)
    return {"config": context.config_path, **msgspec.to_builtins(outcome)}


async def stop(context: Context, params: Params) -> Answer:
    """End a server and keep it ended. Its calls may end first; what still waits then is refused."""
    return await _carry_out(context, params, Wish.STOP)


async def restart(context: Context, params: Params) -> Answer:
    """End a server and start it again. What waits is served by the new process."""
    return await _carry_out(context, params, Wish.RESTART)


async def _carry_out(context: Context, params: Params, wish: Wish) -> Answer:
    """Carry out the operator's wish. Return what happened to the calls that the server had."""
    server = context.server(params)
    had, lost, again = server.queue.running, server.lost, server.again
    await context.supervisors.carry_out(wish, server.name)
    return _moved(server, had=had, cut=server.lost - lost, again=server.again - again)


async def start(context: Context, params: Params) -> Answer:
    """Start a server that is stopped, broken or waiting; one that is about to be stopped goes on."""
    server = context.server(params)
    already = server.lifecycle.state is State.READY and not server.queue.paused
    context.supervisors.begin(Wish.START, server.name)
    return {**_moved(server), "already": already}


def _moved(server: Server, *, had: int = 0, cut: int = 0, again: int = 0) -> Answer:
    """What became of a server, and of the calls that it had and that wait for it."""
    return {
        "server": server.name,
        "state": server.lifecycle.state.value,
        "ended": max(0, had - cut - again),
        "again": again,
        "cut": cut,
        "waiting": max(0, server.queue.waiting - again),
    }


def _brief(server: Server) -> Answer:
    agreed = server.catalogue.agreed if server.catalogue else None
    return {
        "name": server.name,
        "state": server.shown_state,
        "era": agreed.era.value if agreed else None,
        "protocol": agreed.version if agreed else None,
        "tools": len(server.catalogue.names("tools/list")) if server.catalogue else 0,
        "last_error": server.last_error,
    }


def _reloads(reloader: Reloader, now: float) -> Answer:
    """Since when the config holds, what is wrong with the file, and what came of the last reload."""
    error = last = None
    if reloader.last is not None:
        at, outcome = reloader.last
        since_s = round(now - at, 3)
        changed = {one.name: one.what for one in outcome.servers if one.what != "unchanged"}
        last = {"since_s": since_s, "by": outcome.by, "refused": bool(outcome.problems), "servers": changed}
        error = {"since_s": since_s, "problems": list(outcome.problems)} if outcome.problems else None
    return {
        "config_since_s": round(now - reloader.loaded_at, 3),
        "config_error": error,
        "restart_needed": list(reloader.waiting),
        "reload": last,
    }


def _doctor(server: Server) -> Answer | None:
    """The harmless call that the config names for `mcp-broker doctor`."""
    doctor = server.config.doctor
    return None if doctor is None else {"tool": doctor.tool, "arguments": doctor.arguments}


def _full(server: Server, supervisor: Supervisor | None, tree: Tree | None, now: float) -> Answer:
    brief = _brief(server)
    process = supervisor.process if supervisor else None
    life = server.lifecycle
    ready, waits = life.state is State.READY, life.state in (State.BACKOFF, State.BROKEN)
    return {
        "name": brief["name"],
        "state": brief["state"],
        "pid": process.pid if process else None,
        "processes": len(tree.processes) if tree else 0,
        "uptime_s": round(now - life.since_s, 3) if ready else 0.0,
        "restarts": life.restarts,
        "era": brief["era"],
        "protocol": brief["protocol"],
        "tools": brief["tools"],
        "in_flight": server.queue.running,
        "queued": server.queue.waiting,
        "calls": server.calls,
        "errors": server.errors,
        "questions": server.questions,
        "dropped": dict(sorted(server.dropped.items())),
        "tolerated": dict(sorted(server.tolerated.items())),
        "warnings": _warnings(server),
        "p50_ms": round(server.latency.quantile_ms(0.50), 3),
        "p99_ms": round(server.latency.quantile_ms(0.99), 3),
        "rss_bytes": tree.rss_bytes if tree else 0,
        "cpu_s": round(tree.cpu_s, 2) if tree else 0.0,
        "stopped_by_hand": server.config.runs and life.stopped,
        "retry_after_s": round(max(0.0, life.wake_at - now), 3)
        if waits and life.wake_at is not None
        else None,
        "last_error": brief["last_error"],
        "last_cause": {"word": cause.word, **cause.facts} if (cause := life.last_cause) else None,
        "config_problems": list(server.config.faults),
        "start": _start(life.start, now),
        "last_lines": supervisor.newest_lines() if supervisor else [],
    }


def _start(start: Start | None, now: float) -> Answer | None:
    """A start that is under way: since when, and how much longer it may take."""
    if start is None:
        return None
    return {
        "since_s": round(now - start.began, 3),
        "left_s": round(max(0.0, start.due - now), 3),
        "timeout_start_sec": start.start_s,
        "runner": start.runner,
        "extended": start.is_extended and now > start.began + start.start_s,
        "at_most_s": round(start.latest - start.began, 3),
    }


def _warnings(server: Server) -> list[Answer]:
    """What is notable of what the server writes, in words and as facts."""
    found = []
    for (oddity, _), facts in sorted(server.remarks.items(), key=lambda item: item[0]):
        facts = {"server": server.name, **facts}
        found.append({"kind": oddity.value, "text": told(oddity, facts), "facts": facts})
    return found


def _client(hub: Hub, connection: Connection, now: float) -> Answer:
    key = connection.key
    calls = hub.engine.dispatch.table.of_client(key)
    return {
        "id": key.hex(),
        "name": connection.name,
        "pid": connection.peer.pid,
        "uid": connection.peer.uid,
        "channels": len(
            {call.channel for call in calls} | {*hub.engine.notifications.subscriptions.channels(key)}
        ),
        "since_s": round(now - connection.since, 3),
        "in_flight": len(calls),
        "calls": connection.calls,
    }


COMMANDS: dict[str, Callable[[Context, Params], Awaitable[Answer]]] = {
    "ping": ping,
    "servers": servers,
    "status": status,
    "logs": logs,
    "start": start,
    "stop": stop,
    "restart": restart,
    "reload": reload,
}


def _masked(answer: Answer, mask: Secrets) -> Answer:
    """The answer without secrets; but the arguments of the doctor's call are needed as they are."""
    shown: Answer = mask.throughout(answer)
    if "servers" in answer:
        pairs = zip(shown["servers"], answer["servers"], strict=True)
        shown["servers"] = [
            {**masked, "doctor": one["doctor"]} if "doctor" in one else masked for masked, one in pairs
        ]
    return shown


async def manage(context: Context, request: Manage) -> None:
    """Carry out one management request, and answer it whatever happens."""
    command = COMMANDS.get(request.method)
    if command is None:
        known = ", ".join((*COMMANDS, "listen"))
        message = f"the broker has no command {clip(request.method)!r}; it has {known}"
        hint = "upgrade the older of client and broker"
        refusal = Refusal(Code.UNKNOWN_METHOD, message, hint, Blame.CALLER)
        context.hub.run(context.hub.engine.clients.managed, request, refusal)
        return
    try:
        params = msgspec.json.decode(request.body, type=dict[str, Any])
        answer = await command(context, params)
        outcome: bytes | Refusal = msgspec.json.encode(_masked(answer, context.hub.engine.mask))
    except Refused as refused:
        outcome = refused.refusal
    except Exception:  # a command that fails must not take the calls of everybody with it
        logger.exception("command.failed", extra={"command": request.method})
        outcome = refusals.broken(f"the command {request.method!r} failed")
    context.hub.run(context.hub.engine.clients.managed, request, outcome)
