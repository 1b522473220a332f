"""Samples and what is said of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample that `share` of all do not exceed."""
    ranked = sorted(samples)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median_of_rounds(rounds: Sequence[Sequence[float]], share: float) -> float:
    """The median, over the rounds, of each round's quantile: one bad round does not decide."""
    return statistics.median(quantile(samples, share) for samples in rounds)
