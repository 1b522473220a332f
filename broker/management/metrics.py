"""The metrics for Prometheus: a table of figures of the live objects.

Nothing is counted here. Labels are names from the config and words of the code, never what a client or a
server calls something: so the config alone says how many lines a scrape can have.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from broker import __version__
from broker.core.calls import questions
from broker.core.calls.questions import Unanswered
from broker.core.engine import Engine
from broker.core.servers.lifecycle import State
from broker.core.servers.server import DISABLED, MISCONFIGURED, Server
from broker.processes.trees import Tree

STATES = (*(state.value for state in State), DISABLED, MISCONFIGURED)


class Snapshot(NamedTuple):
    """The objects of a scrape: the engine, and the process trees of the servers by name."""

    engine: Engine
    trees: Mapping[str, Tree]


Samples = Iterator[tuple[tuple[str, ...], float]]
Figure = Callable[[Snapshot], Samples]


class Family(NamedTuple):
    """One metric. `name` lacks the suffix of its kind."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def exposed(self) -> str:
        """The name in a scrape."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


METRICS: dict[Family, Figure] = {}
"""Every metric with its reader, except the histogram and those of the broker's own process."""

CALL_SECONDS = Family(
    "mcp_broker_call_duration_seconds",
    "histogram",
    ("server",),
    "Duration of the calls that the server answered, from their arrival.",
)


def _metric(
    name: str, kind: Literal["gauge", "counter"], help: str, *labels: str
) -> Callable[[Figure], Figure]:
    def register(figure: Figure) -> Figure:
        METRICS[Family(f"mcp_broker_{name}", kind, labels, help)] = figure
        return figure

    return register


def _of_broker(name: str, help: str, value: Callable[[Engine], float]) -> None:
    _metric(name, "gauge", help)(lambda seen: iter([((), value(seen.engine))]))


def _of_server(
    name: str, kind: Literal["gauge", "counter"], help: str, value: Callable[[Server], float]
) -> None:
    _metric(name, kind, help, "server")(
        lambda seen: (((server.name,), value(server)) for server in seen.engine.servers.values())
    )


def _of_leased(name: str, help: str, value: Callable[[Server], float]) -> None:
    """Register a figure of the servers that have `lease_sec`."""
    _metric(name, "gauge", help, "server")(
        lambda seen: (
            ((server.name,), value(server))
            for server in seen.engine.servers.values()
            if server.config.lease_sec is not None
        )
    )


def _of_tree(name: str, kind: Literal["gauge", "counter"], help: str, value: Callable[[Tree], float]) -> None:
    _metric(name, kind, help, "server")(
        lambda seen: (((name,), value(tree)) for name, tree in seen.trees.items())
    )


# --- the broker ----------------------------------------------------------------------------------


@_metric(
    "build_info", "gauge", "Always 1; the labels say which release runs on which Python.", "version", "python"
)
def _build(seen: Snapshot) -> Samples:
    yield (__version__, platform.python_version()), 1


@_metric("limit", "gauge", "The limits of the config, by their keys in [limits], in their units.", "key")
def _limits(seen: Snapshot) -> Samples:
    for key, value in msgspec.structs.asdict(seen.engine.clients.limits).items():
        yield (key,), value


_of_broker(
    "connections",
    "Connections of clients; a client process has one, the gateway one for each token or user.",
    lambda engine: len(engine.connections),
)
_of_broker(
    "questions_open",
    "Questions that wait for the answer of a client.",
    lambda engine: len(engine.dispatch.questions),
)
_of_broker("calls_open", "Calls that wait or run, on all servers.", lambda engine: len(engine.dispatch.table))
_of_broker(
    "queue_bytes",
    "Bytes of the params of calls that wait or may be retried.",
    lambda engine: engine.dispatch.table.body_bytes,
)
_of_broker(
    "unread_bytes",
    "Bytes sent to clients and not yet given back as credit.",
    lambda engine: sum(one.unread_bytes for one in engine.connections.all()),
)
_of_broker(
    "outbox_bytes",
    "Bytes waiting for clients that have used up their credit.",
    lambda engine: sum(one.outbox_bytes for one in engine.connections.all()),
)
_of_broker(
    "outbox_max_bytes",
    "The same for the client with the most; at `outbox_bytes` of [limits] it is closed.",
    lambda engine: max((one.outbox_bytes for one in engine.connections.all()), default=0),
)


@_metric("key_connections", "gauge", "Connections of each client with a key, by its name.", "key")
def _key_connections(seen: Snapshot) -> Samples:
    by_key = Counter(connection.peer.key for connection in seen.engine.connections.all())
    for name in sorted(seen.engine.config.authorized.names.values()):
        yield (name,), by_key[name]


@_metric("key_requests", "counter", "Requests of each client with a key, by its name.", "key")
def _key_requests(seen: Snapshot) -> Samples:
    by_key = seen.engine.clients.requests.by_key
    for name in sorted(seen.engine.config.authorized.names.values()):
        yield (name,), by_key.get(name, 0)


