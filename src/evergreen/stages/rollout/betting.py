"""Exact evidence from two streams of hits and misses, from the first one on: bets against a null hypothesis. Pure.

Source: Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping", Journal of Statistical Planning and Inference 230 (2024); with a shift: Turner and Grünwald, "Exact
anytime-valid confidence intervals for contingency tables and beyond", Statistics & Probability Letters 198 (2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

#: No rate is bet on that is nearer to 0 or 1.
_EDGE = 0.001


@dataclass(frozen=True, slots=True)
class Hits:
    """How many came, and how many of them were right."""

    n: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Wager:
    """What was won so far, as a logarithm, and the counts up to which was bet."""

    log_e: float = 0.0
    first: Hits = Hits()
    second: Hits = Hits()

    @property
    def e(self) -> float:
        """Under the null hypothesis this ever reaches 1/alpha with probability alpha at most."""
        return exp(min(self.log_e, 700.0))


def bet(so_far: Wager, first: Hits, second: Hits, *, gap: float, null: float = 0.0) -> Wager:
    """Go on with the counts as they stand now; nothing is bet before both streams have something new.

    The null hypothesis: the rate of `second` is above that of `first` by `null` at most. The bet: by `null + gap`,
    around the rate seen in what was bet on before.

    >>> won = bet(bet(Wager(), Hits(50, 25), Hits(50, 25), gap=0.1), Hits(150, 70), Hits(150, 95), gap=0.1)
    >>> won.e > 10
    True
    """
    n1, n2 = first.n - so_far.first.n, second.n - so_far.second.n
    if n1 <= 0 or n2 <= 0:
        return so_far
    r1, r2 = first.right - so_far.first.right, second.right - so_far.second.right
    p1, p2 = _alternative(so_far, null + gap)
    if p2 - p1 <= null:  # no room for the difference between 0 and 1
        return Wager(so_far.log_e, first, second)
    q1 = _nearest(n1, n2, p1, p2, null)
    q2 = q1 + null
    won = _gain(r1, n1, p1, q1) + _gain(r2, n2, p2, q2)
    return Wager(so_far.log_e + won, first, second)


def _alternative(so_far: Wager, apart: float) -> tuple[float, float]:
    """Return two rates that far apart, whose mean over what was seen is the rate seen (one hit and one miss added)."""
    seen, right = so_far.first.n + so_far.second.n, so_far.first.right + so_far.second.right
    centre, second = (right + 1) / (seen + 2), (so_far.second.n + 1) / (seen + 2)
    return _inside(centre - apart * second), _inside(centre + apart * (1 - second))


def _nearest(n1: int, n2: int, p1: float, p2: float, null: float) -> float:
    """Return the first rate of the pair on the edge of the null hypothesis that is hardest to tell from `p1`, `p2`."""
    if null == 0.0:
        return (n1 * p1 + n2 * p2) / (n1 + n2)
    low, high = max(0.0, -null), min(1.0, 1.0 - null)
    for _ in range(60):
        x = (low + high) / 2
        y = x + null
        if n1 * (p1 - x) * y * (1 - y) + n2 * (p2 - y) * x * (1 - x) > 0:  # the slope, times what is above 0
            low = x
        else:
            high = x
    return (low + high) / 2


def _gain(right: int, n: int, p: float, q: float) -> float:
    return right * log(p / q) + (n - right) * log((1 - p) / (1 - q))


def _inside(p: float) -> float:
    return min(max(p, _EDGE), 1 - _EDGE)
