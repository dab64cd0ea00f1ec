"""How sure a difference of two means is, however often one looks: an asymptotic confidence sequence. Pure.

Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52 (2024), the one-sided sequence of appendix B; the mixture is Robbins' (1970).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Literal

from evergreen.core.ports import Tally

Metric = Literal["accuracy", "score"]
#: No rate is taken to be nearer to 0 or 1.
EDGE = 0.001
#: The mixture's variance: the sequence is tightest at an effective size of 100 (200 of each variant) and alpha = 0.05.
RHO2 = (-2 * log(0.1) + log(1 - 2 * log(0.1))) / 100


@dataclass(frozen=True, slots=True)
class Sums:
    """All that is kept of a sample: how many, their sum, the sum of their squares."""

    n: float = 0
    total: float = 0.0
    squares: float = 0.0
    binary: bool = True  #: every value is 0 or 1

    def __sub__(self, other: Sums) -> Sums:
        """Return what came after `other`."""
        return Sums(self.n - other.n, self.total - other.total, self.squares - other.squares, self.binary)

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """The variance of one value. Of a binary one with one success and one failure added: it is never 0."""
        if self.binary:
            p = (self.total + 1) / (self.n + 2)
            return p * (1 - p)
        if self.n < 2:
            return inf
        return max(0.0, self.squares - self.total**2 / self.n) / (self.n - 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of the challenger less mean of the champion."""

    estimate: float = 0.0
    size: float = 0.0  #: effective size of the sample: n₁ n₂ / (n₁ + n₂), summed over steps
    variance: float = inf  #: of the estimate

    @property
    def sigma(self) -> float:
        """Standard deviation of one pair's share in the estimate."""
        return sqrt(self.variance * self.size) if self.size else inf


def sums(tally: Tally, metric: Metric) -> Sums:
    """Return what traffic says of one metric: labels that were met (`accuracy`), or outcomes in figures (`score`)."""
    if metric == "accuracy":
        return Sums(tally.judged, tally.right, tally.right)
    return Sums(tally.scored, tally.score, tally.score_sq, binary=False)


def told(metric: Metric, ours: Sums, theirs: Sums) -> str:
    """Say what live traffic shows of a challenger, and of the champion.

    >>> told("accuracy", Sums(4, 3, 3), Sums()), told("accuracy", Sums(), Sums())
    ("75.0 % of 4 judged answers right, the champion's – of 0", 'no answer is judged yet')
    """
    if not ours.n and not theirs.n:
        return "no answer is judged yet"
    mine, its = (_mean(metric, sums) for sums in (ours, theirs))
    if metric == "accuracy":
        return f"{mine} of {ours.n:,.0f} judged answers right, the champion's {its} of {theirs.n:,.0f}"
    return f"a mean of {mine} over {ours.n:,.0f} outcomes, the champion's {its} over {theirs.n:,.0f}"


def _mean(metric: Metric, found: Sums) -> str:
    if not found.n:
        return "–"
    return f"{100 * found.mean:.1f} %" if metric == "accuracy" else f"{found.mean:.4g}"


def difference(steps: Sequence[tuple[Sums, Sums]], null: float = 0.0) -> Difference:
    """Return the difference (champion, challenger) within each step, averaged by size (Mantel and Haenszel, 1959).

    Shares change between steps, and so may the world: what was is compared only with what was at the same time. Of
    hits and misses the variance is at least what it is where the difference is `null`, which is to be refuted: a
    small share near 0 or 1 often has none yet (Farrington and Manning, 1990, who restrict it likewise).

    >>> d = difference([(Sums(100, 50, 50), Sums(100, 60, 60))])
    >>> round(d.estimate, 3), d.size, round(d.sigma, 2)
    (0.1, 50.0, 0.5)
    """
    estimate = variance = size = 0.0
    for a, b in steps:
        if a.n < 1 or b.n < 1 or inf in (a.variance, b.variance):
            continue
        weight = a.n * b.n / (a.n + b.n)
        estimate += weight * (b.mean - a.mean)
        variance += weight**2 * max(a.variance / a.n + b.variance / b.n, _under(null, a, b))
        size += weight
    return Difference(estimate / size, size, variance / size**2) if size else Difference()


def _under(null: float, a: Sums, b: Sums) -> float:
    """Return the variance of the difference of two rates that differ by `null`, their mean being as observed."""
    if not (a.binary and b.binary):
        return 0.0
    both = (a.total + b.total + 1) / (a.n + b.n + 2)
    second = min(max(both + null * a.n / (a.n + b.n), EDGE), 1 - EDGE)
    first = min(max(second - null, EDGE), 1 - EDGE)
    return first * (1 - first) / a.n + second * (1 - second) / b.n


def lower(found: Difference, alpha: float) -> float:
    """Return a bound that the true difference is above at every look together, but with probability `alpha`.

    >>> d = Difference(0.1, 190.0, 0.25 / 190)
    >>> round(lower(d, 0.05), 4), round(lower(d, 0.2), 3)
    (-0.0015, 0.019)
    """
    return found.estimate - margin(found, alpha)


def upper(found: Difference, alpha: float) -> float:
    """Return a bound that the true difference is below at every look together, but with probability `alpha`."""
    return found.estimate + margin(found, alpha)


def margin(found: Difference, alpha: float) -> float:
    """Return how far the one-sided bound is from the estimate; endless before there is anything."""
    if not found.size or found.sigma == inf:
        return inf
    a = min(alpha, 0.5)
    t = found.size
    grown = t * RHO2 + 1
    return found.sigma * sqrt(2 * grown / (t**2 * RHO2) * log(1 + sqrt(grown) / (2 * a)))
