"""Counters of events, and histograms of durations."""

from __future__ import annotations

import math
from collections.abc import Iterator

_PER_OCTAVE = 8
_BUCKETS = 30 * _PER_OCTAVE
_FIRST_BOUND, _LAST_BOUND = 8, 27


class Latency:
    """A histogram of durations from 1 µs to 18 minutes; a quantile is right to within 5 %."""

    __slots__ = ("_buckets", "count", "sum_s")

    def __init__(self) -> None:
        self._buckets = [0] * (_BUCKETS + 1)
        self.count = 0
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        micros = seconds * 1e6
        bucket = int(math.log2(micros) * _PER_OCTAVE) if micros > 1 else 0
        self._buckets[min(bucket, _BUCKETS)] += 1
        self.count += 1
        self.sum_s += seconds

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield bounds in seconds, each twice the one before, with the number of shorter durations.

        The bounds are those of buckets, so that the numbers are exact: 2⁸ µs to 2²⁷ µs.
        """
        below = sum(self._buckets[: _FIRST_BOUND * _PER_OCTAVE])
        for octave in range(_FIRST_BOUND, _LAST_BOUND + 1):
            yield 2**octave / 1e6, below
            below += sum(self._buckets[octave * _PER_OCTAVE : (octave + 1) * _PER_OCTAVE])

    def quantile_ms(self, share: float) -> float:
        """Return the duration, in milliseconds, that `share` of the calls did not exceed; 0 without calls."""
        rank = math.ceil(share * self.count)
        seen = 0
        for bucket, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                return float(2 ** ((bucket + 0.5) / _PER_OCTAVE) / 1e3)
        return 0.0


class Counters(dict[str, int]):
    """The numbers of events by name, 0 by default."""

    def __missing__(self, name: str) -> int:
        return 0

    def add(self, name: str, amount: int = 1) -> None:
        """Count an event."""
        self[name] = self[name] + amount
