"""95 % confidence intervals of scores: Wilson's for shares, the bootstrap for means."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["bootstrap", "wilson"]

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
RESAMPLES, SEED = 2000, 0


def wilson(right: int, count: int) -> list[float] | None:
    """The interval of a share, 0 … 1, of which `right` of `count` were found; None for none."""
    if not count:
        return None
    share, square = right / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    # at the ends exactly, which rounding would miss
    return [middle - half if right else 0.0, middle + half if right < count else 1.0]


def bootstrap(values: Sequence[float]) -> list[float] | None:
    """The percentile interval of the mean of values, the same in every run; None below two."""
    if len(values) < 2:
        return None
    import numpy as np  # not needed to refuse wrong data

    given, chance = np.asarray(values, dtype=np.float64), np.random.default_rng(SEED)
    means = [given[chance.integers(len(given), size=len(given))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return [float(low), float(high)]
