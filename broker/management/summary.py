"""What `servers` and `status` tell of the broker, its servers and its clients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import trio

from broker import __version__
from broker.base.tolerances import told
from broker.config.keys import KeyConfig
from broker.config.loading import Problem
from broker.config.names import toml_key
from broker.core.calls import leases, questions
from broker.core.clients.connections import Connection
from broker.core.effects import Manage
from broker.core.engine import Engine
from broker.core.servers.lifecycle import State
from broker.core.servers.server import Server
from broker.core.servers.start import Start
from broker.core.servers.visibility import SECTIONS
from broker.management.context import Context
from broker.management.reload import Reloader
from broker.processes.trees import Tree, rss_bytes
from broker.upstream.supervisor import Supervisor

Answer = dict[str, Any]


def servers(engine: Engine) -> Answer:
    """Return the configured servers and their states: cheap enough for every page open."""
    return {"servers": [{**_brief(engine, one), "doctor": _doctor(one)} for one in engine.servers.values()]}


async def status(context: Context) -> Answer:
    """Return everything that `mcp-broker status` shows."""
    trees = await context.supervisors.trees()
    now, engine = trio.current_time(), context.hub.engine
    return {
        "broker": {
            "pid": os.getpid(),
            "version": __version__,
            "instance": engine.instance,
            "uptime_s": round(now - context.started_at, 3),
            "endpoint": context.addresses[0].endpoint,
            "endpoints": [
                {"address": one.endpoint, "keys": one.with_keys, "open": one.is_port and not one.with_keys}
                for one in context.addresses
            ],
            "config": context.config_path,
            **_reloads(context.reloader, now),
            "rss_bytes": rss_bytes(os.getpid()),
            "clients": len(engine.connections),
            "counters": dict(sorted(engine.counters.items())),
        },
        "servers": [
            _full(engine, server, context.supervisors.get(name), trees.get(name), now)
            for name, server in engine.servers.items()
        ],
        "clients": [_client(engine, connection, now) for connection in engine.connections.all()],
    }


def for_client(answer: Answer, request: Manage, servers: Iterable[str]) -> Answer:
    """Return what a client is told of an answer: of the servers that it may use, and of itself.

    A client that may manage is told of all clients, and one without a key of everything.

    Args:
        servers: the names of the configured servers.
    """
    grant = request.grant
    if grant is None:
        return answer
    shown = dict(answer)
    if "servers" in shown:
        shown["servers"] = [one for one in shown["servers"] if grant.may_use(one["name"])]
    if "clients" in shown and not grant.manage:
        shown["clients"] = [one for one in shown["clients"] if one["key"] == request.key]
    if "problems" in shown:  # of a reload
        shown["problems"] = _problems(shown["problems"], grant, servers)
    if "broker" in shown:
        shown["broker"] = _broker(shown["broker"], grant, servers)
    return shown


def _broker(broker: Answer, grant: KeyConfig, servers: Iterable[str]) -> Answer:
    """Return what is told of the broker to a client that may do this."""
    shown = dict(broker)
    if (error := broker["config_error"]) is not None:
        shown["config_error"] = {**error, "problems": _problems(error["problems"], grant, servers)}
    if (last := broker["reload"]) is not None:
        seen = {name: what for name, what in last["servers"].items() if grant.may_use(name)}
        shown["reload"] = {**last, "servers": seen}
    return shown


def _problems(problems: list[str], grant: KeyConfig, servers: Iterable[str]) -> list[str]:
    """Return the mistakes in the config that a client may know: a limited one those of its servers only.

    A mistake elsewhere may name any server, such as one in the form of the file.
    """
    if grant.is_for_all:
        return problems
    tables = [f"servers.{toml_key(name)}" for name in servers if grant.may_use(name)]
    mine = tuple(table + end for table in tables for end in (".", ":"))
    shown = [problem for problem in problems if problem.startswith(mine)]
    if hidden := len(problems) - len(shown):
        message = f"there are other mistakes ({hidden}), which this key may not see"
        shown.append(str(Problem("and so on", message, "run `mcp-broker check` where the broker runs")))
    return shown


def _brief(engine: Engine, server: Server) -> Answer:
    lack = engine.budget.lack(server)
    agreed = server.catalogue.agreed if server.catalogue else None
    return {
        "name": server.name,
        "state": server.shown_state,
        "era": agreed.era.value if agreed else None,
        "protocol": agreed.version if agreed else None,
        "tools": len(server.catalogue.names("tools/list")) if server.catalogue else 0,
        "hidden": _hidden(server),
        "asks": server.config.asks_within_calls,
        "room": None if lack is None else {"limit": lack.key, "value": lack.limit, "used": lack.used},
        "last_error": server.last_error,
    }


def _hidden(server: Server) -> dict[str, int]:
    """Return how many tools, prompts and resources its table hides."""
    known = server.catalogue
    return {section: count for section in SECTIONS if known and (count := known.hidden(section))}


def _reloads(reloader: Reloader, now: float) -> Answer:
    """Return the age of the config, the mistakes in the file, and the outcome of the last reload."""
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
    """Return the harmless call that the config names for `mcp-broker doctor`."""
    doctor = server.config.doctor
    return None if doctor is None else {"tool": doctor.tool, "arguments": doctor.arguments}


def _full(
    engine: Engine, server: Server, supervisor: Supervisor | None, tree: Tree | None, now: float
) -> Answer:
    brief = _brief(engine, server)
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
        "hidden": brief["hidden"],
        "in_flight": server.queue.running,
        "queued": server.queue.waiting,
        "lease": leases.shown(server, now),
        "calls": server.calls,
        "errors": server.errors,
        "asks": brief["asks"],
        "asked": dict(sorted(server.asked.items())),
        "questions": server.questions,
        "questions_refused": since.value if (since := questions.refused_since(server)) else None,
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
        "room": brief["room"],
        "last_error": brief["last_error"],
        "last_cause": {"word": cause.word, **cause.facts} if (cause := life.last_cause) else None,
        "config_problems": list(server.config.faults),
        "start": _start(life.start, now),
        "last_lines": supervisor.newest_lines() if supervisor else [],
    }


def _start(start: Start | None, now: float) -> Answer | None:
    """Return the times of a start that is under way."""
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
    """Return what is notable about the server's output, in words and as facts."""
    found = []
    for (oddity, _), facts in sorted(server.remarks.items(), key=lambda item: item[0]):
        facts = {"server": server.name, **facts}
        found.append({"kind": oddity.value, "text": told(oddity, facts), "facts": facts})
    return found


def _client(engine: Engine, connection: Connection, now: float) -> Answer:
    key = connection.key
    calls = engine.dispatch.table.of_client(key)
    return {
        "id": key.hex(),
        "name": connection.name,
        "pid": connection.peer.pid,
        "uid": connection.peer.uid,
        "key": connection.peer.key or None,
        "address": connection.peer.address or None,
        "channels": len(
            {call.channel for call in calls} | {*engine.notifications.subscriptions.channels(key)}
        ),
        "since_s": round(now - connection.since, 3),
        "in_flight": len(calls),
        "calls": connection.calls,
    }
