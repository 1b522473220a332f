"""The refusals of the broker: whose fault it is, what it is about, and what to do next."""

from __future__ import annotations

import difflib
from bisect import bisect
from collections.abc import Iterable
from enum import Enum
from typing import Any

from msgspec import Struct

from broker.base.text import clip
from broker.config.names import imported, shell, toml_key
from broker.core.calls.queue import Lease
from broker.core.calls.retry import NoRetry
from broker.core.calls.table import Call
from client_shim.wire import VERSION, Code

SAID_CHARS = 400
"""Characters of what a library says about data of others, which it may repeat: a header has little room."""

_COMPARED = 64
"""Names that one that is not known is compared with: with 5,000 it took a third of a second."""


class Blame(str, Enum):
    """Whose fault a refusal is."""

    CALLER = "caller"
    SERVER = "server"
    OPERATOR = "operator"
    BROKER = "broker"


class Refusal(Struct, frozen=True):
    """The end of a call by the broker: `message` says what happened, `hint` what to do."""

    code: Code
    message: str
    hint: str
    blame: Blame
    about: dict[str, Any] = {}

    def data(self) -> dict[str, Any]:
        """Return the part of the fault beside code and message."""
        return {"blame": self.blame.value, "hint": self.hint, **self.about}


def _some(known: list[str], most: int = 20) -> str:
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return (", ".join(clip(name) for name in known[:most]) or "none") + more


