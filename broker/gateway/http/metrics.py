"""The figures of a gateway in the text format of Prometheus: counts without the names of clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

FORMAT = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {
    "sessions": "Legacy sessions over HTTP that are in memory.",
    "bridges": "Clients of the Unix sockets, such as `mcp-broker connect`.",
    "exchanges": "Requests to the MCP endpoint that are under way, and streams that only listen.",
    "modern": "Requests of clients of 2026-07-28 that are under way.",
    "parked": "Calls that wait until clients of 2026-07-28 go on with them.",
    "held_bytes": "Bytes of requests, of parked calls and of unread answers that are held for clients.",
}
"""figure → what it counts now."""

COUNTERS = {
    "dropped": "What came from clients or for them and was of no use.",
    "listen_refused": "How often the broker refused to tell a session over HTTP of changes.",
}
"""figure → what it has counted since the start."""

REFUSED = "HTTP requests refused, by status."


def metrics(figures: Mapping[str, int], refused: Mapping[str, int]) -> bytes:
    """Return the page that Prometheus scrapes.

    Args:
        refused: HTTP status → how many requests it refused.
    """
    return "".join(f"{line}\n" for line in _lines(figures, refused)).encode()


def _lines(figures: Mapping[str, int], refused: Mapping[str, int]) -> Iterator[str]:
    for name, what in GAUGES.items():
        yield from _metric(name, "gauge", what, {"": figures.get(name, 0)})
    for name, what in COUNTERS.items():
        yield from _metric(f"{name}_total", "counter", what, {"": figures.get(name, 0)})
    by_status = {f'{{status="{status}"}}': count for status, count in sorted(refused.items())}
    yield from _metric("refused_total", "counter", REFUSED, by_status)


def _metric(name: str, kind: str, what: str, values: Mapping[str, int]) -> Iterator[str]:
    full = f"mcp_gateway_{name}"
    yield f"# HELP {full} {what}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values.items():
        yield f"{full}{labels} {value}"
