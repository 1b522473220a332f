"""Makes a scrape: the metrics of one moment, in a form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from broker.management.context import Context
from broker.management.metrics import CALL_SECONDS, METRICS, Snapshot


class _Scrape(Collector):
    """Collector of `prometheus_client` for the metrics of one moment."""

    def __init__(self, seen: Snapshot) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        """Yield every family with its samples."""
        for family, figure in METRICS.items():
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=family.labels)
            for labels, value in figure(self._seen):
                metric.add_metric(labels, value)
            yield metric
        yield self._call_seconds()

    def _call_seconds(self) -> Metric:
        metric = HistogramMetricFamily(CALL_SECONDS.name, CALL_SECONDS.help, labels=CALL_SECONDS.labels)
        for server in self._seen.engine.servers.values():
            buckets = [(repr(bound), float(count)) for bound, count in server.latency.cumulative()]
            metric.add_metric([server.name], [*buckets, ("+Inf", server.latency.count)], server.latency.sum_s)
        return metric


async def render(context: Context, accept: str) -> tuple[str, bytes]:
    """Return a scrape of the broker now: its content type and its text."""
    return exposed(Snapshot(context.hub.engine, await context.supervisors.trees()), accept)


def exposed(seen: Snapshot, accept: str) -> tuple[str, bytes]:
    """Return a scrape in a form that the client accepts: its content type and its text."""
    registry = CollectorRegistry()
    registry.register(_Scrape(seen))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
