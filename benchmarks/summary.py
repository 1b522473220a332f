"""The figures of a run, computed from its samples for the report, the plots and the targets."""

from __future__ import annotations

import math
import statistics

from benchmarks.plan import LARGE
from benchmarks.results import OnServer, Results, Rounds
from benchmarks.timing import median_of_rounds, quantile

FLOOR, FLOOR_ON_LOOP = "floor", "floor, caller on asyncio"
FLOOR_ON_TRIO, FLOOR_ON_BOTH = "floor on trio", "floor on both loops"
PIPE, SDK, BROKER = "raw pipe", "SDK over stdio", "mcp-broker"
HTTP_MODERN, HTTP_LEGACY = "gateway, HTTP of 2026-07-28", "gateway, HTTP with sessions"
CONNECT = "gateway, connect"
IPC, THREAD = "ipc", "ipc, a thread that waits"
TCP, KEYS = "TCP", "TCP with keys"
OURS = (BROKER, HTTP_MODERN, HTTP_LEGACY, CONNECT)


class Summary:
    """Medians and quantiles of one run; times in seconds."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.bare = results.servers["bare"]

    def latency(self, way: str, share: float, on: OnServer | None = None) -> float:
        """Return the median of the rounds' quantiles, one call at a time."""
        return median_of_rounds((on or self.bare).latency[way], share)

    def rate(self, way: str, in_flight: int, on: OnServer | None = None) -> float:
        """Return the median of the rounds' calls per second with this many in flight."""
        return statistics.median((on or self.bare).rates[way][in_flight])

    def body(self, way: str, size: int, share: float = 0.5, on: OnServer | None = None) -> float:
        """Return the seconds for a result of this size."""
        return quantile(_flat((on or self.bare).bodies[way][size]), share)

    def parts(self) -> dict[str, float]:
        """Return the parts of one call: the differences between the ways, in seconds."""
        pipe, floor = self.latency(PIPE, 0.5), self.latency(FLOOR, 0.5)
        loops, whole = self.latency(FLOOR_ON_BOTH, 0.5), self.latency(BROKER, 0.5)
        return {"pipe": pipe, "zmq": floor - pipe, "loops": loops - floor, "ours": whole - loops}

    def network(self, way: str, share: float = 0.5) -> float:
        """Return the latency of a call by a transport over that by ipc; NaN if it was not measured."""
        seen = self.results.networks
        return self.latency(way, share, seen) / self.latency(IPC, share, seen) if seen.latency else math.nan

    def large_on_network(self, way: str) -> float:
        """Return the time for 5 MiB by a transport over that by ipc; NaN if it was not measured."""
        seen = self.results.networks
        return self.body(way, LARGE, on=seen) / self.body(IPC, LARGE, on=seen) if seen.bodies else math.nan

    @property
    def large_to_pipe(self) -> float:
        """Return how many times longer 5 MiB take than over the raw pipe."""
        return self.body(BROKER, LARGE) / self.body(PIPE, LARGE)

    def cycle(self, *, first: bool) -> float:
        """Return the median of the first or last tenth of the cycles."""
        return _tenth(self.results.cycles, first=first)

    def beside_cycle(self, *, first: bool) -> float:
        """Return the same for the calls of a client that stays, made in turns with the cycles."""
        return _tenth(self.results.beside_cycles, first=first)

    def cycle_growth(self) -> float:
        """Return the last cycles over the first, each relative to the calls in turns with them."""
        first, last = (self.cycle(first=it) / self.beside_cycle(first=it) for it in (True, False))
        return last / first

    @property
    def bytes_per_connection(self) -> float:
        """Return the memory of each connection beyond the second smallest count."""
        (few, base), *_, (many, full) = sorted(self.results.memory.by_connections.items())[-2:]
        return (full - base) / (many - few)

    @property
    def bytes_per_channel(self) -> float:
        """Return the memory of each channel."""
        memory = self.results.memory
        return (memory.with_channels - memory.before_channels) / memory.channels

    @property
    def after_restart(self) -> float:
        """Return the slowest page that was opened right after a restart; NaN without one."""
        return max(self.results.after_restart, default=math.nan)

    @property
    def on_demand(self) -> float:
        """Return the longest time until all lists of servers on demand were there; NaN without one."""
        return max(self.results.on_demand, default=math.nan)

    def to_best_peer(self, way: str) -> float:
        """Return the p50 of a way over that of the fastest other gateway; NaN without one."""
        peers = [self.latency(peer, 0.5) for peer in self.results.peers if peer in self.bare.latency]
        return self.latency(way, 0.5) / min(peers) if peers else math.nan

    def rate_to_best_peer(self, way: str) -> float:
        """Return the calls per second of a way over those of the best other gateway; NaN without one."""
        peers = [self.rate(peer, 64) for peer in self.results.peers if peer in self.bare.rates]
        return self.rate(way, 64) / max(peers) if peers else math.nan

    def spread(self, way: str, to: str) -> tuple[float, float]:
        """Return the lowest and highest of the rounds' ratios of the p50 of two ways."""
        rounds = zip(self.bare.latency[way], self.bare.latency[to], strict=True)
        ratios = [quantile(mine, 0.5) / quantile(theirs, 0.5) for mine, theirs in rounds]
        return min(ratios), max(ratios)

    @property
    def start_ratio(self) -> float:
        """Return the time until the broker serves over the time of its imports."""
        start_up = self.results.start_up
        return statistics.median(start_up.serving) / statistics.median(start_up.imports)

    def beside(self, label: str, share: float) -> float:
        """Return the median of the quantiles of the quiet client."""
        return median_of_rounds(self.results.neighbour[label], share)


def _flat(rounds: Rounds) -> list[float]:
    return [sample for samples in rounds for sample in samples]


def _tenth(times: list[float], *, first: bool) -> float:
    tenth = max(1, len(times) // 10)
    return statistics.median(times[:tenth] if first else times[-tenth:])