def _close(name: str, known: list[str]) -> str:
    """Return the most similar known name. Of very many, only those nearby in the alphabet are compared."""
    at = bisect(known, name)
    near = known[max(0, at - _COMPARED // 2) :][:_COMPARED]
    close = difflib.get_close_matches(clip(name), [clip(one) for one in near], n=1)
    return f"did you mean {close[0]}? " if close else ""


def unknown_server(name: str, names: Iterable[str]) -> Refusal:
    """Return the refusal of a request for a server that is not configured."""
    known = sorted(names)
    close = f"did you mean {new}? " if (new := imported(name)) in known else _close(name, known)
    instead = f"{close}or else " if close else ""
    return Refusal(
        Code.UNKNOWN_SERVER,
        f"there is no server {clip(name)!r}; the broker has {_some(known)}",
        f"{instead}add a [servers.NAME] table for it to broker.toml, then `mcp-broker reload`",
        Blame.CALLER,
        {"server": clip(name)},
    )


def unknown_tool(server: str, tool: str, names: Iterable[str]) -> Refusal:
    """Return the refusal of a tool that clients do not see."""
    known = sorted(names)
    return Refusal(
        Code.UNKNOWN_TOOL,
        f"server {server!r} has no tool {clip(tool)!r}; it has {_some(known)}",
        f"{_close(tool, known)}`mcp-broker tools {shell(server)}` lists them with their arguments",
        Blame.CALLER,
        {"server": server, "tool": clip(tool)},
    )


def unknown_item(server: str, kind: str, name: str) -> Refusal:
    """Return the refusal of a prompt or resource that clients do not see."""
    return Refusal(
        Code.INVALID_PARAMS,
        f"server {server!r} has no {kind} {clip(name)!r}",
        f"{kind}s/list of the server has what there is",
        Blame.CALLER,
        {"server": server, kind: clip(name)},
    )


def unclear(server: str, method: str) -> Refusal:
    """The params do not say clearly what they are about, and not everything of this server may be used."""
    return Refusal(
        Code.INVALID_PARAMS,
        f"the params of {method} for server {server!r} do not name one thing clearly",
        "write its `name` (of a resource its `uri`, of a completion its `ref`) once, in small letters",
        Blame.CALLER,
        {"server": server, "method": method},
    )


def no_list(server: str, method: str) -> Refusal:
    """The list could not be read."""
    return Refusal(
        Code.UNKNOWN_METHOD,
        f"server {server!r} has no list for {method}: it did not answer, or its answer could not be used",
        "`mcp-broker status` says why, and the broker's log at `catalogue.unread`",
        Blame.SERVER,
        {"server": server, "method": method},
    )


def unknown_method(server: str, method: str) -> Refusal:
    """The method is not in the specification, and the server's config does not allow it."""
    return Refusal(
        Code.UNKNOWN_METHOD,
        f"{clip(method)!r} is not a method of MCP that the broker knows",
        f"if server {server!r} has it, add it to the list allow_methods in [servers.{toml_key(server)}]",
        Blame.CALLER,
        {"server": server, "method": clip(method)},
    )


def refused_method(server: str, method: str, why: str) -> Refusal:
    """The method makes no sense on a shared server, or is the broker's own."""
    message = f"{method!r} is not passed on to a shared server"
    return Refusal(Code.METHOD_REFUSED, message, why, Blame.CALLER, {"server": server, "method": method})


def died(call: Call, why: NoRetry) -> Refusal:
    """The server ended during the call, and the call is not sent again."""
    harmless = call.no_retry is None and why is not NoRetry.TWICE
    outcome = "it is safe to repeat" if harmless else _UNKNOWN
    return Refusal(
        Code.SERVER_DIED,
        f"server {call.server!r} ended during {call.method}: {clip(call.death, SAID_CHARS)}",
        f"the call was not sent again, because {why.words}; {outcome}",
        Blame.SERVER,
        {"server": call.server, "method": call.method, "outcome": "unknown", "not_sent_again": why.value},
    )


_UNKNOWN = "whether the call took effect is unknown: look before you repeat it"


def deadline(call: Call, running: int, *, leased: bool = False) -> Refusal:
    """The time of the call is up, in the queue or at the server. `leased`: its clients take turns."""
    about = {"server": call.server, "method": call.method, "timeout_s": call.given_s}
    table = f"[servers.{toml_key(call.server)}]"
    if call.sent:
        return Refusal(
            Code.DEADLINE,
            f"server {call.server!r} did not answer {call.method} within {call.given_s:g} s",
            f"give the call more time, or raise timeout in {table}; it was cancelled there",
            Blame.SERVER,
            about,
        )
    message = f"{call.method} waited {call.timeout_s:g} s behind {running} other calls of {call.server!r}"
    # of a lease, those calls are of the client that had it before
    hint = (
        "give the call more time" if leased else f"give the call more time, or raise max_in_flight in {table}"
    )
    return Refusal(Code.DEADLINE, message, hint, Blame.SERVER, about)


def leased(call: Call, lease: Lease, now: float, ends_in_s: float) -> Refusal:
    """The time of the call is up while another client has the lease of the server."""
    holder = f"client {lease.client!r}" + (f" (pid {lease.pid})" if lease.pid > 0 else "")
    return Refusal(
        Code.DEADLINE,
        f"{call.method} waited {call.timeout_s:g} s for server {call.server!r}, which {holder} has had for "
        f"itself for {now - lease.since:.0f} s; its lease ends in {ends_in_s:.0f} s at the earliest",
        f"give the call more time, or end the lease: `mcp-broker release {shell(call.server)}`",
        Blame.SERVER,
        {
            "server": call.server,
            "method": call.method,
            "timeout_s": call.given_s,
            "holder": lease.client,
            "holder_pid": lease.pid,
            "held_s": round(now - lease.since, 3),
            "retry_after_s": round(ends_in_s, 3),
        },
    )


def no_lease(server: str) -> Refusal:
    """The server is not leased to its clients."""
    return Refusal(
        Code.METHOD_REFUSED,
        f"server {server!r} has no lease: every client may call it at any time",
        f"to lease it to one client at a time, set lease_sec in [servers.{toml_key(server)}]",
        Blame.CALLER,
        {"server": server},
    )


def busy(limit: str, value: int) -> Refusal:
    """A limit on open calls is reached."""
    message = f"the broker has as many open calls as it takes: limits.{limit} is {value}"
    return _busy(
        message, f"try again when some of them have ended, or raise {limit} in [limits]", limit, value
    )


def too_many_connections(value: int) -> Refusal:
    """The broker has as many connections as it takes."""
    message = f"the broker has as many connections as it takes: limits.connections is {value}"
    hint = "see who is connected (`mcp-broker status --json`), or raise connections in [limits]"
    return _busy(message, hint, "connections", value)


def management_busy(value: int) -> Refusal:
    """Return the refusal of a management request beyond the limit."""
    message = f"the broker is answering {value} management requests, as many as it takes at once"
    return _busy(message, "try again in a moment", "management requests", value)


def _busy(message: str, hint: str, limit: str, value: int) -> Refusal:
    about = {"limit": limit, "value": value, "retry_after_s": 1.0}
    return Refusal(Code.BUSY, message, hint, Blame.CALLER, about)


def not_listening(why: str) -> Refusal:
    """Return the refusal of a `listen` whose params are wrong."""
    hint = 'listen takes {"servers": null or a list of names, "resources": {server: a list of uris}}'
    message = f"it cannot be listened to this: {clip(why, SAID_CHARS)}"
    return Refusal(Code.INVALID_BODY, message, hint, Blame.CALLER)


def tells_of_no_resources(server: str) -> Refusal:
    """Return the refusal of a subscription at a server without `resources.subscribe`."""
    return Refusal(
        Code.METHOD_REFUSED,
        f"server {server!r} does not tell when its resources change: it lacks the capability "
        "`resources.subscribe`",
        "read the resource again when you need it",
        Blame.SERVER,
        {"server": server, "method": "resources/subscribe"},
    )


def too_many_listen(limit: str, value: int) -> Refusal:
    """Return the refusal of a `listen` beyond the limit of subscriptions."""
    message = f"the broker takes {value} {limit} and has as many"
    return _busy(message, "listen to less, or try again when others have ended", limit, value)


def too_large(size: int, limit: int) -> Refusal:
    """Return the refusal of a request above `max_message_bytes`."""
    return Refusal(
        Code.TOO_LARGE,
        f"the request is {size} bytes and may be {limit}",
        "send less at once, or raise max_message_bytes in [limits]",
        Blame.CALLER,
        {"size_bytes": size, "limit_bytes": limit},
    )


def invalid_body(code: Code, message: str) -> Refusal:
    """The params cannot be written to a server."""
    hint = "correct the params; nothing was sent to the server"
    return Refusal(code, clip(message, SAID_CHARS), hint, Blame.CALLER)


def invalid_params(method: str) -> Refusal:
    """The request has a cursor, and the broker gives none."""
    return Refusal(
        Code.INVALID_PARAMS,
        f"{method} of the broker has one page and no cursor",
        "leave the cursor out; the whole list comes at once",
        Blame.CALLER,
    )


def invalid_reply(call: Call, reason: str) -> Refusal:
    """The reply of the server cannot be passed on."""
    return Refusal(
        Code.INVALID_REPLY,
        f"server {call.server!r} answered {call.method} with a message that cannot be used: {clip(reason)}",
        "this is a fault of that server: report it there; the call may have taken effect",
        Blame.SERVER,
        {"server": call.server, "method": call.method},
    )


def cancelled() -> Refusal:
    """The client has cancelled the call."""
    return Refusal(Code.CANCELLED, "the call was cancelled", "nothing is left to do", Blame.CALLER)


def shutting_down() -> Refusal:
    """The broker is ending, and the call was not begun."""
    hint = "connect again in a moment; the next broker answers"
    return Refusal(Code.SHUTTING_DOWN, "the broker is shutting down", hint, Blame.OPERATOR)


def cut(call: Call) -> Refusal:
    """The broker is ending, and the call has not ended in the time that was left."""
    if not call.begun:
        return shutting_down()
    message = f"the broker is shutting down, and server {call.server!r} did not answer {call.method} before"
    return Refusal(Code.SHUTTING_DOWN, message, _UNKNOWN, Blame.OPERATOR, {"outcome": "unknown"})


def cut_command() -> Refusal:
    """The broker is ending, and a management request was not finished."""
    message = "the broker is shutting down, and the command was not carried out to its end before"
    return Refusal(Code.SHUTTING_DOWN, message, _UNKNOWN, Blame.OPERATOR, {"outcome": "unknown"})


def wrong_instance(theirs: str, ours: str) -> Refusal:
    """The request was meant for an earlier broker."""
    return Refusal(
        Code.WRONG_INSTANCE,
        f"the request is for broker instance {clip(theirs, 32)}, this one is {ours}",
        "the broker was replaced: say hello again, and repeat the request if it is still wanted",
        Blame.CALLER,
    )


def protocol(code: Code, message: str) -> Refusal:
    """The message is not as docs/protocol.md has it."""
    hint = "compare the client with docs/protocol.md, or upgrade the older of client and broker"
    about = {"versions": [VERSION]} if code is Code.WIRE_VERSION else {}
    return Refusal(code, clip(message, SAID_CHARS), hint, Blame.CALLER, about)


def broken(what: str) -> Refusal:
    """A fault of the broker itself."""
    hint = "this is a fault of the broker: report it with what its log says"
    return Refusal(Code.INTERNAL, what, hint, Blame.BROKER)
