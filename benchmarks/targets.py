"""The targets, and whether a run meets them. A target is never changed to fit: a miss is reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks import neighbours
from benchmarks.summary import (
    BROKER,
    CONNECT,
    FLOOR,
    HTTP_LEGACY,
    HTTP_MODERN,
    KEYS,
    SDK,
    TCP,
    THREAD,
    Summary,
)
from benchmarks.timing import quantile


class Target(NamedTuple):
    """What is looked at, its limit, how that is found and written; `least` where the limit is a lower one.

    `cost` says where the time or the memory goes: it stands in the report where the target is missed.
    """

    text: str
    limit: float
    measure: Callable[[Summary], float]
    cost: str
    shown: str = "{:.2f} ×"
    least: bool = False

    def met(self, measured: float) -> bool:
        """Return whether this figure keeps the limit."""
        return measured >= self.limit if self.least else measured <= self.limit

    def verdict(self, measured: float) -> str:
        """Return whether the limit is kept, in words."""
        if math.isnan(measured):
            return "not measured"
        return "met" if self.met(measured) else "**missed**"

    @property
    def wanted(self) -> str:
        """Return the limit as text."""
        return f"{'≥' if self.least else '≤'} {self.show(self.limit)}"

    def show(self, figure: float) -> str:
        """Return a figure with its unit."""
        return "-" if math.isnan(figure) else self.shown.format(figure)


def _ratio(share: float, to: str) -> Callable[[Summary], float]:
    return lambda run: run.latency(BROKER, share) / run.latency(to, share)


def _to_peer(way: str, run: Summary) -> float:
    return run.to_best_peer(way)


def _rate_to_peer(way: str, run: Summary) -> float:
    return run.rate_to_best_peer(way)


def _old_over_new(run: Summary) -> float:
    return statistics.median(run.results.old_pages) / statistics.median(run.results.pages)


_LATENCY = (
    "The wake-ups of two event loops in Python, and our own code, which runs once per wake-up and so finds "
    "the processor's caches cold: see the parts of a call below."
)
_GATEWAY = (
    "Two hops more, by ZeroMQ to the broker and back; and in the gateway a parser, the checks of headers, "
    "token and session, the conversation and the shim, all in one thread of Python. The other gateways have "
    "the pipes of their server in the same process."
)
_BRIDGE = (
    "Two processes more than the shim has, the relay and the gateway, and so eight more wake-ups for a call "
    "and its answer."
)
_TCP = "The kernel's TCP: segments, checksums and acknowledgements, in place of a copy between two buffers."
_KEYS = (
    "TCP, and the encryption of each message on one side and its opening on the other, which libzmq does in "
    "its own thread, a copy each."
)
_IMPORTS = "Imports: `python -X importtime -m broker status` lists them."
_STARTED = "What comes after the imports: reading the config, the state directory, binding the socket."

TARGETS = (
    Target("one call at a time, p50, over the floor", 1.2, _ratio(0.5, FLOOR), _LATENCY),
    Target("one call at a time, p50, over the direct SDK session", 0.9, _ratio(0.5, SDK), _LATENCY),
    Target("one call at a time, p99, over the direct SDK session", 1.3, _ratio(0.99, SDK), _LATENCY),
    Target(
        "64 in flight, calls per second over the direct SDK session",
        5,
        lambda run: run.rate(BROKER, 64) / run.rate(SDK, 64),
        "Three busy processes and two threads of libzmq share two cores, where the SDK's session has two "
        "processes: so each of our calls has to cost a fifth of the SDK's in all of them together.",
        least=True,
    ),
    Target(
        "a page opens, p99",
        5,
        lambda run: quantile(run.results.pages, 0.99) * 1e3,
        "Five lists that the broker answers from memory, one after the other, and their JSON in the client.",
        "{:.1f} ms",
    ),
    Target(
        "a page opens, how much faster than the old way",
        500,
        _old_over_new,
        "The old way is five starts of Python: on a fast disk they are faster.",
        "{:.0f} ×",
        least=True,
    ),
    Target(
        "a page opens right after a restart of the broker: the slowest",
        50,
        lambda run: run.after_restart * 1e3,
        "The broker starts five processes at that moment, and each start holds its loop up for milliseconds.",
        "{:.1f} ms",
    ),
    Target(
        "from the start of the broker to the lists of thirty servers on demand: the slowest",
        1000,
        lambda run: run.on_demand * 1e3,
        "The start of Python, and the reading of thirty files with lists.",
        "{:.0f} ms",
    ),
    Target(
        "a result of 5 MiB, over the raw pipe",
        1.1,
        lambda run: run.large_to_pipe,
        "The second way through the kernel: a Unix socket takes 208 KiB at once, and both ends are woken for "
        "each of these pieces. The floor, which looks at nothing, has that way too: see the table of large "
        "results. Ours is one look through the line for its envelope, and a copy where the client takes it.",
    ),
    Target(
        "memory with five servers and 100 connections",
        45,
        lambda run: run.results.memory.by_connections[100] / 1024**2,
        "Python and the modules that are loaded; the connections themselves are libzmq's buffers.",
        "{:.1f} MiB",
    ),
    Target(
        "memory of each further connection",
        48,
        lambda run: run.bytes_per_connection / 1024,
        "The buffers of libzmq: 8 KiB in each direction, and its queues.",
        "{:.1f} KiB",
    ),
    Target(
        "memory of each channel",
        1,
        lambda run: run.bytes_per_channel / 1024,
        "A channel has a row only while it has a call or listens: what stays is a leak.",
        "{:.2f} KiB",
    ),
    Target(
        "open, call, drop: the last cycles over the first",
        1.05,
        lambda run: run.cycle_growth(),
        "To open and drop a client takes longer the more there have been: see the plot of the cycles.",
    ),
    Target(
        "p99 beside a client that floods another server, over the same without a broker",
        2,
        lambda run: run.beside(neighbours.OTHER, 0.99) / run.beside(neighbours.DIRECT_OTHER, 0.99),
        "A flood of 64 calls in flight keeps three processes busy with the broker, and two without it. The "
        "call beside it waits for the broker, which takes messages of both clients in turns.",
    ),
    Target(
        "gateway: p99 beside another token's flood, over the same flood made at the broker",
        2,
        lambda run: run.beside(neighbours.DOOR_OTHER, 0.99) / run.beside(neighbours.DOOR_BROKER, 0.99),
        "The gateway begins the exchanges of both tokens in turns; what it takes for each is in the table.",
    ),
    *(
        Target(f"{way}: p50 over the best other gateway", 0.8, partial(_to_peer, way), _GATEWAY)
        for way in (HTTP_MODERN, HTTP_LEGACY)
    ),
    *(
        Target(
            f"{way}: calls per second with 64 in flight over the best other gateway",
            4,
            partial(_rate_to_peer, way),
            _GATEWAY,
            least=True,
        )
        for way in (HTTP_MODERN, HTTP_LEGACY)
    ),
    Target(
        f"{CONNECT}: p50 over the shim",
        1.5,
        lambda run: run.latency(CONNECT, 0.5) / run.latency(BROKER, 0.5),
        _BRIDGE,
    ),
    Target(
        "memory of a `mcp-broker connect` (PSS)",
        8,
        lambda run: run.results.bridges.alone / 1024**2,
        "The interpreter itself; the relay loads a few modules of the standard library.",
        "{:.1f} MiB",
    ),
    Target(
        "start of a `mcp-broker connect` until its first byte",
        60,
        lambda run: statistics.median(run.results.bridges.first_bytes) * 1e3,
        "The start of Python, and a call to the gateway and the broker.",
        "{:.0f} ms",
    ),
    Target(
        "memory of 259 `mcp-broker connect` together",
        2048,
        lambda run: statistics.mean(run.results.bridges.together) * 259 / 1024**2,
        "The interpreter of each.",
        "{:.0f} MiB",
    ),
    Target("a call over loopback TCP, p50, over ipc", 1.2, lambda run: run.network(TCP), _TCP),
    Target("a call over TCP with keys, p50, over ipc", 1.5, lambda run: run.network(KEYS), _KEYS),
    Target("5 MiB over TCP with keys, over ipc", 2, lambda run: run.large_on_network(KEYS), _KEYS),
    Target(
        "a call where the loop cannot watch descriptors, p50, over one where it can",
        1.5,
        lambda run: run.network(THREAD),
        "Two switches of threads more for each wake-up: to the thread that waits, and back to the loop.",
    ),
    Target("start until it serves, over its imports", 1.4, lambda run: run.start_ratio, _STARTED),
    Target(
        "`mcp-broker status`, a whole process",
        200,
        lambda run: statistics.median(run.results.start_up.status) * 1e3,
        _IMPORTS,
        "{:.0f} ms",
    ),
)
