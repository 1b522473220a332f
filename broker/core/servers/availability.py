"""Whether a server can serve a call: now, later or never, and why not.

Whoever accepts a call, ends the calls that wait, or carries out a command asks here.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from broker.base.text import clip
from broker.config.names import shell, toml_key
from broker.config.schema import ServerConfig
from broker.core import refusals
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import Call
from broker.core.refusals import SAID_CHARS, Blame, Refusal
from broker.core.servers.lifecycle import Lifecycle, State
from broker.core.servers.server import NoRoom, Server
from client_shim.wire import Code


class When(Enum):
    """When a server can serve a call."""

    NOW = "now"
    ON_DEMAND = "on demand"
    """It is broken or idle, and the call has it started."""
    LATER = "later"
    """It may be ready before the call's deadline."""
    TOO_LATE = "too late"


MIB = 1024 * 1024

_RESTING = frozenset({State.STOPPED, State.BROKEN})


def when(server: Server, deadline: float, now: float) -> When:
    """Return when a server can serve a call with this deadline; it takes calls."""
    if server.opened:
        return When.NOW
    demand_at = server.lifecycle.demand_at()
    if demand_at is not None and demand_at <= now:
        return When.ON_DEMAND
    return When.TOO_LATE if is_too_late(server.lifecycle, deadline) else When.LATER


def is_too_late(lifecycle: Lifecycle, deadline: float) -> bool:
    """Return whether a server that is down will certainly not be ready by then, unless a call starts it."""
    if lifecycle.state is State.BACKOFF:
        return lifecycle.wake_at is not None and lifecycle.wake_at > deadline
    return lifecycle.stopping or lifecycle.state in _RESTING


def never(server: Server) -> Refusal | None:
    """Return why a server takes no calls at all, or `None` if it takes them."""
    if server.withdrawn:
        return removed(server.name)
    return None if server.config.runs else does_not_run(server.config)


def not_in_time(call: Call, server: Server, now: float) -> Refusal:
    """Return why the time of a call is over without an answer."""
    queue = server.queue
    if queue.waits_for_lease(call):
        assert queue.lease is not None
        return refusals.leased(call, queue.lease, now, queue.lease_left_s(now))
    if call.sent or (server.lifecycle.state is State.READY and not call.begun):
        leased = queue.lease_s is not None
        return refusals.deadline(call, queue.running + queue.reserved, leased=leased)
    return not_served(call, server, now)


def not_served(call: Call, server: Server, now: float) -> Refusal:
    """Return why a call that waits for its server is not served."""
    if not call.begun and server.room is not None and server.lifecycle.state is State.STARTING:
        return no_room(server.name, server.room)
    if not call.begun:
        return not_ready(server.name, server.lifecycle, now)
    return refusals.died(call, NoRetry.STOPPED if server.lifecycle.stopped else NoRetry.LATE)


# --- in words ----------------------------------------------------------------------------------------


REMOVED = "it was removed from the config"
"""Why a server ends that a reload has taken away."""


def removed(server: str) -> Refusal:
    """The server was taken out of the config while the call waited for it, or just before."""
    return Refusal(
        Code.UNKNOWN_SERVER,
        f"server {server!r} was removed from the config; the call was not passed on",
        "if that was a mistake, put its table back into broker.toml, then `mcp-broker reload`",
        Blame.OPERATOR,
        {"server": server},
    )


def does_not_run(config: ServerConfig) -> Refusal:
    """The server is configured and not run: it is disabled, or its table has a mistake."""
    name = config.name
    if not config.enabled:
        code, message = Code.SERVER_DISABLED, f"server {name!r} is switched off in broker.toml"
        hint = f"set enabled = true in [servers.{toml_key(name)}], then `mcp-broker reload`"
    else:
        faults = clip("; ".join(config.faults), SAID_CHARS)
        code, message = (
            Code.SERVER_DOWN,
            f"server {name!r} was left out, for its table has a mistake: {faults}",
        )
        hint = "correct it in broker.toml, then `mcp-broker reload`; `mcp-broker check` shows every mistake"
    return Refusal(code, message, hint, Blame.OPERATOR, {"server": name})


def no_room(server: str, room: NoRoom) -> Refusal:
    """The server was not started in the time the call had: the servers that run use up a limit."""
    if room.key == "max_running":
        message = f"{room.used} servers run, and max_running is {room.limit}"
    else:
        message = f"the servers use {room.used / MIB:.0f} MiB, and memory_high is {room.limit / MIB:.0f} MiB"
    return Refusal(
        Code.BUSY,
        f"server {server!r} was not started: {message}; none of them was idle",
        f"try again when one is idle, end one with `mcp-broker stop`, or raise {room.key} in [broker]",
        Blame.OPERATOR,
        {"server": server, "limit": room.key, "value": room.limit, "used": room.used, "retry_after_s": 1.0},
    )


def not_ready(server: str, lifecycle: Lifecycle, now: float) -> Refusal:
    """The server was not ready in the time the call had: it is starting, or it is down."""
    about: dict[str, Any] = {"server": server, "state": lifecycle.state.value}
    if lifecycle.state in (State.STARTING, State.HANDSHAKE) and lifecycle.last_error is None:
        return Refusal(
            Code.SERVER_STARTING,
            f"server {server!r} is still starting, for {now - lifecycle.since_s:.1f} s now",
            "try again in a moment, or give the call more time; `mcp-broker status` shows when it is ready",
            Blame.SERVER,
            about,
        )
    reason = f": {clip(lifecycle.last_error, SAID_CHARS)}" if lifecycle.last_error else ""
    if lifecycle.given_up:
        message = f"server {server!r} has ended, and its restart setting leaves it at that{reason}"
        hint = f"`mcp-broker start {shell(server)}` starts it; `restart` in its table says when it restarts"
        return Refusal(Code.SERVER_DOWN, message, hint, Blame.OPERATOR, about)
    if lifecycle.stopped:
        message, hint = f"server {server!r} was stopped", f"`mcp-broker start {shell(server)}` starts it"
        return Refusal(Code.SERVER_DOWN, message, hint, Blame.OPERATOR, about)
    hint = "it is being started again"
    if lifecycle.wake_at is not None and lifecycle.state in (State.BACKOFF, State.BROKEN):
        hint, about["retry_after_s"] = _next_try(lifecycle, lifecycle.wake_at, now)
    return Refusal(
        Code.SERVER_DOWN,
        f"server {server!r} is down{reason}",
        f"{hint}; `mcp-broker status` shows its state, and the broker's log what it wrote",
        Blame.SERVER,
        about,
    )


def _next_try(lifecycle: Lifecycle, wake_at: float, now: float) -> tuple[str, float]:
    """When a server that rests is tried again, in words, and in how many seconds another call makes sense."""
    again_s = max(0.0, wake_at - now)
    demand_at = lifecycle.demand_at()
    hint = f"it is tried again in {again_s:.0f} s"
    if demand_at is None or demand_at >= wake_at:
        return hint, round(again_s, 3)
    call_s = max(0.0, demand_at - now)
    return f"{hint}, or by the first call in {call_s:.0f} s", round(call_s, 3)