# --- what is dropped, late, refused ----------------------------------------------------------------

_EVENTS = {
    "refused": ("refused", "code", "Requests refused, by the code."),
    "dropped": ("dropped", "what", "Messages of a server that were dropped, by kind."),
    "late": ("late", "what", "Messages for a call or connection that had ended."),
    "closed": ("connections_closed", "reason", "Connections that ended, by the reason."),
}
"""The first word of a counter of the core → its metric, and the label for the rest of its name."""


def _counted(word: str) -> Figure:
    def figure(seen: Snapshot) -> Samples:
        for name, count in sorted(seen.engine.counters.items()):
            first, _, rest = name.partition(".")
            if first == word and rest:
                yield (rest,), count

    return figure


for _word, (_name, _label, _help) in _EVENTS.items():
    _metric(_name, "counter", _help, _label)(_counted(_word))


@_metric(
    "server_dropped",
    "counter",
    "Messages of a server that were dropped, by server and kind.",
    "server",
    "what",
)
def _dropped(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        for what, count in sorted(server.dropped.items()):
            yield (server.name, what), count


@_metric(
    "server_tolerated",
    "counter",
    "Tolerated deviations from the specification, by kind.",
    "server",
    "kind",
)
def _tolerated(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        for kind, count in sorted(server.tolerated.items()):
            yield (server.name, kind), count


@_metric(
    "questions",
    "counter",
    "Questions of a server: `asked` a client, and then `answered`, `withdrawn`, `expired` or `unusable`; or "
    "`refused.` and the reason.",
    "server",
    "what",
)
def _asked(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        for what, count in sorted(server.asked.items()):
            yield (server.name, what), count


@_metric(
    "questions_refused",
    "gauge",
    "1 if all questions of a server are refused until its process is replaced, by the reason.",
    "server",
    "reason",
)
def _refused_since(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        if server.config.asks_within_calls:
            since = questions.refused_since(server)
            for reason in (Unanswered.PROVED_WRONG, Unanswered.CANCELLED_EARLIER):
                yield (server.name, reason.value), since is reason


@_metric("events", "counter", "All other counters of the broker, by name.", "event")
def _others(seen: Snapshot) -> Samples:
    for name, count in sorted(seen.engine.counters.items()):
        if name.partition(".")[0] not in _EVENTS or "." not in name:
            yield (name,), count


# --- the servers -----------------------------------------------------------------------------------


@_metric("servers", "gauge", "Configured servers, by their state.", "state")
def _servers(seen: Snapshot) -> Samples:
    by_state = Counter(server.shown_state for server in seen.engine.servers.values())
    for state in STATES:
        yield (state,), by_state[state]


@_metric("server_state", "gauge", "1 for the state that a server is in, 0 for the others.", "server", "state")
def _server_state(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        for state in STATES:
            yield (server.name, state), server.shown_state == state


@_metric(
    "calls",
    "counter",
    "Calls that ended: `result`, the server's `error`, `dropped` with their client, or the code "
    "of a refusal.",
    "server",
    "outcome",
)
def _calls(seen: Snapshot) -> Samples:
    for server in seen.engine.servers.values():
        for outcome, count in sorted({"result": 0, "error": 0, **server.outcomes}.items()):
            yield (server.name, outcome), count


_of_server(
    "server_restarts",
    "counter",
    "Starts after the first one; a `start` after a `stop` does not count.",
    lambda one: one.lifecycle.restarts,
)
_of_server("calls_lost", "counter", "Calls that ended because their process did.", lambda one: one.lost)
_of_server("calls_in_flight", "gauge", "Calls that the server has.", lambda one: one.queue.running)
_of_server(
    "server_waits_for_room",
    "gauge",
    "1 while it is not started because of `max_running` or `memory_high`, though it is used, else 0.",
    lambda one: one.lifecycle.state is State.STARTING and one.room is not None,
)
_of_server("calls_queued", "gauge", "Calls that wait for the server.", lambda one: one.queue.waiting)
_of_leased(
    "lease_held",
    "1 while a client has the server for itself, else 0.",
    lambda one: one.queue.lease is not None,
)
_of_leased(
    "lease_calls_waiting",
    "Calls that wait until the client that has the server for itself gives it back.",
    lambda one: one.queue.waiting_for_lease,
)
_of_server(
    "calls_sent_again",
    "counter",
    "Calls of a dead process that the next one retries.",
    lambda one: one.again,
)
_of_tree("server_processes", "gauge", "Processes of the server's tree.", lambda tree: len(tree.processes))
_of_tree(
    "server_cpu_seconds",
    "counter",
    "Processor time of the tree, with that of its ended children.",
    lambda tree: tree.cpu_s,
)
_of_tree("server_resident_bytes", "gauge", "Resident memory of the tree.", lambda tree: tree.rss_bytes)
