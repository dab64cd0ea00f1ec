"""How sure a difference is, when both models answered the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float], confidence: float, seed: int = 0) -> Interval:
    """Return the mean and its BCa bootstrap interval (Efron 1987); for paired data give the differences.

    `values` has one figure per row. With one row, or all alike, the interval is the mean itself.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2 or float(np.ptp(data)) == 0.0:
        return Interval(mean, mean, mean)
    means = _resampled_means(data, np.random.default_rng(seed))
    below = (float((means < mean).mean()) + float((means <= mean).mean())) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    centred = data - mean  # proportional to the jackknife's deviations (all but one against each), for a mean
    acceleration = float((centred**3).sum()) / (6 * float((centred**2).sum()) ** 1.5)
    tail = (1 - confidence) / 2
    ends = []
    for z in (normal.inv_cdf(tail), normal.inv_cdf(1 - tail)):
        left = 1 - acceleration * (bias + z)
        # Far out the correction has a pole; behind it is nothing but the end of what was drawn.
        at = normal.cdf(bias + (bias + z) / left) if left > 0 else float(z > 0)
        ends.append(float(np.quantile(means, at)))
    return Interval(mean, ends[0], ends[1])


def _resampled_means(data: NDArray[Any], rng: Generator) -> NDArray[Any]:
    """Draw the means of `RESAMPLES` resamples: by counts where few values occur, else row by row."""
    import numpy as np

    kinds, counts = np.unique(data, return_counts=True)
    if len(kinds) <= 64:
        drawn = rng.multinomial(len(data), counts / len(data), size=RESAMPLES)
        return np.asarray(drawn @ kinds / len(data))
    return np.array([data[rng.integers(0, len(data), len(data))].mean() for _ in range(RESAMPLES)])


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947): rows that only one of the two got right.

    >>> round(mcnemar(10, 2), 4)
    0.0386
    >>> mcnemar(0, 0)
    1.0
    """
    n, k = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    if n > 1000:  # the normal approximation with continuity correction is exact enough here
        return 2 * (1 - NormalDist().cdf(max(abs(better - worse) - 1, 0) / sqrt(n)))
    return min(1.0, 2 * float(sum(comb(n, i) for i in range(k + 1)) / 2**n))


def minimum_detectable(differences: Sequence[float], confidence: float, power: float = 0.8) -> float | None:
    """Return the smallest true difference that so many rows would show with `power`; None: one row shows nothing."""
    n = len(differences)
    if n < 2:
        return None
    mean = sum(differences) / n
    spread = sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    normal = NormalDist()
    return (normal.inv_cdf(1 - (1 - confidence) / 2) + normal.inv_cdf(power)) * spread / sqrt(n)
