"""Statistics of samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the sample that `share` of all do not exceed."""
    ranked = sorted(samples)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median_of_rounds(rounds: Sequence[Sequence[float]], share: float) -> float:
    """Return the median of the rounds' quantiles, so that one bad round does not decide."""
    return statistics.median(quantile(samples, share) for samples in rounds)
