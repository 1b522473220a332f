"""What the broker is held to, and whether a run has met it. A target is never bent: a miss is reported."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.summary import BROKER, FLOOR, SDK, Summary
from benchmarks.timing import quantile


class Target(NamedTuple):
    """What is looked at, its limit, how that is found and written; `least` where the limit is a lower one."""

    text: str
    limit: float
    measure: Callable[[Summary], float]
    shown: str = "{:.2f} ×"
    least: bool = False

    def met(self, measured: float) -> bool:
        """Whether this figure keeps the limit."""
        return measured >= self.limit if self.least else measured <= self.limit

    def show(self, figure: float) -> str:
        """A figure with its unit."""
        return self.shown.format(figure)


def _ratio(share: float, to: str) -> Callable[[Summary], float]:
    return lambda run: run.latency(BROKER, share) / run.latency(to, share)


def _old_over_new(run: Summary) -> float:
    return statistics.median(run.results.old_pages) / statistics.median(run.results.pages)


TARGETS = (
    Target("one call at a time, p50, over the floor", 1.2, _ratio(0.5, FLOOR)),
    Target("one call at a time, p50, over the direct SDK session", 0.9, _ratio(0.5, SDK)),
    Target("one call at a time, p99, over the direct SDK session", 1.3, _ratio(0.99, SDK)),
    Target(
        "64 in flight, calls per second over the direct SDK session",
        5,
        lambda run: run.rate(BROKER, 64) / run.rate(SDK, 64),
        least=True,
    ),
    Target("a page opens, p99", 5, lambda run: quantile(run.results.pages, 0.99) * 1e3, "{:.1f} ms"),
    Target("a page opens, how much faster than the old way", 500, _old_over_new, "{:.0f} ×", least=True),
    Target("a result of 5 MiB, over the raw pipe", 1.1, lambda run: run.large_to_pipe),
    Target(
        "memory with five servers and 100 connections",
        45,
        lambda run: run.results.memory.by_connections[100] / 1024**2,
        "{:.1f} MiB",
    ),
    Target(
        "memory of each further connection", 48, lambda run: run.bytes_per_connection / 1024, "{:.1f} KiB"
    ),
    Target("memory of each channel", 1, lambda run: run.bytes_per_channel / 1024, "{:.2f} KiB"),
    Target(
        "open, call, drop: the last cycles over the first",
        1.05,
        lambda run: run.cycle(first=False) / run.cycle(first=True),
    ),
    Target(
        "p99 of a client beside one that floods another server",
        2,
        lambda run: run.beside("another server is flooded", 0.99) / run.beside("nobody floods", 0.99),
    ),
    Target("start until it serves, over its imports", 1.4, lambda run: run.start_ratio),
    Target(
        "`mcp-broker status`, a whole process",
        200,
        lambda run: statistics.median(run.results.start_up.status) * 1e3,
        "{:.0f} ms",
    ),
)
